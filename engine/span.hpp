// SPDX-License-Identifier: Apache-2.0
//
// Spans: timed pieces of work that form a trace. The first span of a service in a trace is an X-Ray
// segment, the spans below it are its subsegments.
//
//   auto span = engine.span("charge-card");      // ends with the block
//   span.annotate("provider", "acme");
//
// A span lives on the stack of one thread and is one record, written when it ends. Whether a trace
// is recorded is decided at its first span; a span that is not costs a load and a branch.
#pragma once

#include <atomic>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

#include <spillway/buffers/lane.hpp>
#include <spillway/buffers/record.hpp>
#include <spillway/buffers/static_name.hpp>
#include <spillway/engine/clock.hpp>
#include <spillway/engine/context.hpp>
#include <spillway/engine/span_fields.hpp>

namespace spillway {

class Engine;

/// A span name that is known at run time only (a route template), interned once by
/// Engine::span_name().
class SpanName {
 public:
  SpanName() = default;

 private:
  friend class Engine;
  friend class Span;
  explicit SpanName(std::uint32_t id) noexcept : id_(id) {}
  std::uint32_t id_ = 0;
};

namespace detail {

class Sampler;
class RuleState;

/// What beginning a span needs of the engine.
struct TracingState {
  std::shared_ptr<const Clock> clock;
  Sampler* sampler = nullptr;
  bool in_lambda = false;  ///< segments without a trace join the invocation's
  bool announces = false;  ///< segments are recorded when they begin, to be shown in progress
};

std::uint32_t name_id_slow(const StaticName& name) noexcept;
/// The number of a name, from the cache of the thread's lane when it has one.
inline std::uint32_t name_id(const StaticName& name) noexcept {
  NameCache* const cache = current_lane->names;
  return cache != nullptr ? cache->id_of(name) : name_id_slow(name);
}

#if defined(__GNUC__)
[[gnu::tls_model("initial-exec")]]
#endif
extern constinit thread_local std::uint64_t span_id_state;
/// A first state from the system's random numbers; never 0.
std::uint64_t seed_span_ids() noexcept;

/// A span id: never 0. By splitmix64 from a random start: one id does not tell the next without the
/// state, and costs a nanosecond.
inline std::uint64_t next_span_id() noexcept {
  if (span_id_state == 0) [[unlikely]]
    span_id_state = seed_span_ids();
  std::uint64_t id = (span_id_state += 0x9E3779B97F4A7C15U);
  id = (id ^ (id >> 30)) * 0xBF58476D1CE4E5B9U;
  id = (id ^ (id >> 27)) * 0x94D049BB133111EBU;
  id ^= id >> 31;
  return id != 0 ? id : 1;
}
/// A trace id whose first 32 bits are the time, as X-Ray's ids are; the rest is from a
/// cryptographic generator.
TraceId next_trace_id(std::uint32_t epoch_seconds) noexcept;

}  // namespace detail

class [[nodiscard]] Span {
 public:
  Span(Span&& other) noexcept;  ///< to keep a span in an object that outlives the block
  Span& operator=(Span&&) = delete;
  ~Span() { end(); }

  /// Ends the span now instead of at the end of the block. Further calls do nothing.
  void end() noexcept {
    if (recording_) finish();
    if (entered_) leave();
  }

  /// Whether it is being recorded: false for an unsampled trace, with tracing off, and after end().
  bool recording() const noexcept { return recording_; }

  /// Indexed for search in X-Ray: numbers, bools, strings up to 1000 characters. Keys are letters,
  /// digits and `_`.
  template <class Value>
  void annotate(StaticName key, const Value& value) noexcept {
    if (recording_) add(detail::EntryClass::annotation, key, value);
  }
  /// Shown with the trace, not indexed.
  template <class Value>
  void metadata(StaticName key, const Value& value) noexcept {
    if (recording_) add(detail::EntryClass::metadata, key, value);
  }

  /// The same in a namespace of its own; without one it is "default".
  template <class Value>
  void metadata(StaticName name_space, StaticName key, const Value& value) noexcept {
    if (!recording_) return;
    add(detail::EntryClass::metadata_namespace, name_space, true);
    add(detail::EntryClass::metadata, key, value);
  }

