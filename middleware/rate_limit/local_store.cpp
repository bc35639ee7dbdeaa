// SPDX-License-Identifier: Apache-2.0
#include <chrono>

#include <spillway/middleware/rate_limit/local_store.hpp>
#include <spillway/middleware/resilience/settings.hpp>

namespace spillway::middleware {

void LocalRateStoreOptions::check() const {
  SettingsCheck("the local store of rate limits")
      .within("keys_max", keys_max, std::size_t{1}, std::size_t{1} << 24)
      .done();
}

LocalRateStore::LocalRateStore(LocalRateStoreOptions options)
    : options_((options.check(), options)), table_(options_.keys_max) {
  detail::process_hash_key();  // So that no decision is the first to ask the system for it.
}

namespace {
std::int64_t ns_of(SteadyTime time) noexcept {
  return std::chrono::nanoseconds(time.time_since_epoch()).count();
}
}  // namespace

RateDecision LocalRateStore::take(const RateKey& key, const detail::RateRule& rule,
                                  std::int64_t permits, SteadyTime time) noexcept {
  const std::int64_t now = ns_of(time);
  return table_.visit(key.hash(), now, [&](Entry* entry) -> RateDecision {
    if (entry != nullptr) [[likely]]
      return detail::take(*entry, rule, permits, now);
    turned_away_.fetch_add(1, std::memory_order_relaxed);
    const auto outcome = options_.admit_when_full ? RateDecision::Outcome::admitted_unavailable
                                                  : RateDecision::Outcome::denied_unavailable;
    return {outcome, rule.capacity, 0, 0, rule.window_ns, 0};
  });
}

void LocalRateStore::give_back(const RateKey& key, const detail::RateRule& rule,
                               std::int64_t permits, std::int64_t receipt,
                               SteadyTime time) noexcept {
  if (receipt == 0) return;
  const std::int64_t now = ns_of(time);
  table_.visit_present(key.hash(), [&](Entry* entry) {
    if (entry != nullptr) detail::give_back(*entry, rule, permits, receipt, now);
  });
}

}  // namespace spillway::middleware
