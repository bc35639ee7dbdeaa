// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>

#include <gtest/gtest.h>

namespace spillway::testing {

/// Compares text with a file of tests/golden/. SPILLWAY_TEST_WRITE_GOLDEN=1 writes the file
/// instead: look at the difference before committing it. A test that uses this reads the text as
/// JSON as well, so that a golden file that is wrong cannot pass.
inline void expect_golden(std::string_view file, std::string_view text) {
  const std::string path = std::string(SPILLWAY_GOLDEN) + "/" + std::string(file);
  if (std::getenv("SPILLWAY_TEST_WRITE_GOLDEN") != nullptr) {
    std::ofstream(path, std::ios::binary) << text;
    return;
  }
  std::ifstream stream(path, std::ios::binary);
  ASSERT_TRUE(stream) << "no golden file " << path;
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(stream), {}), text);
}

}  // namespace spillway::testing
