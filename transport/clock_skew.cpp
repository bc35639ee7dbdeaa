// SPDX-License-Identifier: Apache-2.0
#include <string>

#include <curl/curl.h>

#include <spillway/transport/clock_skew.hpp>

namespace spillway::transport {

bool ClockSkew::learn(const HttpResponse& response, Time now, bool trusted) noexcept {
  using std::chrono::milliseconds;
  if (!trusted || response.outcome != HttpOutcome::answered) return false;
  const std::string_view text = find_header(response.headers, "date");
  // curl_getdate reads a C string; a date is never longer than this.
  constexpr std::size_t date_chars_max = 64;
  if (text.empty() || text.size() >= date_chars_max) return false;
  char date[date_chars_max] = {};
  text.copy(date, text.size());
  const time_t seconds = curl_getdate(date, nullptr);
  // -1: not a date. What lies before 2020 or after 2100 is no service's clock either.
  if (seconds < 1'577'836'800 || seconds > 4'102'444'800) return false;
  const auto difference = std::chrono::duration_cast<milliseconds>(
      std::chrono::system_clock::from_time_t(seconds) - now);
  const milliseconds wanted =
      std::chrono::abs(difference) < clock_skew_min ? milliseconds(0) : difference;
  const milliseconds before(offset_ms_.exchange(wanted.count(), std::memory_order_relaxed));
  return std::chrono::abs(wanted - before) >= clock_skew_min;
}

}  // namespace spillway::transport
