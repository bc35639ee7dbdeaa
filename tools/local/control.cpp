// SPDX-License-Identifier: Apache-2.0
#include "local/control.hpp"

#include <map>
#include <optional>
#include <utility>
#include <variant>
#include <vector>

#include <simdjson.h>

#include <spillway/transport/text.hpp>

namespace spillway::local {
namespace {

using transport::HttpRequest;
using transport::parse_number;

constexpr std::string_view prefix = "/_spillway/";
constexpr std::size_t page_limit = 100;

std::string percent_decode(std::string_view text) {
  std::string result;
  for (std::size_t i = 0; i < text.size(); ++i) {
    unsigned byte = 0;
    if (text[i] == '%' && i + 2 < text.size() &&
        std::from_chars(&text[i + 1], &text[i + 1] + 2, byte, 16).ptr == &text[i + 1] + 2) {
      result += static_cast<char>(byte);
      i += 2;
    } else {
      result += text[i] == '+' ? ' ' : text[i];
    }
  }
  return result;
}

/// The parameters of a page.
class Query {
 public:
  explicit Query(std::string_view text) {
    while (!text.empty()) {
      const std::size_t end = std::min(text.find('&'), text.size());
      const std::string_view parameter = text.substr(0, end);
      const std::size_t equals = std::min(parameter.find('='), parameter.size());
      values_[percent_decode(parameter.substr(0, equals))] =
          percent_decode(parameter.substr(std::min(equals + 1, parameter.size())));
      text.remove_prefix(std::min(end + 1, text.size()));
    }
  }
  std::string text(const std::string& name) const {
    const auto found = values_.find(name);
    return found == values_.end() ? std::string() : found->second;
  }
  std::size_t number(const std::string& name, std::size_t otherwise) const {
    return parse_number<std::size_t>(text(name)).value_or(otherwise);
  }

