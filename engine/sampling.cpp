// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <bit>
#include <utility>

#include <spillway/engine/sampling.hpp>
#include <spillway/transport/text.hpp>

namespace spillway::detail {

using transport::to_lower;

namespace {

// Where the character behind the one at `at` begins, in UTF-8.
std::size_t next_character(std::string_view text, std::size_t at) noexcept {
  ++at;
  while (at < text.size() && (static_cast<unsigned char>(text[at]) & 0xC0U) == 0x80U) ++at;
  return at;
}

}  // namespace

// Goes back to the last star only: what an earlier one matched could be longer, but then the last one
// would have to match less.
bool matches_wildcard(std::string_view pattern, std::string_view text) noexcept {
  constexpr std::size_t none = std::string_view::npos;
  std::size_t p = 0;
  std::size_t t = 0;
  std::size_t after_star = none;  // where to go on when a match fails
  std::size_t star_text = 0;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      after_star = ++p;
      star_text = t;
    } else if (p < pattern.size() && pattern[p] == '?') {
      ++p;
      t = next_character(text, t);
    } else if (p < pattern.size() && to_lower(pattern[p]) == to_lower(text[t])) {
      ++p;
      ++t;
    } else if (after_star != none) {
      p = after_star;
      t = star_text = next_character(text, star_text);
    } else {
      return false;
    }
  }
  return p >= pattern.size() || pattern.find_first_not_of('*', p) == none;
}

namespace {

// A value that is not known is matched by any pattern.
bool matches(std::string_view pattern, std::string_view text) noexcept {
  return text.empty() || pattern == "*" || matches_wildcard(pattern, text);
}

}  // namespace

// ---- RuleState ----

bool RuleState::decide(std::uint32_t second, double draw) noexcept {
  const std::uint64_t quota = quota_.load(std::memory_order_relaxed);
  bool sampled = false;
  bool borrowed = false;
  if ((quota & 0xFFFFFFFFU) >= second) {
    sampled = taken_.take(static_cast<std::uint32_t>(quota >> 32), second);
  } else if (may_borrow_.load(std::memory_order_relaxed)) {
    sampled = borrowed = borrowed_now_.take(1, second);
  }
  if (!sampled) {
    const std::uint64_t boost = boost_.load(std::memory_order_relaxed);
    const double rate =
        (boost & 0xFFFFFFFFU) >= second
            ? static_cast<double>(std::bit_cast<float>(static_cast<std::uint32_t>(boost >> 32)))
            : rate_.load(std::memory_order_relaxed);
    sampled = draw < rate;
  }
  if (name.empty()) return sampled;
  requests_.fetch_add(1, std::memory_order_relaxed);
  // Release: who takes these, acquiring, then finds the request too.
  if (sampled) sampled_.fetch_add(1, std::memory_order_release);
  if (borrowed) borrowed_.fetch_add(1, std::memory_order_release);
  return sampled;
}

void RuleState::count_kept() noexcept {
  if (!name.empty()) sampled_.fetch_add(1, std::memory_order_relaxed);
}

void RuleState::count_end(bool failed, bool sampled) noexcept {
  ended_.fetch_add(1, std::memory_order_relaxed);
  if (!failed) return;
  failed_.fetch_add(1, std::memory_order_release);
  if (sampled) failed_sampled_.fetch_add(1, std::memory_order_release);
}

void RuleState::set_boost(double rate, std::uint32_t last_second) noexcept {
  const auto bits = std::bit_cast<std::uint32_t>(static_cast<float>(rate));
  boost_.store(std::uint64_t{bits} << 32 | last_second, std::memory_order_relaxed);
}

SamplingCounts RuleState::take_counts() noexcept {
  const auto take = [](std::atomic<std::uint64_t>& count) {
    return count.exchange(0, std::memory_order_acquire);
  };
  // In the reverse of the order in which they are counted: never more sampled than requests.
  SamplingCounts counts;
  counts.failed_sampled = take(failed_sampled_);
  counts.failed = take(failed_);
  counts.ended = take(ended_);
  counts.borrowed = take(borrowed_);
  counts.sampled = take(sampled_);
  counts.requests = take(requests_);
  return counts;
}

void RuleState::put_back(const SamplingCounts& counts) noexcept {
  const auto add = [](std::atomic<std::uint64_t>& count, std::uint64_t more) {
    count.fetch_add(more, std::memory_order_relaxed);
  };
  add(requests_, counts.requests);
  add(sampled_, counts.sampled);
  add(borrowed_, counts.borrowed);
  add(ended_, counts.ended);
  add(failed_, counts.failed);
  add(failed_sampled_, counts.failed_sampled);
}

