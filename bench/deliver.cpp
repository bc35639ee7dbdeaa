// SPDX-License-Identifier: Apache-2.0
//
// Questions: how many records a second does the whole engine deliver over HTTP to a receiver on
// this machine that checks every signature and limit; and what does a slow or dead destination do
// to the threads that record (nothing)? Prints JSON rows.
//
//   deliver RECEIVER SLOW_RECEIVER [--quick | --smoke]   addresses of two `spillway local`, as http://...
//
// Exit status 1: something was dropped, or what arrived is not what the account says was delivered.
#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include <arpa/inet.h>
#include <curl/curl.h>
#include <simdjson.h>
#include <sys/socket.h>
#include <unistd.h>

#include "options.hpp"
#include "rows.hpp"
#include "subjects.hpp"

namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using Samples = std::vector<double>;

const bench::Arguments& arguments() {
  static const bench::Arguments made;
  return made;
}

spillway::Config config_to(const std::string& receiver) {
  spillway::Config config;
  config.service = "bench";
  config.metrics = spillway::MetricsTo::put_metric_data;
  config.logs = spillway::LogsTo::put_log_events;
  config.traces = spillway::TracesTo::put_trace_segments;
  config.trace_sample_rate = 1.0;
  config.region = "eu-west-1";
  config.cloudwatch_endpoint = receiver;
  config.logs_endpoint = receiver;
  config.xray_endpoint = receiver;
  config.log_stream = "bench-" + std::to_string(getpid());
  config.series_per_metric_max = 100'000;
  config.on_diagnostic = [](std::string_view message) {
    std::fprintf(stderr, "%.*s\n", static_cast<int>(message.size()), message.data());
  };
  return config;
}

/// A port whose connections are taken by the kernel and never answered.
class BlackHole {
 public:
  BlackHole() {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    void* const at = &address;
    if (bind(socket_, static_cast<sockaddr*>(at), size) != 0 || listen(socket_, 64) != 0 ||
        getsockname(socket_, static_cast<sockaddr*>(at), &size) != 0) {
      std::perror("black hole");
      std::exit(1);
    }
    url_ = "http://127.0.0.1:" + std::to_string(ntohs(address.sin_port));
  }
  ~BlackHole() { close(socket_); }
  const std::string& url() const { return url_; }

 private:
  int socket_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  std::string url_;
};

/// A page of the receiver about what has arrived. Longer than what the library reads of an answer.
std::string page(const std::string& url) {
  std::string text;
  const std::unique_ptr<CURL, void (*)(CURL*)> easy(curl_easy_init(), &curl_easy_cleanup);
  const auto append = [](char* data, std::size_t size, std::size_t count, void* to) {
    static_cast<std::string*>(to)->append(data, size * count);
    return size * count;
  };
  std::size_t (*const take)(char*, std::size_t, std::size_t, void*) = append;
  curl_easy_setopt(easy.get(), CURLOPT_URL, url.c_str());
  curl_easy_setopt(easy.get(), CURLOPT_WRITEFUNCTION, take);
  curl_easy_setopt(easy.get(), CURLOPT_WRITEDATA, &text);
  if (curl_easy_perform(easy.get()) != CURLE_OK) {
    std::fprintf(stderr, "%s does not answer\n", url.c_str());
    std::exit(1);
  }
  return text;
}

/// Records that have arrived, by signal.
struct Arrived {
  std::uint64_t logs = 0;
  std::uint64_t spans = 0;
  std::uint64_t measurements = 0;
};

Arrived arrived_at(const std::string& receiver) {
  const auto parsed = [&](const char* name) {
    return simdjson::padded_string(page(receiver + "/_spillway/" + name));
  };
  Arrived arrived;
  simdjson::dom::parser parser;
  arrived.logs = parser.parse(parsed("logs"))["events"].get_uint64();
  for (const auto way : parser.parse(parsed("traces?limit=0"))["segments"].get_object()) {
    arrived.spans += way.value.get_uint64();
  }
  double sum = 0;
  for (const auto series : parser.parse(parsed("metrics"))["series"].get_array()) {
    sum += series["sum"].get_double();  // Each measurement is a one.
  }
  arrived.measurements = static_cast<std::uint64_t>(sum);
  return arrived;
}

