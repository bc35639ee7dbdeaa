// SPDX-License-Identifier: Apache-2.0
#include "local/trace_document.hpp"

#include <algorithm>
#include <cmath>

#include "local/limits.hpp"

namespace spillway::local {
namespace {

using simdjson::dom::array;
using simdjson::dom::element;
using simdjson::dom::object;

// What is wrong with a field, as the second half of a code; empty when all is well.
using Code = std::string;

// ---- Forms ----

bool is_hex(std::string_view text, std::size_t size) {
  return text.size() == size &&
         text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

bool is_trace_id(std::string_view text) {
  return text.size() == 35 && text.starts_with("1-") && text[10] == '-' &&
         is_hex(text.substr(2, 8), 8) && is_hex(text.substr(11), 24);
}

// Letters, digits, spaces and _ . : / % & # = + \ - @. Past ASCII every character but the C1
// controls counts as a letter: which are letters is a table of Unicode that we do without.
bool is_name(std::string_view text) {
  constexpr std::string_view allowed =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 _.:/%&#=+\\-@";
  std::size_t chars = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if (byte < 0x80 && allowed.find(text[i]) == std::string_view::npos) return false;
    if (byte == 0xC2 && static_cast<unsigned char>(text[i + 1]) < 0xA0) return false;
    if ((byte & 0xC0) != 0x80) ++chars;
  }
  return chars >= 1 && chars <= limits::segment_name_chars_max;
}

// The guide allows letters, digits and underscores; its newer pages also the dot.
bool is_annotation_key(std::string_view text) {
  constexpr std::string_view allowed =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.";
  return !text.empty() && text.find_first_not_of(allowed) == std::string_view::npos;
}

bool is_bool(element value) { return value.is_bool(); }
bool is_object(element value) { return value.is_object(); }
bool is_string(element value) { return value.is_string(); }
bool is_id(element value) {
  std::string_view text;
  return value.get(text) == simdjson::SUCCESS && is_hex(text, 16);
}
bool is_cause(element value) { return value.is_object() || is_id(value); }
bool is_id_list(element value) {
  array list;
  if (value.get(list) != simdjson::SUCCESS) return false;
  return std::all_of(list.begin(), list.end(), is_id);
}
bool is_object_list(element value) {
  array list;
  if (value.get(list) != simdjson::SUCCESS) return false;
  return std::all_of(list.begin(), list.end(), is_object);
}
bool is_namespace(element value) {
  std::string_view text;
  // "local" is in AWS's own test data only.
  return value.get(text) == simdjson::SUCCESS &&
         (text == "aws" || text == "remote" || text == "local");
}
bool is_annotations(element value) {
  object annotations;
  if (value.get(annotations) != simdjson::SUCCESS) return false;
  return std::all_of(annotations.begin(), annotations.end(), [](const auto& annotation) {
    return is_annotation_key(annotation.key) &&
           (annotation.value.is_string() || annotation.value.is_number() ||
            annotation.value.is_bool());
  });
}
bool is_http(element value) {
  object http;
  if (value.get(http) != simdjson::SUCCESS) return false;
  element status;
  return http["response"]["status"].get(status) != simdjson::SUCCESS || status.is_int64();
}

struct OptionalField {
  std::string_view key;
  std::string_view code;
  bool (*is_valid)(element);
};
constexpr std::array<OptionalField, 17> optional_fields{{
    {"parent_id", "InvalidParentId", is_id},
    {"in_progress", "InvalidInProgress", is_bool},
    {"error", "InvalidError", is_bool},
    {"throttle", "InvalidThrottle", is_bool},
    {"fault", "InvalidFault", is_bool},
    {"annotations", "InvalidAnnotations", is_annotations},
    {"metadata", "InvalidMetadata", is_object},
    {"subsegments", "InvalidSubsegments", is_object_list},
    {"namespace", "InvalidNamespace", is_namespace},
    {"cause", "InvalidCause", is_cause},
    {"http", "InvalidHttp", is_http},
    {"aws", "InvalidAws", is_object},
    {"sql", "InvalidSql", is_object},
    {"service", "InvalidService", is_object},
    {"user", "InvalidUser", is_string},
    {"origin", "InvalidOrigin", is_string},
    {"precursor_ids", "InvalidPrecursorIds", is_id_list},
}};

// ---- Rules ----

// Seconds since 1970. Past this it is milliseconds, the mistake that everybody makes once.
constexpr double seconds_max = 1e10;

bool read_time(element value, double& seconds) {
  return value.get(seconds) == simdjson::SUCCESS && seconds > 0 && seconds < seconds_max;
}

Code check_texts(object segment) {
  element value;
  if (segment["id"].get(value) != simdjson::SUCCESS) return "MissingId";
  if (!is_id(value)) return "InvalidId";
  if (segment["name"].get(value) != simdjson::SUCCESS) return "MissingName";
  std::string_view text;
  if (value.get(text) != simdjson::SUCCESS || !is_name(text)) return "InvalidName";
  return {};
}

Code check_times(object segment) {
  element value;
  double start = 0;
  if (segment["start_time"].get(value) != simdjson::SUCCESS) return "MissingStartTime";
  if (!read_time(value, start)) return "InvalidStartTime";
  bool in_progress = false;
  if (segment["in_progress"].get(in_progress) != simdjson::SUCCESS) in_progress = false;
  const bool ended = segment["end_time"].get(value) == simdjson::SUCCESS;
  if (!ended) return in_progress ? "" : "MissingEndTime";
  double end = 0;
  // Exactly one of the two, and no segment ends before it began.
  if (in_progress || !read_time(value, end) || end < start) return "InvalidEndTime";
  return {};
}

// What only a document of its own has to say: its trace, and for a subsegment its parent.
Code check_place(object segment) {
  element value;
  if (segment["trace_id"].get(value) != simdjson::SUCCESS) return "MissingTraceId";
  std::string_view text;
  if (value.get(text) != simdjson::SUCCESS || !is_trace_id(text)) return "InvalidTraceId";
  if (segment["type"].get(value) != simdjson::SUCCESS) return {};
  if (value.get(text) != simdjson::SUCCESS || text != "subsegment") return "InvalidType";
  if (segment["parent_id"].get(value) != simdjson::SUCCESS) return "MissingParentId";
  return {};
}

Code check_segment(object segment, std::size_t& count) {
  ++count;
  if (Code code = check_texts(segment); !code.empty()) return code;
  if (Code code = check_times(segment); !code.empty()) return code;
  for (const auto& [key, value] : segment) {
    const auto* const rule =
        std::find_if(optional_fields.begin(), optional_fields.end(),
                     [name = key](const OptionalField& field) { return field.key == name; });
    if (rule != optional_fields.end() && !rule->is_valid(value)) return Code(rule->code);
  }
  array embedded;
  if (segment["subsegments"].get(embedded) != simdjson::SUCCESS) return {};
  for (const element subsegment : embedded) {
    object fields;
    if (subsegment.get(fields) != simdjson::SUCCESS) return "InvalidSubsegments";
    if (Code code = check_segment(fields, count); !code.empty()) return code;
  }
  return {};
}

DocumentProblem problem(std::string_view id, std::string code, std::string_view what = "segment") {
  std::string message = "Invalid " + std::string(what) + ". ErrorCode: " + code;
  return {std::string(id), std::move(code), std::move(message)};
}

void check_root(element root, DocumentReport& report) {
  object segment;
  if (root.get(segment) != simdjson::SUCCESS) {
    report.problems.push_back(problem({}, "ParseError"));
    return;
  }
  std::string_view id;
  if (segment["id"].get(id) != simdjson::SUCCESS) id = {};
  std::string_view trace_id;
  if (segment["trace_id"].get(trace_id) == simdjson::SUCCESS && report.trace_id.empty()) {
    report.trace_id = trace_id;
  }
  std::size_t count = 0;
  Code code = check_segment(segment, count);
  // What stands inside goes by the name of the document that it came in.
  const bool embedded = !code.empty() && count > 1;
  if (code.empty()) code = check_place(segment);
  if (!code.empty()) {
    report.problems.push_back(problem(id, std::move(code), embedded ? "subsegment" : "segment"));
  }
  report.segment_count += count;
}

// ---- Listing ----

template <class Value>
Value field_or(object fields, const char* key, Value otherwise) {
  Value value;
  return fields[key].get(value) == simdjson::SUCCESS ? value : otherwise;
}

void list_segment(object fields, const Segment& above, std::vector<Segment>& segments) {
  Segment segment;
  segment.over_udp = above.over_udp;
  segment.trace_id = field_or<std::string_view>(fields, "trace_id", above.trace_id);
  segment.id = field_or<std::string_view>(fields, "id", {});
  segment.parent_id = field_or<std::string_view>(fields, "parent_id", above.id);
  segment.name = field_or<std::string_view>(fields, "name", {});
  segment.start_time = field_or(fields, "start_time", 0.0);
  segment.end_time = field_or(fields, "end_time", 0.0);
  segment.is_subsegment =
      !above.id.empty() || field_or<std::string_view>(fields, "type", {}) == "subsegment";
  segment.in_progress = field_or(fields, "in_progress", false);
  segment.error = field_or(fields, "error", false);
  segment.throttle = field_or(fields, "throttle", false);
  segment.fault = field_or(fields, "fault", false);
  segments.push_back(segment);

  array embedded;
  if (fields["subsegments"].get(embedded) != simdjson::SUCCESS) return;
  for (const element subsegment : embedded) {
    object inner;
    if (subsegment.get(inner) == simdjson::SUCCESS) list_segment(inner, segment, segments);
  }
}

}  // namespace

DocumentReport check_document(std::string_view document, simdjson::dom::parser& parser) {
  DocumentReport report;
  if (document.size() > limits::trace_document_bytes_max) {
    report.problems.push_back(problem({}, "SegmentTooLarge"));
    return report;
  }
  element root;
  if (parser.parse(document.data(), document.size()).get(root) != simdjson::SUCCESS) {
    report.problems.push_back(problem({}, "ParseError"));
    return report;
  }
  array list;
  if (root.get(list) != simdjson::SUCCESS) {
    check_root(root, report);
    return report;
  }
  if (list.begin() == list.end()) report.problems.push_back(problem({}, "MissingId"));
  for (const element member : list) check_root(member, report);
  return report;
}

void list_segments(std::string_view document, bool over_udp, simdjson::dom::parser& parser,
                   std::vector<Segment>& segments) {
  Segment nothing;
  nothing.over_udp = over_udp;
  element root;
  if (parser.parse(document.data(), document.size()).get(root) != simdjson::SUCCESS) return;
  object fields;
  if (root.get(fields) == simdjson::SUCCESS) return list_segment(fields, nothing, segments);
  array list;
  if (root.get(list) != simdjson::SUCCESS) return;
  for (const element member : list) {
    if (member.get(fields) == simdjson::SUCCESS) list_segment(fields, nothing, segments);
  }
}

}  // namespace spillway::local
