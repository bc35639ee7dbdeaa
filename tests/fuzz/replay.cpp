// SPDX-License-Identifier: Apache-2.0
//
// Runs every target over its corpus, over each file cut short, and over files with bytes changed
// from a fixed seed: what every compiler and sanitizer can do, where libFuzzer is clang's only.
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "target.hpp"

namespace spillway::fuzz {
namespace {

class CorpusTest : public ::testing::TestWithParam<std::string> {};

TEST_P(CorpusTest, BreaksNoPromise) {
  const Target target = targets().at(GetParam());
  const std::filesystem::path folder = std::filesystem::path(SPILLWAY_CORPUS) / GetParam();
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    std::ifstream file(entry.path(), std::ios::binary);
    files.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  ASSERT_GE(files.size(), 3U) << "in " << folder;
  target({});
  std::mt19937 random(20'261'121);
  for (const std::string& text : files) {
    target(text);
    for (int i = 0; i < 200 && !text.empty(); ++i) {
      std::string changed = text;
      if (i % 4 == 0) changed.resize(random() % changed.size());
      for (std::size_t j = 0; j < 1 + random() % 3 && !changed.empty(); ++j) {
        changed[random() % changed.size()] = static_cast<char>(random());
      }
      target(changed);
    }
  }
}

std::vector<std::string> target_names() {
  std::vector<std::string> all;
  for (const auto& [name, target] : targets()) all.push_back(name);
  return all;
}

INSTANTIATE_TEST_SUITE_P(Targets, CorpusTest, ::testing::ValuesIn(target_names()),
                         [](const auto& instance) { return instance.param; });

}  // namespace
}  // namespace spillway::fuzz
