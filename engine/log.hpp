// SPDX-License-Identifier: Apache-2.0
//
// Structured logs: a message that is known when the program is compiled, and up to 16 typed fields.
//
//   SPILLWAY_INFO(engine, "order placed", {"order_id", id}, {"total", total}, {"currency", "EUR"});
//
// Message and keys are string literals: the record carries the number of the call site and the
// values, nothing else. A disabled level costs a load and a branch, and its arguments are not
// evaluated.
#pragma once

#include <bit>
#include <concepts>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

#include <spillway/buffers/lane.hpp>
#include <spillway/buffers/names.hpp>
#include <spillway/buffers/record.hpp>
#include <spillway/buffers/static_name.hpp>
#include <spillway/engine/context.hpp>

namespace spillway {

namespace detail {

/// A field as the slow paths take it. They get copies: a Field whose address escaped could not live
/// in registers.
struct FieldCopy {
  std::string_view key;
  ValueType type;
  std::uint64_t bits;
  std::string_view text;
};

}  // namespace detail

/// A key and its value at a call site. Made in place only, in the braces of a log call.
// Every function of it is inlined, whatever the compiler thinks of its size: only then do the
// fields of a call live in registers and what they are not folds away. One that is called costs 30
// ns.
class Field {
 public:
  constexpr Field() noexcept = default;  ///< absent
  template <std::signed_integral T>
  [[gnu::always_inline]] constexpr Field(StaticName key, T value) noexcept
      : key_(key.view()),
        key_hash_(key.hash()),
        type_(detail::ValueType::integer),
        bits_(static_cast<std::uint64_t>(value)) {}
  template <std::unsigned_integral T>
  [[gnu::always_inline]] constexpr Field(StaticName key, T value) noexcept
      : key_(key.view()),
        key_hash_(key.hash()),
        type_(detail::ValueType::unsigned_integer),
        bits_(value) {}
  template <std::floating_point T>
  [[gnu::always_inline]] constexpr Field(StaticName key, T value) noexcept
      : key_(key.view()),
        key_hash_(key.hash()),
        type_(detail::ValueType::real),
        bits_(std::bit_cast<std::uint64_t>(static_cast<double>(value))) {}
  [[gnu::always_inline]] constexpr Field(StaticName key, bool value) noexcept
      : key_(key.view()),
        key_hash_(key.hash()),
        type_(detail::ValueType::boolean),
        bits_(value ? 1 : 0) {}
  [[gnu::always_inline]] constexpr Field(StaticName key, std::string_view value) noexcept
      : key_(key.view()), key_hash_(key.hash()), type_(detail::ValueType::string), text_(value) {}
  /// A null pointer is written as the string "(null)".
  [[gnu::always_inline]] constexpr Field(StaticName key, const char* value) noexcept
      : Field(key, value == nullptr ? std::string_view("(null)") : std::string_view(value)) {}
  /// Any other pointer would be logged as whether it is null.
  template <class T>
  requires(!std::same_as<std::remove_cv_t<T>, char>) Field(StaticName key, T* value)
  = delete;
  template <class Enum>
  requires std::is_enum_v<Enum>
  [[gnu::always_inline]] constexpr Field(StaticName key, Enum value) noexcept
      : Field(key, static_cast<std::underlying_type_t<Enum>>(value)) {}
  Field(const Field&) = delete;
  Field& operator=(const Field&) = delete;

  [[gnu::always_inline]] constexpr detail::ValueType type() const noexcept { return type_; }
  /// Of an absent field: 0.
  [[gnu::always_inline]] constexpr std::uint32_t key_hash() const noexcept { return key_hash_; }

  /// Bytes in a record.
  [[gnu::always_inline]] constexpr std::uint64_t bytes() const noexcept {
    switch (type_) {
      case detail::ValueType::none:
        return 0;
      case detail::ValueType::boolean:
        return 1;
      case detail::ValueType::string:
        return 4 + text_.size();
      default:
        return 8;
    }
  }
  /// Writes the value and returns where the next one goes.
  [[gnu::always_inline]] std::byte* write(std::byte* at) const noexcept {
    switch (type_) {
      case detail::ValueType::none:
        return at;
      case detail::ValueType::boolean:
        *at = static_cast<std::byte>(bits_);
        return at + 1;
      case detail::ValueType::string: {
        const auto size = static_cast<std::uint32_t>(text_.size());
        std::memcpy(at, &size, 4);
        detail::copy_text(at + 4, text_.data(), size);
        return at + 4 + size;
      }
      default:
        std::memcpy(at, &bits_, 8);
        return at + 8;
    }
  }
  [[gnu::always_inline]] constexpr detail::FieldCopy copy() const noexcept {
    return {key_, type_, bits_, text_};
  }

