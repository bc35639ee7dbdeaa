// SPDX-License-Identifier: Apache-2.0
//
// The service that the integration tests run: an engine that is set up by its environment and
// records what standard input says.
//
//   record    a scenario (below); prints {"stats","diagnostics","traces"} after shutdown
//   bodies    the same without a network: prints every request, and the same line last
//   sign      requests, one JSON object a line; prints the headers that signing made, one a line
//   headers   X-Amzn-Trace-Id headers, one a line; prints what each says, and what is sent on under it
//   sampling=ORIGIN   a sampler whose service is there. A line {"at": seconds, "do": "poll"} or
//             {"at": seconds, "requests": [{"host","method","path","draw"}, ...]}; prints a line with
//             the decisions; {"do": "say"}: with the diagnostics so far
//
// A scenario is one JSON object; everything in it may be missing:
//   {"threads": 4,
//    "metrics": [{"kind": "counter", "name": "Requests", "unit": "Count", "resolution": 60,
//                 "dimensions": {"Route": "/a"}, "values": [1, 2.5]}],
//    "logs": ["a text", ...],
//    "traces": [{"name": "orders", "annotations": {"k": "v"}, "http": {"method","url","status"},
//                "measure": 12.5, "everything": true, "log": "a text", "children": [...],
//                "traceparent": "00-...", "tracestate": "rojo=1"}, ...], "traces_per_second": 0}
// A trace's "measure" goes into the histogram Measured while its span is open, its "log" is recorded then;
// with "traceparent" it is part of a caller's. Bodies that are no plain
// JSON are printed as "body_hex". Thread t records every value, text and trace whose index is t modulo the number of threads.
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <iterator>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <simdjson.h>

#include <spillway/buffers/byte_buffer.hpp>
#include <spillway/encoders/json.hpp>
#include <spillway/engine/sampling_client.hpp>
#include <spillway/engine/testing.hpp>
#include <spillway/engine/trace_header.hpp>
#include <spillway/spillway.hpp>
#include <spillway/transport/memory_transport.hpp>
#include <spillway/transport/sigv4.hpp>

namespace {

using namespace std::chrono_literals;
using simdjson::dom::array;
using simdjson::dom::element;
using simdjson::dom::object;

std::string json_of(std::string_view text) {
  spillway::detail::ByteBuffer out;
  spillway::detail::append_json_string(out, text);
  return std::string(out.view());
}

std::string list_of(const std::vector<std::string>& texts) {
  std::string out = "[";
  for (const std::string& text : texts) out.append(out.size() > 1 ? "," : "").append(json_of(text));
  return out + "]";
}

/// Empty when there is no such list.
std::vector<element> list_in(element parent, std::string_view key) {
  array found;
  if (parent[key].get(found) != simdjson::SUCCESS) return {};
  return {found.begin(), found.end()};
}

std::string text_in(element parent, std::string_view key) {
  std::string_view text;
  return parent[key].get(text) == simdjson::SUCCESS ? std::string(text) : std::string();
}

std::int64_t number_in(element parent, std::string_view key, std::int64_t otherwise) {
  std::int64_t number = 0;
  return parent[key].get(number) == simdjson::SUCCESS ? number : otherwise;
}

spillway::Unit unit_of(std::string_view name) {
  for (std::size_t i = 0; i < spillway::unit_count; ++i) {
    const auto unit = static_cast<spillway::Unit>(i);
    if (to_string(unit) == name) return unit;
  }
  throw std::invalid_argument("no such unit: " + std::string(name));
}

// ---- record, bodies ----

class Recorder {
 public:
  Recorder(spillway::Engine& engine, element scenario) : engine_(engine), scenario_(scenario) {
    for (const element metric : list_in(scenario, "metrics")) metrics_.push_back(make(metric));
  }

  void run() {
    const auto count = static_cast<std::size_t>(number_in(scenario_, "threads", 1));
    std::vector<std::thread> threads;
    for (std::size_t t = 0; t < count; ++t) {
      threads.emplace_back([this, t, count] { record_share(t, count); });
    }
    for (std::thread& thread : threads) thread.join();
  }

  const std::vector<std::string>& traces() const { return traces_; }

 private:
  struct Metric {
    std::string kind;
    spillway::Counter counter;
    spillway::Gauge gauge;
    spillway::Histogram histogram;
    std::vector<element> values;
  };

