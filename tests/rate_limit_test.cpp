// SPDX-License-Identifier: Apache-2.0
//
// Limits: the three algorithms against models that count what was admitted, the store of one
// process, keys, and addresses. Time is a number that the tests move.
#include <atomic>
#include <deque>
#include <map>
#include <random>
#include <thread>

#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <support/seed.hpp>

#include <spillway/middleware/ip_address.hpp>
#include <spillway/middleware/rate_limit/local_store.hpp>

namespace spillway::middleware {
namespace {

using namespace std::chrono_literals;
using detail::RateRule;
using detail::RateState;
using Outcome = RateDecision::Outcome;

constexpr std::int64_t second = 1'000'000'000;

RateLimit limit_of(RateAlgorithm algorithm, std::int64_t permits, std::chrono::nanoseconds window,
                   std::int64_t burst = 0) {
  return {permits, window, algorithm, burst};
}

// ---- Which limits there are ----

TEST(RateLimitTest, EveryErrorOfALimitIsNamedWithWhatIsAllowed) {
  std::vector<std::string> errors;
  validate(limit_of(RateAlgorithm::fixed_window, 0, 0ns, 3), "api", errors);
  ASSERT_EQ(errors.size(), 3U);
  EXPECT_EQ(errors[0], "api: permits is 0, allowed is 1 to 2147483648");
  EXPECT_EQ(errors[1], "api: window is 0 ns, allowed is 1 ms to 31 days");
  EXPECT_EQ(errors[2],
            "api: burst is 3, allowed is 0: only a token bucket has one, this is a fixed_window");
}

TEST(RateLimitTest, LimitsAtTheEdgesOfTheRange) {
  const auto errors_of = [](const RateLimit& limit) {
    std::vector<std::string> errors;
    validate(limit, "x", errors);
    return errors.size();
  };
  EXPECT_EQ(errors_of(limit_of(RateAlgorithm::token_bucket, 1'000'000, 1s)), 0U);
  EXPECT_EQ(errors_of(limit_of(RateAlgorithm::token_bucket, 1'000'001, 1s)), 1U);
  EXPECT_EQ(errors_of(limit_of(RateAlgorithm::sliding_window, rate_permits_max, 1ms)), 0U);
  EXPECT_EQ(errors_of(limit_of(RateAlgorithm::sliding_window, rate_permits_max + 1, 1ms)), 1U);
  EXPECT_EQ(errors_of(limit_of(RateAlgorithm::sliding_window, -1, 1s)), 1U);
  EXPECT_EQ(errors_of(limit_of(RateAlgorithm::token_bucket, 1, rate_window_max, 11)), 0U);
  EXPECT_EQ(errors_of(limit_of(RateAlgorithm::token_bucket, 1, rate_window_max, 12)), 1U);
  EXPECT_EQ(errors_of(limit_of(RateAlgorithm::token_bucket, 1, 1s, -1)), 1U);
  EXPECT_EQ(errors_of(limit_of(RateAlgorithm::token_bucket, 1, rate_window_max + 1ns)), 1U);
}

// ---- The algorithms ----

TEST(RateLimitTest, ATokenBucketGivesItsBurstAndThenItsRate) {
  const RateRule rule(limit_of(RateAlgorithm::token_bucket, 10, 1s, 3));
  RateState state;
  const std::int64_t start = 5 * second;
  for (std::int64_t left = 2; left >= 0; --left) {
    const RateDecision decision = take(state, rule, 1, start);
    EXPECT_EQ(decision.outcome, Outcome::admitted);
    EXPECT_EQ(decision.limit, 3);
    EXPECT_EQ(decision.remaining, left);
    EXPECT_EQ(decision.reset_after_ns, (3 - left) * second / 10);
  }
  const RateDecision denied = take(state, rule, 1, start);
  EXPECT_EQ(denied.outcome, Outcome::denied);
  EXPECT_EQ(denied.retry_after_ns, second / 10);
  EXPECT_FALSE(take(state, rule, 1, start + second / 10 - 1).admitted());
  EXPECT_TRUE(take(state, rule, 1, start + second / 10).admitted());
  EXPECT_FALSE(take(state, rule, 1, start + second / 10).admitted());
  EXPECT_FALSE(take(state, rule, 4, start + 100 * second).admitted()) << "more than fit at all";
  EXPECT_TRUE(take(state, rule, 3, start + 100 * second).admitted());
}

TEST(RateLimitTest, AFixedWindowBeginsAgainAtMultiplesOfItsLength) {
  const RateRule rule(limit_of(RateAlgorithm::fixed_window, 2, 1s));
  RateState state;
  EXPECT_EQ(take(state, rule, 1, 10 * second + 900'000'000).remaining, 1);
  EXPECT_EQ(take(state, rule, 1, 10 * second + 999'999'999).remaining, 0);
  const RateDecision denied = take(state, rule, 1, 10 * second + 999'999'999);
  EXPECT_EQ(denied.outcome, Outcome::denied);
  EXPECT_EQ(denied.retry_after_ns, 1);
  EXPECT_EQ(denied.reset_after_ns, 1);
  EXPECT_EQ(take(state, rule, 1, 11 * second).remaining, 1);
  EXPECT_EQ(take(state, rule, 1, 11 * second - 1).remaining, 0) << "a late reader of the clock";
  EXPECT_FALSE(take(state, rule, 1, 11 * second - 1).admitted());
}

TEST(RateLimitTest, ASlidingWindowCountsWhatOverlapsOfTheLastOne) {
  const RateRule rule(limit_of(RateAlgorithm::sliding_window, 4, 1s));
  RateState state;
  EXPECT_EQ(take(state, rule, 4, 10 * second + 500'000'000).remaining, 0);
  const RateDecision denied = take(state, rule, 1, 11 * second);
  EXPECT_EQ(denied.outcome, Outcome::denied);
  EXPECT_EQ(denied.retry_after_ns, second / 4);
  EXPECT_FALSE(take(state, rule, 1, 11 * second + second / 4 - 1).admitted());
  EXPECT_TRUE(take(state, rule, 1, 11 * second + second / 4).admitted());
  EXPECT_EQ(take(state, rule, 1, 12 * second).remaining, 2) << "one of the last window counts";
  EXPECT_EQ(take(state, rule, 1, 99 * second).remaining, 3);
}

// Counts what each algorithm promises, the plain way.
class Model {
 public:
  Model(const RateLimit& limit, const RateRule& rule) : limit_(limit), rule_(rule) {}

