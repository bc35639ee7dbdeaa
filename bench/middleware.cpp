// SPDX-License-Identifier: Apache-2.0
//
// Question: what does each part of the middleware add to a request, begun and finished on one thread?
// Beside it the same request without (the floor). Rows of a case take turns, round by round. Prints
// JSON rows.
//
//   middleware [--quick | --smoke] [--case NAME]
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <filesystem>
#include <fstream>
#include <functional>
#include <initializer_list>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <sched.h>
#include <sys/prctl.h>
#include <valgrind/callgrind.h>

#include "../tools/demo_service/http_service.hpp"
#include "options.hpp"
#include "rows.hpp"
#include "subjects.hpp"
#include <spillway/middleware/client_address.hpp>
#include <spillway/middleware/cors.hpp>
#include <spillway/middleware/error_body.hpp>
#include <spillway/middleware/health/endpoints.hpp>
#include <spillway/middleware/observability.hpp>
#include <spillway/middleware/rate_limit/lease_keeper.hpp>
#include <spillway/middleware/rate_limit/local_store.hpp>
#include <spillway/middleware/rate_limit/rate_limiter.hpp>
#include <spillway/middleware/request_id.hpp>
#include <spillway/middleware/resilience/breaker_step.hpp>
#include <spillway/middleware/resilience/bulkhead_step.hpp>
#include <spillway/middleware/resilience/deadline_step.hpp>
#include <spillway/middleware/resilience/load_shedding_step.hpp>
#include <spillway/middleware/signing/signer.hpp>
#include <spillway/middleware/signing/verifier_step.hpp>
#include <spillway/middleware/sns_alerts.hpp>

namespace {

namespace middleware = spillway::middleware;
namespace transport = spillway::transport;
namespace asio = boost::asio;
using Samples = std::vector<double>;

/// One row: what is called, from 1 thread and from 2.
struct Subject {
  std::string name;
  std::function<void()> call;
  std::array<Samples, 2> ns{};
};

constexpr int counted_calls = 100;

/// Under callgrind: the instructions of some calls, a dump for each subject, for bench/instructions.py.
void count(std::string_view name, const std::vector<Subject>& subjects) {
  static std::deque<std::string> names;  // A dump is written a little later.
  for (const Subject& one : subjects) {
    for (int i = 0; i < 20; ++i) one.call();  // What only first calls do.
    names.push_back(std::string(name) + "/" + one.name);
    CALLGRIND_ZERO_STATS;
    for (int i = 0; i < counted_calls; ++i) one.call();
    CALLGRIND_DUMP_STATS_AT(names.back().c_str());
  }
}

void measure_in_turns(const bench::Options& options, std::string_view name,
                      std::vector<Subject> subjects) {
  if (!options.wants(name)) return;
  if (RUNNING_ON_VALGRIND != 0) return count(name, subjects);
  const bench::Plan plan{.calls = 10, .batches = 20, .bursts = options.times(100)};
  for (int round = 0; round < options.times(10); ++round) {
    for (Subject& one : subjects) {
      const auto run = [&](Samples& to) {
        bench::measure(
            plan, [&](int) { one.call(); }, [] {}, to);
      };
      run(one.ns[0]);
      Samples other;
      std::thread beside([&] { run(other); });
      run(one.ns[1]);
      beside.join();
      one.ns[1].insert(one.ns[1].end(), other.begin(), other.end());
    }
  }
  for (Subject& one : subjects) {
    for (const int threads : {1, 2}) {
      bench::Row row{"middleware", std::string(name), one.name, threads};
      row.ns = bench::summarise(one.ns[static_cast<std::size_t>(threads - 1)]);
      bench::print(row);
    }
  }
}

// ---- The request, as an adapter sees it ----

const std::vector<middleware::HeaderField>& fields() {
  static const std::vector<middleware::HeaderField> list{
      {"Host", "shop.example"},
      {"User-Agent", "curl/8.0"},
      {"Accept", "*/*"},
      {"X-Forwarded-For", "198.51.100.7"},
      {"X-Request-ID", "b7a1e5c2-5f0e-4f6e-9a55-1c2d3e4f5061"},
      {"X-Tenant-ID", "acme"},
      {"X-User-ID", "u-17"},
      {"Content-Type", "application/json"}};
  return list;
}

middleware::RequestView incoming() {
  static const std::span<const middleware::HeaderField> list(fields());
  middleware::RequestView view{.method = "GET",
                               .host = "shop.example",
                               .peer_address = "10.0.0.7",
                               .headers = middleware::headers_of(list)};
  view.target("/orders/17?expand=items");
  return view;
}

/// What the handler itself does in every case.
int handle(const middleware::RequestView& request) {
  std::size_t bytes = request.path.size() + request.host.size();
  bench::opaque(bytes);
  return 200;
}

template <class Chain>
void serve(const Chain& chain) {
  auto exchange = chain.begin(incoming());
  int status = exchange.reply().status;
  if (!exchange.has_reply()) {
    const auto current = exchange.enter();
    status = handle(exchange.request);
    exchange.respond({.status = status, .body_bytes = 1234});
  }
  exchange.finish({.status = status, .body_bytes = 1234});
}

// ---- Observability ----

/// A server whose traces are sampled at a rate.
struct Server {
  explicit Server(double sample_rate, middleware::ObservabilityOptions options = {})
      : engine(
            [&] {
              spillway::Config config;
              config.service = "bench";
              config.metrics = spillway::MetricsTo::put_metric_data;
              config.logs = spillway::LogsTo::file;
              config.logs_file = "/dev/null";
              config.traces = spillway::TracesTo::put_trace_segments;
              config.trace_sample_rate = sample_rate;
              config.trace_reservoir = 0;
              config.region = "eu-west-1";
              config.on_diagnostic = [](std::string_view) {};
              return config;
            }(),
            bench::agreeing(true)),
        observability(engine, routes, std::move(options)) {}