  /// Another trace that this work has to do with: a message's sender, a caller that is not trusted.
  /// `span_id` 0: none in particular. Shown of segments, not of the spans below them.
  void link(const TraceId& trace_id, std::uint64_t span_id,
            std::span<const LinkAttribute> attributes = {}) noexcept;
  /// A finished span of the same parent that led to this one.
  void precursor(std::uint64_t span_id) noexcept;

  void http_request(const HttpRequestFields& request) noexcept;
  /// Also marks the span: 4xx error, 429 throttle, 5xx fault. `content_length` below 0 is unknown
  /// and left out.
  void http_response(int status, std::int64_t content_length = -1) noexcept;

  /// A call to an AWS service; marks the span as aws() does.
  void aws_call(const AwsCallFields& call) noexcept;
  /// A call to a database; marks the span as remote() does.
  void sql(const SqlFields& call) noexcept;

  /// An exception that this work ended with, or met; marks the span as a fault, as the X-Ray SDKs do.
  /// Returns its id, for `caused_by` of others; 0 when the span is not recorded. Several: innermost
  /// first.
  std::uint64_t record_exception(const ExceptionFields& exception) noexcept;
  /// The same of a caught one and of those nested in it (std::throw_with_nested), with the names of
  /// their types. Allocates. `stack`: of the outermost.
  std::uint64_t record_exception(const std::exception& exception,
                                 std::span<const StackFrame> stack = {}) noexcept;
  /// The cause is an exception that another span of the trace has recorded.
  void caused_by(std::uint64_t exception_id) noexcept;
  void cause(const CauseFields& cause) noexcept;

  /// The caller's mistake (4xx), the caller is too fast (429, implies error), our failure (5xx).
  void error() noexcept { flags_ |= detail::span_error; }
  void throttle() noexcept { flags_ |= detail::span_throttle | detail::span_error; }
  void fault() noexcept { flags_ |= detail::span_fault; }
  /// A call to another service, to an AWS service: shown as their own nodes in the service map.
  void remote() noexcept { flags_ |= detail::span_remote; }
  void aws() noexcept { flags_ |= detail::span_aws; }

  /// Takes the span out of the calling thread's context, so that it may go on, and end, on another
  /// thread. The Context that it was begun under must live until it ends. One thread at a time may
  /// use the span.
  void detach() noexcept;

  std::uint64_t span_id() const noexcept { return span_id_; }
  TraceId trace_id() const noexcept { return trace_id_; }

 private:
  friend class Engine;

  // A child of the thread's open span, a segment, or (tracing off, or the trace is not sampled)
  // nothing.
  [[gnu::always_inline]] Span(std::uint64_t engine_id, const detail::TracingState* tracing,
                              const StaticName& name,
                              const SamplingRequest* request = nullptr) noexcept {
    if (tracing == nullptr) return;
    const detail::Active& active = detail::current_active();
    if (active.sampled == Sampled::no) return;
    begin(engine_id, *tracing, detail::name_id(name), request);
  }
  Span(std::uint64_t engine_id, const detail::TracingState* tracing, SpanName name,
       const SamplingRequest* request = nullptr) noexcept {
    if (tracing == nullptr || detail::current_active().sampled == Sampled::no) return;
    begin(engine_id, *tracing, name.id_, request);
  }

  void begin(std::uint64_t engine_id, const detail::TracingState& tracing, std::uint32_t name,
             const SamplingRequest* request) noexcept {
    engine_id_ = engine_id;
    name_ = name;
    detail::Active& active = detail::current_active();
    if (active.segment_id == 0 || active.engine_id != engine_id)
      return begin_segment(tracing, request);
    trace_id_ = active.trace_id;
    parent_id_ = active.span_id;
    segment_id_ = active.segment_id;
    span_id_ = detail::next_span_id();
    active.span_id = span_id_;
    flags_ = active.span_flags;
    recording_ = entered_ = true;
    start_ticks_ = tracing.clock->ticks();
  }
  void begin_segment(const detail::TracingState& tracing, const SamplingRequest* request) noexcept;
  void finish() noexcept;
  void leave_watched() noexcept;
  void leave_context() noexcept;
  void step_out() noexcept;
  void write(detail::Lane& lane) const noexcept;
  void announce() const noexcept;
  bool write_record(detail::Lane& lane, bool begins) const noexcept;
  void leave() noexcept;

