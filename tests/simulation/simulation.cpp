// SPDX-License-Identifier: Apache-2.0
#include "simulation.hpp"

#include <algorithm>
#include <array>
#include <filesystem>
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
#include <support/temporary_file.hpp>

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
enum class Weather : std::uint8_t {
  fine,
  unreachable,
  answers_lost,
  failing,
  throttling,
  large,
  forbidden,  ///< 403
  picky       ///< some records of a request are refused
};
constexpr std::size_t weathers = 8;

/// 7 s, and what an administrator or a virtual machine that was asleep does.
constexpr std::array<std::chrono::seconds, 6> wall_steps{7s, -7s, 1h, -1h, 24h * 30, -24h * 30};
constexpr std::chrono::milliseconds shutdown_overrun_max{50};  // faults.md, invariant 12
constexpr std::chrono::milliseconds slow_sync{20};

/// What became of the records of one signal, seen from outside.
struct Book {
  std::uint64_t recorded = 0;          ///< calls
  std::uint64_t refused = 0;           ///< in the accounts: dropped for a cause
  std::uint64_t lost_with_memory = 0;  ///< at most: held by killed processes, not on disk
  std::uint64_t arrived = 0;
  std::uint64_t unanswered = 0;       ///< of these, in requests whose answer got lost
  std::uint64_t recorded_before = 0;  ///< `recorded` at the start of the process of now
  std::uint64_t rejected = 0;         ///< by AWS, one by one
  std::set<std::uint64_t> numbers;    ///< of logs and spans that arrived
};

std::string tenant_of(std::uint64_t number) { return "tenant-" + std::to_string(number % 3); }

std::string text_of(std::uint64_t number) {
  return std::string(number % 97, static_cast<char>('a' + number % 26)) + std::to_string(number);
}

