// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <new>
#include <typeinfo>
#include <utility>

#include <cxxabi.h>
#include <pthread.h>
#include <sys/random.h>

#include <spillway/buffers/names.hpp>
#include <spillway/engine/chacha.hpp>
#include <spillway/engine/sampling.hpp>
#include <spillway/engine/services.hpp>
#include <spillway/engine/span.hpp>
#include <spillway/engine/trace_header.hpp>

namespace spillway::detail {

std::uint32_t name_id_slow(const StaticName& name) noexcept { return intern_name(name.view()); }

namespace {

std::uint64_t system_random() noexcept {
  std::uint64_t random = 0;
  if (getrandom(&random, sizeof random, 0) != sizeof random) {
    // Never seen on a kernel of this century; ids then are unique enough and no secret.
    random = hardware_ticks() ^ reinterpret_cast<std::uintptr_t>(&random);
  }
  return random;
}

// A thread's numbers for trace ids, a block of them at a time. OpenSSL's generator takes locks, and asks the system for
// the process's id at each call.
struct TraceIds {
  static constexpr std::size_t words_per_id = 3;

  ChachaBlock input;  // with the counter of the next block
  ChachaBlock block;
  std::size_t used;  // of its words
  bool seeded;

  void seed() noexcept {
    input = {};
    std::copy(chacha_constants.begin(), chacha_constants.end(), input.begin());
    for (std::size_t i = 0; i < 4; ++i) {
      const std::uint64_t random = system_random();
      input[4 + 2 * i] = static_cast<std::uint32_t>(random);
      input[5 + 2 * i] = static_cast<std::uint32_t>(random >> 32);
    }
    used = block.size();
    seeded = true;
  }
  void make_block() noexcept {
    block = chacha<8>(input);
    if (++input[12] == 0) ++input[13];
    used = 0;
  }
};
constinit thread_local TraceIds trace_ids{};

// A child of fork() has its parent's memory: with its numbers it would give its parent's ids to other spans.
void begin_anew_in_children() noexcept {
  static const int registered = pthread_atfork(nullptr, nullptr, [] {
    span_id_state = 0;
    trace_ids.seeded = false;
  });
  static_cast<void>(registered);
}

std::uint32_t second_of(WallTime time) noexcept {
  return static_cast<std::uint32_t>(
      std::chrono::floor<std::chrono::seconds>(time).time_since_epoch().count());
}

}  // namespace

constinit thread_local std::uint64_t span_id_state = 0;

std::uint64_t seed_span_ids() noexcept {
  begin_anew_in_children();
  return system_random() | 1;
}

TraceId next_trace_id(std::uint32_t epoch_seconds) noexcept {
  TraceIds& ids = trace_ids;
  if (!ids.seeded) [[unlikely]] {
    begin_anew_in_children();
    ids.seed();
  }
  if (ids.used + TraceIds::words_per_id > ids.block.size()) ids.make_block();
  const std::uint32_t* const words = ids.block.data() + ids.used;
  ids.used += TraceIds::words_per_id;
  return {std::uint64_t{epoch_seconds} << 32 | words[0], std::uint64_t{words[1]} << 32 | words[2]};
}

namespace {

// A thread without a trace joins the one of the invocation that it works for.
void join_lambda(Active& active) noexcept try {
  const auto parent = lambda_trace();
  if (!parent) return;
  active.trace_id = parent->trace_id;
  active.span_id = parent->parent_id;
  active.sampled = parent->sampled;
  active.span_flags = span_joined;
  active.serial = next_context_serial();
} catch (const std::bad_alloc&) {  // It begins one of its own.
}

}  // namespace
}  // namespace spillway::detail