// ---- Sampler ----

Sampler::Sampler(Options options) : options_(std::move(options)) {
  for (const SamplingRule& rule : options_.local_rules) {
    RuleState& state = *local_states_.emplace_back(std::make_unique<RuleState>(rule.name));
    state.set_written_rate(rule.fixed_rate);
    state.set_quota(rule.reservoir, RuleState::never);
    local_.push_back({rule, &state});
  }
  if (options_.keep_per_second != 0) {
    last_sampled_ = std::make_unique<std::array<std::atomic<std::uint32_t>, operation_places>>();
  }
}

const Sampler::Rule* Sampler::first_match(const RuleSet& rules,
                                          const SamplingRequest& request) noexcept {
  const auto found = std::find_if(rules.begin(), rules.end(), [&](const Rule& rule) {
    return matches(rule.written.host, request.host) &&
           matches(rule.written.method, request.method) && matches(rule.written.path, request.path);
  });
  return found == rules.end() ? nullptr : &*found;
}

SamplingDecision Sampler::decide(const SamplingRequest& request, std::uint32_t operation,
                                 std::uint32_t second, double draw) noexcept {
  SamplingDecision decision;
  if (!central_.empty()) {
    const auto central = central_.read();
    const Rule* const rule =
        central.get() == nullptr ? nullptr : first_match(*central.get(), request);
    if (rule != nullptr) {
      decision.rule = rule->state;
      decision.watched = rule->written.boosts;
    }
  }
  if (decision.rule == nullptr) {
    const Rule* const rule = first_match(local_, request);
    if (rule == nullptr) return decision;
    decision.rule = rule->state;
  }
  decision.sampled = decision.rule->decide(second, draw);
  if (last_sampled_ == nullptr) return decision;
  if (decision.sampled) {
    std::atomic<std::uint32_t>& last = (*last_sampled_)[operation % operation_places];
    if (last.load(std::memory_order_relaxed) != second) {
      last.store(second, std::memory_order_relaxed);
    }
  } else if (is_rare(operation, second)) {
    decision.sampled = decision.rare = true;
    decision.rule->count_kept();
  } else {
    decision.watched = true;
  }
  return decision;
}

bool Sampler::is_rare(std::uint32_t operation, std::uint32_t second) noexcept {
  std::atomic<std::uint32_t>& last = (*last_sampled_)[operation % operation_places];
  std::uint32_t seen = last.load(std::memory_order_relaxed);
  // Also after a clock that was set back.
  if (seen != 0 && second - seen < rare_seconds) return false;
  if (!kept_.take(options_.keep_per_second, second)) return false;
  // One of those that find it rare at the same time.
  return last.compare_exchange_strong(seen, second, std::memory_order_relaxed);
}

bool Sampler::ended(const SamplingDecision& decision, bool failed, std::uint32_t second) noexcept {
  if (!decision.rule->name.empty()) decision.rule->count_end(failed, decision.sampled);
  return failed && !decision.sampled && kept_.take(options_.keep_per_second, second);
}

std::size_t Sampler::set_central_rules(std::vector<SamplingRule> rules) {
  auto set = std::make_unique<RuleSet>();
  std::size_t left_out = 0;
  std::sort(rules.begin(), rules.end(), [](const SamplingRule& a, const SamplingRule& b) {
    return std::pair(a.priority, std::string_view(a.name)) <
           std::pair(b.priority, std::string_view(b.name));
  });
  for (SamplingRule& rule : rules) {
    if (!matches(rule.service_name, options_.service_name) ||
        !matches(rule.service_type, options_.service_type)) {
      continue;
    }
    auto found = states_.find(rule.name);
    if (found == states_.end()) {
      if (states_.size() == rule_names_max) {
        ++left_out;
        continue;
      }
      found = states_.emplace(rule.name, std::make_unique<RuleState>(rule.name)).first;
    }
    RuleState& state = *found->second;
    state.set_written_rate(rule.fixed_rate);
    state.set_may_borrow(rule.reservoir > 0);
    set->push_back({std::move(rule), &state});
  }
  central_.publish(std::move(set));
  return left_out;
}

RuleState* Sampler::find(const std::string& name) noexcept {
  const auto found = states_.find(name);
  return found == states_.end() ? nullptr : found->second.get();
}

}  // namespace spillway::detail
