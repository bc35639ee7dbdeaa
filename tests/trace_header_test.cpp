// SPDX-License-Identifier: Apache-2.0
#include <random>
#include <string>

#include <gtest/gtest.h>
#include <support/seed.hpp>

#include <spillway/engine/trace_header.hpp>

namespace spillway {
namespace {

constexpr const char* root = "1-6b00e354-0f1e2d3c4b5a69788796a5b4";
constexpr TraceId root_id{0x6b00e3540f1e2d3c, 0x4b5a69788796a5b4};

TEST(TraceHeaderTest, ItsThreeFields) {
  const auto parent = parse_trace_header(
      "Root=1-6b00e354-0f1e2d3c4b5a69788796a5b4;Parent=1a2b3c4d5e6f7081;Sampled=1");
  ASSERT_TRUE(parent);
  EXPECT_EQ(parent->trace_id, root_id);
  EXPECT_EQ(parent->parent_id, 0x1a2b3c4d5e6f7081U);
  EXPECT_EQ(parent->sampled, Sampled::yes);
}

TEST(TraceHeaderTest, AnyOrderBlanksAndOtherFields) {
  const auto parent = parse_trace_header(
      std::string(" Self=1-67891234-12456789abcdef012345678a ;Lineage=25:1a:3; Sampled=0 ;; ="
                  ";Parent=1a2b3c4d5e6f7081;\tRoot=") +
      root + " ;x");
  ASSERT_TRUE(parent);
  EXPECT_EQ(parent->trace_id, root_id);
  EXPECT_EQ(parent->parent_id, 0x1a2b3c4d5e6f7081U);
  EXPECT_EQ(parent->sampled, Sampled::no);
}

TEST(TraceHeaderTest, WithoutALegalRootItIsNothing) {
  for (const char* const header :
       {"", ";", "Sampled=1", "Root", "Root=", "Root=;Sampled=1",
        "root=1-6b00e354-0f1e2d3c4b5a69788796a5b4", "Root=1-00000000-000000000000000000000000",
        "Root=2-6b00e354-0f1e2d3c4b5a69788796a5b4", "Root=1-6B00E354-0F1E2D3C4B5A69788796A5B4",
        "Root=1-6b00e354-0f1e2d3c4b5a69788796a5b", "Root=1-6b00e354-0f1e2d3c4b5a69788796a5b44",
        "Root=1-6b00e354-0f1e2d3c4b5a69788796a5bg", "Root=1-6b00e354:0f1e2d3c4b5a69788796a5b4",
        "Root=1-6b00e3540-f1e2d3c4b5a69788796a5b4", "Root=\"1-6b00e354-0f1e2d3c4b5a69788796a5b4\"",
        "Root=1-6b00e354-0f1e2d3c4b5a69788796a5b4,Parent=1a2b3c4d5e6f7081",
        "Root=bad;Root=1-6b00e354-0f1e2d3c4b5a69788796a5b4"}) {
    EXPECT_FALSE(parse_trace_header(header)) << header;
  }
}

TEST(TraceHeaderTest, AnIllegalParentOrDecisionIsAsIfItWereNotThere) {
  const auto parse = [](const std::string& rest) {
    const auto parent = parse_trace_header("Root=" + std::string(root) + rest);
    EXPECT_TRUE(parent) << rest;
    return parent.value_or(TraceParent{});
  };
  for (const char* const bad : {";Parent=", ";Parent=1a2b3c4d5e6f708", ";Parent=1a2b3c4d5e6f70811",
                                ";Parent=1A2B3C4D5E6F7081", ";Parent=0000000000000000", ""}) {
    EXPECT_EQ(parse(bad).parent_id, 0U) << bad;
  }
  for (const char* const bad : {";Sampled=", ";Sampled=?", ";Sampled=2", ";Sampled=true", ""}) {
    EXPECT_EQ(parse(bad).sampled, Sampled::unknown) << bad;
  }
}

TEST(TraceHeaderTest, ALongHeaderIsNotRead) {
  const std::string header = "Root=" + std::string(root) + ";";
  EXPECT_TRUE(parse_trace_header(header + std::string(4096 - header.size(), 'x')));
  EXPECT_FALSE(parse_trace_header(header + std::string(4097 - header.size(), 'x')));
}

TEST(TraceHeaderTest, AnyBytesAreSurvivedAndWhatIsReadCanBeWritten) {
  const std::uint64_t seed = testing::seed_or(12);
  SCOPED_TRACE(testing::seed_note(seed));
  std::mt19937_64 random(seed);
  const std::string whole = "Root=" + std::string(root) + ";Parent=1a2b3c4d5e6f7081;Sampled=1";
  for (int i = 0; i < 20'000; ++i) {
    std::string header = whole;
    for (std::uint64_t changes = random() % 4; changes > 0; --changes) {
      header[random() % header.size()] = static_cast<char>(random());
    }
    header.resize(random() % 4 == 0 ? random() % header.size() : header.size());
    if (const auto parent = parse_trace_header(header)) {
      ASSERT_EQ(parse_trace_id(to_string(parent->trace_id)), parent->trace_id);
    }
  }
}

TEST(TraceIdTest, TextAndBack) {
  EXPECT_EQ(to_string(root_id), root);
  EXPECT_EQ(parse_trace_id(root), root_id);
  EXPECT_EQ(to_string(TraceId{0, 1}), "1-00000000-000000000000000000000001");
  EXPECT_EQ(parse_trace_id(std::string(root) + " "), std::nullopt);
}

TEST(TraceHeaderTest, AThreadInNoTraceSendsNone) { EXPECT_EQ(current_trace_header(), ""); }

}  // namespace
}  // namespace spillway