  Metric make(element description) {
    Metric metric;
    metric.kind = text_in(description, "kind");
    metric.values = list_in(description, "values");
    const std::string name = text_in(description, "name");
    const spillway::Unit unit = unit_of(text_in(description, "unit"));
    const auto resolution = number_in(description, "resolution", 60) == 1
                                ? spillway::Resolution::second
                                : spillway::Resolution::minute;
    spillway::Dimensions dimensions;
    if (object members; description["dimensions"].get(members) == simdjson::SUCCESS) {
      for (const auto& [key, value] : members) {
        dimensions.push_back({std::string(key), std::string(value.get_string().value())});
      }
    }
    if (metric.kind == "counter") {
      metric.counter = engine_.counter(name, unit, dimensions, resolution);
    } else if (metric.kind == "gauge") {
      metric.gauge = engine_.gauge(name, unit, dimensions, resolution);
    } else {
      metric.histogram = engine_.histogram(name, unit, dimensions, resolution);
    }
    return metric;
  }

  void record_share(std::size_t thread, std::size_t thread_count) {
    const auto mine = [&](std::size_t index) { return index % thread_count == thread; };
    for (const Metric& metric : metrics_) {
      std::size_t index = 0;
      for (const element value : metric.values) {
        if (mine(index++)) record(metric, value.get_double().value());
      }
    }
    std::int64_t n = 0;
    for (const element text : list_in(scenario_, "logs")) {
      if (mine(static_cast<std::size_t>(n))) {
        SPILLWAY_INFO(engine_, "event", {"n", n}, {"text", text.get_string().value()});
      }
      ++n;
    }
    const std::int64_t rate = number_in(scenario_, "traces_per_second", 0);
    const auto start = std::chrono::steady_clock::now();
    std::size_t index = 0;
    for (const element trace : list_in(scenario_, "traces")) {
      if (rate > 0 && mine(index)) {
        std::this_thread::sleep_until(start + index * std::chrono::nanoseconds(1s) / rate);
      }
      if (mine(index++)) record_trace(trace);
    }
  }

  void record_trace(element trace) {
    const auto parent =
        spillway::parse_traceparent(text_in(trace, "traceparent"), text_in(trace, "tracestate"));
    const spillway::Context context({.trace = parent});
    std::optional<spillway::Scope> scope;
    if (parent) scope.emplace(context);
    record_span(trace, true);
  }

  static void record(const Metric& metric, double value) {
    if (metric.kind == "counter") {
      metric.counter.add(value);
    } else if (metric.kind == "gauge") {
      metric.gauge.set(value);
    } else {
      metric.histogram.record(value);
    }
  }

  void record_span(element description, bool is_root) {
    spillway::Span span = engine_.span(engine_.span_name(text_in(description, "name")));
    if (is_root) {
      const std::lock_guard lock(mutex_);
      traces_.push_back(to_string(span.trace_id()));
    }
    // Keys are literals in a service; these are the ones that scenarios have.
    element annotations;
    if (description["annotations"].get(annotations) == simdjson::SUCCESS) {
      if (std::int64_t n = 0; annotations["n"].get(n) == simdjson::SUCCESS) span.annotate("n", n);
      if (double v = 0; annotations["v"].get(v) == simdjson::SUCCESS) span.annotate("v", v);
      if (bool b = false; annotations["b"].get(b) == simdjson::SUCCESS) span.annotate("b", b);
      if (std::string_view s; annotations["s"].get(s) == simdjson::SUCCESS) span.annotate("s", s);
    }
    if (element http; description["http"].get(http) == simdjson::SUCCESS) {
      const std::string method = text_in(http, "method");
      const std::string url = text_in(http, "url");
      span.http_request({.method = method, .url = url});
      span.http_response(static_cast<int>(number_in(http, "status", 200)));
    }
    if (double value = 0; description["measure"].get(value) == simdjson::SUCCESS) {
      measured_.record(value);
    }
    if (bool all = false; description["everything"].get(all) == simdjson::SUCCESS && all) {
      record_everything(span);
    }
    if (std::string_view text; description["log"].get(text) == simdjson::SUCCESS) {
      SPILLWAY_INFO(engine_, "event", {"text", text});
    }
    for (const element child : list_in(description, "children")) record_span(child, false);
  }

