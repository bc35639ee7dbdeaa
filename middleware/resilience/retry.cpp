// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <ctime>

#include <curl/curl.h>

#include <spillway/middleware/resilience/retry.hpp>
#include <spillway/middleware/resilience/settings.hpp>
#include <spillway/transport/retry.hpp>
#include <spillway/transport/text.hpp>

namespace spillway::middleware {

using std::chrono::milliseconds;

std::string_view to_string(RetryReason reason) noexcept {
  switch (reason) {
    case RetryReason::retry:
      return "retry";
    case RetryReason::not_retryable:
      return "not_retryable";
    case RetryReason::not_idempotent:
      return "not_idempotent";
    case RetryReason::attempts_used:
      return "attempts_used";
    case RetryReason::deadline:
      return "deadline";
    case RetryReason::budget_empty:
      return "budget_empty";
    case RetryReason::nowhere_to_go:
      break;
  }
  return "nowhere_to_go";
}

void RetryOptions::check() const {
  constexpr milliseconds minute(60'000);
  SettingsCheck("retries")
      .within("attempts_max", attempts_max, 1, 20)
      .within("backoff", backoff, milliseconds(1), minute)
      .within("backoff_max", backoff_max, backoff, 10 * minute)
      .within("retry_after_max", retry_after_max, milliseconds(0), 60 * minute)
      .within("budget_max", budget_max, 0.0, 1e6)
      .within("budget_per_success", budget_per_success, 0.0, 10.0)
      .done();
}

bool is_idempotent(std::string_view method) noexcept {
  constexpr std::array<std::string_view, 6> methods{"GET",   "HEAD", "OPTIONS",
                                                    "TRACE", "PUT",  "DELETE"};
  return std::find(methods.begin(), methods.end(), method) != methods.end();
}

std::optional<milliseconds> parse_retry_after(std::string_view text, WallTime now) noexcept {
  constexpr std::size_t chars_max = 40;
  constexpr std::int64_t longest_s = 1'000'000'000;
  text = transport::trim(text);
  if (text.empty() || text.size() > chars_max) return std::nullopt;
  if (text.find_first_not_of("0123456789") == std::string_view::npos) {
    const auto seconds = transport::parse_number<std::int64_t>(text);
    return std::chrono::seconds(std::min(seconds.value_or(longest_s), longest_s));
  }
  char copy[chars_max + 1] = {};
  std::memcpy(copy, text.data(), text.size());
  const time_t at = curl_getdate(copy, nullptr);
  if (at < 0) return std::nullopt;
  // In seconds: nanoseconds end in the year 2262, and dates do not.
  const auto from = std::chrono::floor<milliseconds>(now.time_since_epoch());
  const milliseconds wait = std::chrono::seconds(at) - from;
  return std::clamp(wait, milliseconds(0), milliseconds(std::chrono::seconds(longest_s)));
}

Retry::Retry(const RetryOptions& options)
    : options_((options.check(), options)),
      tokens_max_(std::llround(options.budget_max * token)),
      tokens_per_success_(std::llround(options.budget_per_success * token)),
      tokens_(tokens_max_) {}

RetryDecision Retry::after(const FailedAttempt& attempt, double draw) noexcept {
  if (attempt.status != 0 && !options_.statuses.contains(attempt.status))
    return {RetryReason::not_retryable};
  if (attempt.reached && !attempt.idempotent && !options_.any_method)
    return {RetryReason::not_idempotent};
  if (attempt.number >= options_.attempts_max) return {RetryReason::attempts_used};
  milliseconds wait =
      transport::full_jitter(options_.backoff, options_.backoff_max, attempt.number, draw);
  if (attempt.retry_after)
    wait =
        std::max(wait, std::clamp(*attempt.retry_after, milliseconds(0), options_.retry_after_max));
  if (attempt.deadline - attempt.now <= wait) return {RetryReason::deadline};
  std::int64_t tokens = tokens_.load(std::memory_order_relaxed);
  do {
    if (tokens < token) return {RetryReason::budget_empty};
  } while (!tokens_.compare_exchange_weak(tokens, tokens - token, std::memory_order_relaxed));
  return {RetryReason::retry, wait};
}

void Retry::succeeded() noexcept {
  std::int64_t tokens = tokens_.load(std::memory_order_relaxed);
  do {
    if (tokens >= tokens_max_) return;  // As it is nearly always: a load.
  } while (!tokens_.compare_exchange_weak(
      tokens, std::min(tokens + tokens_per_success_, tokens_max_), std::memory_order_relaxed));
}

}  // namespace spillway::middleware