  template <class Value>
  void add(detail::EntryClass entry_class, const StaticName& key, const Value& value) noexcept {
    const std::uint32_t name = detail::name_id(key);
    if constexpr (std::same_as<Value, bool>) {
      add_number(entry_class, name, detail::ValueType::boolean, value ? 1 : 0);
    } else if constexpr (std::signed_integral<Value>) {
      add_number(entry_class, name, detail::ValueType::integer, static_cast<std::uint64_t>(value));
    } else if constexpr (std::unsigned_integral<Value>) {
      add_number(entry_class, name, detail::ValueType::unsigned_integer, value);
    } else if constexpr (std::floating_point<Value>) {
      add_number(entry_class, name, detail::ValueType::real,
                 std::bit_cast<std::uint64_t>(static_cast<double>(value)));
    } else if constexpr (std::is_enum_v<Value>) {
      add(entry_class, key, static_cast<std::underlying_type_t<Value>>(value));
    } else if constexpr (std::same_as<Value, const char*> || std::same_as<Value, char*>) {
      add_text(entry_class, name, value == nullptr ? std::string_view("(null)") : value);
    } else {
      add_text(entry_class, name, value);
    }
  }
  void add_number(detail::EntryClass entry_class, std::uint32_t name, detail::ValueType type,
                  std::uint64_t bits) noexcept {
    std::byte* const at = room_for(12);
    const std::uint32_t header = detail::EntryHeader::pack(name, entry_class, type);
    std::memcpy(at, &header, 4);
    std::memcpy(at + 4, &bits, 8);
  }
  void add_text(detail::EntryClass entry_class, std::uint32_t name,
                std::string_view text) noexcept {
    if (8 + text.size() > sizeof entries_) [[unlikely]]
      return add_long_text(entry_class, name, text);
    const auto size = static_cast<std::uint32_t>(text.size());
    std::byte* const at = room_for(8 + size);
    const std::uint32_t header =
        detail::EntryHeader::pack(name, entry_class, detail::ValueType::string);
    std::memcpy(at, &header, 4);
    std::memcpy(at + 4, &size, 4);
    detail::copy_text(at + 8, text.data(), size);
  }
  // Text that is longer than the buffer.
  void add_long_text(detail::EntryClass entry_class, std::uint32_t name,
                     std::string_view text) noexcept;
  void add_texts(detail::EntryClass entry_class, const StaticName& key,
                 std::span<const std::string_view> texts) noexcept;
  void add_some(detail::EntryClass entry_class, const StaticName& key,
                std::string_view text) noexcept {
    if (!text.empty()) add(entry_class, key, text);
  }
  void add_exception(std::uint64_t id, const ExceptionFields& exception) noexcept;
  // The next `bytes` (at most sizeof entries_) of the buffer, sending it ahead first when it is
  // full.
  std::byte* room_for(std::uint32_t bytes) noexcept {
    if (entry_bytes_ + bytes > sizeof entries_) [[unlikely]]
      write_part({});
    std::byte* const at = entries_ + entry_bytes_;
    entry_bytes_ += bytes;
    return at;
  }
  // Sends the buffer, and `more` behind it, ahead as a record of its own.
  void write_part(std::span<const std::byte> more) noexcept;

  // Of a segment that the sampler watches.
  struct Watch {
    const detail::TracingState* tracing;
    detail::RuleState* rule;
  };

  bool recording_ = false;
  bool entered_ = false;   // it stands in `active`
  bool detached_ = false;  // before_ is the context that it was begun in
  bool watched_ = false;   // a segment; it stays entered until its end, detached or not
  std::uint16_t flags_ = 0;
  std::uint16_t http_status_ = 0;
  std::uint32_t entry_bytes_ = 0;
  std::uint64_t span_id_ = 0;
  TraceId trace_id_;
  // From here on begin() sets what is read: a span that is not recorded does not pay for it.
  std::uint32_t name_;
  std::uint64_t engine_id_;
  std::uint64_t start_ticks_;
  Watch watch_;
  std::uint64_t parent_id_;
  std::uint64_t segment_id_;
  union {
    detail::Active before_;  // a segment's: what `active` was
  };
  // What does not fit goes ahead as a record of its own, so there is no limit to what a span may
  // carry.
  alignas(8) std::byte entries_[320];
};

}  // namespace spillway