  spillway::Engine engine;
  const middleware::Routes routes{{"GET", "/orders/{id}"}, {"POST", "/orders"}};
  middleware::RequestId request_id;
  middleware::Observability observability;
  const middleware::Chain<middleware::RequestId, middleware::Observability> chain{
      routes, request_id, observability};
};

void measure_observability(const bench::Options& options) {
  Server sampled(1.0);
  Server unsampled(0.0);
  Server logs(0.0, middleware::ObservabilityOptions::logging_only());
  Server metrics(0.0, middleware::ObservabilityOptions::metrics_only());
  Server traces(1.0, middleware::ObservabilityOptions::tracing_only());
  const middleware::Routes routes{{"GET", "/orders/{id}"}, {"POST", "/orders"}};
  const middleware::Chain<> empty(routes);
  measure_in_turns(options, "observability",
                   {{"floor", [] { handle(incoming()); }},
                    {"empty chain", [&] { serve(empty); }},
                    {"spillway", [&] { serve(sampled.chain); }},
                    {"trace not sampled", [&] { serve(unsampled.chain); }},
                    {"logging_only", [&] { serve(logs.chain); }},
                    {"metrics_only", [&] { serve(metrics.chain); }},
                    {"tracing_only", [&] { serve(traces.chain); }}});
}

// ---- Health ----

void measure_health(const bench::Options& options) {
  std::vector<middleware::Dependency> dependencies;
  for (const char* const name : {"orders-table", "prices", "disk", "memory", "telemetry"}) {
    dependencies.push_back({.name = name, .check = [](const middleware::CheckRun& /*run*/) {
                              return middleware::CheckResult{};
                            }});
  }
  const middleware::HealthMonitor monitor(
      {.service_id = "bench", .dependencies = std::move(dependencies)});
  const middleware::HealthEndpoints endpoints(
      monitor, {.detail_allowed = middleware::from_networks({"10.0.0.0/8"})});
  const middleware::Routes routes{{"GET", "/orders/{id}"}, {"POST", "/orders"}};
  const middleware::Chain<> empty(routes);
  const middleware::Chain chain(routes, endpoints);
  const auto ask = [&](std::string_view path) {
    auto view = incoming();
    view.target(path);
    auto exchange = chain.begin(view);
    std::size_t bytes = exchange.reply().body.size();
    bench::opaque(bytes);
    exchange.finish({.status = exchange.reply().status});
  };
  measure_in_turns(options, "health",
                   {{"floor", [&] { serve(empty); }},
                    {"another request", [&] { serve(chain); }},
                    {"spillway", [&] { ask("/ready"); }},
                    {"detail", [&] { ask("/health/detail"); }}});
}

// ---- Rate limits ----

/// A time for decisions, as a request has one from its beginning: read once in a while.
spillway::SteadyTime coarse_now() {
  constexpr unsigned reads_between = 64;
  static thread_local unsigned calls = 0;
  static thread_local spillway::SteadyTime now;
  if (calls++ % reads_between == 0) now = std::chrono::steady_clock::now();
  return now;
}

/// A shared table that answers after the time of a network, and never denies.
class FarTable final : public spillway::detail::SharedTable {
 public:
  spillway::detail::SharedTake take(const spillway::detail::SharedWish& wish,
                                    const spillway::detail::RateState& /*guess*/) override {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    spillway::detail::SharedTake taken;
    taken.outcome = spillway::detail::SharedTake::Outcome::taken;
    taken.permits = wish.want;
    taken.left = wish.rule.capacity;
    taken.state.fresh_at = now_ns();
    taken.writes = 1;
    return taken;
  }
  bool give_back(std::string_view /*key*/, const spillway::detail::RateRule& /*rule*/,
                 std::int64_t /*permits*/, std::int64_t /*receipt*/,
                 std::int64_t /*now*/) override {
    return true;
  }
  std::int64_t now_ns() override {
    return std::chrono::nanoseconds(std::chrono::system_clock::now().time_since_epoch()).count();
  }
  void stop() noexcept override {}
};

middleware::RateLimit ample(middleware::RateAlgorithm algorithm) {
  middleware::RateLimit limit{.permits = middleware::rate_permits_max,
                              .window = middleware::rate_window_max,
                              .algorithm = algorithm};
  if (algorithm == middleware::RateAlgorithm::token_bucket)
    limit = {.permits = 1'000'000, .window = std::chrono::seconds(1), .burst = 1'000'000'000};
  return limit;
}

middleware::RateKey key_of(std::string_view tenant) {
  middleware::RateKey key("tenant");
  key.add("tenant", tenant);
  return key;
}

/// A tenant of the main thread's own, and one of the thread's beside it.
std::string_view own_tenant() {
  static const auto main_thread = std::this_thread::get_id();
  static thread_local const std::string name =
      std::this_thread::get_id() == main_thread ? "tenant-main" : "tenant-beside";
  return name;
}

void measure_rate_limits(const bench::Options& options) {
  using Algorithm = middleware::RateAlgorithm;
  const spillway::detail::RateRule bucket(ample(Algorithm::token_bucket));
  const spillway::detail::RateRule sliding(ample(Algorithm::sliding_window));
  const spillway::detail::RateRule fixed(ample(Algorithm::fixed_window));
  const auto decide = [](auto& store, std::string_view tenant,
                         const spillway::detail::RateRule& rule) {
    auto decision = store.take(key_of(tenant), rule, 1, coarse_now());
    bench::opaque(decision);
    if (!decision.admitted()) std::abort();  // Its cost is another's.
  };
  own_tenant();  // The main thread is this one.
  const auto hash = [] {
    auto hashed = key_of("acme").hash();
    bench::opaque(hashed);
  };

  middleware::LocalRateStore local;
  Server server(0.0, middleware::ObservabilityOptions::logging_only());
  middleware::RateLimiterOptions limits{
      .policies = {{.name = "client",
                    .limit = ample(Algorithm::token_bucket),
                    .by = {{middleware::RateKeySource::client_address}}}}};
  middleware::RateLimiter step(server.engine, local, limits);
  limits.policies[0].name = "silent";
  limits.headers = false;
  middleware::RateLimiter silent_step(server.engine, local, limits);
  const middleware::Routes routes{{"GET", "/orders/{id}"}, {"POST", "/orders"}};
  const middleware::Chain<> empty(routes);
  const middleware::Chain<middleware::RateLimiter> chain(routes, step);
  const middleware::Chain<middleware::RateLimiter> silent_chain(routes, silent_step);
  measure_in_turns(options, "rate_limit_local",
                   {{"floor", hash},
                    {"spillway", [&] { decide(local, own_tenant(), bucket); }},
                    {"sliding window", [&] { decide(local, "sliding", sliding); }},
                    {"fixed window", [&] { decide(local, "fixed", fixed); }},
                    {"one key for all threads", [&] { decide(local, "acme", bucket); }},
                    {"empty chain", [&] { serve(empty); }},
                    {"chain, with headers", [&] { serve(chain); }},
                    {"chain, no headers", [&] { serve(silent_chain); }}});

  spillway::detail::LeaseKeeper::Parts parts{.lease = {.permits_max = 1'000'000},
                                             .wait = std::chrono::seconds(10)};
  for (int i = 0; i < 4; ++i) parts.tables.push_back(std::make_unique<FarTable>());
  spillway::detail::LeaseKeeper leased(std::move(parts));
  if (options.wants("rate_limit_leased")) {
    // Steady state: leases as long as the demand wants them.
    const int enough = options.times(RUNNING_ON_VALGRIND != 0 ? 10'000 : 1'000'000);
    for (int i = 0; i < enough; ++i) decide(leased, "acme", bucket);
    std::thread([&] {
      for (int i = 0; i < enough; ++i) decide(leased, own_tenant(), bucket);
    }).join();
    for (int i = 0; i < enough; ++i) decide(leased, own_tenant(), bucket);
  }
  measure_in_turns(options, "rate_limit_leased",
                   {{"floor", hash},
                    {"spillway", [&] { decide(leased, own_tenant(), bucket); }},
                    {"one key for all threads", [&] { decide(leased, "acme", bucket); }}});
}

// ---- Circuit breaker, bulkhead: the decision and what ends it, with a time that is known already ----

void measure_circuit_breaker(const bench::Options& options) {
  const auto now = std::chrono::steady_clock::now();
  middleware::CircuitBreakers breakers(middleware::CircuitBreakerOptions{});
  middleware::CircuitBreaker& one = breakers.of("payments", now);
  const auto call = [now](middleware::CircuitBreaker& breaker) {
    const auto permit = breaker.try_acquire(now);
    bool admitted = static_cast<bool>(permit);
    bench::opaque(admitted);
    breaker.record(permit, middleware::CallResult::success, std::chrono::microseconds(300), now);
  };
  middleware::CircuitBreaker& open = breakers.of("stock", now);
  while (open.state() == middleware::BreakerState::closed)
    open.record(open.try_acquire(now), middleware::CallResult::failure, {}, now);
  measure_in_turns(options, "circuit_breaker",
                   {{"floor", [] {}},
                    {"spillway", [&] { call(one); }},
                    {"found by its key", [&] { call(breakers.of("payments", now)); }},
                    {"open: refused", [&] { call(open); }}});
}

void measure_bulkhead(const bench::Options& options) {
  const auto now = std::chrono::steady_clock::now();
  middleware::Bulkhead all({.concurrency_max = 256});
  middleware::Bulkhead tenants({.concurrency_max = 256, .concurrency_per_tenant_max = 64});
  const auto call = [now](middleware::Bulkhead& bulkhead) {
    const auto permit = bulkhead.try_acquire("acme", now);
    bool admitted = static_cast<bool>(permit);
    bench::opaque(admitted);
  };
  measure_in_turns(
      options, "bulkhead",
      {{"floor", [] {}}, {"spillway", [&] { call(all); }}, {"by tenant", [&] { call(tenants); }}});
}

/// Admits whatever else the machine does: what is refused costs less.
middleware::LoadSheddingOptions unmoved() {
  constexpr middleware::ShedThresholds never{2, 2, 2};  // Above 1: never.
  return {.shedder = {.in_flight_min = 1000,
                      .in_flight_first = 1000,
                      .cpu_pressure = never,
                      .cpu_throttled = never,
                      .memory = never}};
}

void measure_load_shedding(const bench::Options& options) {
  const auto now = std::chrono::steady_clock::now();
  middleware::LoadShedder shedder(unmoved().shedder);
  const auto call = [&] {
    auto reason = shedder.try_begin(middleware::Priority::normal, now);
    bench::opaque(reason);
    if (reason == middleware::ShedReason::none) shedder.end(std::chrono::microseconds(300), now);
  };
  Server server(0.0, middleware::ObservabilityOptions::logging_only());
  middleware::LoadSheddingStep step(server.engine, server.routes, unmoved());
  const middleware::Chain<> empty(server.routes);
  const middleware::Chain chain(server.routes, step);
  measure_in_turns(options, "load_shedding",
                   {{"floor", [] {}},
                    {"spillway", call},
                    {"empty chain", [&] { serve(empty); }},
                    {"chain", [&] { serve(chain); }}});
}

// ---- Signatures ----

/// A POST that is signed, and sent to a chain that verifies it.
struct Signed {
  transport::HttpRequest sent;

  Signed() {
    sent.method = "POST";
    sent.origin = "http://shop.example";
    sent.path = "/orders";
    for (const middleware::HeaderField& field : fields())
      sent.headers.push_back({std::string(field.name), std::string(field.value)});
    sent.body = R"({"items":[{"sku":"tea","count":2}]})";
  }
  /// Each has a nonce of its own, so that each has to be made.
  void sign(const middleware::RequestSigner& signer) {
    const std::string error = signer.sign(sent, std::chrono::system_clock::now());
    if (!error.empty()) throw std::runtime_error(error);
  }
  template <class Chain>
  void serve(const Chain& chain) const {
    std::array<middleware::HeaderField, 16> list;
    std::size_t count = 0;
    for (const transport::HttpHeader& header : sent.headers)
      list[count++] = {header.name, header.value};
    const std::span<const middleware::HeaderField> view(list.data(), count);
    auto exchange = chain.begin({.method = sent.method,
                                 .path = sent.path,
                                 .host = "shop.example",
                                 .peer_address = "10.0.0.7",
                                 .headers = middleware::headers_of(view),
                                 .body = sent.body,
                                 .body_bytes = static_cast<std::int64_t>(sent.body.size())});
    if (exchange.has_reply())  // Its cost is another's.
      throw std::runtime_error("refused: " + std::string(exchange.decision));
    exchange.respond({.status = 201});
    exchange.finish({.status = 201});
  }
};

/// The calling thread's.
Signed& own_request() {
  static thread_local Signed request;
  return request;
}

std::shared_ptr<const middleware::SigningKeys> signing_keys() {
  return std::make_shared<middleware::SigningKeys>(std::vector<middleware::SigningKey>{
      {.id = "orders-2026-11", .secret = std::string(32, 'k')}});
}

/// Of the verifier: what it remembers must hold the run's nonces.
middleware::SignatureStepOptions signature_options() {
  return {.verifier = {.age_max = std::chrono::seconds(1),
                       .clock_ahead = std::chrono::seconds(1),
                       .replay_entries = std::size_t{1} << 18},
          .needed = [](const middleware::Route& route) { return route.method == "POST"; }};
}

void measure_signing(const bench::Options& options) {
  if (!options.wants("signing")) return;
  const auto keys = signing_keys();
  const middleware::RequestSigner signer(keys);
  Server server(0.0, middleware::ObservabilityOptions::logging_only());
  middleware::SignatureStep step(server.engine, server.routes, keys, signature_options());
  const middleware::Chain<> empty(server.routes);
  const middleware::Chain chain(server.routes, step);
  measure_in_turns(options, "signing",
                   {{"floor", [&] { own_request().serve(empty); }},
                    {"sign",
                     [&] {
                       own_request().sign(signer);
                       own_request().serve(empty);
                     }},
                    {"sign and verify",
                     [&] {
                       own_request().sign(signer);
                       own_request().serve(chain);
                     }},
                    {"need not be signed", [&] { serve(chain); }}});
}

// ---- The chain of all steps ----

struct Everything {
  explicit Everything(double sample_rate) : server(sample_rate) {}

  Server server;
  middleware::ClientAddress client_address{{.trusted_proxies = {"10.0.0.0/8"}}};
  middleware::HealthMonitor monitor{{.service_id = "bench", .dependencies = {}}};
  middleware::HealthEndpoints health{monitor, {}};
  middleware::SnsAlerts alerts{
      server.engine,
      {.topic_arn = "arn:aws:sns:eu-west-1:123456789012:errors", .service = "bench"}};
  middleware::Cors cors{{.origins = {"https://*.shop.example"}}};
  middleware::ErrorBody error_body;
  middleware::LocalRateStore store;
  middleware::RateLimiter limiter{
      server.engine,
      store,
      {.policies = {{.name = "tenant",
                     .limit = {.permits = 50'000'000, .window = std::chrono::seconds(60)},
                     .by = {{middleware::RateKeySource::tenant}}}}}};
  middleware::SignatureStep signature{server.engine, server.routes, signing_keys(),
                                      signature_options()};
  middleware::LoadSheddingStep shedding{server.engine, server.routes, unmoved()};
  middleware::DeadlineStep deadline{server.engine, server.routes};
  middleware::BreakerStep breaker{server.engine, server.routes};
  middleware::BulkheadStep bulkhead{server.engine,
                                    {.bulkhead = {.concurrency_per_tenant_max = 64}}};
  const middleware::Chain<
      middleware::ClientAddress, middleware::RequestId, middleware::HealthEndpoints,
      middleware::Observability, middleware::SnsAlerts, middleware::Cors, middleware::ErrorBody,
      middleware::SignatureStep, middleware::LoadSheddingStep, middleware::RateLimiter,
      middleware::DeadlineStep, middleware::BreakerStep, middleware::BulkheadStep>
      chain{server.routes, client_address, server.request_id, health,    server.observability,
            alerts,        cors,           error_body,        signature, shedding,
            limiter,       deadline,       breaker,           bulkhead};
};

void measure_chain(const bench::Options& options) {
  if (!options.wants("chain")) return;
  Everything sampled(1.0);
  Everything unsampled(0.0);
  const middleware::Routes routes{{"GET", "/orders/{id}"}, {"POST", "/orders"}};
  const middleware::Chain<> empty(routes);
  const middleware::RequestSigner signer(signing_keys());
  measure_in_turns(options, "chain",
                   {{"floor", [] { handle(incoming()); }},
                    {"empty chain", [&] { serve(empty); }},
                    {"spillway", [&] { serve(sampled.chain); }},
                    {"trace not sampled", [&] { serve(unsampled.chain); }},
                    {"sign a request",
                     [&] {
                       own_request().sign(signer);
                       own_request().serve(empty);
                     }},
                    {"sign, verify, and all steps", [&] {
                       own_request().sign(signer);
                       own_request().serve(sampled.chain);
                     }}});
}

// ---- A real server ----

struct Orders {
  demo::Response handle(const demo::Request& request) {
    demo::Response response{demo::http::status::ok, request.version()};
    response.set(demo::http::field::content_type, "application/json");
    response.body() = R"({"order":17,"items":[{"sku":"tea","count":2}],"total":1250})";
    response.prepare_payload();
    for (const middleware::HeaderField& field : added)
      response.insert({field.name.data(), field.name.size()},
                      {field.value.data(), field.value.size()});
    return response;
  }
  /// What the chain's responses have more than a bare server's, for one that has them all the same.
  std::vector<middleware::HeaderField> added{};
};
const std::vector<middleware::HeaderField>& headers_of_the_chain() {
  static const std::vector<middleware::HeaderField> list{
      {"X-Request-ID", "b7a1e5c2-5f0e-4f6e-9a55-1c2d3e4f5061"},
      {"X-Amzn-Trace-Id", "Root=1-6b01eaa9-0f1e2d3c4b5a69788796a5b4;Sampled=0"},
      {"Vary", "Origin"},
      {"X-RateLimit-Limit", "50000000"},
      {"X-RateLimit-Remaining", "49999999"},
      {"X-RateLimit-Reset", "1"},
      {"RateLimit-Policy", "\"tenant\";q=50000000;w=60"},
      {"RateLimit", "\"tenant\";r=49999999;t=1"}};
  return list;
}

/// Connections of a client that sends a request on each and then takes the answer of each, until told to
/// stop, once at least. So the server has always something to do, and the client less than it.
class Clients {
 public:
  explicit Clients(std::uint16_t port) {
    request_ = "GET /orders/17?expand=items HTTP/1.1\r\n";
    for (const middleware::HeaderField& field : fields())
      request_.append(field.name).append(": ").append(field.value).append("\r\n");
    request_ += "\r\n";
    for (asio::ip::tcp::socket& socket : sockets_) {
      socket.connect({asio::ip::address_v4::loopback(), port});
      socket.set_option(asio::ip::tcp::no_delay(true));
    }
  }
  /// How many requests were answered.
  std::uint64_t ask(const std::atomic<bool>& stop) {
    std::uint64_t count = 0;
    do {
      for (asio::ip::tcp::socket& socket : sockets_) asio::write(socket, asio::buffer(request_));
      for (asio::ip::tcp::socket& socket : sockets_) take_answer(socket);
      count += sockets_.size();
    } while (!stop.load(std::memory_order_relaxed));
    return count;
  }

 private:
  static constexpr std::size_t connections = 8;

  static void take_answer(asio::ip::tcp::socket& socket) {
    std::array<char, 4096> answer;
    std::size_t bytes = 0;
    do {
      bytes += socket.read_some(asio::buffer(answer.data() + bytes, answer.size() - bytes));
    } while (!std::string_view(answer.data(), bytes).ends_with("\"total\":1250}"));
    if (!std::string_view(answer.data(), bytes).starts_with("HTTP/1.1 200"))
      throw std::runtime_error("the server said " + std::string(answer.data(), bytes));
  }

  std::string request_;
  asio::io_context context_;
  std::vector<asio::ip::tcp::socket> sockets_ = [this] {
    std::vector<asio::ip::tcp::socket> sockets;
    for (std::size_t i = 0; i < connections; ++i) sockets.emplace_back(context_);
    return sockets;
  }();
};

/// The processor's time of this process's threads, by their name.
double cpu_ns_of(std::string_view name_begins_with) {
  double ns = 0;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::string name;
    std::getline(std::ifstream(task.path() / "comm"), name);
    double used = 0;
    if (name.starts_with(name_begins_with) && std::ifstream(task.path() / "schedstat") >> used)
      ns += used;
  }
  return ns;
}

/// Threads that are begun from now on have this name and run on these cores, until the end of the block.
class ThreadsAre {
 public:
  ThreadsAre(const char* name, std::initializer_list<std::size_t> cores) {
    prctl(PR_GET_NAME, name_before_.data());
    sched_getaffinity(0, sizeof cores_before_, &cores_before_);
    prctl(PR_SET_NAME, name);
    cpu_set_t chosen;
    CPU_ZERO(&chosen);
    for (const std::size_t core : cores) CPU_SET(core, &chosen);
    sched_setaffinity(0, sizeof chosen,
                      &chosen);  // A machine of one core leaves all where they are.
  }
  ThreadsAre(const ThreadsAre&) = delete;
  ThreadsAre& operator=(const ThreadsAre&) = delete;
  ~ThreadsAre() {
    prctl(PR_SET_NAME, name_before_.data());
    sched_setaffinity(0, sizeof cores_before_, &cores_before_);
  }

 private:
  std::array<char, 16> name_before_{};
  cpu_set_t cores_before_{};
};

/// Beast servers in turns, the list forth and back: without steps, with all of them; written by Beast,
/// field by field, or with the head in one piece. The server and all of the engine's threads have one
/// core, the clients the other, so that what the chain costs anywhere in the process is missing from the
/// requests a second. Of a machine that has others to serve too, the processor's time that the server
/// took for a request says more: the threads that serve, and with the chain the engine's as well.
void measure_throughput(const bench::Options& options, int threads) {
  if (!options.wants("chain_throughput") || RUNNING_ON_VALGRIND != 0) return;
  struct Measured {
    const char* name;
    std::uint16_t port;
    double requests = 0;
    double wall_ns = 0;
    double cpu_ns = 0;
  };
  const std::string name = "bench-server" + std::to_string(threads);
  const ThreadsAre server_threads(name.c_str(), threads == 1
                                                    ? std::initializer_list<std::size_t>{0}
                                                    : std::initializer_list<std::size_t>{0, 1});
  Everything everything(0.05);  // X-Ray's own default rate of traces.
  const middleware::Routes routes{{"GET", "/orders/{id}"}};
  const middleware::Chain<> empty(routes);
  Orders orders;
  Orders with_headers{headers_of_the_chain()};
  using Nothing = middleware::Chain<>;
  using All = decltype(Everything::chain);
  demo::HttpService<Orders, Nothing, demo::Writer::beast> bare(0, threads, orders, empty);
  demo::HttpService<Orders, Nothing, demo::Writer::beast> headers(0, threads, with_headers, empty);
  demo::HttpService<Orders, Nothing> bare_one_piece(0, threads, orders, empty);
  demo::HttpService<Orders, All> full(0, threads, orders, everything.chain);
  demo::HttpService<Orders, All, demo::Writer::beast> full_by_beast(0, threads, orders,
                                                                    everything.chain);
  std::array servers{Measured{"bare server", bare.port()},
                     Measured{"bare server, the same headers", headers.port()},
                     Measured{"bare server, head in one piece", bare_one_piece.port()},
                     Measured{"spillway", full.port()},
                     Measured{"spillway, written by Beast", full_by_beast.port()}};
  const std::span with(servers.end() - 2, 2);
  const auto phase = [&](Measured& server) {
    const ThreadsAre client_threads("bench-client", {1});
    std::atomic<bool> stop{false};
    std::vector<std::uint64_t> counts(static_cast<std::size_t>(threads));
    std::vector<std::unique_ptr<Clients>> all;
    for (std::size_t i = 0; i < counts.size(); ++i)
      all.push_back(std::make_unique<Clients>(server.port));
    const double cpu = cpu_ns_of(name);
    const auto begin = std::chrono::steady_clock::now();
    std::vector<std::thread> clients;
    for (std::size_t i = 0; i < counts.size(); ++i)
      clients.emplace_back([&, i] { counts[i] = all[i]->ask(stop); });
    std::this_thread::sleep_for(options.lasting(std::chrono::milliseconds(500)));
    stop = true;
    for (std::thread& client : clients) client.join();
    server.wall_ns +=
        std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - begin).count();
    server.cpu_ns += cpu_ns_of(name) - cpu;
    for (const std::uint64_t count : counts) server.requests += static_cast<double>(count);
  };
  const double engine_before = cpu_ns_of("spillway-");
  for (int round = 0; round < options.times(20); ++round) {
    for (std::size_t i = 0; i < servers.size(); ++i) phase(servers[i]);
    for (std::size_t i = servers.size(); i-- > 0;) phase(servers[i]);
  }
  everything.server.engine.flush(std::chrono::seconds(10));
  // All of theirs, also what they did in other phases: it is for these requests.
  const double engine_ns = cpu_ns_of("spillway-") - engine_before;
  const auto print = [&](const char* subject, double cpu_ns, double per_second) {
    bench::Row row{"middleware", "chain_throughput", subject, threads};
    row.ns.mean = cpu_ns;
    row.per_second = per_second;
    bench::print(row);
  };
  const double engine_ns_per_request = engine_ns / (with[0].requests + with[1].requests);
  for (const Measured& one : servers) {
    const bool has_engine = &one >= &with.front();
    print(one.name, one.cpu_ns / one.requests + (has_engine ? engine_ns_per_request : 0),
          one.requests / one.wall_ns * 1e9);
  }
  print("of it flusher, sender, samplers", engine_ns_per_request, bench::absent);
}

}  // namespace

int main(int argc, char** argv) {
  const bench::Options options(argc, argv);
  if (RUNNING_ON_VALGRIND != 0) std::printf("%d calls a case\n", counted_calls);
  measure_observability(options);
  measure_health(options);
  measure_rate_limits(options);
  measure_circuit_breaker(options);
  measure_bulkhead(options);
  measure_load_shedding(options);
  measure_signing(options);
  measure_chain(options);
  measure_throughput(options, 1);
  measure_throughput(options, 2);
}