/// Records as much as is delivered, for a while, so that nothing is dropped. `record()` makes some
/// records of the signal, no more than a ring holds.
bool ask_throughput(const std::string& name, const std::string& receiver, milliseconds how_long,
                    spillway::SignalStats spillway::Stats::*signal, std::uint64_t Arrived::*arrived,
                    std::uint64_t held_max, const std::function<void(spillway::Engine&)>& record) {
  const std::uint64_t there_before = arrived_at(receiver).*arrived;
  spillway::Engine engine(config_to(receiver));
  record(engine);
  engine.flush(seconds(10));  // Connected, and the log stream is there.
  const spillway::Stats before = engine.stats();
  const auto began = std::chrono::steady_clock::now();
  while (std::chrono::steady_clock::now() - began < how_long) {
    const spillway::SignalStats now = engine.stats().*signal;
    if (now.held_in_rings != 0 || now.held() > held_max) {
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    } else {
      record(engine);
    }
  }
  const bool flushed = engine.flush(seconds(30));
  const double took =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  const spillway::Stats after = engine.shutdown(seconds(5));
  const spillway::SignalStats& stats = after.*signal;
  bench::Row row{"deliver", name};
  row.per_second = static_cast<double>(stats.delivered - (before.*signal).delivered) / took;
  row.bytes_per_second = static_cast<double>(after.delivery.bytes - before.delivery.bytes) / took;
  bench::print(row);
  const std::uint64_t there = arrived_at(receiver).*arrived - there_before;
  // A request whose answer was lost may be there twice.
  const bool agrees =
      stats.delivery.uncertain_records == 0 ? there == stats.delivered : there >= stats.delivered;
  if (flushed && agrees && stats.residue() == 0 && stats.dropped_total() == 0) return true;
  std::fprintf(stderr, "%s: %s; %llu arrived\n", name.c_str(), after.to_json().c_str(),
               static_cast<unsigned long long>(there));
  return false;
}

bool ask_throughput(const std::string& receiver, milliseconds how_long) {
  bool exact = ask_throughput("deliver_logs", receiver, how_long, &spillway::Stats::logs,
                              &Arrived::logs, 100'000, [](spillway::Engine& engine) {
                                for (int i = 0; i < 5000; ++i) {
                                  SPILLWAY_INFO(engine, "order placed", {"order_id", i},
                                                {"total", arguments().values[i & 1023]},
                                                {"currency", arguments().view});
                                }
                              });
  exact &= ask_throughput("deliver_spans", receiver, how_long, &spillway::Stats::spans,
                          &Arrived::spans, 20'000, [](spillway::Engine& engine) {
                            for (int i = 0; i < 500; ++i) {
                              const spillway::Span root = engine.span("GET /v1/orders");
                              spillway::Span span = engine.span("charge-card");
                              span.annotate("order_id", i);
                              span.annotate("total", arguments().values[i & 1023]);
                              span.annotate("currency", arguments().view);
                            }
                          });
  std::vector<spillway::Counter> series;
  exact &= ask_throughput("deliver_series", receiver, how_long, &spillway::Stats::metrics,
                          &Arrived::measurements, 0, [&series](spillway::Engine& engine) {
                            for (std::size_t i = series.size(); i < 10'000; ++i) {
                              series.push_back(engine.counter("Requests", spillway::Unit::count,
                                                              {{"User", std::to_string(i)}}));
                            }
                            // One measurement a series and interval: a datum each.
                            for (const spillway::Counter& one : series) one.add(1);
                            engine.flush(seconds(10));
                          });
  return exact;
}

/// The same log call, to receivers that answer, that take a second for each answer, and that never
/// answer. The latter two end with their queue full.
void ask_slow_destinations(const std::string& receiver, const std::string& slow,
                           const bench::Options& options) {
  const BlackHole hole;
  struct Destination {
    const char* subject;
    std::string url;
    std::unique_ptr<spillway::Engine> engine{};
    Samples ns{};
  };
  std::array<Destination, 3> all{
      {{"answers", receiver}, {"answers after 1 s", slow}, {"never answers", hole.url()}}};
  for (Destination& one : all) {
    spillway::Config config = config_to(one.url);
    config.on_diagnostic = [](std::string_view) {};
    config.shutdown_timeout = milliseconds(200);
    one.engine = std::make_unique<spillway::Engine>(config);
  }
  const bench::Plan plan{.bursts = options.times(100)};
  for (int round = 0; round < options.times(20); ++round) {
    for (Destination& one : all) {
      const auto call = [&](int i) {
        SPILLWAY_INFO(*one.engine, "order placed", {"order_id", i},
                      {"total", arguments().values[i & 1023]}, {"currency", arguments().view});
      };
      bench::measure(
          plan, call, [] {}, one.ns);
      all[0].engine->flush(seconds(5));  // What it still sends would slow the next one's turn.
    }
  }
  for (Destination& one : all) {
    bench::Row row{"deliver", "log_beside_destination", one.subject};
    row.ns = bench::summarise(one.ns);
    bench::print(row);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const bench::Options options(argc, argv);
  if (options.arguments.size() != 2) {
    std::fputs("usage: deliver RECEIVER SLOW_RECEIVER [--quick | --smoke]\n", stderr);
    return 2;
  }
  setenv("AWS_ACCESS_KEY_ID", "local", 1);
  setenv("AWS_SECRET_ACCESS_KEY", "local-secret", 1);
  const std::string receiver(options.arguments[0]);
  ask_slow_destinations(receiver, std::string(options.arguments[1]), options);
  return ask_throughput(receiver, options.lasting(milliseconds(5000))) ? 0 : 1;
}
