// SPDX-License-Identifier: Apache-2.0
#include "simulation.hpp"

#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include <simdjson.h>
#include <support/environment.hpp>
#include <support/memory_disk.hpp>

#include <spillway/engine/spool_file.hpp>
#include <spillway/engine/testing.hpp>

namespace spillway::simulation {
namespace {

using namespace std::chrono_literals;
using testing::MemoryDisk;
using testing::ScopedVariable;
using testing::TestEngine;
using transport::HttpOutcome;
using transport::HttpRequest;
using transport::HttpResponse;
using transport::MemoryTransport;

constexpr int steps_max = 150;

/// What the network and AWS do with requests of one signal for a while.
enum class Weather : std::uint8_t { fine, unreachable, answers_lost, failing, throttling, large };
constexpr std::size_t weathers = 6;

/// What became of the records of one signal, seen from outside.
struct Book {
  std::uint64_t recorded = 0;          ///< calls
  std::uint64_t refused = 0;           ///< in the accounts: dropped for a cause
  std::uint64_t lost_with_memory = 0;  ///< at most: held by killed processes, not on disk
  std::uint64_t arrived = 0;
  std::uint64_t unanswered = 0;       ///< of these, in requests whose answer got lost
  std::uint64_t recorded_before = 0;  ///< `recorded` at the start of the process of now
  std::set<std::uint64_t> numbers;    ///< of logs and spans that arrived
};

std::string text_of(std::uint64_t number) {
  return std::string(number % 97, static_cast<char>('a' + number % 26)) + std::to_string(number);
}

class Simulation {
 public:
  explicit Simulation(std::uint64_t seed)
      : random_(seed), has_spool_(seed % 4 != 0), is_killed_(seed % 3 != 0) {
    disk_->on_crash = [this] { die(); };
    start();
  }

  Outcome run() {
    for (int i = 0; i < steps_max && outcome_.error.empty(); ++i) step();
    if (outcome_.error.empty()) recover();
    if (outcome_.error.empty()) close_books();
    outcome_.recorded = logs_.recorded + spans_.recorded + metrics_.recorded;
    return outcome_;
  }

 private:
  std::uint64_t up_to(std::uint64_t most) { return random_() % (most + 1); }
  bool once_in(std::uint64_t times) { return random_() % times == 0; }
  void fail(const std::string& what) {
    if (outcome_.error.empty()) {
      outcome_.error = "step " + std::to_string(outcome_.steps) + ": " + what;
    }
  }

  Config config() {
    Config config;
    config.service = "simulated";
    config.metric_namespace = "Simulation";
    config.metrics = MetricsTo::put_metric_data;
    config.logs = LogsTo::put_log_events;
    config.traces = TracesTo::put_trace_segments;
    config.trace_sample_rate = 1.0;
    config.log_group = "/simulated";
    config.log_stream = "one";
    config.ring_bytes = once_in(2) ? 1 << 14 : 1 << 20;
    config.queue_bytes_max = once_in(2) ? 4 << 20 : 64 << 20;
    if (has_spool_) config.spool_dir = "/spool";
    config.on_diagnostic = [](std::string_view) {};
    return config;
  }
  void start() {
    dead_ = false;
    engine_ = std::make_unique<TestEngine>(config(), disk_);
    counter_ = engine_->engine.counter("Requests");
    for (Book* const book : {&logs_, &spans_, &metrics_}) book->recorded_before = book->recorded;
    engine_->http.set_answer([this](const HttpRequest& request) { return answer(request); });
  }

  // ---- AWS ----