 private:
  std::string_view key_;
  std::uint32_t key_hash_ = 0;
  detail::ValueType type_ = detail::ValueType::none;
  std::uint64_t bits_ = 0;
  std::string_view text_;
};

namespace detail {

inline constexpr std::size_t fields_max = 16;

/// What the records of a logger share (logger.hpp). They carry its address.
struct LoggerState;
static_assert(sizeof(LoggerState*) == 8);

/// The fields of a call that are there, for the slow paths.
class FieldCopies {
 public:
  template <std::same_as<Field>... Fields>
  [[gnu::always_inline]] explicit FieldCopies(const Fields&... fields) noexcept {
    ((fields.type() == ValueType::none
          ? void()
          : void(std::construct_at(&copies_[count_++], fields.copy()))),
     ...);
  }
  std::span<const FieldCopy> present() const noexcept { return {copies_, count_}; }

 private:
  union {
    FieldCopy copies_[fields_max];  // Not made before they are needed.
  };
  std::size_t count_ = 0;
};

/// Appends a field's value as record.hpp packs it.
void append_packed(const FieldCopy& field, std::string& values);
/// Writes that the current context's request has ended. Not counted: it is no record of a signal.
[[gnu::cold]] void record_request_end(std::uint64_t engine_id, bool failed,
                                      std::int64_t took_ns) noexcept;
/// Writes the record that log() did not: a site's first, a context's first, one that finds the ring
/// full or fits none, whose time takes a call, or whose engine is closed. Its fields fold to `folded`.
[[gnu::cold]] void log_slow(std::uint64_t engine_id, const LoggerState* logger, LogSite& site,
                            std::uint64_t folded, std::span<const FieldCopy> fields) noexcept;

/// Writes one log record for the engine. Everything but the stores folds away when it is inlined,
/// and nothing is called but at the end: so nothing has to be kept for after a call. `logger` is null
/// for `has_logger` = false.
template <bool has_logger, std::same_as<Field>... Fields>
[[gnu::always_inline]] inline void log(std::uint64_t engine_id, const LoggerState* logger,
                                       LogSite& site, const Fields&... fields) noexcept {
  std::uint64_t folded = 0;
  ((folded =
        fields.type() == ValueType::none
            ? folded
            : fold_field(folded, fields.key_hash(), static_cast<std::uint32_t>(fields.type()))),
   ...);
  const std::uint64_t bytes =
      round_up_to_8((std::uint64_t{log_values_at + (has_logger ? 8 : 0)} + ... + fields.bytes()));
  Lane& lane = *current_lane;
  const Active& context = current_active();
  if (lane.takes_records_of(engine_id) && lane.written_context == context.serial &&
      site.fields.load(std::memory_order_acquire) == folded) [[likely]] {
    const Ring::Room room = lane.ring.try_reserve(bytes);
    std::uint64_t ticks = 0;
    if (room && lane.try_log_ticks(ticks)) [[likely]] {
      lane.counters.logs_recorded.add();
      write_log_head(
          room.at,
          log_first_word<has_logger>(site.record_head.load(std::memory_order_relaxed), bytes),
          ticks, context.span_id);
      std::byte* at = room.at + log_values_at;
      if constexpr (has_logger) {
        std::memcpy(at, &logger, sizeof logger);
        at += sizeof logger;
      }
      ((at = fields.write(at)), ...);
      lane.ring.commit(room);
      return;
    }
  }
  log_slow(engine_id, logger, site, folded, FieldCopies(fields...).present());
}

}  // namespace detail
}  // namespace spillway

// Where the compiler puts the code: of TRACE and DEBUG out of the way, so that a disabled one costs a
// load and a branch that is not taken.
#define SPILLWAY_LOG_EXPECTED(enabled, severity_) \
  __builtin_expect_with_probability((enabled), (severity_) >= ::spillway::Severity::info, 0.999)

/// Records a log with a severity that is a constant. `engine` is a spillway::Engine or Logger. See the
/// head of this file.
#define SPILLWAY_LOG(engine, severity_, message_, ...)                                             \
  do {                                                                                             \
    if (SPILLWAY_LOG_EXPECTED((engine).log_enabled(severity_), severity_)) {                       \
      static constinit ::spillway::LogSite spillway_site{severity_, message_, __FILE__, __LINE__}; \
      (engine).log(spillway_site __VA_OPT__(, ) __VA_ARGS__);                                      \
    }                                                                                              \
  } while (false)

#define SPILLWAY_TRACE(engine, ...) SPILLWAY_LOG(engine, ::spillway::Severity::trace, __VA_ARGS__)
#define SPILLWAY_DEBUG(engine, ...) SPILLWAY_LOG(engine, ::spillway::Severity::debug, __VA_ARGS__)
#define SPILLWAY_INFO(engine, ...) SPILLWAY_LOG(engine, ::spillway::Severity::info, __VA_ARGS__)
#define SPILLWAY_WARN(engine, ...) SPILLWAY_LOG(engine, ::spillway::Severity::warn, __VA_ARGS__)
#define SPILLWAY_ERROR(engine, ...) SPILLWAY_LOG(engine, ::spillway::Severity::error, __VA_ARGS__)
#define SPILLWAY_FATAL(engine, ...) SPILLWAY_LOG(engine, ::spillway::Severity::fatal, __VA_ARGS__)
