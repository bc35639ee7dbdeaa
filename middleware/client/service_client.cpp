// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include <spillway/engine/engine.hpp>
#include <spillway/middleware/client/service_client.hpp>
#include <spillway/middleware/resilience/deadline.hpp>
#include <spillway/middleware/resilience/draw.hpp>
#include <spillway/middleware/resilience/settings.hpp>
#include <spillway/transport/background_thread.hpp>
#include <spillway/transport/blocking_http.hpp>
#include <spillway/transport/credential_sources.hpp>
#include <spillway/transport/endpoint.hpp>
#include <spillway/transport/sigv4.hpp>

namespace spillway::middleware {

using std::chrono::milliseconds;
using std::chrono::steady_clock;
using transport::HttpOutcome;

namespace {

milliseconds until(SteadyTime deadline) {
  return std::chrono::duration_cast<milliseconds>(deadline - steady_clock::now());
}

/// An endpoint and what was seen of it.
struct Node {
  Node(ServiceEndpoint of, CircuitBreakerOptions with)
      : endpoint(std::move(of)), options(std::move(with)), breaker(options) {}
  const ServiceEndpoint endpoint;
  const CircuitBreakerOptions options;
  CircuitBreaker breaker;
  std::atomic<std::uint32_t> in_flight{0};
};
/// Counts a request while it is under way.
class InFlight {
 public:
  explicit InFlight(std::atomic<std::uint32_t>& count) noexcept : count_(count) {
    count_.fetch_add(1, std::memory_order_relaxed);
  }
  InFlight(const InFlight&) = delete;
  InFlight& operator=(const InFlight&) = delete;
  ~InFlight() { count_.fetch_sub(1, std::memory_order_relaxed); }

