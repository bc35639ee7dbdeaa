// SPDX-License-Identifier: Apache-2.0
//
// How much time a request has, as text: what a caller grants goes along as a duration, because two
// machines' clocks differ. Used by the time-out step, which reads it, and the service client, which
// passes on what is left.
//
//   X-Request-Timeout: 1500m
//
// Grammar, that of gRPC's grpc-timeout ("gRPC over HTTP2", Timeout): one to eight digits and a unit,
//   n nanoseconds   u microseconds   m milliseconds   S seconds   M minutes   H hours
// and nothing else, no spaces. 0 of any unit means that the time is over.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string_view>

#include <spillway/engine/clock.hpp>

namespace spillway::middleware {

inline constexpr std::string_view timeout_header_name = "X-Request-Timeout";
inline constexpr std::string_view grpc_timeout_header_name = "grpc-timeout";

/// Nothing when the text is none of the grammar. What is over a hundred years is a hundred years.
std::optional<std::chrono::nanoseconds> parse_timeout(std::string_view text) noexcept;

/// The text of a time-out: in the finest unit that it fits, rounded down, never longer than it is.
/// Negative is 0.
class TimeoutText {
 public:
  explicit TimeoutText(std::chrono::nanoseconds timeout) noexcept;
  std::string_view view() const noexcept { return {text_.data(), bytes_}; }

 private:
  std::array<char, 9> text_{};
  std::size_t bytes_ = 0;
};

/// The deadline of a Lambda invocation, from the header Lambda-Runtime-Deadline-Ms of the Runtime
/// API (milliseconds since 1970), `margin` earlier so that there is time to answer and to flush.
/// Nothing when the text is not a number of this century's milliseconds.
std::optional<SteadyTime> lambda_deadline(std::string_view deadline_ms, WallTime wall,
                                          SteadyTime now,
                                          std::chrono::milliseconds margin) noexcept;

}  // namespace spillway::middleware
