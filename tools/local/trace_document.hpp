// SPDX-License-Identifier: Apache-2.0
//
// A segment document of X-Ray, checked by the rules of the developer guide's page "AWS X-Ray
// segment documents". The service names what is wrong by a code: InvalidTraceId is in the guide;
// MissingId, InvalidName and MissingEndTime are in reports of its users; the others here are made
// after that pattern.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include <simdjson.h>

#include "local/observed.hpp"

namespace spillway::local {

/// What X-Ray says of a document that it does not take.
struct DocumentProblem {
  std::string id;  ///< empty when the document has none, or cannot be parsed
  std::string code;
  std::string message;
};

struct DocumentReport {
  /// Of each segment or independent subsegment in the document; one, or several for an array.
  std::vector<DocumentProblem> problems{};
  std::string trace_id{};         ///< of the first one
  std::size_t segment_count = 0;  ///< with the embedded ones
};

/// Checks one document: a segment, a subsegment sent on its own, or an array of them.
DocumentReport check_document(std::string_view document, simdjson::dom::parser& parser);

/// Adds the segments of a document that was taken, each before those embedded in it.
void list_segments(std::string_view document, bool over_udp, simdjson::dom::parser& parser,
                   std::vector<Segment>& segments);

}  // namespace spillway::local
