// SPDX-License-Identifier: Apache-2.0
//
// Which traces are recorded. Rules are asked where a trace begins here and nobody upstream has decided;
// the first one that matches decides, by X-Ray's algorithm:
//
//   reservoir    so many a second are always recorded. Of a central rule the service gives each
//                client a quota for some seconds; a client without one borrows one trace a second
//   fixed rate   of the others this share; the service may raise it for a while (boost)
//
// Central rules come from X-Ray; while there are none the local ones hold: a file, or trace_reservoir
// and trace_sample_rate. What the rules leave out is kept all the same, up to trace_keep_rare a second,
// when nothing of its operation was sampled for a minute, or when it fails: then as a segment without
// what is below it, because that was not recorded.
//
// Source: X-Ray developer guide, "Using sampling rules with the X-Ray API" and its worked example;
// sampling/* of the X-Ray Python SDK.
//
// Any thread asks: no lock, no allocation. Rules are replaced by one thread.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <spillway/buffers/cache_line.hpp>
#include <spillway/buffers/published.hpp>
#include <spillway/engine/span.hpp>

namespace spillway::detail {

/// A rule as it is written, in a file or in X-Ray. Patterns: `*` is any run of characters, `?` exactly
/// one; ASCII letters match in either case.
struct SamplingRule {
  std::string name{};         ///< empty: a local rule, which nobody hears of
  std::int64_t priority = 0;  ///< lower is asked first; of equals, the first by name
  double fixed_rate = 0;
  std::uint32_t reservoir = 0;
  std::string service_name = "*";
  std::string service_type = "*";
  std::string host = "*";
  std::string method = "*";
  std::string path = "*";
  bool boosts =
      false;  ///< the service raises the rate when requests fail, and wants to know of them

  friend bool operator==(const SamplingRule&, const SamplingRule&) = default;
};

bool matches_wildcard(std::string_view pattern, std::string_view text) noexcept;

/// Events of a second, up to a limit. Any thread.
class PerSecond {
 public:
  bool take(std::uint32_t limit, std::uint32_t second) noexcept {
    std::uint64_t used = used_.load(std::memory_order_relaxed);
    while (true) {
      const std::uint64_t count = used >> 32 == second ? used & 0xFFFFFFFFU : 0;
      if (count >= limit) return false;
      const std::uint64_t next = std::uint64_t{second} << 32 | (count + 1);
      if (used_.compare_exchange_weak(used, next, std::memory_order_relaxed)) return true;
    }
  }

 private:
  std::atomic<std::uint64_t> used_{0};  // the second, and how many of it
};

/// What a rule has come to since it was last reported. `sampled` includes `borrowed`.
struct SamplingCounts {
  std::uint64_t requests = 0;
  std::uint64_t sampled = 0;
  std::uint64_t borrowed = 0;
  // Of a rule with a boost: requests that ended, those that failed, and those of them that were
  // sampled.
  std::uint64_t ended = 0;
  std::uint64_t failed = 0;
  std::uint64_t failed_sampled = 0;

  /// Those of the boost alone, or the others alone.
  SamplingCounts part(bool of_boost) const noexcept {
    return of_boost ? SamplingCounts{0, 0, 0, ended, failed, failed_sampled}
                    : SamplingCounts{requests, sampled, borrowed, 0, 0, 0};
  }
};

/// What is known of a rule by its name, from one set of rules to the next: counts and what X-Ray gave.
/// Lives as long as its Sampler. Seconds are of the wall clock, since 1970.
class alignas(cache_line_bytes) RuleState {
 public:
  static constexpr std::uint32_t never = ~std::uint32_t{0};

  explicit RuleState(std::string rule_name) : name(std::move(rule_name)) {}

  // ---- any thread ----

  /// `draw` in [0, 1).
  bool decide(std::uint32_t second, double draw) noexcept;
  /// A request that the rule refused was sampled all the same.
  void count_kept() noexcept;
  /// A request that it was asked for has ended.
  void count_end(bool failed, bool sampled) noexcept;

  const std::string name;  ///< empty: nobody is told of its counts, and there are none

  // ---- one thread at a time ----

