// SPDX-License-Identifier: Apache-2.0
#include "local/trace_store.hpp"

namespace spillway::local {

TraceStore::TraceStore(std::size_t documents_kept_max, std::size_t bytes_kept_max)
    : documents_kept_max_(documents_kept_max), bytes_kept_max_(bytes_kept_max) {}

void TraceStore::add(std::string_view document, const DocumentReport& report, bool over_udp) {
  (over_udp ? counts_.udp_documents : counts_.https_documents) += 1;
  (over_udp ? counts_.udp_segments : counts_.https_segments) += report.segment_count;
  documents_.push_back({report.trace_id, std::string(document), over_udp});
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
    list_segments(document.text, document.over_udp, parser, result);
  }
  return result;
}

void TraceStore::write(JsonWriter& json, std::string_view trace_id, std::size_t limit) const {
  json.begin_object().key("documents").begin_object();
  json.field("https", counts_.https_documents).field("udp", counts_.udp_documents);
  json.field("kept", documents_.size()).end_object();
  json.key("segments").begin_object();
  json.field("https", counts_.https_segments).field("udp", counts_.udp_segments).end_object();
  json.key("page").begin_array();
  for (const Document& document : documents_) {
    if (!trace_id.empty() && document.trace_id != trace_id) continue;
    if (limit-- == 0) break;
    json.begin_object().field("via", document.over_udp ? "udp" : "https");
    json.key("document").raw(document.text).end_object();
  }
  json.end_array().end_object();
}

}  // namespace spillway::local