  // What X-Ray's documents have a place for, beside what scenarios say; test_xray_documents.py knows
  // the values.
  static void record_everything(spillway::Span& span) {
    constexpr std::string_view names[] = {"one", "two"};
    span.metadata("cache", "hits", 3);
    span.http_request({.method = "POST",
                       .url = "https://shop.example/orders",
                       .user_agent = "probe",
                       .client_ip = "203.0.113.9",
                       .x_forwarded_for = true,
                       .traced = true});
    span.http_response(503, 17);
    span.aws_call({.operation = "BatchGetItem",
                   .region = "us-east-1",
                   .account_id = "123456789012",
                   .request_id = "R1",
                   .table_name = "one",
                   .queue_url = "https://sqs/q",
                   .table_names = names,
                   .resource_names = names,
                   .retries = 2});
    span.sql({.url = "postgres://db:5432/orders",
              .connection_string = "host=db",
              .sanitized_query = "SELECT ?",
              .database_type = "PostgreSQL",
              .database_version = "15.4",
              .driver_version = "libpq 15",
              .user = "app",
              .preparation = "statement"});
    const spillway::LinkAttribute attributes[] = {{"queue", "q-1"}};
    span.link({0x6b00e3540f1e2d3c, 0x4b5a69788796a5b4}, 7, attributes);
    span.precursor(9);
    span.throttle();
    const spillway::StackFrame stack[] = {{"orders.cpp", 17, "place()"}, {"main.cpp", 3, "main()"}};
    try {
      try {
        throw std::out_of_range("no such key");
      } catch (...) {
        std::throw_with_nested(std::invalid_argument("order 7"));
      }
    } catch (const std::exception& caught) {
      span.record_exception(caught, stack);
    }
    span.record_exception(
        {.type = "Remote", .message = "busy", .remote = true, .frames_skipped = 1});
    span.cause({.working_directory = "/srv", .paths = names});
  }

  spillway::Engine& engine_;
  element scenario_;
  std::vector<Metric> metrics_;
  const spillway::Histogram measured_ = engine_.histogram("Measured", spillway::Unit::milliseconds);
  std::mutex mutex_;
  std::vector<std::string> traces_;
};

std::string hex_of(std::string_view bytes) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string text;
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    text += digits[byte >> 4];
    text += digits[byte & 15U];
  }
  return text;
}

/// Keeps requests, and prints each as a line when it is gone.
void print(const spillway::transport::HttpRequest& request) {
  std::cout << "{\"path\":" << json_of(request.path) << ",\"headers\":{";
  std::string_view separator;
  for (const auto& header : request.headers) {
    std::cout << separator << json_of(header.name) << ':' << json_of(header.value);
    separator = ",";
  }
  const std::string_view type = find_header(request.headers, "Content-Type");
  const bool is_text = type.find("json") != std::string_view::npos &&
                       find_header(request.headers, "Content-Encoding").empty();
  if (is_text) {
    std::cout << "},\"body\":" << json_of(request.body) << "}\n";
  } else {
    std::cout << "},\"body_hex\":\"" << hex_of(request.body) << "\"}\n";
  }
}

int record(bool with_network) {
  const std::string input(std::istreambuf_iterator<char>(std::cin), {});
  simdjson::dom::parser parser;
  const element scenario = parser.parse(input).value();

  std::mutex mutex;
  std::vector<std::string> diagnostics;
  spillway::Config config;
  config.on_diagnostic = [&](std::string_view text) {
    const std::lock_guard lock(mutex);
    diagnostics.emplace_back(text);
  };
  spillway::transport::MemoryTransport* memory = nullptr;
  spillway::Runtime runtime;
  if (!with_network) {
    auto transport = std::make_unique<spillway::transport::MemoryTransport>();
    memory = transport.get();
    runtime.http = std::move(transport);
  }
  spillway::Engine engine(config, std::move(runtime));
  Recorder recorder(engine, scenario);
  recorder.run();
  const spillway::Stats stats = engine.shutdown(60s);
  if (memory != nullptr) {
    for (const auto& request : memory->requests()) print(request);
  }
  std::cout << "{\"stats\":" << stats.to_json() << ",\"diagnostics\":" << list_of(diagnostics)
            << ",\"traces\":" << list_of(recorder.traces()) << "}\n";
  return 0;
}

// ---- sign ----

int sign() {
  simdjson::dom::parser parser;
  for (std::string line; std::getline(std::cin, line);) {
    const element description = parser.parse(simdjson::padded_string(line)).value();
    spillway::transport::HttpRequest request;
    request.method = text_in(description, "method");
    request.origin = text_in(description, "origin");
    request.path = text_in(description, "path");
    request.query = text_in(description, "query");
    request.body = text_in(description, "body");
    for (const element header : list_in(description, "headers")) {
      request.headers.push_back({std::string(header.at(0).get_string().value()),
                                 std::string(header.at(1).get_string().value())});
    }
    spillway::transport::Sigv4Signer signer(text_in(description, "region"),
                                            text_in(description, "service"));
    const spillway::transport::Credentials credentials(
        text_in(description, "id"), text_in(description, "secret"), text_in(description, "token"));
    signer.sign(request, credentials,
                std::chrono::system_clock::time_point(
                    std::chrono::seconds(number_in(description, "time", 0))));
    std::cout << json_of(find_header(request.headers, "Authorization")) << '\n';
  }
  return 0;
}

