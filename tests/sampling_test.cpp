// SPDX-License-Identifier: Apache-2.0
//
// Sampling rules: how they match, how the first match decides by X-Ray's algorithm, what is kept beside
// them, and the local file.
#include <atomic>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <support/seed.hpp>
#include <support/temporary_file.hpp>

#include <spillway/engine/sampling.hpp>
#include <spillway/engine/sampling_rules.hpp>

namespace spillway::detail {
namespace {

constexpr std::uint32_t noon = 1'795'262'400;
constexpr double never_drawn = 0.999999;

// ---- Patterns ----

TEST(WildcardTest, MatchesAsTheRulesSay) {
  const struct {
    std::string_view pattern;
    std::string_view text;
    bool matches;
  } cases[] = {
      {"", "", true},
      {"", "a", false},
      {"*", "", true},
      {"*", "anything", true},
      {"**", "", true},
      {"?", "", false},
      {"?", "a", true},
      {"?", "ab", false},
      {"?", "\xc3\xa9", true},
      {"??", "\xc3\xa9", false},
      {"*?", "\xc3\xa9", true},
      {"*??", "\xc3\xa9", false},
      {"a?c", "abc", true},
      {"a?c", "ac", false},
      {"GET", "get", true},
      {"get", "GET", true},
      {"/API/*", "/api/v1", true},
      {"/api/*", "/api", false},
      {"/api*", "/api", true},
      {"*.example.com", "shop.example.com", true},
      {"*.example.com", "example.com", false},
      {"*.example.com", "a.example.com.evil", false},
      {"a*b*c", "aXbXbXc", true},
      {"a*b*c", "aXcXb", false},
      {"a*ab", "aab", true},
      {"*aab", "aaab", true},
      {"*a?b", "xaxaab", true},
      {"a.c", "abc", false},
      {"[ab]", "a", false},
      {"/*/orders/?*", "/v1/orders/7", true},
      {"/*/orders/?*", "/v1/orders/", false},
  };
  for (const auto& one : cases) {
    EXPECT_EQ(matches_wildcard(one.pattern, one.text), one.matches)
        << one.pattern << " against " << one.text;
  }
}

// The definition, without regard to time.
bool model_matches(std::string_view pattern, std::string_view text) {
  if (pattern.empty()) return text.empty();
  if (pattern[0] == '*') {
    for (std::size_t i = 0; i <= text.size(); ++i) {
      if (model_matches(pattern.substr(1), text.substr(i))) return true;
    }
    return false;
  }
  return !text.empty() && (pattern[0] == '?' || pattern[0] == text[0]) &&
         model_matches(pattern.substr(1), text.substr(1));
}

TEST(WildcardTest, AgreesWithItsDefinition) {
  const std::uint64_t seed = testing::seed_or(4711);
  SCOPED_TRACE(testing::seed_note(seed));
  std::mt19937_64 random(seed);
  const auto text_of = [&](std::string_view letters, std::size_t longest) {
    std::string text;
    for (std::size_t left = random() % (longest + 1); left > 0; --left) {
      text += letters[random() % letters.size()];
    }
    return text;
  };
  int matched = 0;
  for (int i = 0; i < 20'000; ++i) {
    const std::string pattern = text_of("ab?*", 6);
    const std::string text = text_of("ab", 8);
    const bool expected = model_matches(pattern, text);
    matched += expected ? 1 : 0;
    ASSERT_EQ(matches_wildcard(pattern, text), expected) << pattern << " against " << text;
  }
  EXPECT_GT(matched, 1000);
}

// ---- Local rules ----

SamplingRule rule_of(std::uint32_t reservoir, double rate, std::string path = "*") {
  SamplingRule rule;
  rule.reservoir = reservoir;
  rule.fixed_rate = rate;
  rule.path = std::move(path);
  return rule;
}

TEST(SamplerTest, TheReservoirIsTakenBeforeTheRateIsDrawn) {
  Sampler sampler({.local_rules = {rule_of(2, 0.5)}});
  for (const std::uint32_t second : {noon, noon + 1, noon + 7}) {
    EXPECT_TRUE(sampler.decide({}, 1, second, never_drawn).sampled);
    EXPECT_TRUE(sampler.decide({}, 1, second, never_drawn).sampled);
    EXPECT_FALSE(sampler.decide({}, 1, second, never_drawn).sampled);
    EXPECT_FALSE(sampler.decide({}, 1, second, 0.5).sampled);
    EXPECT_TRUE(sampler.decide({}, 1, second, 0.4999).sampled);
  }
}

TEST(SamplerTest, RatesOfNoneAndAllAreExact) {
  Sampler none({.local_rules = {rule_of(0, 0)}});
  Sampler all({.local_rules = {rule_of(0, 1)}});
  EXPECT_FALSE(none.decide({}, 1, noon, 0).sampled);
  EXPECT_TRUE(all.decide({}, 1, noon, never_drawn).sampled);
}

TEST(SamplerTest, TheFirstRuleThatMatchesDecides) {
  SamplingRule health = rule_of(0, 0, "/health*");
  SamplingRule writes = rule_of(0, 1);
  writes.method = "p*t";
  writes.host = "shop.example";
  Sampler sampler({.local_rules = {health, writes, rule_of(0, 0)}});
  const auto sampled = [&](const SamplingRequest& request) {
    return sampler.decide(request, 1, noon, never_drawn).sampled;
  };
  EXPECT_FALSE(sampled({.host = "shop.example", .method = "POST", .path = "/healthz"}));
  EXPECT_TRUE(sampled({.host = "SHOP.example", .method = "POST", .path = "/orders"}));
  EXPECT_FALSE(sampled({.host = "other.example", .method = "POST", .path = "/orders"}));
  EXPECT_FALSE(sampled({.host = "shop.example", .method = "GET", .path = "/orders"}));
  // What is not known is matched by anything.
  EXPECT_FALSE(sampled({}));
  EXPECT_TRUE(sampled({.method = "PUT", .path = "/x"}));
}

TEST(SamplerTest, NothingMatchesNothingIsSampled) {
  Sampler sampler({.local_rules = {rule_of(1, 1, "/only")}});
  const SamplingDecision decision = sampler.decide({.path = "/other"}, 1, noon, 0);
  EXPECT_FALSE(decision.sampled);
  EXPECT_EQ(decision.rule, nullptr);
}

// ---- Central rules ----

SamplingRule central(std::string name, std::int64_t priority, std::uint32_t reservoir,
                     double rate) {
  SamplingRule rule = rule_of(reservoir, rate);
  rule.name = std::move(name);
  rule.priority = priority;
  return rule;
}

TEST(SamplerTest, TheWorkedExampleOfTheGuide) {
  // 110 requests in 10 s: 10 borrowed, one a second, and of the other 100 one in ten.
  Sampler sampler({});
  sampler.set_central_rules({central("orders", 100, 5, 0.1)});
  for (std::uint32_t second = 0; second < 10; ++second) {
    for (int i = 0; i < 11; ++i) {
      sampler.decide({}, 1, noon + second, i == 5 ? 0.05 : never_drawn);
    }
  }
  const SamplingCounts counts = sampler.find("orders")->take_counts();
  EXPECT_EQ(counts.requests, 110U);
  EXPECT_EQ(counts.sampled, 20U);
  EXPECT_EQ(counts.borrowed, 10U);
  const SamplingCounts after = sampler.find("orders")->take_counts();
  EXPECT_EQ(after.requests + after.sampled + after.borrowed, 0U);
  sampler.find("orders")->put_back(counts);
  EXPECT_EQ(sampler.find("orders")->take_counts().sampled, 20U);
}

TEST(SamplerTest, AQuotaHoldsToTheEndOfItsLastSecond) {
  Sampler sampler({});
  sampler.set_central_rules({central("orders", 100, 5, 0)});
  sampler.find("orders")->set_quota(3, noon + 1);
  const auto sampled_of_ten = [&](std::uint32_t second) {
    int sampled = 0;
    for (int i = 0; i < 10; ++i) sampled += sampler.decide({}, 1, second, never_drawn).sampled;
    return sampled;
  };
  EXPECT_EQ(sampled_of_ten(noon), 3);
  EXPECT_EQ(sampled_of_ten(noon + 1), 3);
  EXPECT_EQ(sampler.find("orders")->take_counts().borrowed, 0U);
  EXPECT_EQ(sampled_of_ten(noon + 2), 1);
  EXPECT_EQ(sampler.find("orders")->take_counts().borrowed, 1U);
  // A quota of none is one: nothing is borrowed.
  sampler.find("orders")->set_quota(0, noon + 9);
  EXPECT_EQ(sampled_of_ten(noon + 3), 0);
}

TEST(SamplerTest, ARuleWithoutReservoirBorrowsNothing) {
  Sampler sampler({});
  sampler.set_central_rules({central("orders", 100, 0, 0)});
  EXPECT_FALSE(sampler.decide({}, 1, noon, 0).sampled);
}

TEST(SamplerTest, ABoostReplacesTheRateWhileItLasts) {
  Sampler sampler({});
  sampler.set_central_rules({central("orders", 100, 0, 0.1)});
  sampler.find("orders")->set_boost(0.75, noon + 1);
  EXPECT_TRUE(sampler.decide({}, 1, noon + 1, 0.7).sampled);
  EXPECT_FALSE(sampler.decide({}, 1, noon + 1, 0.8).sampled);
  EXPECT_FALSE(sampler.decide({}, 1, noon + 2, 0.7).sampled);
}

TEST(SamplerTest, CentralRulesAreAskedByPriorityThenName) {
  Sampler sampler({});
  sampler.set_central_rules({central("Default", 10'000, 0, 0), central("b", 5, 0, 0),
                             central("a", 5, 0, 1), central("c", 1, 0, 0)});
  EXPECT_EQ(sampler.decide({}, 1, noon, 0).rule->name, "c");
  sampler.set_central_rules({central("b", 5, 0, 0), central("a", 5, 0, 1)});
  EXPECT_EQ(sampler.decide({}, 1, noon, 0).rule->name, "a");
}

TEST(SamplerTest, RulesForOtherServicesAreLeftOut) {
  SamplingRule other = central("other", 1, 0, 1);
  other.service_name = "billing*";
  SamplingRule on_ec2 = central("ec2", 2, 0, 1);
  on_ec2.service_type = "AWS::EC2::*";
  Sampler sampler({.service_name = "orders", .service_type = "AWS::ECS::Container"});
  sampler.set_central_rules({other, on_ec2, central("Default", 10'000, 0, 0)});
  EXPECT_EQ(sampler.decide({}, 1, noon, 0).rule->name, "Default");
  // A type that is not known is matched by any.
  Sampler anywhere({.service_name = "orders"});
  anywhere.set_central_rules({other, on_ec2, central("Default", 10'000, 0, 0)});
  EXPECT_EQ(anywhere.decide({}, 1, noon, 0).rule->name, "ec2");
}

TEST(SamplerTest, CountsAndTargetsOutliveAChangeOfRules) {
  Sampler sampler({});
  sampler.set_central_rules({central("orders", 100, 5, 0.1), central("gone", 101, 0, 0)});
  sampler.find("orders")->set_quota(1, noon + 100);
  sampler.find("orders")->set_rate(0.9);
  sampler.decide({}, 1, noon, never_drawn);
  sampler.set_central_rules({central("orders", 50, 5, 0.1)});
  EXPECT_EQ(sampler.find("orders")->take_counts().requests, 1U);
  EXPECT_FALSE(sampler.decide({}, 1, noon, never_drawn).sampled) << "the quota is used";
  EXPECT_TRUE(sampler.decide({}, 1, noon, 0.8).sampled) << "X-Ray's rate stays";
  // Until somebody changes the rule.
  sampler.set_central_rules({central("orders", 50, 5, 0.2)});
  EXPECT_FALSE(sampler.decide({}, 1, noon, 0.8).sampled);
}

TEST(SamplerTest, LocalRulesHoldWithoutCentralOnes) {
  Sampler sampler({.local_rules = {rule_of(0, 1)}});
  EXPECT_TRUE(sampler.decide({}, 1, noon, never_drawn).rule->name.empty());
  SamplingRule narrow = central("narrow", 1, 0, 0);
  narrow.path = "/only";
  sampler.set_central_rules({narrow});
  EXPECT_FALSE(sampler.decide({.path = "/only"}, 1, noon, 0).sampled);
  EXPECT_TRUE(sampler.decide({.path = "/other"}, 1, noon, never_drawn).sampled);
  sampler.drop_central_rules();
  EXPECT_TRUE(sampler.decide({.path = "/only"}, 1, noon, never_drawn).sampled);
}

TEST(SamplerTest, NamesOfRulesHaveABound) {
  Sampler sampler({});
  std::vector<SamplingRule> rules;
  for (std::size_t i = 0; i < Sampler::rule_names_max + 3; ++i) {
    rules.push_back(central("rule-" + std::to_string(i), 1, 0, 0));
  }
  EXPECT_EQ(sampler.set_central_rules(rules), 3U);
}

// Rules are replaced while threads ask: each decision is by a rule of one set, nothing is counted
// twice or lost, and what was replaced is freed. Under ThreadSanitizer this tests Published too.
TEST(SamplerTest, RulesAreReplacedWhileThreadsAsk) {
  Sampler sampler({});
  sampler.set_central_rules({central("a", 1, 1, 0.5)});
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> asked{0};
  std::atomic<std::uint64_t> sampled{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      std::uint64_t mine = 0;
      std::uint64_t hits = 0;
      for (std::uint32_t n = 0; !stop.load(std::memory_order_relaxed); ++n) {
        const SamplingDecision decision =
            sampler.decide({.path = "/orders"}, 1, noon + n / 64, n % 2 == 0 ? 0.25 : 0.75);
        if (decision.rule == nullptr) std::abort();
        ++mine;
        hits += decision.sampled ? 1 : 0;
      }
      asked += mine;
      sampled += hits;
    });
  }
  for (int i = 0; i < 2000; ++i) {
    SamplingRule rule = central(i % 2 == 0 ? "a" : "b", 1, 1, 0.5);
    rule.path = "/orders" + std::string(i % 3 == 0 ? "*" : "");
    sampler.set_central_rules({std::move(rule)});
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  const SamplingCounts a = sampler.find("a")->take_counts();
  const SamplingCounts b = sampler.find("b")->take_counts();
  EXPECT_EQ(a.requests + b.requests, asked.load());
  EXPECT_EQ(a.sampled + b.sampled, sampled.load());
}

TEST(PublishedTest, AReplacedValueLivesWhileItIsRead) {
  struct Counted {
    explicit Counted(int& count) : alive(count) { ++alive; }
    Counted(const Counted&) = delete;
    Counted& operator=(const Counted&) = delete;
    ~Counted() { --alive; }
    int& alive;
  };
  int alive = 0;
  {
    Published<Counted> value;
    EXPECT_TRUE(value.empty());
    EXPECT_EQ(value.read().get(), nullptr);
    value.publish(std::make_unique<Counted>(alive));
    {
      const auto reading = value.read();
      value.publish(std::make_unique<Counted>(alive));
      EXPECT_EQ(alive, 2);
      EXPECT_EQ(value.free_unread(), 1U);
      EXPECT_NE(reading.get(), value.get());
    }
    EXPECT_EQ(value.free_unread(), 0U);
    EXPECT_EQ(alive, 1);
    value.publish(nullptr);
    EXPECT_EQ(alive, 0);
    value.publish(std::make_unique<Counted>(alive));
  }
  EXPECT_EQ(alive, 0);
}

// ---- What is kept beside the rules ----

TEST(SamplerTest, AnOperationOfWhichNothingWasSampledForAMinuteIsKept) {
  Sampler sampler({.local_rules = {rule_of(0, 0)}, .keep_per_second = 10});
  const SamplingDecision first = sampler.decide({}, 7, noon, 0);
  EXPECT_TRUE(first.sampled && first.rare);
  EXPECT_FALSE(sampler.decide({}, 7, noon + Sampler::rare_seconds - 1, 0).sampled);
  EXPECT_TRUE(sampler.decide({}, 8, noon + 1, 0).rare) << "another operation";
  EXPECT_TRUE(sampler.decide({}, 7, noon + Sampler::rare_seconds, 0).rare);
  // A clock that is set back makes everything rare for once, not for the time it was set back.
  EXPECT_TRUE(sampler.decide({}, 7, noon - 500, 0).rare);
  EXPECT_FALSE(sampler.decide({}, 7, noon - 499, 0).sampled);
}

TEST(SamplerTest, WhatTheRulesSampleIsNotRare) {
  Sampler sampler({.local_rules = {rule_of(1, 0)}, .keep_per_second = 10});
  const SamplingDecision first = sampler.decide({}, 7, noon, 0);
  EXPECT_TRUE(first.sampled);
  EXPECT_FALSE(first.rare || first.watched);
  EXPECT_FALSE(sampler.decide({}, 7, noon, 0).sampled);
}

TEST(SamplerTest, KeepingHasABudgetOfTraces) {
  Sampler sampler({.local_rules = {rule_of(0, 0)}, .keep_per_second = 3});
  int kept = 0;
  for (std::uint32_t operation = 0; operation < 100; ++operation) {
    kept += sampler.decide({}, operation, noon, 0).sampled;
  }
  EXPECT_EQ(kept, 3);
  const SamplingDecision refused = sampler.decide({}, 50, noon, 0);
  ASSERT_TRUE(refused.watched);
  EXPECT_FALSE(sampler.ended(refused, true, noon)) << "failures come out of the same budget";
  EXPECT_TRUE(sampler.ended(refused, true, noon + 1));
  EXPECT_FALSE(sampler.ended(refused, false, noon + 2)) << "it did not fail";
}

TEST(SamplerTest, NobodyIsWatchedForNothing) {
  Sampler sampler({.local_rules = {rule_of(0, 0)}});
  EXPECT_FALSE(sampler.decide({}, 7, noon, 0).watched);
}

TEST(SamplerTest, ARuleWithABoostHearsOfFailures) {
  Sampler sampler({});
  SamplingRule rule = central("orders", 1, 1, 0);
  rule.boosts = true;
  sampler.set_central_rules({rule});
  for (const bool failed : {true, true, false}) {
    const SamplingDecision decision = sampler.decide({}, 1, noon, never_drawn);
    ASSERT_TRUE(decision.watched);
    EXPECT_FALSE(sampler.ended(decision, failed, noon));
  }
  const SamplingCounts counts = sampler.find("orders")->take_counts();
  EXPECT_EQ(counts.ended, 3U);
  EXPECT_EQ(counts.failed, 2U);
  EXPECT_EQ(counts.failed_sampled, 1U);
}

// ---- The local file ----

std::vector<std::string> errors_in(std::string_view text) {
  std::vector<std::string> errors;
  parse_local_rules(text, errors);
  return errors;
}

TEST(LocalRulesTest, AFileOfVersion2) {
  std::vector<std::string> errors;
  const auto rules = parse_local_rules(
      R"({"version":2,"default":{"fixed_target":1,"rate":0.05},"rules":[
          {"description":"health","host":"*","http_method":"GET","url_path":"/healthz",
           "fixed_target":0,"rate":0},
          {"host":"*.example","http_method":"P*T","url_path":"/api/?","fixed_target":10,"rate":1}]})",
      errors);
  EXPECT_TRUE(errors.empty());
  ASSERT_EQ(rules.size(), 3U);
  EXPECT_EQ(rules[0].path, "/healthz");
  EXPECT_EQ(rules[0].method, "GET");
  EXPECT_EQ(rules[0].reservoir, 0U);
  EXPECT_EQ(rules[1].host, "*.example");
  EXPECT_EQ(rules[1].reservoir, 10U);
  EXPECT_EQ(rules[1].fixed_rate, 1.0);
  EXPECT_EQ(rules[2].host, "*");
  EXPECT_EQ(rules[2].reservoir, 1U);
  EXPECT_EQ(rules[2].fixed_rate, 0.05);
}

TEST(LocalRulesTest, Version1SaysServiceNameForHost) {
  std::vector<std::string> errors;
  const auto rules = parse_local_rules(
      R"({"version":1,"default":{"fixed_target":1,"rate":0.05},"rules":[
          {"service_name":"a","http_method":"*","url_path":"*","fixed_target":0,"rate":0}]})",
      errors);
  EXPECT_TRUE(errors.empty());
  EXPECT_EQ(rules.at(0).host, "a");
}

TEST(LocalRulesTest, ADefaultIsEnough) {
  EXPECT_TRUE(errors_in(R"({"version":2,"default":{"fixed_target":0,"rate":0}})").empty());
}

TEST(LocalRulesTest, AllErrorsAreNamedWithTheirPlace) {
  const std::vector<std::string> errors = errors_in(
      R"({"version":3,"extra":1,"default":{"fixed_target":-1,"rate":2,"host":"*"},"rules":[
          {"host":"","http_method":7,"fixed_target":1.5,"rate":"1","color":"red"}, 5]})");
  const std::vector<std::string> expected = {
      "extra is not known; mend its name or remove it",
      "version must be 1 or 2",
      "rules[0].color is not known; mend its name or remove it",
      "rules[0].host must be a pattern of 1 to 128 characters such as * or /api/*",
      "rules[0].http_method must be a pattern of 1 to 128 characters such as * or /api/*",
      "rules[0].url_path must be a pattern of 1 to 128 characters such as * or /api/*",
      "rules[0].fixed_target must be a whole number from 0 to 1000000, traces a second",
      "rules[0].rate must be a number from 0 to 1",
      "rules[1] must be an object",
      "default may not have host: it is for what no rule matches",
      "default.fixed_target must be a whole number from 0 to 1000000, traces a second",
      "default.rate must be a number from 0 to 1",
  };
  EXPECT_EQ(errors, expected);
}