  bool fits(std::int64_t permits, std::int64_t now) {
    __extension__ using Wide = __int128;
    const std::int64_t window = limit_.window.count();
    if (limit_.algorithm == RateAlgorithm::token_bucket) {
      refill(now);
      return level_ns_ >= permits * rule_.interval_ns;
    }
    const std::int64_t index = now / window;
    Wide used = Wide{taken_[index]} * window;
    if (limit_.algorithm == RateAlgorithm::sliding_window) {
      used += Wide{taken_[index - 1]} * (window - now % window);
    }
    return used + Wide{permits} * window <= Wide{limit_.permits} * window;
  }
  void take(std::int64_t permits, std::int64_t now) {
    level_ns_ -= permits * rule_.interval_ns;
    taken_[now / limit_.window.count()] += permits;
  }

 private:
  void refill(std::int64_t now) {
    level_ns_ = std::min(rule_.depth_ns, level_ns_ + (now - at_));
    at_ = now;
  }
  const RateLimit limit_;
  const RateRule rule_;
  std::int64_t level_ns_ = rule_.depth_ns;
  std::int64_t at_ = 0;
  std::map<std::int64_t, std::int64_t> taken_;
};

TEST(RateLimitTest, EveryDecisionAndEveryWaitAgreesWithTheModels) {
  const std::uint64_t seed = spillway::testing::seed_or(20261121);
  SCOPED_TRACE(spillway::testing::seed_note(seed));
  std::mt19937_64 random(seed);
  const auto draw = [&](std::int64_t from, std::int64_t to) {
    return std::uniform_int_distribution<std::int64_t>(from, to)(random);
  };
  std::int64_t admitted = 0;
  std::int64_t denied = 0;
  for (int round = 0; round < 300; ++round) {
    const auto algorithm = static_cast<RateAlgorithm>(round % 3);
    RateLimit limit =
        limit_of(algorithm, draw(1, 40), std::chrono::nanoseconds(draw(1, 3'000)) * 1'000'000);
    if (algorithm == RateAlgorithm::token_bucket) limit.burst = draw(0, 60);
    if (round % 20 == 0) limit = limit_of(algorithm, 1'000, rate_window_max);
    if (round % 20 == 1)
      limit = limit_of(RateAlgorithm::sliding_window, rate_permits_max, 31 * 24h);
    std::vector<std::string> errors;
    validate(limit, "x", errors);
    if (!errors.empty()) continue;
    const RateRule rule(limit);
    Model model(limit, rule);
    RateState state;
    std::int64_t now = draw(0, 1'000) * second * 1'000;
    for (int step = 0; step < 400; ++step) {
      now += draw(0, 3) == 0 ? draw(0, limit.window.count()) : draw(0, limit.window.count() / 20);
      const std::int64_t permits = draw(0, 4) == 0 ? draw(1, rule.capacity) : 1;
      const bool fits = model.fits(permits, now);
      const RateDecision decision = take(state, rule, permits, now);
      ASSERT_EQ(decision.admitted(), fits) << "round " << round << ", step " << step;
      ASSERT_GE(decision.remaining, 0);
      if (fits) {
        ++admitted;
        model.take(permits, now);
        ASSERT_TRUE(decision.remaining == 0 || model.fits(decision.remaining, now));
        ASSERT_FALSE(model.fits(decision.remaining + 1, now));
      } else {
        ++denied;
        RateState early = state;
        RateState due = state;
        ASSERT_GT(decision.retry_after_ns, 0);
        ASSERT_FALSE(take(early, rule, permits, now + decision.retry_after_ns - 1).admitted())
            << "round " << round << ", step " << step;
        ASSERT_TRUE(take(due, rule, permits, now + decision.retry_after_ns).admitted())
            << "round " << round << ", step " << step;
      }
      RateState full = state;
      const RateDecision all = take(full, rule, rule.capacity, now + decision.reset_after_ns);
      ASSERT_TRUE(all.admitted()) << "reset " << decision.reset_after_ns << " in round " << round;
    }
  }
  EXPECT_GT(admitted, 10'000);
  EXPECT_GT(denied, 10'000);
}

TEST(RateLimitTest, WhatIsGivenBackCanBeTakenAgainAndNoMore) {
  for (const auto algorithm :
       {RateAlgorithm::token_bucket, RateAlgorithm::fixed_window, RateAlgorithm::sliding_window}) {
    SCOPED_TRACE(to_string(algorithm));
    const RateRule rule(limit_of(algorithm, 2, 1s));
    RateState state;
    const std::int64_t now = 100 * second;
    const RateDecision first = take(state, rule, 1, now);
    const RateDecision second_one = take(state, rule, 1, now);
    ASSERT_FALSE(take(state, rule, 1, now).admitted());
    give_back(state, rule, 1, second_one.receipt, now);
    EXPECT_TRUE(take(state, rule, 1, now).admitted());
    EXPECT_FALSE(take(state, rule, 1, now).admitted());
    // Long after, time has given it back: giving it back once more would make room for three.
    const std::int64_t later = now + 10 * second;
    ASSERT_TRUE(take(state, rule, 2, later).admitted());
    give_back(state, rule, 1, first.receipt, later);
    EXPECT_FALSE(take(state, rule, 1, later).admitted());
  }
}

TEST(RateLimitTest, ASlidingWindowTakesBackWhatTheLastWindowTook) {
  const RateRule rule(limit_of(RateAlgorithm::sliding_window, 2, 1s));
  RateState state;
  const RateDecision decision = take(state, rule, 2, 100 * second);
  ASSERT_FALSE(take(state, rule, 1, 101 * second).admitted());
  give_back(state, rule, 2, decision.receipt, 101 * second);
  EXPECT_TRUE(take(state, rule, 2, 101 * second).admitted());
}

// ---- The store of one process ----

RateKey key_of(std::string_view tenant) {
  RateKey key("api");
  key.add("tenant", tenant);
  return key;
}

constexpr SteadyTime start_time{1'000s};

TEST(LocalRateStoreTest, KeysAreCountedApart) {
  SteadyTime now = start_time;
  LocalRateStore store;
  const RateRule rule(limit_of(RateAlgorithm::fixed_window, 1, 1s));
  EXPECT_TRUE(store.take(key_of("a"), rule, 1, now).admitted());
  EXPECT_FALSE(store.take(key_of("a"), rule, 1, now).admitted());
  EXPECT_TRUE(store.take(key_of("b"), rule, 1, now).admitted());
  EXPECT_EQ(store.keys(), 2U);
}

TEST(LocalRateStoreTest, AFullStoreRefusesNewKeysUntilOneIsIdle) {
  SteadyTime now = start_time;
  LocalRateStore store({.keys_max = 50});
  const RateRule rule(limit_of(RateAlgorithm::token_bucket, 1, 1s));
  for (int i = 0; i < 50; ++i)
    ASSERT_TRUE(store.take(key_of(std::to_string(i)), rule, 1, now).admitted());
  const RateDecision refused = store.take(key_of("one more"), rule, 1, now);
  EXPECT_EQ(refused.outcome, Outcome::denied_unavailable);
  EXPECT_GT(refused.retry_after_ns, 0);
  EXPECT_FALSE(store.take(key_of("7"), rule, 1, now).admitted())
      << "those that are in are counted on";
  EXPECT_EQ(store.turned_away(), 1U);
  now += 1s;
  EXPECT_TRUE(store.take(key_of("one more"), rule, 1, now).admitted());
  EXPECT_LE(store.keys(), 50U);
}

TEST(LocalRateStoreTest, AFullStoreAdmitsNewKeysWhenTold) {
  SteadyTime now = start_time;
  LocalRateStore store({.keys_max = 1, .admit_when_full = true});
  const RateRule rule(limit_of(RateAlgorithm::token_bucket, 1, 1s));
  ASSERT_TRUE(store.take(key_of("a"), rule, 1, now).admitted());
  EXPECT_EQ(store.take(key_of("b"), rule, 1, now).outcome, Outcome::admitted_unavailable);
}

TEST(LocalRateStoreTest, FloodsOfKeysStayWithinTheBoundAndLoseNoCount) {
  const std::uint64_t seed = spillway::testing::seed_or(7);
  SCOPED_TRACE(spillway::testing::seed_note(seed));
  std::mt19937_64 random(seed);
  SteadyTime now = start_time;
  LocalRateStore store({.keys_max = 1'000});
  const RateLimit limit = limit_of(RateAlgorithm::token_bucket, 3, 1s);
  const RateRule rule(limit);
  std::map<int, Model> models;
  for (int i = 0; i < 200'000; ++i) {
    now += std::chrono::nanoseconds(random() % 400'000);
    const int key = static_cast<int>(random() % 3'000);
    const RateDecision decision = store.take(key_of(std::to_string(key)), rule, 1, now);
    Model& model = models.try_emplace(key, limit, rule).first->second;
    const bool fits = model.fits(1, now.time_since_epoch().count());
    if (decision.outcome == Outcome::denied_unavailable) continue;
    ASSERT_EQ(decision.admitted(), fits) << "request " << i;
    if (fits) model.take(1, now.time_since_epoch().count());
  }
  EXPECT_LE(store.keys(), 1'000U + 1'000U / 8);
  EXPECT_GT(store.turned_away(), 0U);
}

TEST(LocalRateStoreTest, ThreadsTogetherAreAdmittedExactlyTheLimit) {
  SteadyTime now = start_time;
  LocalRateStore store;
  for (const auto algorithm :
       {RateAlgorithm::token_bucket, RateAlgorithm::fixed_window, RateAlgorithm::sliding_window}) {
    const RateRule rule(limit_of(algorithm, 10'000, 60s));
    const std::string name(to_string(algorithm));
    std::atomic<int> admitted{0};
    const auto work = [&] {
      for (int i = 0; i < 8'000; ++i) {
        const RateDecision decision = store.take(key_of(name), rule, 1, now);
        if (!decision.admitted()) continue;
        if (i % 16 == 0) {
          store.give_back(key_of(name), rule, 1, decision.receipt, now);
        } else {
          admitted.fetch_add(1);
        }
      }
    };
    std::thread other(work);
    work();
    other.join();
    while (store.take(key_of(name), rule, 1, now).admitted()) ++admitted;
    EXPECT_EQ(admitted.load(), 10'000) << name;
  }
}

// ---- Keys ----

TEST(RateKeyTest, SipHashIsThatOfOpenSsl) {
  const detail::Hash128 key{0x0706050403020100U, 0x0f0e0d0c0b0a0908U};
  EVP_MAC* const mac = EVP_MAC_fetch(nullptr, "SIPHASH", nullptr);
  ASSERT_NE(mac, nullptr);
  std::string text;
  for (int size = 0; size < 70; ++size) {
    for (const auto& [c, d] : {std::pair{2U, 4U}, std::pair{1U, 3U}}) {
      EVP_MAC_CTX* const context = EVP_MAC_CTX_new(mac);
      unsigned compression = c;
      unsigned finalization = d;
      std::size_t bytes = 16;
      const OSSL_PARAM params[] = {OSSL_PARAM_construct_size_t("size", &bytes),
                                   OSSL_PARAM_construct_uint("c-rounds", &compression),
                                   OSSL_PARAM_construct_uint("d-rounds", &finalization),
                                   OSSL_PARAM_construct_end()};
      detail::Hash128 expected;
      ASSERT_EQ(
          EVP_MAC_init(context, reinterpret_cast<const unsigned char*>(&key), sizeof key, params),
          1);
      EVP_MAC_update(context, reinterpret_cast<const unsigned char*>(text.data()), text.size());
      ASSERT_EQ(EVP_MAC_final(context, reinterpret_cast<unsigned char*>(&expected), &bytes, bytes),
                1);
      EVP_MAC_CTX_free(context);
      EXPECT_EQ(c == 2 ? (detail::siphash128<2, 4>(key, text)) : detail::siphash128(key, text),
                expected)
          << size << " bytes, " << c << " rounds";
    }
    text += static_cast<char>(size * 7);
  }
  EVP_MAC_free(mac);
}

TEST(RateKeyTest, NoValueImitatesAnotherKey) {
  const auto key = [](std::string_view tenant, std::string_view user) {
    RateKey made("api");
    made.add("tenant", tenant);
    made.add("user", user);
    return made;
  };
  const std::vector<RateKey> keys{key("a", "b"),           key("a|user=b", ""),
                                  key("", "a|user=b"),     key("", ""),
                                  key("a%7Cuser=b", ""),   key("ab", ""),
                                  key("", "ab"),           key(std::string_view("a\0", 2), "b"),
                                  key("a\n", "b"),         key_of("a"),
                                  RateKey("api|tenant=a"), RateKey("api")};
  for (std::size_t i = 0; i < keys.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      EXPECT_NE(keys[i].hash(), keys[j].hash()) << i << ", " << j;
      EXPECT_NE(keys[i].text(), keys[j].text()) << i << ", " << j;
    }
  }
  EXPECT_EQ(keys[0].text(), "api|tenant=a|user=b");
  EXPECT_EQ(keys[1].text(), "api|tenant=a%7Cuser%3Db|user=");
}

TEST(RateKeyTest, ASecretStandsInNoText) {
  RateKey key("api");
  key.add("key", "canary-secret", true);
  EXPECT_EQ(key.text().find("canary"), std::string::npos);
  EXPECT_EQ(key.text().size(), std::string("api|key=").size() + 32);
  EXPECT_NE(key.text("pepper"), key.text());
  EXPECT_NE(key.text("pepper"), key.text("salt"));
  EXPECT_EQ(key.text("pepper"), key.text("pepper"));
}

TEST(RateKeyTest, LongValuesAreCutToADigestAndStayApart) {
  const std::string a = std::string(5'000, 'x') + "a";
  const std::string b = std::string(5'000, 'x') + "b";
  EXPECT_EQ(key_of(a).text().size(), RateKey::text_bytes_max);
  EXPECT_NE(key_of(a).text(), key_of(b).text());
  EXPECT_NE(key_of(a).hash(), key_of(b).hash());
  RateKey many("api");
  for (std::size_t i = 0; i < RateKey::fields_max; ++i) EXPECT_TRUE(many.add(a, b));
  EXPECT_FALSE(many.add("one", "too many"));
  EXPECT_EQ(many.text().size(), RateKey::text_bytes_max);
  many.hash();
}

TEST(RateKeyTest, AddressesAreTextsForPeople) {
  const auto address = IpAddress::parse("2001:db8::1");
  RateKey key("api");
  key.add("client_ip", *address);
  EXPECT_EQ(key.text(), "api|client_ip=2001:db8::1");
}

TEST(LocalStoreOptionsTest, AStoreForNoKeysIsRefused) {
  EXPECT_THROW(LocalRateStore({.keys_max = 0}), std::invalid_argument);
  EXPECT_THROW(LocalRateStore({.keys_max = (std::size_t{1} << 24) + 1}), std::invalid_argument);
}

// ---- Addresses ----

std::string parsed(std::string_view text) {
  const auto address = IpAddress::parse(text);
  return address ? address->text() : "none";
}

TEST(IpAddressTest, EveryFormOfOneAddressIsTheSame) {
  for (const char* const form :
       {"203.0.113.7", "203.0.113.7:4711", "::ffff:203.0.113.7", " 203.0.113.7 ", "\"203.0.113.7\"",
        "[::ffff:203.0.113.7]:80", "::FFFF:CB00:7107"}) {
    EXPECT_EQ(parsed(form), "203.0.113.7") << form;
  }
  for (const char* const form :
       {"2001:db8::1", "[2001:db8::1]", "[2001:db8::1]:443", "\"[2001:DB8:0::1]:443\"",
        "2001:0db8:0000:0000:0000:0000:0000:0001", "2001:db8::1%eth0"}) {
    EXPECT_EQ(parsed(form), "2001:db8::1") << form;
  }
}

TEST(IpAddressTest, WhatIsNoAddressIsNone) {
  for (const char* const form :
       {"",         " ",         "unknown",       "_hidden",   "1.2.3",         "1.2.3.4.5",
        "01.2.3.4", "256.1.1.1", "1.2.3.4:",      "1.2.3.4:x", "1.2.3.4:65536", "1.2.3.4:-1",
        "[::1",     "::1]",      "[::1]x",        "[::1]:",    "[1.2.3.4]",     "1:2",
        "0x7f.1",   "127.1",     "2001:db8::1::2"}) {
    EXPECT_EQ(parsed(form), "none") << form;
  }
  EXPECT_EQ(parsed(std::string_view("1.2.3.4\0", 8)), "none");
}

TEST(IpAddressTest, PrefixesKeepTheirBits) {
  EXPECT_EQ(IpAddress::parse("203.0.113.77")->prefix(24, 64).text(), "203.0.113.0");
  EXPECT_EQ(IpAddress::parse("203.0.113.77")->prefix(32, 0).text(), "203.0.113.77");
  EXPECT_EQ(IpAddress::parse("203.0.113.255")->prefix(29, 0).text(), "203.0.113.248");
  EXPECT_EQ(IpAddress::parse("2001:db8:1:2:3:4:5:6")->prefix(24, 64).text(), "2001:db8:1:2::");
  EXPECT_EQ(IpAddress::parse("2001:db8:1:2ff:3:4:5:6")->prefix(24, 60).text(), "2001:db8:1:2f0::");
  EXPECT_EQ(IpAddress::parse("2001:db8::1")->prefix(0, 0).text(), "::");
}

TEST(IpAddressTest, NetworksContainTheirAddresses) {
  const auto contains = [](std::string_view network, std::string_view address) {
    return IpNetwork::parse(network)->contains(*IpAddress::parse(address));
  };
  EXPECT_TRUE(contains("10.0.0.0/8", "10.255.1.2"));
  EXPECT_FALSE(contains("10.0.0.0/8", "11.0.0.1"));
  EXPECT_TRUE(contains("10.0.0.0/8", "::ffff:10.1.1.1"));
  EXPECT_TRUE(contains("192.0.2.128/25", "192.0.2.129"));
  EXPECT_FALSE(contains("192.0.2.128/25", "192.0.2.127"));
  EXPECT_TRUE(contains("192.0.2.1", "192.0.2.1"));
  EXPECT_FALSE(contains("192.0.2.1", "192.0.2.2"));
  EXPECT_TRUE(contains("2001:db8::/32", "2001:db8:ffff::1"));
  EXPECT_FALSE(contains("2001:db8::/32", "2001:db9::"));
  EXPECT_TRUE(contains("0.0.0.0/0", "1.2.3.4"));
  EXPECT_FALSE(contains("0.0.0.0/0", "2001:db8::1"));
  EXPECT_TRUE(contains("::/0", "1.2.3.4"));
  EXPECT_TRUE(contains("::ffff:10.0.0.0/104", "10.255.1.2"));
  EXPECT_FALSE(contains("::ffff:10.0.0.0/104", "11.0.0.1"));
  for (const char* const wrong :
       {"", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/", "10.0.0.0/8x", "::/129", "10.0.0.0:80/8",
        "[::1]/128", "host/8", "fe80::1%eth0/64", "::ffff:10.0.0.0/8", "::ffff:10.0.0.0/95"}) {
    EXPECT_FALSE(IpNetwork::parse(wrong).has_value()) << wrong;
  }
}

TEST(IpAddressTest, ForwardedForIsReadFromTheRightAndOnlyFromTrustedPeers) {
  const std::vector<IpNetwork> trusted{*IpNetwork::parse("10.0.0.0/8"),
                                       *IpNetwork::parse("fd00::/8")};
  const auto client = [&](std::string_view peer, std::string_view forwarded) {
    const auto address = client_address(peer, forwarded, trusted);
    return address ? address->text() : "none";
  };
  EXPECT_EQ(client("203.0.113.9", "1.1.1.1"), "203.0.113.9") << "a stranger says what it likes";
  EXPECT_EQ(client("10.0.0.1", ""), "10.0.0.1");
  EXPECT_EQ(client("10.0.0.1", "198.51.100.4"), "198.51.100.4");
  EXPECT_EQ(client("10.0.0.1", "6.6.6.6, 198.51.100.4"), "198.51.100.4")
      << "the client made up the first";
  EXPECT_EQ(client("10.0.0.1", "6.6.6.6, 198.51.100.4, 10.2.2.2"), "198.51.100.4");
  EXPECT_EQ(client("10.0.0.1", "6.6.6.6,198.51.100.4:99 ,10.2.2.2"), "198.51.100.4");
  EXPECT_EQ(client("::ffff:10.0.0.1", "2001:db8::5, fd00::1"), "2001:db8::5");
  EXPECT_EQ(client("10.0.0.1", "10.9.9.9, 10.8.8.8"), "10.9.9.9") << "only proxies";
  EXPECT_EQ(client("10.0.0.1", "198.51.100.4, unknown"), "10.0.0.1")
      << "no address: believed no further";
  EXPECT_EQ(client("10.0.0.1", "198.51.100.4, , "), "198.51.100.4");
  EXPECT_EQ(client("10.0.0.1", ",,,"), "10.0.0.1");
  EXPECT_EQ(client("", "198.51.100.4"), "none");
  std::string long_list = "198.51.100.4";
  for (int i = 0; i < 10'000; ++i) long_list += ", 10.0.0.2";
  EXPECT_EQ(client("10.0.0.1", long_list), "10.0.0.2");
  const std::array<std::string_view, 3> fields{"6.6.6.6", "198.51.100.4, 10.3.3.3", "10.2.2.2"};
  EXPECT_EQ(client_address("10.0.0.1", fields, trusted)->text(), "198.51.100.4");
  EXPECT_EQ(client_address("10.0.0.1", std::span<const std::string_view>{}, trusted)->text(),
            "10.0.0.1");
  EXPECT_EQ(client_address("10.0.0.1", "198.51.100.4", {})->text(), "10.0.0.1")
      << "nobody is trusted";
}

}  // namespace
}  // namespace spillway::middleware