 private:
  std::atomic<std::uint32_t>& count_;
};
using Nodes = std::vector<std::shared_ptr<Node>>;

/// What one call at a time works with: its connections and its signer.
struct Worker {
  explicit Worker(std::unique_ptr<transport::HttpTransport> transport)
      : http(std::move(transport)) {}
  transport::BlockingHttp http;
  std::optional<transport::Sigv4Signer> sigv4;
};

void add_header(transport::HttpRequest& request, std::string_view name, std::string_view value) {
  // What the caller set stays.
  if (value.empty() || !transport::find_header(request.headers, name).empty()) return;
  request.headers.push_back({std::string(name), std::string(value)});
}

}  // namespace

std::string_view to_string(ServiceOutcome outcome) noexcept {
  constexpr std::array<std::string_view, service_outcome_count> names{
      "answered",      "failed",    "no_endpoint", "breakers_open",
      "bulkhead_full", "timed_out", "refused"};
  return names[static_cast<std::size_t>(outcome)];
}

void ServiceClientOptions::check() const {
  constexpr milliseconds hour{3'600'000};
  breaker.check();
  retry.check();
  bulkhead.check();
  SettingsCheck("a service client")
      .require(!name.empty(), "there is no name")
      .require(static_cast<bool>(discover), "there is no discover")
      .require(signer == nullptr || sigv4_service.empty(),
               "a request has one signature: signer or sigv4_service")
      .within("refresh", refresh, milliseconds(100), hour)
      .within("discovery_timeout", discovery_timeout, milliseconds(1), hour)
      .within("attempt_timeout", attempt_timeout, milliseconds(1), hour)
      .within<std::size_t>("request_body_bytes_max", request_body_bytes_max, 0,
                           std::size_t{1} << 30)
      .done();
}

class ServiceClient::Core {
 public:
  explicit Core(ServiceClientOptions options)
      : options_((options.check(), std::move(options))),
        retry_(options_.retry),
        bulkhead_(options_.bulkhead),
        nodes_(std::make_shared<const Nodes>()) {
    if (!options_.sigv4_service.empty()) {
      if (options_.sigv4_region.empty()) options_.sigv4_region = transport::configured_region();
      SettingsCheck("a service client")
          .require(!options_.sigv4_region.empty(),
                   "there is no region: set `sigv4_region` or AWS_REGION")
          .done();
      credentials_ = transport::default_credentials_chain();
    }
    if (options_.engine != nullptr) make_metrics(*options_.engine);
    idle_.reserve(options_.bulkhead.concurrency_max);  // So that giving one back cannot fail.
    if (options_.threads)
      discoverer_ = transport::start_thread("spillway-discov", [this] { keep_discovering(); });
  }
  Core(const Core&) = delete;
  Core& operator=(const Core&) = delete;
  ~Core() {
    {
      const std::scoped_lock lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    if (discoverer_.joinable()) discoverer_.join();
  }

  bool is_inherited() const noexcept { return home_.is_another(); }

  ServiceReply call(const ServiceRequest& request, milliseconds timeout) {
    const SteadyTime begun = steady_clock::now();
    std::optional<Span> span;
    if (options_.engine != nullptr) {
      span.emplace(options_.engine->span(span_name_));
      span->remote();
    }
    ServiceReply reply = attempt_all(request, begun + timeout);
    if (options_.engine != nullptr) {
      const std::chrono::duration<double, std::micro> took = steady_clock::now() - begun;
      latency_.record(took.count());
      calls_[static_cast<std::size_t>(reply.outcome)].add(1U);
      tell_end(*span, reply);
    }
    return reply;
  }

  std::string refresh() {
    const std::scoped_lock one_at_a_time(discovering_);
    Discovered found;
    try {
      found = options_.discover(options_.discovery_timeout);
    } catch (const std::exception& error) {
      found.error = error.what();
    }
    std::unique_lock lock(mutex_);
    discovered_ = true;
    if (!found.endpoints.empty()) {
      adopt(std::move(found.endpoints));
      error_.clear();
    } else {
      if (found.error.empty()) found.error = "it has no endpoint";
      const bool news = error_ != found.error;
      error_ = found.error;
      if (news && options_.engine != nullptr) {
        SPILLWAY_WARN(*options_.engine, "service discovery failed", {"service", options_.name},
                      {"error", error_}, {"endpoints", nodes_->size()});
      }
    }
    const std::string error = error_;
    lock.unlock();
    changed_.notify_all();
    return error;
  }

  std::size_t endpoint_count() const { return nodes()->size(); }

 private:
  void make_metrics(Engine& engine) {
    // Not "Service", which is the own one's. The word is Application Signals'.
    const Dimensions by{{"RemoteService", options_.name}};
    span_name_ = engine.span_name(options_.name);
    latency_ = engine.histogram("ServiceCallLatency", Unit::microseconds, by);
    const auto make = [&](auto& counters, const char* name, const char* dimension, auto first) {
      for (std::size_t i = 0; i < counters.size(); ++i) {
        Dimensions with = by;
        with.push_back({dimension, std::string(to_string(static_cast<decltype(first)>(i)))});
        counters[i] = engine.counter(name, Unit::count, with);
      }
    };
    make(calls_, "ServiceCalls", "Outcome", ServiceOutcome{});
    make(retry_decisions_, "ServiceRetryDecisions", "Reason", RetryReason{});
  }

  // ---- What is told of a call ----

  void tell_end(Span& span, const ServiceReply& reply) const noexcept {
    if (reply.attempts > 1) span.annotate("attempts", reply.attempts);
    if (reply.retry_stopped) span.annotate("retry_stopped", to_string(*reply.retry_stopped));
    if (reply.outcome == ServiceOutcome::answered) {
      span.http_response(reply.response.status,
                         static_cast<std::int64_t>(reply.response.body.size()));
      return;
    }
    span.fault();
    span.annotate("outcome", to_string(reply.outcome));
    SPILLWAY_WARN(*options_.engine, "service call has no answer", {"service", options_.name},
                  {"outcome", to_string(reply.outcome)}, {"attempts", reply.attempts},
                  {"error", reply.error});
  }

  /// What became of an attempt that failed. Not a retry: it was the last one.
  void decide(const RetryDecision& decision, const Node& node, ServiceReply& reply) const {
    if (!decision) reply.retry_stopped = decision.reason;
    if (options_.engine == nullptr) return;
    retry_decisions_[static_cast<std::size_t>(decision.reason)].add(1U);
    const std::string failure = reply.response.outcome == HttpOutcome::answered
                                    ? "status " + std::to_string(reply.response.status)
                                    : reply.response.error;
    if (decision) {
      SPILLWAY_INFO(*options_.engine, "attempt of a service call failed",
                    {"service", options_.name}, {"endpoint", node.endpoint.origin},
                    {"address", node.endpoint.address}, {"attempt", reply.attempts},
                    {"failure", failure}, {"decision", to_string(decision.reason)},
                    {"wait_ms", decision.wait.count()});
    } else {
      SPILLWAY_WARN(*options_.engine, "attempt of a service call failed",
                    {"service", options_.name}, {"endpoint", node.endpoint.origin},
                    {"address", node.endpoint.address}, {"attempt", reply.attempts},
                    {"failure", failure}, {"decision", to_string(decision.reason)});
    }
  }

  // ---- Discovery ----

  void keep_discovering() {
    std::unique_lock lock(mutex_);
    while (!stopping_) {
      lock.unlock();
      try {
        refresh();
      } catch (const std::exception&) {  // No memory: the endpoints stay as they are.
      }
      lock.lock();
      // Spread, so that many processes do not ask at the same time.
      const auto wait =
          std::chrono::duration_cast<milliseconds>(options_.refresh * (0.9 + 0.2 * draw()));
      changed_.wait_for(lock, wait, [this] { return stopping_; });
    }
  }

  // What is known of endpoints that stay is kept. With mutex_ held.
  void adopt(std::vector<ServiceEndpoint> endpoints) {
    if (endpoints.size() > service_endpoints_max) endpoints.resize(service_endpoints_max);
    auto next = std::make_shared<Nodes>();
    for (ServiceEndpoint& endpoint : endpoints) {
      const auto known = std::find_if(nodes_->begin(), nodes_->end(),
                                      [&](const auto& node) { return node->endpoint == endpoint; });
      next->push_back(known != nodes_->end() ? *known : make_node(std::move(endpoint)));
    }
    nodes_ = std::move(next);
  }

  std::shared_ptr<Node> make_node(ServiceEndpoint endpoint) const {
    CircuitBreakerOptions with = options_.breaker;
    if (options_.engine != nullptr) {
      with.on_change = [engine = options_.engine, service = options_.name, origin = endpoint.origin,
                        address = endpoint.address,
                        told = options_.breaker.on_change](const BreakerChange& change) {
        SPILLWAY_WARN(*engine, "endpoint's circuit breaker changed", {"service", service},
                      {"endpoint", origin}, {"address", address}, {"from", to_string(change.from)},
                      {"to", to_string(change.to)}, {"reason", to_string(change.reason)});
        if (told) told(change);
      };
    }
    return std::make_shared<Node>(std::move(endpoint), std::move(with));
  }

  std::shared_ptr<const Nodes> nodes() const {
    const std::scoped_lock lock(mutex_);
    return nodes_;
  }

  /// The endpoints; waits for the first discovery.
  std::shared_ptr<const Nodes> wait_for_nodes(SteadyTime deadline) {
    std::unique_lock lock(mutex_);
    if (options_.threads) changed_.wait_until(lock, deadline, [this] { return discovered_; });
    return nodes_;
  }

  // ---- Choosing ----

  struct Choice {
    std::shared_ptr<Node> node;
    CircuitBreaker::Permit permit;
  };

  /// An endpoint that was not tried and whose breaker lets a call through: of our zone, then of others.
  Choice choose(const Nodes& all, const std::vector<const Node*>& tried, SteadyTime now) {
    Nodes near;
    Nodes far;
    for (const std::shared_ptr<Node>& node : all) {
      if (std::find(tried.begin(), tried.end(), node.get()) != tried.end()) continue;
      const bool is_near = options_.zone.empty() || node->endpoint.zone == options_.zone;
      (is_near ? near : far).push_back(node);
    }
    for (Nodes* const group : {&near, &far}) {
      while (!group->empty()) {
        const std::size_t index = select(*group);
        Choice choice{(*group)[index], (*group)[index]->breaker.try_acquire(now)};
        if (choice.permit) return choice;
        group->erase(group->begin() + static_cast<std::ptrdiff_t>(index));
      }
    }
    return {};
  }

  std::size_t select(const Nodes& group) {
    const std::size_t turn = turn_.fetch_add(1, std::memory_order_relaxed) % group.size();
    switch (options_.balance) {
      case Balance::round_robin:
        break;
      case Balance::least_in_flight: {
        std::size_t best = turn;  // Of equal ones each has its turn.
        for (std::size_t i = 0; i < group.size(); ++i) {
          const std::size_t at = (turn + i) % group.size();
          if (group[at]->in_flight.load(std::memory_order_relaxed) <
              group[best]->in_flight.load(std::memory_order_relaxed))
            best = at;
        }
        return best;
      }
      case Balance::weighted: {
        double total = 0;
        for (const auto& node : group) total += node->endpoint.weight;
        double left = draw() * total;
        for (std::size_t i = 0; i < group.size(); ++i) {
          left -= group[i]->endpoint.weight;
          if (left < 0) return i;
        }
        break;  // All weights are 0.
      }
    }
    return turn;
  }

  // ---- A call ----

  static ServiceReply refused(ServiceOutcome outcome, std::string error) {
    ServiceReply reply;
    reply.outcome = outcome;
    reply.error = std::move(error);
    return reply;
  }

  ServiceReply attempt_all(const ServiceRequest& request, SteadyTime deadline) {
    if (request.body.size() > options_.request_body_bytes_max)
      return refused(
          ServiceOutcome::refused,
          "the body has more than " + std::to_string(options_.request_body_bytes_max) + " bytes");
    const Context context = Context::current();
    const auto permit = bulkhead_.acquire(context.tenant(), steady_clock::now(), deadline);
    if (!permit)
      return refused(ServiceOutcome::bulkhead_full,
                     "bulkhead: " + std::string(to_string(permit.refusal())));
    const std::shared_ptr<const Nodes> all = wait_for_nodes(deadline);
    if (all->empty()) {
      const std::scoped_lock lock(mutex_);
      return refused(ServiceOutcome::no_endpoint,
                     "no endpoint of " + options_.name +
                         " is known: " + (error_.empty() ? "not discovered yet" : error_));
    }
    const transport::HttpRequest ready = prepare(request, context);
    const bool idempotent = request.idempotent || is_idempotent(request.method) ||
                            !transport::find_header(request.headers, "Idempotency-Key").empty();
    const WorkerLease worker(*this);
    std::vector<const Node*> tried;
    std::shared_ptr<Node> last;
    ServiceReply reply;
    while (true) {
      const SteadyTime now = steady_clock::now();
      if (now >= deadline) {
        if (last == nullptr) {
          reply.error = "the time was over before a request could be sent";
        } else {
          decide({RetryReason::deadline}, *last, reply);
        }
        reply.outcome = ServiceOutcome::timed_out;
        return reply;
      }
      Choice choice = choose(*all, tried, now);
      if (choice.node == nullptr && !tried.empty()) {
        tried.clear();  // Each was tried: again from the first.
        choice = choose(*all, tried, now);
      }
      if (choice.node == nullptr) {
        if (last == nullptr)
          return refused(ServiceOutcome::breakers_open,
                         "the circuit breakers of all endpoints of " + options_.name + " are open");
        decide({RetryReason::nowhere_to_go}, *last, reply);
        return reply;
      }
      last = choice.node;
      tried.push_back(choice.node.get());
      if (!attempt(*worker, ready, choice, deadline, reply)) return reply;
      const HttpOutcome ended = reply.response.outcome;
      const bool answered = ended == HttpOutcome::answered;
      if (answered && reply.response.status < 500 &&
          !options_.retry.statuses.contains(reply.response.status)) {
        retry_.succeeded();
        return reply;
      }
      if (ended == HttpOutcome::refused_locally || ended == HttpOutcome::too_large) {
        decide({RetryReason::not_retryable}, *last, reply);
        return reply;
      }
      const SteadyTime after = steady_clock::now();
      const RetryDecision again =
          retry_.after({.number = reply.attempts,
                        .status = answered ? reply.response.status : 0,
                        .reached = ended != HttpOutcome::not_connected,
                        .idempotent = idempotent,
                        .retry_after = parse_retry_after(
                            transport::find_header(reply.response.headers, "Retry-After"),
                            std::chrono::system_clock::now()),
                        .now = after,
                        .deadline = deadline},
                       draw());
      decide(again, *last, reply);
      if (!again || !worker->http.pause(again.wait)) {
        if (!answered && after >= deadline) reply.outcome = ServiceOutcome::timed_out;
        return reply;
      }
    }
  }

  transport::HttpRequest prepare(const ServiceRequest& request, const Context& context) const {
    transport::HttpRequest ready;
    ready.method = request.method;
    ready.path = request.path;
    ready.query = request.query;
    ready.headers = request.headers;
    ready.body = request.body;
    const OutgoingTrace trace = current_trace_headers();
    add_header(ready, "X-Amzn-Trace-Id", trace.xray);
    add_header(ready, "traceparent", trace.traceparent);
    add_header(ready, "tracestate", trace.tracestate);
    add_header(ready, "X-Tenant-ID", context.tenant());
    add_header(ready, "X-User-ID", context.user());
    add_header(ready, "X-Request-ID", context.request_id());
    return ready;
  }

  /// One request to one endpoint. False: it could not be sent at all, and no other one can.
  bool attempt(Worker& worker, transport::HttpRequest request, const Choice& choice,
               SteadyTime deadline, ServiceReply& reply) {
    Node& node = *choice.node;
    const milliseconds time =
        std::clamp(until(deadline), milliseconds(1), options_.attempt_timeout);
    request.origin = node.endpoint.origin;
    request.address = node.endpoint.address;
    add_header(request, timeout_header_name, TimeoutText(time).view());
    if (std::string error = sign(worker, request, time); !error.empty()) {
      node.breaker.release(choice.permit);
      reply = refused(ServiceOutcome::refused, std::move(error));
      return false;
    }
    ++reply.attempts;
    const SteadyTime begun = steady_clock::now();
    {
      const InFlight counted(node.in_flight);
      reply.response = worker.http.send(std::move(request), time);
    }
    const SteadyTime ended = steady_clock::now();
    const bool answered = reply.response.outcome == HttpOutcome::answered;
    const CallResult result = reply.response.outcome == HttpOutcome::refused_locally
                                  ? CallResult::ignored
                              : answered && reply.response.status < 500 ? CallResult::success
                                                                        : CallResult::failure;
    node.breaker.record(choice.permit, result, ended - begun, ended);
    reply.outcome = answered ? ServiceOutcome::answered
                    : reply.response.outcome == HttpOutcome::refused_locally
                        ? ServiceOutcome::refused
                        : ServiceOutcome::failed;
    reply.error = answered ? std::string() : node.endpoint.origin + ": " + reply.response.error;
    return true;
  }

  std::string sign(Worker& worker, transport::HttpRequest& request, milliseconds time) const {
    const WallTime now = std::chrono::system_clock::now();
    if (options_.signer != nullptr) return options_.signer->sign(request, now);
    if (credentials_ == nullptr) return {};
    const auto found = credentials_->get_within(now, time);
    if (const auto* const error = std::get_if<transport::CredentialsError>(&found))
      return "cannot sign: " + error->message;
    if (!worker.sigv4) worker.sigv4.emplace(options_.sigv4_region, options_.sigv4_service);
    worker.sigv4->sign(request, *std::get<std::shared_ptr<const transport::Credentials>>(found),
                       now);
    return {};
  }

  // ---- Workers: as many as there are calls at once, which the bulkhead bounds ----

  class WorkerLease {
   public:
    explicit WorkerLease(Core& core) : core_(core) {
      {
        const std::scoped_lock lock(core_.workers_mutex_);
        if (!core_.idle_.empty()) {
          worker_ = std::move(core_.idle_.back());
          core_.idle_.pop_back();
        }
      }
      if (worker_ == nullptr)
        worker_ = std::make_unique<Worker>(core_.options_.http ? core_.options_.http() : nullptr);
    }
    WorkerLease(const WorkerLease&) = delete;
    WorkerLease& operator=(const WorkerLease&) = delete;
    ~WorkerLease() {
      const std::scoped_lock lock(core_.workers_mutex_);
      core_.idle_.push_back(std::move(worker_));  // The last one used has the warmest connections.
    }
    Worker& operator*() const noexcept { return *worker_; }
    Worker* operator->() const noexcept { return worker_.get(); }

   private:
    Core& core_;
    std::unique_ptr<Worker> worker_;
  };

  ServiceClientOptions options_;
  const transport::HomeProcess home_;
  Retry retry_;
  Bulkhead bulkhead_;
  std::shared_ptr<transport::CredentialsChain> credentials_;
  std::atomic<std::size_t> turn_{0};
  SpanName span_name_;
  Histogram latency_;
  std::array<Counter, service_outcome_count> calls_;
  std::array<Counter, retry_reason_count> retry_decisions_;

  std::mutex discovering_;
  mutable std::mutex mutex_;  // of what follows
  std::condition_variable changed_;
  bool stopping_ = false;
  bool discovered_ = false;  // once, with whatever result
  std::string error_;        // of the last discovery
  std::shared_ptr<const Nodes> nodes_;

  std::mutex workers_mutex_;
  std::vector<std::unique_ptr<Worker>> idle_;
  std::thread discoverer_;
};

ServiceClient::ServiceClient(ServiceClientOptions options)
    : core_(std::make_unique<Core>(std::move(options))) {}
ServiceClient::~ServiceClient() { transport::release_inherited(core_); }
ServiceReply ServiceClient::call(const ServiceRequest& request, milliseconds timeout) {
  return core_->call(request, timeout);
}
std::string ServiceClient::refresh() { return core_->refresh(); }
std::size_t ServiceClient::endpoint_count() const { return core_->endpoint_count(); }

}  // namespace spillway::middleware
