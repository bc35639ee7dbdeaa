// SPDX-License-Identifier: Apache-2.0
#include "local/trace_store.hpp"

namespace spillway::local {
namespace {

std::string_view to_string(TraceRoute route) {
  return route == TraceRoute::https ? "https" : route == TraceRoute::udp ? "udp" : "otlp";
}

}  // namespace

TraceStore::TraceStore(std::size_t documents_kept_max, std::size_t bytes_kept_max)
    : documents_kept_max_(documents_kept_max), bytes_kept_max_(bytes_kept_max) {}

void TraceStore::add(std::string_view document, const DocumentReport& report, TraceRoute route) {
  if (route == TraceRoute::otlp) {
    counts_.otlp_spans += report.segment_count;
  } else {
    const bool over_udp = route == TraceRoute::udp;
    (over_udp ? counts_.udp_documents : counts_.https_documents) += 1;
    (over_udp ? counts_.udp_segments : counts_.https_segments) += report.segment_count;
  }
  documents_.push_back({report.trace_id, std::string(document), route});
  bytes_kept_ += document.size();
  while (documents_.size() > documents_kept_max_ || bytes_kept_ > bytes_kept_max_) forget_oldest();
}

void TraceStore::forget_oldest() {
  bytes_kept_ -= documents_.front().text.size();
  documents_.pop_front();
}

void TraceStore::clear() {
  documents_.clear();
  bytes_kept_ = 0;
  counts_ = {};
}

std::vector<Segment> TraceStore::segments(std::string_view trace_id) const {
  simdjson::dom::parser parser;
  std::vector<Segment> result;
  for (const Document& document : documents_) {
    if (!trace_id.empty() && document.trace_id != trace_id) continue;
    list_segments(document.text, document.route == TraceRoute::udp, parser, result);
  }
  return result;
}

void TraceStore::write(JsonWriter& json, std::string_view trace_id, std::size_t limit) const {
  json.begin_object().key("documents").begin_object();
  json.field("https", counts_.https_documents).field("udp", counts_.udp_documents);
  json.field("kept", documents_.size()).end_object();
  json.key("segments").begin_object();
  json.field("https", counts_.https_segments).field("udp", counts_.udp_segments);
  json.field("otlp", counts_.otlp_spans).end_object();
  json.key("page").begin_array();
  for (const Document& document : documents_) {
    if (!trace_id.empty() && document.trace_id != trace_id) continue;
    if (limit-- == 0) break;
    json.begin_object().field("via", to_string(document.route));
    json.key("document").raw(document.text).end_object();
  }
  json.end_array().end_object();
}

}  // namespace spillway::local
