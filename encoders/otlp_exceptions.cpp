// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <charconv>

#include <spillway/buffers/batch.hpp>
#include <spillway/buffers/names.hpp>
#include <spillway/encoders/otlp_exceptions.hpp>

namespace spillway::detail {

using namespace protobuf;

namespace {

// Fields of Event.
constexpr std::uint32_t event_time = 1;
constexpr std::uint32_t event_name = 2;
constexpr std::uint32_t event_attributes = 3;

constexpr std::size_t events_max = 128;  // OpenTelemetry SDK configuration: EventCountLimit.
constexpr std::size_t causes_max = 16;   // Ours, of one stack trace.

void append_number(ByteBuffer& out, std::uint64_t number) {
  std::array<char, 20> digits{};
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), number).ptr;
  out.append(std::string_view(digits.data(), static_cast<std::size_t>(end - digits.data())));
}

}  // namespace

OtlpExceptions::OtlpExceptions()
    : type_key_("exception.type"),
      message_key_("exception.message"),
      stack_key_("exception.stacktrace") {}

void OtlpExceptions::clear() noexcept {
  exceptions_.clear();
  frames_.clear();
  left_out_ = 0;
}

void OtlpExceptions::read(std::span<const std::byte> entries) {
  clear();
  bool in_exception = false;
  for (ValueReader reader(entries); !reader.empty();) {
    const EntryHeader header = reader.entry();
    const bool is_text = header.type() == ValueType::string;
    const std::string_view text = is_text ? reader.string() : std::string_view();
    const std::uint64_t number = is_text ? 0 : reader.number();
    const std::string_view name = name_of(header.name());
    if (header.entry_class() == EntryClass::exception) {
      if (name == "id") {
        in_exception = exceptions_.size() < events_max;
        if (in_exception) {
          exceptions_.push_back({.id = number, .first_frame = frames_.size()});
        } else {
          ++left_out_;
        }
        continue;
      }
      if (!in_exception) continue;  // What belongs to none: its beginning was cut off.
      Exception& exception = exceptions_.back();
      if (name == "type") exception.type = text;
      if (name == "message") exception.message = text;
      if (name == "cause") exception.cause = number;
      if (name == "truncated") exception.frames_left_out = number;
      if (name == "time") exception.time_ns = static_cast<std::int64_t>(number);
    } else if (header.entry_class() == EntryClass::frame && in_exception) {
      Exception& exception = exceptions_.back();
      if (name == "path") {
        frames_.push_back({.path = text, .label = {}});
        ++exception.frame_count;
      } else if (exception.frame_count != 0) {
        if (name == "line") frames_.back().line = number;
        if (name == "label") frames_.back().label = text;
      }
    }
  }
  for (const Exception& exception : exceptions_) {
    const std::size_t cause = find(exception.cause);
    // Where causes go in a circle, none of them is only a cause.
    if (cause != none && !leads_to(cause, exception.id)) exceptions_[cause].is_cause = true;
  }
}

std::size_t OtlpExceptions::find(std::uint64_t id) const noexcept {
  if (id == 0) return none;
  const auto found = std::find_if(exceptions_.begin(), exceptions_.end(),
                                  [id](const Exception& one) { return one.id == id; });
  return found == exceptions_.end() ? none : static_cast<std::size_t>(found - exceptions_.begin());
}

bool OtlpExceptions::leads_to(std::size_t which, std::uint64_t id) const noexcept {
  for (std::size_t steps = 0; which != none && steps < exceptions_.size(); ++steps) {
    if (exceptions_[which].id == id) return true;
    which = find(exceptions_[which].cause);
  }
  return false;
}

const OtlpExceptions::Exception* OtlpExceptions::last() const noexcept {
  const auto found = std::find_if(exceptions_.rbegin(), exceptions_.rend(),
                                  [](const Exception& one) { return !one.is_cause; });
  return found == exceptions_.rend() ? nullptr : &*found;
}

std::string_view OtlpExceptions::type() const noexcept {
  return last() != nullptr ? last()->type : std::string_view();
}
std::string_view OtlpExceptions::message() const noexcept {
  return last() != nullptr ? last()->message : std::string_view();
}

void OtlpExceptions::write_heading(const Exception& exception) {
  stack_.append(exception.type.empty() ? "exception" : exception.type);
  if (!exception.message.empty()) {
    stack_.append(": ");
    stack_.append(exception.message);
  }
}

void OtlpExceptions::write_stack(const Exception& exception, std::size_t bytes_max) {
  stack_.clear();
  const Exception* at = &exception;
  for (std::size_t depth = 0; depth < causes_max && stack_.size() <= bytes_max; ++depth) {
    stack_.append(depth == 0 ? "" : "\nCaused by: ");
    write_heading(*at);
    for (std::size_t i = 0; i < at->frame_count && stack_.size() <= bytes_max; ++i) {
      const Frame& frame = frames_[at->first_frame + i];
      stack_.append("\n\tat ");
      stack_.append(frame.label.empty() ? "?" : frame.label);
      stack_.append(" (");
      stack_.append(frame.path);
      if (frame.line != 0) {
        stack_.append(':');
        append_number(stack_, frame.line);
      }
      stack_.append(')');
    }
    if (at->frames_left_out != 0) {
      stack_.append("\n\t... ");
      append_number(stack_, at->frames_left_out);
      stack_.append(" more");
    }
    const std::size_t cause = find(at->cause);
    if (cause == none) return;
    at = &exceptions_[cause];
  }
}

void OtlpExceptions::append_event(const Exception& exception, bool with_stack, std::uint32_t field,
                                  std::uint64_t time_ns, ByteBuffer& out) const {
  const std::size_t event = begin_nested(out, field);
  append_fixed64_field(out, event_time, time_ns);
  append_string_field(out, event_name, "exception");
  // "At least one of exception.type and exception.message is required".
  append_attribute(out, event_attributes, type_key_.bytes(),
                   exception.type.empty() ? std::string_view("unknown") : exception.type);
  if (!exception.message.empty()) {
    append_attribute(out, event_attributes, message_key_.bytes(), exception.message);
  }
  if (with_stack) append_attribute(out, event_attributes, stack_key_.bytes(), stack_.view());
  end_nested(out, event);
}

std::size_t OtlpExceptions::append(std::uint32_t field, const Bounds& span, std::size_t bytes_max,
                                   ByteBuffer& out) {
  const std::size_t start = out.size();
  std::size_t dropped = left_out_;
  for (const Exception& exception : exceptions_) {
    if (exception.is_cause) continue;
    // The wall clock and the span's times, which are ticks, may be a little apart.
    const auto time_ns = static_cast<std::uint64_t>(
        exception.time_ns == 0 ? span.end_ns
                               : std::clamp(exception.time_ns, span.start_ns, span.end_ns));
    const std::size_t before = out.size();
    const std::size_t room = bytes_max - (before - start);
    const bool has_stack = exception.frame_count != 0 || find(exception.cause) != none;
    if (has_stack) {
      write_stack(exception, room);
      append_event(exception, true, field, time_ns, out);
      if (out.size() - before <= room) continue;
      out.truncate(before);
    }
    append_event(exception, false, field, time_ns, out);
    if (out.size() - before <= room) continue;
    out.truncate(before);
    ++dropped;
  }
  return dropped;
}

}  // namespace spillway::detail
