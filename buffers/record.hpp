// SPDX-License-Identifier: Apache-2.0
//
// Layout of the records in a ring. All integers are little endian as the machine stores them; a
// record starts on an 8-byte boundary and its size is a multiple of 8.
//
//   offset  0        4        8                16
//           +--------+--------+----------------+------------------------------+
//   header  | size+  |  id    |     ticks      | body, by kind                |
//           | kind   |        |                |                              |
//           +--------+--------+----------------+------------------------------+
//
//   kind          id          ticks   body
//   skip          -           -       nothing: the ring up to its end; only the first word is written
//   context       trace flags serial  ContextBody, then tenant, user, request id, trace state; flags as
//                                     W3C trace context has them
//   log           call site   time    the span's id (8 bytes; 0: none), then one value per field of
//                                     the call site, in its order
//   logger_log    call site   time    the span's id, the address of the logger's state (8 bytes), whose
//                                     values go before those that follow
//   event         call site   time    as log: a wide event (engine/wide_event.hpp)
//   span          name        end     SpanBody, then its entries
//   span_part     name        time    SpanPartBody, then entries that did not fit into the span
//   sample        series      time    the value (a double)
//   request_end   1: keep     -       nanoseconds that the request of this context took: whether the
//                                     records below the level that were made for it go out
//
// Log values are packed without padding: integers and doubles 8 bytes, bools 1, strings a 4-byte
// length and the characters. A span's entries are an EntryHeader each and then the value in the
// same packing, but bools in 8 bytes.
//
// A `context` record says on whose behalf the records behind it in the same ring were made, until
// the next one.
#pragma once

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace spillway {

/// A 128-bit trace id, as in W3C trace context: all zero is "none". On X-Ray's wire the first 32
/// bits are epoch seconds.
struct TraceId {
  std::uint64_t high = 0;
  std::uint64_t low = 0;
  friend constexpr bool operator==(const TraceId&, const TraceId&) noexcept = default;
  constexpr explicit operator bool() const noexcept { return (high | low) != 0; }
};

}  // namespace spillway

namespace spillway::detail {

enum class RecordKind : std::uint8_t {
  skip,
  context,
  log,
  logger_log,
  event,
  span,
  span_part,
  sample,
  request_end
};

/// Sizes fit 24 bits: a record is never larger than a ring's quarter, and a ring never larger than
/// 16 MiB.
inline constexpr std::uint32_t record_bytes_limit = 1U << 24;

struct RecordHeader {
  std::uint32_t size_and_kind;
  std::uint32_t id;
  std::uint64_t ticks;

  static constexpr std::uint32_t pack(std::uint32_t bytes, RecordKind kind) noexcept {
    return bytes | static_cast<std::uint32_t>(kind) << 24;
  }
  constexpr std::uint32_t bytes() const noexcept {
    return size_and_kind & (record_bytes_limit - 1);
  }
  constexpr RecordKind kind() const noexcept {
    return static_cast<RecordKind>(size_and_kind >> 24);
  }
};
static_assert(sizeof(RecordHeader) == 16 && std::is_trivially_copyable_v<RecordHeader>);
static_assert(std::endian::native == std::endian::little);  // A header's first two words are one.

/// Where a log record's values begin: behind the header and the span's id.
inline constexpr std::uint32_t log_values_at = sizeof(RecordHeader) + sizeof(std::uint64_t);

inline constexpr std::uint32_t sample_bytes = sizeof(RecordHeader) + sizeof(double);

/// What a span carries beside its entries. Times are ticks; the header's ticks are the end.
struct SpanBody {
  std::uint64_t start_ticks;
  std::uint64_t span_id;
  std::uint64_t parent_id;   ///< 0: none
  std::uint64_t segment_id;  ///< the service's own root of this trace; span_id for that root
  TraceId trace_id;
  std::uint16_t flags;  ///< SpanFlag
  std::uint16_t http_status;
  std::uint32_t entry_bytes;
};
static_assert(sizeof(SpanBody) == 56 && std::is_trivially_copyable_v<SpanBody>);

enum SpanFlag : std::uint16_t {
  span_error = 1,         ///< the caller's mistake, 4xx
  span_throttle = 2,      ///< 429; goes with span_error
  span_fault = 4,         ///< our failure, 5xx
  span_remote = 8,        ///< a call to another service: namespace "remote"
  span_aws = 16,          ///< a call to AWS: namespace "aws"
  span_has_parts = 32,    ///< span_part records went ahead of this one
  span_cut = 64,          ///< an entry was too long, or found the ring full, and is missing
  span_joined = 128,      ///< Lambda writes the segment: the service's root is a subsegment of it
  span_in_progress = 256  ///< a segment that has begun: it is not counted, and its end comes later
};

struct SpanPartBody {
  std::uint64_t span_id;
  std::uint32_t entry_bytes;
  std::uint32_t reserved;
};
static_assert(sizeof(SpanPartBody) == 16);

/// What kind of value follows, in a log field or a span's entry.
enum class ValueType : std::uint8_t { none, integer, unsigned_integer, real, boolean, string };

/// Which part of a span's document an entry belongs to. Those that say so begin something that the
/// entries behind them, up to the next such one, belong to.
enum class EntryClass : std::uint8_t {
  annotation,
  metadata,  ///< in the namespace of a `metadata_namespace` directly before it, else in the default
  http_request,
  http_response,
  metadata_namespace,  ///< its name; the value means nothing
  aws,                 ///< `table_names` and `resource_names` once for each
  sql,
  cause,      ///< working_directory, `paths` once for each; "id": an exception's, of another span
  exception,  ///< "id" (a number) begins one; "time" is wall-clock nanoseconds
  frame,      ///< of the last exception's stack: "path" begins one
  link,       ///< begins one: the value is a LinkBody
  link_attribute,  ///< of the last link
  precursor,       ///< a span id, once for each
  sampling_rule    ///< the value is the name of the rule that sampled the trace
};

/// Another trace that a span has to do with. The value of an entry of class `link`.
struct LinkBody {
  TraceId trace_id;
  std::uint64_t span_id;
};
static_assert(sizeof(LinkBody) == 24 && std::is_trivially_copyable_v<LinkBody>);

struct EntryHeader {
  std::uint32_t name_and_type;  ///< name id (24 bits), class (4), type (4)