 private:
  std::map<std::string, std::string> values_;
};

Reply json_reply(std::string body) { return {200, "application/json", std::move(body)}; }

template <class Counts>
void write_counts(JsonWriter& json, std::string_view name, const Counts& counts) {
  json.key(name).begin_object();
  for (const auto& [key, count] : counts) json.field(key, count);
  json.end_object();
}

void write_fault(JsonWriter& json, const FaultReport& report) {
  const Fault& fault = report.fault;
  json.begin_object().field("id", report.id).field("kind", to_string(fault.kind));
  json.field("service", fault.service).field("operation", fault.operation);
  json.field("count", fault.count).field("probability", fault.probability);
  json.field("seed", fault.seed).field("fired", report.fired);
  if (fault.kind == FaultKind::delay) json.field("delay_ms", fault.delay.count());
  if (fault.kind == FaultKind::skew) json.field("skew_s", fault.skew.count());
  json.end_object();
}

// A fault as JSON has the same fields as on the command line; numbers may be numbers.
std::optional<FaultFields> fault_fields(simdjson::dom::element element) {
  simdjson::dom::object object;
  if (element.get(object) != simdjson::SUCCESS) return std::nullopt;
  FaultFields fields;
  for (const auto& [key, value] : object) {
    std::string_view text;
    if (value.get(text) == simdjson::SUCCESS) {
      fields.emplace_back(key, text);
    } else {
      fields.emplace_back(key, simdjson::minify(value));
    }
  }
  return fields;
}

// One fault, or a list of them.
std::vector<FaultResult> read_faults(const std::string& body) {
  const FaultError not_json{"the body must be a JSON object, or a list of them"};
  simdjson::dom::parser parser;
  simdjson::dom::element root;
  if (parser.parse(body).get(root) != simdjson::SUCCESS) return {not_json};
  std::vector<FaultResult> results;
  const auto add = [&](simdjson::dom::element element) {
    const auto fields = fault_fields(element);
    results.push_back(fields ? make_fault(*fields) : FaultResult(not_json));
  };
  simdjson::dom::array list;
  if (root.get(list) != simdjson::SUCCESS) {
    add(root);
  } else {
    for (const simdjson::dom::element element : list) add(element);
  }
  return results;
}

}  // namespace

struct Control::Page {
  std::string_view method;
  std::string_view path;  ///< behind the prefix
  Reply (Control::*answer)(const HttpRequest&);
};

const Control::Page Control::pages[] = {
    {"GET", "metrics", &Control::metrics_page},   {"GET", "logs", &Control::logs_page},
    {"GET", "traces", &Control::traces_page},     {"GET", "stats", &Control::statistics_page},
    {"GET", "faults", &Control::list_faults},     {"POST", "faults", &Control::add_faults},
    {"DELETE", "faults", &Control::clear_faults}, {"POST", "reset", &Control::reset},
};

bool Control::is_for(const HttpRequest& request) { return request.path.starts_with(prefix); }

Reply Control::answer(const HttpRequest& request) {
  const std::string_view path = std::string_view(request.path).substr(prefix.size());
  bool known = false;
  for (const Page& page : pages) {
    if (page.path != path) continue;
    if (page.method == request.method) return (this->*page.answer)(request);
    known = true;
  }
  return known ? plain_error(405, "this page does not take " + request.method)
               : plain_error(404,
                             "no such page; there are metrics, logs, traces, stats, faults, reset");
}

// ---- Pages ----

Reply Control::metrics_page(const HttpRequest& request) {
  const Query query(request.query);
  JsonWriter json;
  const std::scoped_lock lock(store_.mutex);
  store_.metrics.write(json, query.text("namespace"), query.text("name"),
                       query.number("values", 0) != 0);
  return json_reply(json.take());
}

Reply Control::logs_page(const HttpRequest& request) {
  const Query query(request.query);
  const std::string group = query.text("group");
  if (group.empty()) return json_reply(logs_json());
  JsonWriter json;
  const std::scoped_lock lock(store_.mutex);
  if (!store_.logs.write_events(json, group, query.text("stream"), query.number("from", 0),
                                query.number("limit", page_limit))) {
    return plain_error(404, "no such stream; give group= and stream=");
  }
  return json_reply(json.take());
}

Reply Control::traces_page(const HttpRequest& request) {
  const Query query(request.query);
  JsonWriter json;
  const std::scoped_lock lock(store_.mutex);
  store_.traces.write(json, query.text("trace_id"), query.number("limit", page_limit));
  return json_reply(json.take());
}

Reply Control::statistics_page(const HttpRequest&) { return json_reply(statistics_json()); }

Reply Control::list_faults(const HttpRequest&) { return json_reply(faults_json()); }

Reply Control::add_faults(const HttpRequest& request) {
  std::vector<FaultResult> results = read_faults(request.body);
  // All or none: a half-armed test would mislead.
  for (const FaultResult& result : results) {
    if (const auto* const error = std::get_if<FaultError>(&result)) {
      return plain_error(400, error->message);
    }
  }
  JsonWriter json;
  json.begin_object().key("ids").begin_array();
  for (FaultResult& result : results) {
    const std::uint64_t id = faults_.add(std::get<Fault>(std::move(result)));
    if (id == 0) return plain_error(400, "there are too many faults; DELETE clears them");
    json.value(id);
  }
  json.end_array().end_object();
  return json_reply(json.take());
}

Reply Control::clear_faults(const HttpRequest&) {
  faults_.clear();
  return json_reply("{}");
}

Reply Control::reset(const HttpRequest&) {
  store_.clear();
  return json_reply("{}");
}

// ---- The same as texts ----

std::string Control::metrics_json() const {
  JsonWriter json;
  const std::scoped_lock lock(store_.mutex);
  store_.metrics.write(json, {}, {}, false);
  return json.take();
}

std::string Control::logs_json() const {
  JsonWriter json;
  const std::scoped_lock lock(store_.mutex);
  store_.logs.write_summaries(json);
  return json.take();
}

std::string Control::traces_json() const {
  JsonWriter json;
  const std::scoped_lock lock(store_.mutex);
  store_.traces.write(json, {}, page_limit);
  return json.take();
}

std::string Control::statistics_json() const {
  const std::scoped_lock lock(store_.mutex);
  const Statistics& statistics = store_.statistics;
  JsonWriter json;
  json.begin_object().key("requests").begin_object();
  for (const auto& [operation, by_status] : statistics.requests) {
    json.key(operation).begin_object();
    for (const auto& [status, count] : by_status) {
      json.field(status == 0 ? "no_answer" : std::to_string(status), count);
    }
    json.end_object();
  }
  json.end_object();
  write_counts(json, "errors", statistics.errors);
  write_counts(json, "partial_rejects", statistics.partial_rejects);
  json.field("body_bytes", statistics.body_bytes);
  json.field("inflated_bytes", statistics.inflated_bytes);
  json.field("datagrams", statistics.datagrams);
  json.field("datagram_bytes", statistics.datagram_bytes);
  json.field("datagrams_malformed", statistics.datagrams_malformed);
  json.field("datagrams_lost", statistics.datagrams_lost);
  json.field("connections", statistics.connections);
  json.field("connections_refused", statistics.connections_refused).end_object();
  return json.take();
}

std::string Control::faults_json() const {
  JsonWriter json;
  json.begin_object().key("faults").begin_array();
  for (const FaultReport& report : faults_.reports()) write_fault(json, report);
  json.end_array().end_object();
  return json.take();
}

}  // namespace spillway::local