// ---- headers ----

int headers() {
  spillway::Config config;
  auto transport = std::make_unique<spillway::transport::MemoryTransport>();
  spillway::Runtime runtime;
  runtime.http = std::move(transport);
  spillway::Engine engine(config, std::move(runtime));
  for (std::string line; std::getline(std::cin, line);) {
    const auto parent = spillway::parse_trace_header(line);
    if (!parent) {
      std::cout << "null" << std::endl;
      continue;
    }
    const spillway::Context context{{.trace = parent}};
    const spillway::Scope scope(context);
    const spillway::Span span = engine.span("probe");
    spillway::detail::ByteBuffer parent_id;
    spillway::detail::ByteBuffer span_id;
    if (parent->parent_id != 0) spillway::detail::append_hex16(parent_id, parent->parent_id);
    if (span.span_id() != 0) {
      spillway::detail::append_hex16(span_id, span.span_id());
    } else {
      span_id.append(parent_id.view());
    }
    const char* const sampled = parent->sampled == spillway::Sampled::yes  ? "1"
                                : parent->sampled == spillway::Sampled::no ? "0"
                                                                           : "";
    std::cout << "{\"root\":" << json_of(to_string(parent->trace_id))
              << ",\"parent\":" << json_of(parent_id.view()) << ",\"sampled\":\"" << sampled
              << "\",\"span\":" << json_of(span_id.view())
              << ",\"sent\":" << json_of(spillway::current_trace_header()) << "}" << std::endl;
  }
  return 0;
}

// ---- sampling ----

int sampling(std::string_view origin) {
  namespace detail = spillway::detail;
  std::shared_ptr<spillway::testing::ManualClock> clock;
  std::optional<detail::Sampler> sampler;
  std::optional<detail::SamplingClient> client;
  std::vector<std::string> said;
  std::int64_t now = 0;
  simdjson::dom::parser parser;
  for (std::string line; std::getline(std::cin, line);) {
    const element step = parser.parse(simdjson::padded_string(line)).value();
    const std::int64_t at = number_in(step, "at", 0);
    if (!client) {
      clock = std::make_shared<spillway::testing::ManualClock>(
          spillway::WallTime(std::chrono::seconds(at)));
      detail::SamplingRule local;  // The X-Ray SDKs' own default.
      local.reservoir = 1;
      local.fixed_rate = 0.05;
      sampler.emplace(detail::Sampler::Options{.service_name = "orders", .local_rules = {local}});
      client.emplace(detail::SamplingClient::Parts{
          .sampler = *sampler,
          .clock = clock,
          .service_name = "orders",
          .proxy_origin = std::string(origin),
          .random = [] { return 0.0; },
          .diagnostic = [&](std::string_view text) { said.emplace_back(text); }});
      now = at;
    }
    clock->advance(std::chrono::seconds(at - now));
    now = at;
    const std::string what = text_in(step, "do");
    if (what == "poll") client->run_once();
    if (what == "say") {
      std::cout << list_of(said) << std::endl;
      continue;
    }
    std::string decisions = "[";
    for (const element request : list_in(step, "requests")) {
      const std::string host = text_in(request, "host");
      const std::string method = text_in(request, "method");
      const std::string path = text_in(request, "path");
      const detail::SamplingDecision decision =
          sampler->decide({host, method, path}, 1, static_cast<std::uint32_t>(at),
                          request["draw"].get_double().value());
      decisions.append(decisions.size() > 1 ? "," : "")
          .append(decision.sampled ? "{\"sampled\":true" : "{\"sampled\":false")
          .append(",\"rule\":")
          .append(json_of(decision.rule->name))
          .append("}");
    }
    std::cout << decisions << ']' << std::endl;
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) try {
  const std::string_view command = argc == 2 ? argv[1] : "";
  if (command == "record") return record(true);
  if (command == "bodies") return record(false);
  if (command == "sign") return sign();
  if (command == "headers") return headers();
  constexpr std::string_view with_origin = "sampling=";
  if (command.starts_with(with_origin)) return sampling(command.substr(with_origin.size()));
  std::cerr << "usage: integration_probe record|bodies|sign|headers|sampling=ORIGIN\n";
  return 2;
} catch (const std::exception& error) {
  std::cerr << "integration_probe: " << error.what() << '\n';
  return 1;
}