namespace spillway {

void Span::begin_segment(const detail::TracingState& tracing,
                         const SamplingRequest* request) noexcept {
  detail::Active& active = detail::current_active();
  before_ = active;
  entered_ = true;
  if (tracing.in_lambda && !active.trace_id) detail::join_lambda(active);
  const std::uint32_t second = detail::second_of(tracing.clock->wall());
  const bool joins = static_cast<bool>(active.trace_id);
  if (!joins) {
    active.trace_id = detail::next_trace_id(second);
    active.serial = detail::next_context_serial();
  }
  detail::SamplingDecision decision;
  if (active.sampled == Sampled::unknown) {
    // The upper 53 bits of a random number as one in [0, 1).
    const double draw = static_cast<double>(detail::next_span_id() >> 11) * 0x1p-53;
    decision = tracing.sampler->decide(request != nullptr ? *request : SamplingRequest{}, name_,
                                       second, draw);
    active.sampled = decision.sampled ? Sampled::yes : Sampled::no;
    // The ring may have the context as it was before.
    if (joins && decision.sampled) active.serial = detail::next_context_serial();
  }
  trace_id_ = active.trace_id;
  parent_id_ = active.span_id;
  if (decision.watched) {
    watched_ = true;
    watch_ = {&tracing, decision.rule};
    start_ticks_ = tracing.clock->ticks();
  }
  if (active.sampled == Sampled::no) {
    active.span_id = 0;  // No record will have an id to refer to.
    return;
  }
  span_id_ = segment_id_ = detail::next_span_id();
  active.span_id = active.segment_id = span_id_;
  active.engine_id = engine_id_;
  flags_ = active.span_flags;
  recording_ = true;
  start_ticks_ = tracing.clock->ticks();
  if (decision.rule != nullptr && !decision.rule->name.empty()) {
    add(detail::EntryClass::sampling_rule, StaticName("aws.xray.sampling_rule"),
        std::string_view(decision.rule->name));
  }
  if (decision.rare)
    add(detail::EntryClass::annotation, StaticName("kept"), std::string_view("rare"));
  if (active.identity != nullptr && active.identity->link_trace_id) {
    link(active.identity->link_trace_id, active.identity->link_span_id);
  }
  if (tracing.announces) announce();
}

void Span::link(const TraceId& trace_id, std::uint64_t span_id,
                std::span<const LinkAttribute> attributes) noexcept {
  if (!recording_) return;
  const detail::LinkBody body{trace_id, span_id};
  std::array<char, sizeof body> bytes{};
  std::memcpy(bytes.data(), &body, sizeof body);
  add(detail::EntryClass::link, StaticName("link"), std::string_view(bytes.data(), bytes.size()));
  for (const LinkAttribute& attribute : attributes) {
    add(detail::EntryClass::link_attribute, attribute.key, attribute.value);
  }
}

void Span::precursor(std::uint64_t span_id) noexcept {
  if (recording_) add(detail::EntryClass::precursor, StaticName("precursor"), span_id);
}

Span::Span(Span&& other) noexcept
    : recording_(std::exchange(other.recording_, false)),
      entered_(std::exchange(other.entered_, false)),
      detached_(other.detached_),
      watched_(std::exchange(other.watched_, false)),
      flags_(other.flags_),
      http_status_(other.http_status_),
      entry_bytes_(other.entry_bytes_),
      span_id_(other.span_id_),
      trace_id_(other.trace_id_),
      name_(other.name_),
      engine_id_(other.engine_id_),
      start_ticks_(other.start_ticks_),
      watch_(other.watch_),
      parent_id_(other.parent_id_),
      segment_id_(other.segment_id_),
      before_(other.before_) {
  std::memcpy(entries_, other.entries_, entry_bytes_);
}

void Span::leave() noexcept {
  entered_ = false;
  if (watched_) [[unlikely]]
    return leave_watched();
  leave_context();
}

void Span::leave_context() noexcept {
  detail::Active& active = detail::current_active();
  if (span_id_ == 0) {  // A segment that is not sampled.
    active = before_;
  } else if (span_id_ == segment_id_) {
    // Also with spans below it that are still open: nothing begins under a segment that has ended.
    if (active.segment_id == segment_id_ && active.engine_id == engine_id_) active = before_;
  } else if (active.span_id == span_id_) {
    active.span_id = parent_id_;
  }
}

void Span::leave_watched() noexcept {
  watched_ = false;
  bool keep = false;
  // Inside an operation the engine, and with it the sampler, is there.
  if (detail::Lane* const lane = detail::enter(engine_id_); lane != nullptr) {
    keep = watch_.tracing->sampler->ended({span_id_ != 0, false, true, watch_.rule},
                                          (flags_ & detail::span_fault) != 0,
                                          detail::second_of(watch_.tracing->clock->wall()));
    lane->leave();
  }
  if (!detached_) step_out();
  if (!keep) return;
  // A segment of its own: what was begun below it, here or elsewhere, was not recorded.
  span_id_ = segment_id_ = detail::next_span_id();
  add(detail::EntryClass::annotation, StaticName("kept"), std::string_view("fault"));
  finish();
}

void Span::step_out() noexcept {
  const detail::Active begun_in = detail::current_active();
  leave_context();
  before_ = begun_in;
  detached_ = true;
}

void Span::detach() noexcept {
  if (!entered_ || detached_) return;
  step_out();
  entered_ = watched_;
}

void Span::finish() noexcept {
  recording_ = false;
  detail::operate(engine_id_, detail::Signal::spans, [this](detail::Lane& lane) { write(lane); });
}

// A record of the span as it is. Every span pays for what is in here, none for the other case.
[[gnu::always_inline]] inline bool Span::write_record(detail::Lane& lane,
                                                      bool begins) const noexcept {
  const bool urgent = (flags_ & detail::span_fault) != 0;
  const detail::Active& context = detached_ ? before_ : detail::current_active();
  const std::uint32_t bytes = detail::round_up_to_8(static_cast<std::uint32_t>(
      sizeof(detail::RecordHeader) + sizeof(detail::SpanBody) + entry_bytes_));
  detail::Ring::Room room;
  if ((lane.written_context != context.serial && !detail::write_context(lane, context, urgent)) ||
      !(room = lane.ring.reserve(bytes, urgent))) {
    return false;
  }
  const detail::RecordHeader header{detail::RecordHeader::pack(bytes, detail::RecordKind::span),
                                    name_, begins ? start_ticks_ : lane.exact_ticks()};
  const detail::SpanBody body{start_ticks_, span_id_, parent_id_,   segment_id_,
                              trace_id_,    flags_,   http_status_, entry_bytes_};
  std::memcpy(room.at, &header, sizeof header);
  std::memcpy(room.at + sizeof header, &body, sizeof body);
  if (begins) {
    const auto flags = static_cast<std::uint16_t>(flags_ | detail::span_in_progress);
    std::memcpy(room.at + sizeof header + offsetof(detail::SpanBody, flags), &flags, sizeof flags);
  }
  detail::copy_words(room.at + sizeof header + sizeof body, entries_, entry_bytes_);
  lane.ring.commit(room);
  return true;
}

void Span::write(detail::Lane& lane) const noexcept {
  lane.counters.spans_recorded.add();
  if (!write_record(lane, false)) lane.counters.spans_ring_full.add();
}

void Span::announce() const noexcept {
  // Without room it is not shown in progress; its end is another record.
  if (detail::Lane* const lane = detail::enter(engine_id_); lane != nullptr) {
    write_record(*lane, true);
    lane->leave();
  }
}

void Span::write_part(std::span<const std::byte> more) noexcept {
  const std::uint32_t entry_bytes = entry_bytes_ + static_cast<std::uint32_t>(more.size());
  const std::uint32_t bytes = detail::round_up_to_8(
      static_cast<std::uint32_t>(sizeof(detail::RecordHeader) + sizeof(detail::SpanPartBody)) +
      entry_bytes);
  bool written = false;
  if (detail::Lane* const lane = detail::enter(engine_id_); lane != nullptr) {
    detail::Ring::Room room;
    if (bytes <= lane->ring.record_bytes_max() && (room = lane->ring.reserve(bytes))) {
      const detail::RecordHeader header{
          detail::RecordHeader::pack(bytes, detail::RecordKind::span_part), name_,
          lane->coarse_ticks()};
      const detail::SpanPartBody body{span_id_, entry_bytes, 0};
      std::byte* at = room.at;
      std::memcpy(at, &header, sizeof header);
      std::memcpy(at + sizeof header, &body, sizeof body);
      at += sizeof header + sizeof body;
      std::memcpy(at, entries_, entry_bytes_);
      if (!more.empty()) std::memcpy(at + entry_bytes_, more.data(), more.size());
      lane->ring.commit(room);
      written = true;
    }
    lane->leave();
  }
  // What found no room is missing from a span that is delivered all the same: it is marked as cut.
  flags_ |= written ? detail::span_has_parts : detail::span_cut;
  entry_bytes_ = 0;
}

void Span::add_long_text(detail::EntryClass entry_class, std::uint32_t name,
                         std::string_view text) noexcept {
  constexpr std::size_t text_bytes_max = 16U << 10;
  if (text.size() > text_bytes_max) {
    text = text.substr(0, text_bytes_max);
    flags_ |= detail::span_cut;
  }
  const auto size = static_cast<std::uint32_t>(text.size());
  const std::uint32_t header =
      detail::EntryHeader::pack(name, entry_class, detail::ValueType::string);
  // The entry's head goes into the buffer, the text directly behind it into the ring.
  std::byte* const at = room_for(8);
  std::memcpy(at, &header, 4);
  std::memcpy(at + 4, &size, 4);
  write_part(std::as_bytes(std::span(text)));
}

void Span::http_request(const HttpRequestFields& request) noexcept {
  if (!recording_) return;
  constexpr auto part = detail::EntryClass::http_request;
  add_some(part, StaticName("method"), request.method);
  add_some(part, StaticName("url"), request.url);
  add_some(part, StaticName("user_agent"), request.user_agent);
  add_some(part, StaticName("client_ip"), request.client_ip);
  if (request.x_forwarded_for) add(part, StaticName("x_forwarded_for"), true);
  if (request.traced) add(part, StaticName("traced"), true);
}

void Span::http_response(int status, std::int64_t content_length) noexcept {
  if (!recording_ && !watched_) return;
  http_status_ = static_cast<std::uint16_t>(status);
  if (recording_ && content_length >= 0) {
    add(detail::EntryClass::http_response, StaticName("content_length"), content_length);
  }
  if (status == 429) {
    throttle();
  } else if (status >= 400 && status < 500) {
    error();
  } else if (status >= 500) {
    fault();
  }
}

void Span::add_texts(detail::EntryClass entry_class, const StaticName& key,
                     std::span<const std::string_view> texts) noexcept {
  for (const std::string_view text : texts) add(entry_class, key, text);
}

void Span::aws_call(const AwsCallFields& call) noexcept {
  if (!recording_) return;
  aws();
  constexpr auto part = detail::EntryClass::aws;
  add_some(part, StaticName("operation"), call.operation);
  add_some(part, StaticName("region"), call.region);
  add_some(part, StaticName("account_id"), call.account_id);
  add_some(part, StaticName("request_id"), call.request_id);
  add_some(part, StaticName("table_name"), call.table_name);
  add_some(part, StaticName("queue_url"), call.queue_url);
  add_texts(part, StaticName("table_names"), call.table_names);
  add_texts(part, StaticName("resource_names"), call.resource_names);
  if (call.retries >= 0) add(part, StaticName("retries"), call.retries);
}

void Span::sql(const SqlFields& call) noexcept {
  if (!recording_) return;
  remote();
  constexpr auto part = detail::EntryClass::sql;
  add_some(part, StaticName("url"), call.url);
  add_some(part, StaticName("connection_string"), call.connection_string);
  add_some(part, StaticName("sanitized_query"), call.sanitized_query);
  add_some(part, StaticName("database_type"), call.database_type);
  add_some(part, StaticName("database_version"), call.database_version);
  add_some(part, StaticName("driver_version"), call.driver_version);
  add_some(part, StaticName("user"), call.user);
  add_some(part, StaticName("preparation"), call.preparation);
}

void Span::add_exception(std::uint64_t id, const ExceptionFields& exception) noexcept {
  constexpr auto part = detail::EntryClass::exception;
  add(part, StaticName("id"), id);
  if (detail::Lane* const lane = detail::enter(engine_id_); lane != nullptr) {
    const std::int64_t now_ns = lane->services().wall_ns();
    lane->leave();
    add(part, StaticName("time"), now_ns);
  }
  add_some(part, StaticName("type"), exception.type);
  add_some(part, StaticName("message"), exception.message);
  if (exception.remote) add(part, StaticName("remote"), true);
  if (exception.frames_skipped != 0) add(part, StaticName("skipped"), exception.frames_skipped);
  if (exception.caused_by != 0) add(part, StaticName("cause"), exception.caused_by);
  const std::size_t frames = std::min(exception.stack.size(), stack_frames_max);
  if (frames < exception.stack.size()) {
    add(part, StaticName("truncated"), exception.stack.size() - frames);
  }
  for (const StackFrame& frame : exception.stack.first(frames)) {
    add(detail::EntryClass::frame, StaticName("path"), frame.path);
    if (frame.line != 0) add(detail::EntryClass::frame, StaticName("line"), frame.line);
    add_some(detail::EntryClass::frame, StaticName("label"), frame.label);
  }
}

std::uint64_t Span::record_exception(const ExceptionFields& exception) noexcept {
  if (!recording_) return 0;
  fault();
  const std::uint64_t id = detail::next_span_id();
  add_exception(id, exception);
  return id;
}

namespace {

std::string type_name(const std::exception& exception) {
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> name(
      abi::__cxa_demangle(typeid(exception).name(), nullptr, nullptr, &status), std::free);
  return name != nullptr ? name.get() : typeid(exception).name();
}

}  // namespace

std::uint64_t Span::record_exception(const std::exception& exception,
                                     std::span<const StackFrame> stack) noexcept try {
  if (!recording_) return 0;
  fault();
  const std::uint64_t first = detail::next_span_id();
  std::uint64_t id = first;
  std::exception_ptr held;  // keeps alive what `at` points to
  const std::exception* at = &exception;
  for (std::size_t depth = 1; at != nullptr; ++depth) {
    const auto* const nested = dynamic_cast<const std::nested_exception*>(at);
    const std::exception_ptr inner =
        nested != nullptr && depth < nested_exceptions_max ? nested->nested_ptr() : nullptr;
    const std::uint64_t inner_id = inner != nullptr ? detail::next_span_id() : 0;
    const std::string type = type_name(*at);
    add_exception(id, {.type = type, .message = at->what(), .stack = stack, .caused_by = inner_id});
    stack = {};
    at = nullptr;
    id = inner_id;
    if (inner == nullptr) break;
    held = inner;
    try {
      std::rethrow_exception(held);
    } catch (const std::exception& caught) {
      at = &caught;  // `held` keeps it.
    } catch (...) {
      add_exception(id, {.type = "unknown"});
    }
  }
  return first;
} catch (const std::bad_alloc&) {  // The fault stands, without a name.
  return 0;
}

void Span::caused_by(std::uint64_t exception_id) noexcept {
  if (recording_) add(detail::EntryClass::cause, StaticName("id"), exception_id);
}

void Span::cause(const CauseFields& cause) noexcept {
  if (!recording_) return;
  add_some(detail::EntryClass::cause, StaticName("working_directory"), cause.working_directory);
  add_texts(detail::EntryClass::cause, StaticName("paths"), cause.paths);
}

}  // namespace spillway
