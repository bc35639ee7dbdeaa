// SPDX-License-Identifier: Apache-2.0
//
// A span's exceptions as OTLP span events (OpenTelemetry semantic conventions, "Exceptions in spans",
// read 2026-11): an event "exception" each, with exception.type, exception.message and
// exception.stacktrace. What caused an exception stands in its stack trace behind "Caused by:", as the
// languages whose exceptions have causes write it:
//
//   shop::PaymentRefused: order 17
//   	at shop::pay(int) (/src/pay.cpp:32)
//   	at shop::place(int) (/src/place.cpp:7)
//   	... 12 more
//   Caused by: std::system_error: connection reset
//
// The flusher uses it; the texts that it refers to are the record's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include <spillway/encoders/otlp.hpp>

namespace spillway::detail {

class OtlpExceptions {
 public:
  OtlpExceptions();

  /// Takes those of one span, by the entries of its record; forgets the span before.
  void read(std::span<const std::byte> entries);
  void clear() noexcept;

  bool empty() const noexcept { return exceptions_.empty(); }
  /// Of the last exception that is not the cause of another: what the span failed with. Empty where
  /// there is none.
  std::string_view type() const noexcept;
  std::string_view message() const noexcept;

  /// When the span began and ended, wall-clock nanoseconds, not before 1970.
  struct Bounds {
    std::int64_t start_ns;
    std::int64_t end_ns;
  };
  /// Appends the events as field `field` (below 16). Each has its own time, which the wall clock told
  /// and which lies within the span's; the span's end where it is not known. What would need more than
  /// `bytes_max` goes without its stack trace, or not at all. Returns how many did not go.
  std::size_t append(std::uint32_t field, const Bounds& span, std::size_t bytes_max,
                     ByteBuffer& out);

 private:
  static constexpr std::size_t none = ~std::size_t{0};

  struct Frame {
    std::string_view path;
    std::string_view label;
    std::uint64_t line = 0;
  };
  struct Exception {
    std::uint64_t id = 0;
    std::uint64_t cause = 0;
    std::uint64_t frames_left_out = 0;
    std::int64_t time_ns = 0;  ///< 0: not known
    std::string_view type{};
    std::string_view message{};
    std::size_t first_frame = 0;
    std::size_t frame_count = 0;
    bool is_cause = false;
  };

  const Exception* last() const noexcept;
  std::size_t find(std::uint64_t id) const noexcept;
  /// Whether the causes of exception number `which`, itself included, have one with this id.
  bool leads_to(std::size_t which, std::uint64_t id) const noexcept;
  void append_event(const Exception& exception, bool with_stack, std::uint32_t field,
                    std::uint64_t time_ns, ByteBuffer& out) const;
  void write_stack(const Exception& exception, std::size_t bytes_max);
  void write_heading(const Exception& exception);

  std::vector<Exception> exceptions_;
  std::vector<Frame> frames_;  // of all of them, in their order
  std::size_t left_out_ = 0;   // past the most that are kept
  ByteBuffer stack_;           // the text in work
  const OtlpKey type_key_;
  const OtlpKey message_key_;
  const OtlpKey stack_key_;
};

}  // namespace spillway::detail