class Simulation {
 public:
  Simulation(std::uint64_t seed, Sabotage sabotage)
      : random_(seed),
        sabotage_(sabotage),
        has_spool_(seed % 4 != 0),
        is_killed_(seed % 3 != 0),
        has_crash_dir_(seed % 5 == 0) {
    disk_->on_crash = [this] { die(); };
    disk_->on_sync = [this] { pass_slow_sync(); };
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
    if (has_crash_dir_) config.crash_dir = crash_folder_.path("rings");
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
    if (weather == Weather::forbidden) {
      return MemoryTransport::answered(403, R"({"__type":"AccessDeniedException"})");
    }
    if (sabotage_ == Sabotage::stalls) return MemoryTransport::failed(HttpOutcome::not_connected);
    if (strikes(Sabotage::loses_request)) return MemoryTransport::answered(200);
    if (weather == Weather::large && is_logs && items_of(request) > 1) {
      return MemoryTransport::answered(413);
    }
    const bool answer_is_lost = weather == Weather::answers_lost && once_in(2);
    const bool is_picky = weather == Weather::picky && once_in(2);
    std::string body = "{}";
    for (int times = strikes(Sabotage::repeats_request) ? 2 : 1; times > 0; --times) {
      if (is_metrics) take_metrics(request, answer_is_lost);
      if (is_logs) body = take_logs(request, answer_is_lost, is_picky);
      if (is_spans) body = take_spans(request, answer_is_lost, is_picky);
    }
    if (answer_is_lost) return MemoryTransport::failed(HttpOutcome::lost);
    return MemoryTransport::answered(200, body);
  }
  /// Once in a run, not at its very beginning.
  bool strikes(Sabotage what) {
    if (sabotage_ != what || has_struck_ || outcome_.steps < 3) return false;
    has_struck_ = true;
    return true;
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
  /// Requests of a stream come in the order of their records, also after an outage; what comes a second time does not count.
  /// Those of an earlier process may come later.
  void check_order(const std::set<std::uint64_t>& numbers) {
    if (numbers.empty() || is_order_lost_) return;
    if (!logs_.numbers.empty() && *numbers.begin() < *logs_.numbers.rbegin()) {
      fail("requests of a stream are not in the order of their records");
    }
  }
  std::string take_logs(const HttpRequest& request, bool answer_is_lost, bool is_picky) {
    simdjson::dom::array events;
    if (parse(request.body)["logEvents"].get(events) != simdjson::SUCCESS || events.size() == 0) {
      fail("PutLogEvents without events");
      return "{}";
    }
    std::vector<std::string> messages;
    std::vector<std::int64_t> times;
    for (const simdjson::dom::element event : events) {
      times.push_back(event["timestamp"].get_int64().value());
      messages.emplace_back(event["message"].get_string().value());
    }
    if (times.size() > 1 && times.front() != times.back() && strikes(Sabotage::swaps_events)) {
      std::swap(times.front(), times.back());
    }
    if (!std::is_sorted(times.begin(), times.end())) {
      fail("events of a request are not in the order of time");
    }
    if (times.back() - times.front() > 24 * 3600 * 1000) fail("a request spans more than a day");
    const std::size_t refused = is_picky ? up_to(messages.size()) : 0;
    std::set<std::uint64_t> fresh;
    for (std::size_t i = 0; i < messages.size(); ++i) {
      const simdjson::dom::element root = parse(messages[i]);
      std::uint64_t number = 0;
      std::string_view text;
      std::string_view tenant;
      if (root["n"].get(number) != simdjson::SUCCESS ||
          root["text"].get(text) != simdjson::SUCCESS ||
          text != text_of(number + (strikes(Sabotage::alters_record) ? 1 : 0))) {
        fail("a log is not the one recorded: " + messages[i]);
      }
      if (root["tenant"].get(tenant) != simdjson::SUCCESS ||
          tenant != tenant_of(number + (strikes(Sabotage::moves_tenant) ? 1 : 0))) {
        fail("a log has come under another tenant's name: " + messages[i]);
      }
      if (i < refused) continue;
      if (!logs_.numbers.contains(number)) fresh.insert(number);
      if (strikes(Sabotage::invents_record)) number = logs_.recorded;
      taken_.push_back(number);
    }
    // Two requests in turn: this one after the next.
    if (strikes(Sabotage::swaps_requests)) {
      held_back_ = std::exchange(taken_, {});
    } else {
      check_order(fresh);
      for (const std::uint64_t number : std::exchange(taken_, {}))
        take(logs_, number, answer_is_lost);
      if (!held_back_.empty()) {
        check_order({held_back_.begin(), held_back_.end()});
        for (const std::uint64_t number : std::exchange(held_back_, {})) take(logs_, number, false);
      }
    }
    if (refused == 0) return "{}";
    if (!answer_is_lost) note_refusals(logs_, refused);
    return R"({"rejectedLogEventsInfo":{"tooOldLogEventEndIndex":)" + std::to_string(refused) +
           "}}";
  }
  std::string take_spans(const HttpRequest& request, bool answer_is_lost, bool is_picky) {
    simdjson::dom::array documents;
    if (parse(request.body)["TraceSegmentDocuments"].get(documents) != simdjson::SUCCESS) {
      fail("PutTraceSegments without documents");
      return "{}";
    }
    std::vector<std::string> texts;
    for (const simdjson::dom::element document : documents) {
      texts.emplace_back(document.get_string().value());
    }
    std::string unprocessed;
    for (const std::string& text : texts) {
      const simdjson::dom::element root = parse(text);
      std::uint64_t number = 0;
      std::string_view tenant;
      if (root["annotations"]["n"].get(number) != simdjson::SUCCESS) {
        fail("a segment is not the one recorded: " + text);
        return "{}";
      }
      if (root["annotations"]["tenant"].get(tenant) != simdjson::SUCCESS ||
          tenant != tenant_of(number)) {
        fail("a segment has come under another tenant's name: " + text);
      }
      if (is_picky && once_in(3)) {
        // For good, or for now: the engine sends that one again.
        const bool is_throttled = once_in(2);
        unprocessed += std::string(unprocessed.empty() ? "" : ",") + R"({"Id":")" +
                       std::string(root["id"].get_string().value()) + R"(","ErrorCode":")" +
                       (is_throttled ? "ThrottlingException" : "InvalidSegment") + R"("})";
        if (!is_throttled && !answer_is_lost) note_refusals(spans_, 1);
        continue;
      }
      take(spans_, number, answer_is_lost);
    }
    return R"({"UnprocessedTraceSegments":[)" + unprocessed + "]}";
  }
  void note_refusals(Book& book, std::uint64_t count) {
    book.rejected += count;
    outcome_.refusals += count;
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
      const Context context({.tenant = tenant_of(logs_.recorded)});
      const Scope scope(context);
      SPILLWAY_INFO(engine_->engine, "event", {"n", logs_.recorded},
                    {"text", text_of(logs_.recorded)});
      ++logs_.recorded;
    }
    for (std::uint64_t left = up_to(3); left > 0; --left) {
      const Context context({.tenant = tenant_of(spans_.recorded)});
      const Scope scope(context);
      Span span = engine_->engine.span("work");
      span.annotate("n", spans_.recorded++);
    }
    const std::uint64_t calls = up_to(50);
    for (std::uint64_t left = calls; left > 0; --left) counter_.add(1);
    metrics_.recorded += calls;
    if (strikes(Sabotage::miscounts)) ++metrics_.recorded;

    static constexpr std::array<std::chrono::milliseconds, 5> pauses{0ms, 1ms, 200ms, 1100ms,
                                                                     70'000ms};
    engine_->advance(pauses[up_to(pauses.size() - 1)]);
    if (once_in(10)) engine_->engine.flush(1s);
    engine_->http.forget_requests();
    if (!dead_ && is_killed_ && once_in(25)) die();
    if (!dead_ && once_in(40)) end_well();
    if (dead_) {
      bury();
      start();
    } else {
      look();
    }
  }
  void pass_slow_sync() {
    if (sabotage_ == Sabotage::slow_shutdown) {
      if (is_ending_) engine_->clock.advance(1s);
    } else if (is_disk_slow_ && engine_ != nullptr) {
      engine_->clock.advance(slow_sync);
    }
  }
  void change_weather() {
    for (Weather& weather : weather_) {
      if (!once_in(6)) continue;
      weather = once_in(2) ? Weather::fine : static_cast<Weather>(up_to(weathers - 1));
      if (weather != Weather::fine) ++outcome_.faults;
    }
    // Parts of a request that was too large go to disk and out again apart.
    if (has_spool_ && weather_[1] == Weather::large) is_order_lost_ = true;
    if (has_spool_ && once_in(8)) {
      ++outcome_.faults;
      is_order_lost_ = true;  // What the disk does not take waits in memory, beside what it has.
      disk_->set_full(once_in(2));
      is_disk_slow_ = once_in(3);
      if (once_in(3)) {
        disk_->set_fault(
            1 + up_to(30),
            is_killed_ && once_in(2) ? MemoryDisk::Fault::crash : MemoryDisk::Fault::fail,
            once_in(2) ? EIO : ENOSPC);
      }
    }
    if (once_in(30)) {
      ++outcome_.faults;
      const std::chrono::seconds wall_step = wall_steps[up_to(wall_steps.size() - 1)];
      // Events of a request go by time: those behind a step back come before.
      if (wall_step < 0s) is_order_lost_ = true;
      engine_->clock.step_wall(wall_step);
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

  /// A process that ends as it should, and the next one.
  void end_well() {
    ++outcome_.shutdowns;
    static constexpr std::array<std::chrono::milliseconds, 3> deadlines{0ms, 100ms, 2s};
    const std::chrono::milliseconds deadline = deadlines[up_to(deadlines.size() - 1)];
    const SteadyTime before = engine_->clock.steady();
    is_ending_ = true;
    const Stats stats = engine_->engine.shutdown(deadline);
    is_ending_ = false;
    if (dead_) return;
    // A payload that is being stored, a file and its directory, is not left: not by the one thread that there is here.
    if (engine_->clock.steady() - before > deadline + shutdown_overrun_max + 2 * slow_sync) {
      fail("a shutdown took longer than its deadline of " + std::to_string(deadline.count()) +
           " ms: " +
           std::to_string(std::chrono::duration_cast<std::chrono::milliseconds>(
                              engine_->clock.steady() - before)
                              .count()));
    }
    const auto note = [this](const char* name, Book& book, const SignalStats& signal) {
      const std::uint64_t calls = book.recorded - book.recorded_before;
      if (signal.recorded != calls + signal.recovered) {
        fail(std::string(name) + ": " + std::to_string(calls) + " calls, and " +
             std::to_string(signal.recorded) + " in the account at the end, of which recovered " +
             std::to_string(signal.recovered));
      }
      if (!has_crash_dir_ && signal.held() != signal.held_in_spool) {
        fail(std::string(name) + ": something is held at the end that is not on disk");
      }
      book.refused += signal.dropped_total();
    };
    look();
    note("logs", logs_, stats.logs);
    note("spans", spans_, stats.spans);
    note("metrics", metrics_, stats.metrics);
    outcome_.recovered += stats.logs.recovered + stats.spans.recovered;
    is_order_lost_ = true;
    clear_disk_fault();  // Between two processes nobody can be killed.
    engine_.reset();
    start();
  }
  void clear_disk_fault() { disk_->set_fault(~std::uint64_t{0} >> 1, MemoryDisk::Fault::fail); }
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
    outcome_.recovered += stats.logs.recovered + stats.spans.recovered;
    is_order_lost_ = true;
    if (has_crash_dir_) {
      // What the kernel keeps of the rings is what is there now: not what the engine does when it goes.
      std::filesystem::remove_all(crash_folder_.path("kept"));
      std::filesystem::copy(crash_folder_.path("rings"), crash_folder_.path("kept"),
                            std::filesystem::copy_options::recursive);
    }
    if (!disk_->crashed()) {
      disk_->on_crash = nullptr;
      disk_->set_fault(1, MemoryDisk::Fault::crash);
    }
  }
  void bury() {
    engine_.reset();
    if (has_crash_dir_) {
      std::filesystem::remove_all(crash_folder_.path("rings"));
      std::filesystem::rename(crash_folder_.path("kept"), crash_folder_.path("rings"));
    }
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
    is_disk_slow_ = false;
    disk_->set_full(false);
    clear_disk_fault();
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
    outcome_.recovered += stats.logs.recovered + stats.spans.recovered;
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
    // A killed process had at most one request of a signal under way, or on disk and not struck. A ring is settled by
    // payloads: what of one had been taken when its process ended comes again with the rest of it.
    const bool may_repeat = outcome_.kills != 0 || (has_crash_dir_ && outcome_.shutdowns != 0);
    if (may_repeat) return;
    if (book.arrived > book.recorded + book.unanswered) {
      fail(figures + ": some came twice without a cause");
    }
    if (book.unanswered == 0 && book.arrived + book.refused != book.recorded) {
      fail(figures + ": the account is not what arrived");
    }
    if (book.unanswered == 0 && book.rejected > book.refused) {
      fail(figures + ", refused by AWS " + std::to_string(book.rejected) +
           ": refusals are not in the account");
    }
  }

  std::mt19937_64 random_;
  const Sabotage sabotage_;
  const bool has_spool_;
  const bool is_killed_;
  const bool has_crash_dir_;
  const testing::TemporaryDirectory crash_folder_;
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
  bool has_struck_ = false;
  bool is_order_lost_ = false;
  bool is_disk_slow_ = false;
  bool is_ending_ = false;
  std::vector<std::uint64_t> taken_;      // of the request in work
  std::vector<std::uint64_t> held_back_;  // of the one before
  simdjson::dom::parser parser_;
  std::unique_ptr<TestEngine> engine_;
  Counter counter_;
};

}  // namespace

Outcome run(std::uint64_t seed, Sabotage sabotage) { return Simulation(seed, sabotage).run(); }

}  // namespace spillway::simulation