  HttpResponse answer(const HttpRequest& request) {
    if (dead_) return MemoryTransport::failed(HttpOutcome::not_connected);
    ++outcome_.requests;
    const std::string_view target = transport::find_header(request.headers, "X-Amz-Target");
    const bool is_metrics = target.ends_with("PutMetricData");
    const bool is_logs = target.ends_with("PutLogEvents");
    const bool is_spans = request.path == "/TraceSegments";
    const Weather weather = weather_[is_metrics ? 0 : is_spans ? 2 : 1];
    if (weather == Weather::unreachable) return MemoryTransport::failed(HttpOutcome::not_connected);
    if (weather == Weather::failing) {
      // Taken or not: a 500 does not tell.
      return MemoryTransport::answered(once_in(2) ? 500 : 503);
    }
    if (weather == Weather::throttling) {
      return MemoryTransport::answered(
          400, R"({"__type":"ThrottlingException"})",
          once_in(2) ? std::vector<transport::HttpHeader>{{"Retry-After", "3"}}
                     : std::vector<transport::HttpHeader>{});
    }
    if (weather == Weather::large && is_logs && items_of(request) > 1) {
      return MemoryTransport::answered(413);
    }
    const bool answer_is_lost = weather == Weather::answers_lost && once_in(2);
    if (is_metrics) take_metrics(request, answer_is_lost);
    if (is_logs) take_logs(request, answer_is_lost);
    if (is_spans) take_spans(request, answer_is_lost);
    if (answer_is_lost) return MemoryTransport::failed(HttpOutcome::lost);
    return MemoryTransport::answered(200);
  }
  simdjson::dom::element parse(std::string_view text) {
    simdjson::dom::element root;
    if (parser_.parse(text).get(root) != simdjson::SUCCESS) fail("a body is no JSON");
    return root;
  }
  std::size_t items_of(const HttpRequest& request) {
    simdjson::dom::array events;
    return parse(request.body)["logEvents"].get(events) == simdjson::SUCCESS ? events.size() : 0;
  }
  void take(Book& book, std::uint64_t number, bool answer_is_lost) {
    if (number >= book.recorded) fail("AWS took what nobody recorded");
    ++book.arrived;
    if (answer_is_lost) ++book.unanswered;
    book.numbers.insert(number);
  }
  void take_logs(const HttpRequest& request, bool answer_is_lost) {
    simdjson::dom::array events;
    if (parse(request.body)["logEvents"].get(events) != simdjson::SUCCESS || events.size() == 0) {
      return fail("PutLogEvents without events");
    }
    std::vector<std::string> messages;
    std::int64_t before = 0;
    for (const simdjson::dom::element event : events) {
      const std::int64_t time = event["timestamp"].get_int64().value();
      if (time < before) fail("events of a request are not in the order of time");
      before = time;
      messages.emplace_back(event["message"].get_string().value());
    }
    for (const std::string& message : messages) {
      const simdjson::dom::element root = parse(message);
      std::uint64_t number = 0;
      std::string_view text;
      if (root["n"].get(number) != simdjson::SUCCESS ||
          root["text"].get(text) != simdjson::SUCCESS || text != text_of(number)) {
        fail("a log is not the one recorded: " + message);
      }
      take(logs_, number, answer_is_lost);
    }
  }
  void take_spans(const HttpRequest& request, bool answer_is_lost) {
    simdjson::dom::array documents;
    if (parse(request.body)["TraceSegmentDocuments"].get(documents) != simdjson::SUCCESS) {
      return fail("PutTraceSegments without documents");
    }
    std::vector<std::string> texts;
    for (const simdjson::dom::element document : documents) {
      texts.emplace_back(document.get_string().value());
    }
    for (const std::string& text : texts) {
      std::uint64_t number = 0;
      if (parse(text)["annotations"]["n"].get(number) != simdjson::SUCCESS) {
        return fail("a segment is not the one recorded: " + text);
      }
      take(spans_, number, answer_is_lost);
    }
  }
  void take_metrics(const HttpRequest& request, bool answer_is_lost) {
    simdjson::dom::array data;
    if (parse(request.body)["MetricData"].get(data) != simdjson::SUCCESS) {
      return fail("PutMetricData without data");
    }
    for (const simdjson::dom::element datum : data) {
      double value = 0;
      if (datum["MetricName"].get_string().value() != "Requests" ||
          datum["Value"].get(value) != simdjson::SUCCESS) {
        return fail("a datum is not the one recorded");
      }
      metrics_.arrived += static_cast<std::uint64_t>(value);
      if (answer_is_lost) metrics_.unanswered += static_cast<std::uint64_t>(value);
    }
  }

