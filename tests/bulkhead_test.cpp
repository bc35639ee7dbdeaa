// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <atomic>
#include <deque>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <support/seed.hpp>

#include <spillway/middleware/resilience/bulkhead.hpp>

namespace spillway::middleware {
namespace {

using namespace std::chrono_literals;
using Permit = Bulkhead::Permit;

constexpr SteadyTime t0{1000s};

/// Keeps what it is told.
class Listener final : public Bulkhead::Waiter {
 public:
  std::optional<Permit> permit;
  BulkheadRefusal refusal = BulkheadRefusal::none;
  int told = 0;

 private:
  void granted(Permit given) noexcept override {
    permit = std::move(given);
    ++told;
  }
  void refused(BulkheadRefusal reason) noexcept override {
    refusal = reason;
    ++told;
  }
};

std::vector<Permit> take(Bulkhead& bulkhead, std::string_view tenant, int count) {
  std::vector<Permit> permits;
  for (int i = 0; i < count; ++i) permits.push_back(bulkhead.try_acquire(tenant, t0));
  return permits;
}

TEST(BulkheadTest, LetsExactlySoManyIn) {
  Bulkhead bulkhead({.concurrency_max = 3});
  auto permits = take(bulkhead, "", 3);
  for (const Permit& permit : permits) EXPECT_TRUE(permit);
  EXPECT_EQ(bulkhead.in_flight(), 3U);
  EXPECT_EQ(bulkhead.try_acquire("", t0).refusal(), BulkheadRefusal::full);
  permits.pop_back();
  EXPECT_TRUE(bulkhead.try_acquire("", t0));
  permits.clear();
  EXPECT_EQ(bulkhead.in_flight(), 0U);
}

TEST(BulkheadTest, ATenantAtItsLimitTakesNothingFromOthers) {
  Bulkhead bulkhead({.concurrency_max = 4, .concurrency_per_tenant_max = 2});
  const auto acme = take(bulkhead, "acme", 2);
  for (int i = 0; i < 100; ++i)
    EXPECT_EQ(bulkhead.try_acquire("acme", t0).refusal(), BulkheadRefusal::tenant_full);
  EXPECT_EQ(bulkhead.in_flight(), 2U);
  const auto globex = take(bulkhead, "globex", 2);
  EXPECT_TRUE(globex[1]);
  // All is full: the third tenant keeps nothing of its own.
  EXPECT_EQ(bulkhead.try_acquire("initech", t0).refusal(), BulkheadRefusal::full);
  EXPECT_EQ(bulkhead.in_flight(), 4U);
}

TEST(BulkheadTest, ARefusedRequestGivesItsTenantsPermitBack) {
  Bulkhead bulkhead({.concurrency_max = 2, .concurrency_per_tenant_max = 2});
  auto acme = take(bulkhead, "acme", 2);
  for (int i = 0; i < 10; ++i) EXPECT_FALSE(bulkhead.try_acquire("globex", t0));
  acme.clear();
  const auto globex = take(bulkhead, "globex", 2);
  EXPECT_TRUE(globex[0]);
  EXPECT_TRUE(globex[1]);
}

TEST(BulkheadTest, PermitsAreMovedAndGivenBackOnce) {
  Bulkhead bulkhead({.concurrency_max = 1});
  Permit first = bulkhead.try_acquire("", t0);
  Permit second = std::move(first);
  EXPECT_FALSE(first);  // NOLINT(bugprone-use-after-move): that is what is tested
  EXPECT_TRUE(second);
  first.give_back();
  EXPECT_EQ(bulkhead.in_flight(), 1U);
  second.give_back();
  second.give_back();
  EXPECT_EQ(bulkhead.in_flight(), 0U);
  second = bulkhead.try_acquire("", t0);
  second = Permit();
  EXPECT_EQ(bulkhead.in_flight(), 0U);
}

TEST(BulkheadTest, WaitersAreServedInTheOrderInWhichTheyCame) {
  Bulkhead bulkhead({.concurrency_max = 1});
  Permit first = bulkhead.try_acquire("", t0);
  Listener a;
  Listener b;
  EXPECT_EQ(bulkhead.acquire(a, "", t0).refusal(), BulkheadRefusal::waiting);
  EXPECT_EQ(bulkhead.acquire(b, "", t0).refusal(), BulkheadRefusal::waiting);
  EXPECT_EQ(bulkhead.waiting(), 2U);
  first.give_back();
  ASSERT_TRUE(a.permit);
  EXPECT_FALSE(b.permit);
  EXPECT_FALSE(bulkhead.try_acquire("", t0));  // Nobody passes b.
  a.permit.reset();
  ASSERT_TRUE(b.permit);
  b.permit.reset();
  EXPECT_EQ(bulkhead.in_flight(), 0U);
  EXPECT_EQ(a.told + b.told, 2);
}

TEST(BulkheadTest, AWaitingTenantAtItsLimitDoesNotHoldUpOthers) {
  Bulkhead bulkhead({.concurrency_max = 3, .concurrency_per_tenant_max = 1});
  Permit acme = bulkhead.try_acquire("acme", t0);
  Listener second_of_acme;
  EXPECT_EQ(bulkhead.acquire(second_of_acme, "acme", t0).refusal(), BulkheadRefusal::waiting);
  Permit globex = bulkhead.try_acquire("globex", t0);
  EXPECT_TRUE(globex);
  Listener third;
  EXPECT_TRUE(bulkhead.acquire(third, "initech", t0));
  EXPECT_FALSE(second_of_acme.permit);
  acme.give_back();
  EXPECT_TRUE(second_of_acme.permit);
}

TEST(BulkheadTest, TheQueueIsBoundedInAllAndByTenant) {
  Bulkhead bulkhead({.concurrency_max = 1,
                     .concurrency_per_tenant_max = 1,
                     .queue_max = 3,
                     .queue_per_tenant_max = 2});
  Permit held = bulkhead.try_acquire("globex", t0);
  Listener acme[3];
  EXPECT_EQ(bulkhead.acquire(acme[0], "acme", t0).refusal(), BulkheadRefusal::waiting);
  EXPECT_EQ(bulkhead.acquire(acme[1], "acme", t0).refusal(), BulkheadRefusal::waiting);
  EXPECT_EQ(bulkhead.acquire(acme[2], "acme", t0).refusal(), BulkheadRefusal::tenant_queue_full);
  Listener others[2];
  EXPECT_EQ(bulkhead.acquire(others[0], "initech", t0).refusal(), BulkheadRefusal::waiting);
  EXPECT_EQ(bulkhead.acquire(others[1], "hooli", t0).refusal(), BulkheadRefusal::queue_full);
  EXPECT_EQ(acme[2].told + others[1].told, 0);
  for (Listener* waiter : {&acme[0], &acme[1], &others[0]}) EXPECT_TRUE(bulkhead.cancel(*waiter));
}

TEST(BulkheadTest, WaitersAreRefusedWhenTheirTimeIsOver) {
  Bulkhead bulkhead({.concurrency_max = 1, .wait_max = 100ms});
  Permit held = bulkhead.try_acquire("", t0);
  Listener patient;
  Listener hurried;
  EXPECT_EQ(bulkhead.acquire(patient, "", t0).refusal(), BulkheadRefusal::waiting);
  EXPECT_EQ(bulkhead.acquire(hurried, "", t0, t0 + 50ms).refusal(), BulkheadRefusal::waiting);
  bulkhead.expire(t0 + 49ms);
  EXPECT_EQ(hurried.told, 0);
  bulkhead.expire(t0 + 50ms);
  EXPECT_EQ(hurried.refusal, BulkheadRefusal::timed_out);
  EXPECT_EQ(patient.told, 0);
  // The next one that finds no permit looks too.
  Listener next;
  EXPECT_EQ(bulkhead.acquire(next, "", t0 + 100ms).refusal(), BulkheadRefusal::waiting);
  EXPECT_EQ(patient.refusal, BulkheadRefusal::timed_out);
  // No permit was lost on them.
  held.give_back();
  EXPECT_TRUE(next.permit);
  next.permit.reset();
  EXPECT_EQ(bulkhead.in_flight(), 0U);
}

TEST(BulkheadTest, ACancelledWaiterHearsNothingAndCostsNoPermit) {
  Bulkhead bulkhead({.concurrency_max = 1, .concurrency_per_tenant_max = 1});
  Permit held = bulkhead.try_acquire("acme", t0);
  Listener waiter;
  EXPECT_EQ(bulkhead.acquire(waiter, "acme", t0).refusal(), BulkheadRefusal::waiting);
  EXPECT_TRUE(bulkhead.cancel(waiter));
  EXPECT_FALSE(bulkhead.cancel(waiter));
  held.give_back();
  EXPECT_EQ(waiter.told, 0);
  EXPECT_EQ(bulkhead.in_flight(), 0U);
  EXPECT_TRUE(bulkhead.try_acquire("acme", t0));
}

TEST(BulkheadTest, WithoutAQueueOrTimeNobodyWaits) {
  Bulkhead no_queue({.concurrency_max = 1, .queue_max = 0});
  Bulkhead no_time({.concurrency_max = 1, .wait_max = 0ms});
  for (Bulkhead* bulkhead : {&no_queue, &no_time}) {
    Permit held = bulkhead->try_acquire("", t0);
    EXPECT_EQ(bulkhead->acquire("", t0).refusal(), BulkheadRefusal::full);
  }
  Bulkhead bulkhead({.concurrency_max = 1});
  Permit held = bulkhead.try_acquire("", t0);
  EXPECT_EQ(bulkhead.acquire("", t0, t0).refusal(), BulkheadRefusal::full);  // past its deadline
}

TEST(BulkheadTest, AThreadThatWaitsInVainIsRefused) {
  Bulkhead bulkhead({.concurrency_max = 1, .wait_max = 1ms});
  Permit held = bulkhead.try_acquire("", t0);
  EXPECT_EQ(bulkhead.acquire("", t0).refusal(), BulkheadRefusal::timed_out);
  EXPECT_EQ(bulkhead.waiting(), 0U);
}

TEST(BulkheadTest, AThreadThatWaitsGetsThePermitThatIsGivenBack) {
  Bulkhead bulkhead({.concurrency_max = 1, .wait_max = 60'000ms});
  Permit held = bulkhead.try_acquire("", t0);
  std::thread other([&] { EXPECT_TRUE(bulkhead.acquire("", t0)); });
  while (bulkhead.waiting() == 0) std::this_thread::yield();
  held.give_back();
  other.join();
  EXPECT_EQ(bulkhead.in_flight(), 0U);
}

TEST(BulkheadTest, TenantsBeyondTheTableShareOnesPermits) {
  Bulkhead bulkhead(
      {.concurrency_max = 1000, .concurrency_per_tenant_max = 1, .tenants = {.keys_max = 16}});
  std::vector<Permit> permits;
  int granted = 0;
  for (int i = 0; i < 1000; ++i) {
    permits.push_back(bulkhead.try_acquire("tenant-" + std::to_string(i), t0));
    granted += permits.back() ? 1 : 0;
  }
  EXPECT_LE(granted, 17);
  EXPECT_GE(granted, 10);
}

TEST(BulkheadTest, ATenantWithPermitsOutKeepsItsPlace) {
  Bulkhead bulkhead({.concurrency_max = 100,
                     .concurrency_per_tenant_max = 1,
                     .tenants = {.keys_max = 16, .idle_after = 60s}});
  std::vector<Permit> permits;
  for (int i = 0; i < 16; ++i)
    permits.push_back(bulkhead.try_acquire("tenant-" + std::to_string(i), t0));
  for (int i = 16; i < 100; ++i)
    static_cast<void>(bulkhead.try_acquire("tenant-" + std::to_string(i), t0 + 1h));
  for (int i = 0; i < 16; ++i) {
    if (permits[static_cast<std::size_t>(i)]) {
      EXPECT_FALSE(bulkhead.try_acquire("tenant-" + std::to_string(i), t0 + 1h)) << i;
    }
  }
}

TEST(BulkheadTest, OptionsThatCannotWorkAreAllNamed) {
  try {
    Bulkhead bulkhead({.concurrency_max = 0,
                       .queue_max = 20'000,
                       .tenants = {.idle_after = std::chrono::seconds(0)}});
    FAIL();
  } catch (const std::invalid_argument& error) {
    const std::string what = error.what();
    EXPECT_NE(what.find("concurrency_max = 0: allowed are 1 to"), std::string::npos) << what;
    EXPECT_NE(what.find("queue_max = 20000"), std::string::npos) << what;
    EXPECT_NE(what.find("tenants.idle_after (ms) = 0"), std::string::npos) << what;
  }
}

// ---- Against a model, and with threads ----

TEST(BulkheadModelTest, RandomStepsAgreeWithAQueueInOrder) {
  const std::uint64_t seed = spillway::testing::seed_or(7);
  SCOPED_TRACE(spillway::testing::seed_note(seed));
  std::mt19937_64 random(seed);
  constexpr std::uint32_t all = 5;
  constexpr std::uint32_t each = 2;
  Bulkhead bulkhead({.concurrency_max = all,
                     .concurrency_per_tenant_max = each,
                     .queue_max = 1000,
                     .queue_per_tenant_max = 1000});
  const std::string tenants[] = {"a", "b", "c", "d"};
  struct Request {
    std::size_t tenant;
    Listener listener;
    Permit permit;
    bool holds() const { return permit || (listener.permit && *listener.permit); }
  };
  std::deque<std::unique_ptr<Request>> requests;  // in order of their coming
  std::deque<Request*> model_queue;
  std::vector<Request*> model_in;
  const auto may_run = [&](std::size_t tenant) {
    std::uint32_t of_tenant = 0;
    for (const Request* in : model_in) of_tenant += in->tenant == tenant ? 1 : 0;
    return model_in.size() < all && of_tenant < each;
  };
  const auto serve = [&] {
    for (auto it = model_queue.begin(); it != model_queue.end();) {
      if (!may_run((*it)->tenant)) {
        ++it;
        continue;
      }
      model_in.push_back(*it);
      it = model_queue.erase(it);
    }
  };
  for (int step = 0; step < 20'000; ++step) {
    const auto dice = random() % 10;
    if (dice < 5) {
      auto request = std::make_unique<Request>();
      request->tenant = random() % 4;
      request->permit = bulkhead.acquire(request->listener, tenants[request->tenant], t0);
      model_queue.push_back(request.get());
      serve();
      requests.push_back(std::move(request));
    } else if (!requests.empty()) {
      const auto at = static_cast<std::ptrdiff_t>(random() % requests.size());
      Request& request = **(requests.begin() + at);
      const bool runs = std::erase(model_in, &request) != 0;
      if (!runs) {
        ASSERT_TRUE(bulkhead.cancel(request.listener));
        std::erase(model_queue, &request);
      }
      serve();
      requests.erase(requests.begin() + at);
    }
    for (const auto& request : requests) {
      const bool runs =
          std::find(model_in.begin(), model_in.end(), request.get()) != model_in.end();
      ASSERT_EQ(request->holds(), runs) << step;
    }
    ASSERT_EQ(bulkhead.in_flight(), model_in.size()) << step;
    ASSERT_EQ(bulkhead.waiting(), model_queue.size()) << step;
  }
  while (!requests.empty()) {
    bulkhead.cancel(requests.back()->listener);
    requests.pop_back();
  }
  EXPECT_EQ(bulkhead.in_flight(), 0U);
}

TEST(BulkheadStressTest, NeverMoreThanTheLimitAndNoPermitIsLost) {
  constexpr int limit = 3;
  Bulkhead bulkhead({.concurrency_max = limit,
                     .concurrency_per_tenant_max = 2,
                     .queue_max = 4,
                     .queue_per_tenant_max = 2,
                     .wait_max = 1ms});
  std::atomic<int> inside{0};
  std::atomic<int> too_many{0};
  std::atomic<int> granted{0};
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 6; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(t);
      for (int i = 0; i < 3000; ++i) {
        const std::string_view tenant = random() % 2 == 0 ? "acme" : "globex";
        const SteadyTime now = std::chrono::steady_clock::now();
        Permit permit =
            random() % 4 == 0 ? bulkhead.try_acquire(tenant, now) : bulkhead.acquire(tenant, now);
        if (!permit) continue;
        granted.fetch_add(1);
        if (inside.fetch_add(1) >= limit) too_many.fetch_add(1);
        if (random() % 8 == 0) std::this_thread::yield();
        inside.fetch_sub(1);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(too_many.load(), 0);
  EXPECT_GT(granted.load(), 0);
  EXPECT_EQ(bulkhead.in_flight(), 0U);
  EXPECT_EQ(bulkhead.waiting(), 0U);
  const auto all = take(bulkhead, "acme", 2);
  EXPECT_TRUE(all[1]);
  EXPECT_TRUE(bulkhead.try_acquire("globex", t0));
}

// One permit goes from hand to hand: a wake-up that is lost would leave its waiter until the time
// is over, which is a minute here.
TEST(BulkheadStressTest, NoWakeUpIsLost) {
  Bulkhead bulkhead({.concurrency_max = 1, .wait_max = 60'000ms});
  std::atomic<int> granted{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 2000; ++i) {
        if (bulkhead.acquire("", std::chrono::steady_clock::now())) granted.fetch_add(1);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(granted.load(), 8000);
}

}  // namespace
}  // namespace spillway::middleware
