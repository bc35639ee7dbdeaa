// SPDX-License-Identifier: Apache-2.0
#include <stdexcept>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include <spillway/engine/diagnostics.hpp>
#include <spillway/engine/testing.hpp>

namespace spillway::detail {
namespace {

using namespace std::chrono_literals;

class DiagnosticsTest : public ::testing::Test {
 protected:
  std::shared_ptr<testing::ManualClock> clock = std::make_shared<testing::ManualClock>();
  std::vector<std::string> said;
  Diagnostics diagnostics{[this](std::string_view text) { said.emplace_back(text); }, clock};
};

TEST_F(DiagnosticsTest, EachKindIsSaidOnceAMinute) {
  const std::string kind(48, 'k');
  diagnostics.report(kind + " first");
  diagnostics.report(kind + " second");
  diagnostics.report("another");
  clock->advance(60s - 1ns);
  diagnostics.report(kind + " third");
  clock->advance(1ns);
  diagnostics.report(kind + " fourth");
  EXPECT_EQ(said, (std::vector<std::string>{kind + " first", "another", kind + " fourth"}));
}

TEST_F(DiagnosticsTest, WhatIsPostedWaitsForItsDelivery) {
  diagnostics.post("one");
  diagnostics.post("two");
  diagnostics.post("one");
  EXPECT_TRUE(said.empty());
  diagnostics.deliver();
  EXPECT_EQ(said, (std::vector<std::string>{"one", "two"}));
  diagnostics.deliver();
  EXPECT_EQ(said.size(), 2U);
}

TEST_F(DiagnosticsTest, SixtyFourMessagesWaitAtMost) {
  for (int i = 0; i < 100; ++i) diagnostics.post("message " + std::to_string(i));
  diagnostics.deliver();
  ASSERT_EQ(said.size(), 64U);
  EXPECT_EQ(said.back(), "message 63");
  diagnostics.post("message 99");
  diagnostics.deliver();
  EXPECT_EQ(said.back(), "message 99") << "what found no room was not said";
}

TEST_F(DiagnosticsTest, ASinkMayPost) {
  Diagnostics echo(
      [&](std::string_view text) {
        said.emplace_back(text);
        if (said.size() == 1) echo.post("answer");
      },
      clock);
  echo.post("question");
  echo.deliver();
  EXPECT_EQ(said, (std::vector<std::string>{"question"}));
  echo.deliver();
  EXPECT_EQ(said, (std::vector<std::string>{"question", "answer"}));
}

TEST_F(DiagnosticsTest, WhatASinkThrowsEndsHere) {
  int calls = 0;
  Diagnostics throwing(
      [&](std::string_view) {
        ++calls;
        throw std::runtime_error("the host's");
      },
      clock);
  throwing.report("one");
  throwing.post("two");
  throwing.post("three");
  throwing.deliver();
  EXPECT_EQ(calls, 3);
}

}  // namespace
}  // namespace spillway::detail