TEST(LocalRulesTest, WhatIsNoRulesFile) {
  EXPECT_EQ(errors_in("").size(), 1U);
  EXPECT_EQ(errors_in("{").size(), 1U);
  EXPECT_EQ(errors_in("[]").at(0), "must hold one JSON object with version, default and rules");
  EXPECT_EQ(errors_in(R"({"version":2})").at(0),
            "default is missing: it needs fixed_target and rate");
  EXPECT_EQ(errors_in(R"({"version":2,"rules":{},"default":{"fixed_target":0,"rate":0}})").at(0),
            "rules must be a list");
  EXPECT_EQ(errors_in(std::string(100'000, '[')).size(), 1U);
}

TEST(LocalRulesTest, FilesHaveABound) {
  const testing::TemporaryDirectory directory;
  std::vector<std::string> errors;
  read_local_rules(directory.path("missing.json"), errors);
  ASSERT_EQ(errors.size(), 1U);
  EXPECT_NE(errors[0].find("cannot be read"), std::string::npos);
  errors.clear();
  read_local_rules(directory.write("large.json", std::string(sampling_file_bytes_max + 1, ' ')),
                   errors);
  ASSERT_EQ(errors.size(), 1U);
  EXPECT_EQ(errors[0], "is larger than 1048576 bytes");
}

}  // namespace
}  // namespace spillway::detail