  // ---- The service and the world around it ----

  void step() {
    ++outcome_.steps;
    change_weather();
    for (std::uint64_t left = up_to(20); left > 0; --left) {
      SPILLWAY_INFO(engine_->engine, "event", {"n", logs_.recorded},
                    {"text", text_of(logs_.recorded)});
      ++logs_.recorded;
    }
    for (std::uint64_t left = up_to(3); left > 0; --left) {
      Span span = engine_->engine.span("work");
      span.annotate("n", spans_.recorded++);
    }
    const std::uint64_t calls = up_to(50);
    for (std::uint64_t left = calls; left > 0; --left) counter_.add(1);
    metrics_.recorded += calls;

    static constexpr std::array<std::chrono::milliseconds, 5> pauses{0ms, 1ms, 200ms, 1100ms,
                                                                     70'000ms};
    engine_->advance(pauses[up_to(pauses.size() - 1)]);
    if (once_in(10)) engine_->engine.flush(1s);
    engine_->http.forget_requests();
    if (!dead_ && is_killed_ && once_in(25)) die();
    if (dead_) {
      bury();
      start();
    } else {
      look();
    }
  }
  void change_weather() {
    for (Weather& weather : weather_) {
      if (!once_in(6)) continue;
      weather = once_in(2) ? Weather::fine : static_cast<Weather>(up_to(weathers - 1));
      if (weather != Weather::fine) ++outcome_.faults;
    }
    if (has_spool_ && once_in(8)) {
      ++outcome_.faults;
      disk_->set_full(once_in(2));
      if (once_in(3)) {
        disk_->set_fault(
            1 + up_to(30),
            is_killed_ && once_in(2) ? MemoryDisk::Fault::crash : MemoryDisk::Fault::fail,
            once_in(2) ? EIO : ENOSPC);
      }
    }
    if (once_in(30)) {
      ++outcome_.faults;
      engine_->clock.step_wall(once_in(2) ? 7s : -7s);
    }
  }

  Book& book_of(detail::Signal signal) {
    return signal == detail::Signal::metrics ? metrics_
           : signal == detail::Signal::logs  ? logs_
                                             : spans_;
  }
  /// The records of the payloads that are on disk, by box, signal and sequence.
  using FilesWritten =
      std::map<std::tuple<std::string, detail::Signal, std::uint64_t>, std::uint64_t>;
  FilesWritten files_written() {
    FilesWritten found;
    for (const auto& [path, bytes] : disk_->files()) {
      const std::size_t slash = path.rfind('/');
      const auto name = detail::parse_spool_name(std::string_view(path).substr(slash + 1));
      if (!name || bytes->size() != name->bytes) continue;
      found[{path.substr(0, slash), name->signal, name->sequence}] = name->records;
    }
    return found;
  }

  /// The process is no more: from here on nothing that its engine does has an effect.
  void die() {
    if (dead_) return;
    dead_ = true;
    ++outcome_.kills;
    const Stats stats = engine_->engine.stats();
    const auto note = [](Book& book, const SignalStats& signal) {
      book.refused += signal.dropped_total();
      // With what the rings and counters hold that the flusher has not read.
      const std::uint64_t calls = book.recorded - book.recorded_before;
      book.lost_with_memory +=
          signal.held() - signal.held_in_spool + (calls + signal.recovered - signal.recorded);
    };
    note(logs_, stats.logs);
    note(spans_, stats.spans);
    note(metrics_, stats.metrics);
    if (!disk_->crashed()) {
      disk_->on_crash = nullptr;
      disk_->set_fault(1, MemoryDisk::Fault::crash);
    }
  }
  void bury() {
    engine_.reset();
    const auto written = files_written();
    disk_->restart(once_in(2));
    // Written, and not synced when power was lost.
    const auto left = files_written();
    for (const auto& [file, records] : written) {
      if (left.contains(file)) continue;
      book_of(std::get<detail::Signal>(file)).lost_with_memory += records;
    }
    disk_->on_crash = [this] { die(); };
  }
  /// The account, between steps.
  void look() {
    const Stats stats = engine_->engine.stats();
    for (const auto& [name, signal] :
         {std::pair{"metrics", &stats.metrics}, {"logs", &stats.logs}, {"spans", &stats.spans}}) {
      if (signal->residue() != 0) {
        fail(std::string(name) + ": recorded " + std::to_string(signal->recorded) +
             " is not delivered " + std::to_string(signal->delivered) + " + dropped " +
             std::to_string(signal->dropped_total()) + " + held " + std::to_string(signal->held()));
      }
    }
  }

  // ---- The end ----

  void recover() {
    weather_.fill(Weather::fine);
    disk_->set_full(false);
    disk_->set_fault(~std::uint64_t{0} >> 1, MemoryDisk::Fault::fail);
    for (int i = 0; i < 300; ++i) {
      engine_->advance(5s);
      engine_->http.forget_requests();
      look();
    }
    engine_->engine.flush(1s);
    const Stats stats = engine_->engine.stats();
    const auto note = [this](const char* name, Book& book, const SignalStats& signal) {
      if (signal.held() != 0) {
        fail(std::string(name) + ": " + std::to_string(signal.held()) +
             " are held though all is well again");
      }
      book.refused += signal.dropped_total();
    };
    note("logs", logs_, stats.logs);
    note("spans", spans_, stats.spans);
    note("metrics", metrics_, stats.metrics);
  }
  void close_books() {
    check("logs", logs_, logs_.numbers.size());
    check("spans", spans_, spans_.numbers.size());
    check("metrics", metrics_, metrics_.arrived);
  }
  void check(const char* name, const Book& book, std::uint64_t arrived) {
    const std::string figures = std::string(name) + ": recorded " + std::to_string(book.recorded) +
                                ", arrived " + std::to_string(arrived) + " (" +
                                std::to_string(book.arrived) + " with repetitions), dropped " +
                                std::to_string(book.refused) + ", in memory of the killed " +
                                std::to_string(book.lost_with_memory);
    if (arrived + book.refused + book.lost_with_memory < book.recorded) {
      fail(figures + ": some are in no account");
    }
    // A killed process had at most one request of a signal under way, or on disk and not struck.
    if (outcome_.kills == 0 && book.arrived > book.recorded + book.unanswered) {
      fail(figures + ": some came twice without a cause");
    }
    if (outcome_.kills == 0 && book.unanswered == 0 &&
        book.arrived + book.refused != book.recorded) {
      fail(figures + ": the account is not what arrived");
    }
  }

  std::mt19937_64 random_;
  const bool has_spool_;
  const bool is_killed_;
  ScopedVariable id_{"AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"};
  ScopedVariable secret_{"AWS_SECRET_ACCESS_KEY", "secret"};
  ScopedVariable token_{"AWS_SESSION_TOKEN", nullptr};
  ScopedVariable region_{"AWS_REGION", "eu-west-1"};
  ScopedVariable endpoint_{"AWS_ENDPOINT_URL", nullptr};
  std::shared_ptr<MemoryDisk> disk_ = std::make_shared<MemoryDisk>();
  std::array<Weather, 3> weather_{};
  Book logs_;
  Book spans_;
  Book metrics_;
  Outcome outcome_;
  bool dead_ = false;
  simdjson::dom::parser parser_;
  std::unique_ptr<TestEngine> engine_;
  Counter counter_;
};

}  // namespace

Outcome run(std::uint64_t seed) { return Simulation(seed).run(); }

}  // namespace spillway::simulation