  static constexpr std::uint32_t pack(std::uint32_t name, EntryClass entry_class,
                                      ValueType type) noexcept {
    return name << 8 | static_cast<std::uint32_t>(entry_class) << 4 |
           static_cast<std::uint32_t>(type);
  }
  constexpr std::uint32_t name() const noexcept { return name_and_type >> 8; }
  constexpr EntryClass entry_class() const noexcept {
    return static_cast<EntryClass>(name_and_type >> 4 & 15U);
  }
  constexpr ValueType type() const noexcept { return static_cast<ValueType>(name_and_type & 15U); }
};
static_assert(sizeof(EntryHeader) == 4);

/// A context's trace is sampled (W3C trace context, trace-flags).
inline constexpr std::uint8_t trace_flag_sampled = 1;

struct ContextBody {
  TraceId trace_id;
  std::uint16_t tenant_bytes;
  std::uint16_t user_bytes;
  std::uint16_t request_id_bytes;
  std::uint16_t trace_state_bytes;  ///< of W3C's tracestate, as the caller's headers had it
};
static_assert(sizeof(ContextBody) == 24 && std::is_trivially_copyable_v<ContextBody>);

template <std::unsigned_integral Bytes>
constexpr Bytes round_up_to_8(Bytes bytes) noexcept {
  return (bytes + 7U) & ~Bytes{7};
}

/// The first word of a log record: `head` is what its site keeps (names.hpp).
template <bool has_logger>
constexpr std::uint64_t log_first_word(std::uint64_t head, std::uint64_t bytes) noexcept {
  constexpr std::uint32_t plain = RecordHeader::pack(0, RecordKind::log);
  constexpr std::uint32_t with_logger = RecordHeader::pack(0, RecordKind::logger_log);
  static_assert((plain & with_logger) == plain);
  return head | bytes | (has_logger ? with_logger : plain);
}

/// Writes what a log record has before its values. `first_word` is the header's: size, kind, id.
inline void write_log_head(std::byte* at, std::uint64_t first_word, std::uint64_t ticks,
                           std::uint64_t span_id) noexcept {
  std::memcpy(at, &first_word, 8);
  std::memcpy(at + 8, &ticks, 8);
  std::memcpy(at + 16, &span_id, 8);
}

/// Copies `bytes`, rounded up to 8, without a call: both ends have room for that.
inline void copy_words(std::byte* to, const std::byte* from, std::uint32_t bytes) noexcept {
  for (std::uint32_t at = 0; at < bytes; at += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, from + at, 8);
    std::memcpy(to + at, &word, 8);
    asm("");  // Else the compiler makes the loop a call of memcpy again.
  }
}

/// Copies `bytes` characters without a call, behind which a caller would have to keep what it knows.
inline void copy_text(std::byte* to, const char* from, std::size_t bytes) noexcept {
  // The first piece and the last one, which overlap: whatever is between is in both.
  const auto copy_ends = [&]<class Piece>(Piece first) {
    Piece last;
    std::memcpy(&first, from, sizeof first);
    std::memcpy(&last, from + bytes - sizeof last, sizeof last);
    std::memcpy(to, &first, sizeof first);
    std::memcpy(to + bytes - sizeof last, &last, sizeof last);
  };
  struct Wide {
    std::uint64_t words[2];
  };
  if (bytes >= 8 && bytes <= 16) {
    copy_ends(std::uint64_t{});
  } else if (bytes >= 4 && bytes < 8) {
    copy_ends(std::uint32_t{});
  } else if (bytes < 4) {
    for (std::size_t i = 0; i < bytes; ++i) to[i] = static_cast<std::byte>(from[i]);
  } else {
    Wide piece;
    for (std::size_t at = 0; at + sizeof piece < bytes; at += sizeof piece) {
      std::memcpy(&piece, from + at, sizeof piece);
      std::memcpy(to + at, &piece, sizeof piece);
      asm("");  // Else the compiler makes the loop a call.
    }
    std::memcpy(&piece, from + bytes - sizeof piece, sizeof piece);
    std::memcpy(to + bytes - sizeof piece, &piece, sizeof piece);
  }
}

}  // namespace spillway::detail
