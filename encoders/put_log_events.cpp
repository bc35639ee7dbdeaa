// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <utility>

#include <spillway/encoders/json.hpp>
#include <spillway/encoders/put_log_events.hpp>

namespace spillway::detail {

void sort_log_events(Payload& payload) {
  const auto earlier = [](const PayloadItem& a, const PayloadItem& b) {
    return std::pair(a.time_ms, a.id) < std::pair(b.time_ms, b.id);
  };
  if (!std::is_sorted(payload.items.begin(), payload.items.end(), earlier)) {
    std::stable_sort(payload.items.begin(), payload.items.end(), earlier);
  }
}

void append_put_log_events(const Payload& payload, std::string_view log_group,
                           std::string_view log_stream, ByteBuffer& out) {
  out.append("{\"logGroupName\":");
  append_json_string(out, log_group);
  out.append(",\"logStreamName\":");
  append_json_string(out, log_stream);
  out.append(",\"logEvents\":");
  char separator = '[';
  for (const PayloadItem& item : payload.items) {
    out.append(separator);
    out.append("{\"timestamp\":");
    append_number(out, item.time_ms);
    out.append(",\"message\":");
    append_json_string(out, payload.item(item));
    out.append('}');
    separator = ',';
  }
  out.append("]}");
}

}  // namespace spillway::detail