  /// The rule's own rate; what X-Ray gave in its place stays until the rule is changed.
  void set_written_rate(double rate) noexcept {
    if (std::exchange(written_rate_, rate) != rate) set_rate(rate);
  }
  void set_rate(double rate) noexcept { rate_.store(rate, std::memory_order_relaxed); }
  void set_quota(std::uint32_t quota, std::uint32_t last_second) noexcept {
    quota_.store(std::uint64_t{quota} << 32 | last_second, std::memory_order_relaxed);
  }
  void set_boost(double rate, std::uint32_t last_second) noexcept;
  void set_may_borrow(bool may) noexcept { may_borrow_.store(may, std::memory_order_relaxed); }
  SamplingCounts take_counts() noexcept;
  /// Counts that could not be reported.
  void put_back(const SamplingCounts& counts) noexcept;
  bool has_requests() const noexcept { return requests_.load(std::memory_order_relaxed) != 0; }

 private:
  double written_rate_ = -1;
  std::atomic<double> rate_{0};
  std::atomic<std::uint64_t> quota_{0};  // how many a second, and the last second that it holds for
  std::atomic<std::uint64_t> boost_{0};  // a float, and the last second that it holds for
  std::atomic<bool> may_borrow_{false};
  PerSecond taken_;
  PerSecond borrowed_now_;
  std::atomic<std::uint64_t> requests_{0};
  std::atomic<std::uint64_t> sampled_{0};
  std::atomic<std::uint64_t> borrowed_{0};
  std::atomic<std::uint64_t> ended_{0};
  std::atomic<std::uint64_t> failed_{0};
  std::atomic<std::uint64_t> failed_sampled_{0};
};

struct SamplingDecision {
  bool sampled = false;
  bool rare = false;     ///< sampled for being rare only
  bool watched = false;  ///< the sampler is to hear how the segment ends
  RuleState* rule =
      nullptr;  ///< that decided; null when none matches. Lives as long as the Sampler
};

class Sampler {
 public:
  struct Options {
    std::string service_name{};
    std::string service_type{};  ///< as a segment's origin; empty: not known
    /// In the order in which they are asked.
    std::vector<SamplingRule> local_rules{};
    /// Of what the rules leave out, at most so many a second are kept; 0: none.
    std::uint32_t keep_per_second = 0;
  };
  /// An operation of which nothing was sampled for so long is rare.
  static constexpr std::uint32_t rare_seconds = 60;
  /// Central rules known by name, those included that X-Ray has no more. Ours: a Region has 25 at
  /// first.
  static constexpr std::size_t rule_names_max = 4096;

  explicit Sampler(Options options);

  // ---- any thread ----

  /// operation   number of the root span's name
  /// second      of the wall clock, since 1970
  /// draw        in [0, 1)
  SamplingDecision decide(const SamplingRequest& request, std::uint32_t operation,
                          std::uint32_t second, double draw) noexcept;
  /// A watched segment ends. True: it was not sampled, and is to be recorded all the same.
  bool ended(const SamplingDecision& decision, bool failed, std::uint32_t second) noexcept;

  // ---- one thread at a time ----

  /// Replaces the central rules; those for other services are left out. Returns how many were left
  /// out because rule_names_max is reached.
  std::size_t set_central_rules(std::vector<SamplingRule> rules);
  /// From now on the local rules hold.
  void drop_central_rules() { central_.publish(nullptr); }
  /// The state of a central rule by its name; null when there is none.
  RuleState* find(const std::string& name) noexcept;
  /// Calls `visit(const SamplingRule&, RuleState&)` for the central rules that hold for this service.
  template <class Visit>
  void for_each_central(Visit&& visit) {
    if (const RuleSet* const rules = central_.get(); rules != nullptr) {
      for (const Rule& rule : *rules) visit(rule.written, *rule.state);
    }
  }
  void free_replaced_rules() { central_.free_unread(); }

 private:
  struct Rule {
    SamplingRule written;
    RuleState* state;
  };
  using RuleSet = std::vector<Rule>;
  static const Rule* first_match(const RuleSet& rules, const SamplingRequest& request) noexcept;
  bool is_rare(std::uint32_t operation, std::uint32_t second) noexcept;

  static constexpr std::size_t operation_places = 4096;

  const Options options_;
  RuleSet local_;
  std::vector<std::unique_ptr<RuleState>> local_states_;
  std::unordered_map<std::string, std::unique_ptr<RuleState>> states_;
  Published<RuleSet> central_;
  PerSecond kept_;
  /// By operation, the second in which it was last sampled. Two operations may share a place: then
  /// the two together are as rare as the commoner one. Null: nothing is kept.
  std::unique_ptr<std::array<std::atomic<std::uint32_t>, operation_places>> last_sampled_;
};

}  // namespace spillway::detail
