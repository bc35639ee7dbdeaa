// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <bit>
#include <memory_resource>
#include <mutex>
#include <stdexcept>
#include <utility>

#include <spillway/encoders/json.hpp>
#include <spillway/middleware/observability.hpp>
#include <spillway/transport/text.hpp>

namespace spillway::middleware {
namespace {

constexpr std::size_t url_bytes_max = 512;
constexpr std::size_t path_bytes_max = 1024;  // Of a log record.
constexpr std::size_t joined_bytes_max = 4096;

// What an extractor says; one that throws says nothing: its request goes on, with nothing in its place.
std::string_view extract(const Extractor& extractor, Exchange& exchange) noexcept {
  try {
    return extractor ? extractor(exchange) : std::string_view{};
  } catch (...) {
    return {};
  }
}

// A header that may come several times, its values with commas between. Several traceparents are not
// legal, joined even less so. Only what comes several times is copied, to `all`: the exchange's own
// room is for what answers the request.
std::string_view joined(const Headers& headers, std::string_view name, std::string& all) {
  const std::string_view first = headers.find(name);
  if (first.data() == nullptr || headers.find(name, 1).data() == nullptr) return first;
  for (std::size_t i = 0; all.size() <= joined_bytes_max; ++i) {
    const std::string_view value = headers.find(name, i);
    if (value.data() == nullptr) break;
    if (i > 0) all += ',';
    all += value;
  }
  return all;
}

// Redaction knows an e-mail address and a card number only as a whole: one that the limit would cut in
// two is left out, so that no half of it is logged. Returns where the text ends then.
std::size_t before_what_is_cut(std::string_view body, std::size_t cut) noexcept {
  constexpr std::size_t reach = 320;  // bytes on each side; no address is longer (RFC 3696)
  constexpr std::ptrdiff_t card_digits_min = 13;
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  const auto begin_of = [&](const auto& belongs, const auto& is_secret) {
    std::size_t begin = cut;
    std::size_t end = cut;
    while (begin > 0 && cut - begin < reach && belongs(body[begin - 1])) --begin;
    while (end < body.size() && end - cut < reach && belongs(body[end])) ++end;
    return is_secret(body.substr(begin, end - begin)) ? begin : cut;
  };
  const std::size_t address = begin_of(
      [&](char c) {
        const char lower = transport::to_lower(c);
        return (lower >= 'a' && lower <= 'z') || is_digit(c) ||
               std::string_view("@._%+-").find(c) != std::string_view::npos;
      },
      [](std::string_view run) { return run.find('@') != run.npos; });
  const std::size_t card =
      begin_of([&](char c) { return is_digit(c) || c == ' ' || c == '-'; },
               [&](std::string_view run) {
                 return std::count_if(run.begin(), run.end(), is_digit) >= card_digits_min;
               });
  return std::min(address, card);
}

// A body as far as it may be logged: what its type says is no text would be noise.
std::string_view body_text(std::string_view body, std::string_view type, std::size_t bytes_max) {
  if (bytes_max == 0 || body.empty()) return {};
  const auto names = [type](std::string_view part) {
    return std::search(type.begin(), type.end(), part.begin(), part.end(),
                       [](char a, char b) { return transport::to_lower(a) == b; }) != type.end();
  };
  const bool text = type.empty() || names("text/") || names("json") || names("xml") ||
                    names("x-www-form-urlencoded") || names("javascript") || names("yaml");
  if (!text) return {};
  const std::string_view logged = spillway::detail::cut_utf8(body, bytes_max);
  return logged.size() == body.size() ? logged
                                      : body.substr(0, before_what_is_cut(body, logged.size()));
}

std::string_view name_of(Ending ending) noexcept {
  switch (ending) {
    case Ending::sent:
      return "sent";
    case Ending::broken:
      return "broken";
    case Ending::cancelled:
      return "cancelled";
    case Ending::failed:
      return "failed";
  }
  return "";
}

}  // namespace

Extractor from_header(std::string name) {
  return
      [name = std::move(name)](const Exchange& exchange) { return exchange.request.header(name); };
}

// The operations seen so far, by route and name: a table that is read without a lock and only grows.
class Observability::Operations {
 public:
  explicit Operations(std::size_t most)
      : most_(most), slots_(std::bit_ceil(most * 2 + 1)), entries_(new Entry[most]) {}

  // Null: the table is full.
  const Handles* find(const Observability& owner, const Route& route, std::string_view operation) {
    if (const Entry* const entry = look(route.number, operation)) return &entry->handles;
    return add(owner, route, operation);
  }

 private:
  struct Entry {
    std::uint32_t route = 0;
    std::string operation;
    Handles handles;
  };

  std::size_t slot_of(std::uint32_t route, std::string_view operation) const noexcept {
    return (std::hash<std::string_view>{}(operation) + route * 0x9E3779B9U) & (slots_.size() - 1);
  }
  const Entry* look(std::uint32_t route, std::string_view operation) const noexcept {
    for (std::size_t slot = slot_of(route, operation);; slot = (slot + 1) & (slots_.size() - 1)) {
      // Pairs with the release in add(): the entry is whole.
      const Entry* const entry = slots_[slot].load(std::memory_order_acquire);
      if (entry == nullptr) return nullptr;  // At most half of the slots are taken.
      if (entry->route == route && entry->operation == operation) return entry;
    }
  }
  const Handles* add(const Observability& owner, const Route& route, std::string_view operation) {
    if (full_.load(std::memory_order_relaxed)) return nullptr;
    const std::scoped_lock lock(mutex_);
    if (const Entry* const entry = look(route.number, operation)) return &entry->handles;
    if (count_ == most_) {
      full_.store(true, std::memory_order_relaxed);
      return nullptr;
    }
    Entry& entry = entries_[count_];
    entry.route = route.number;
    entry.operation = operation;
    entry.handles = owner.make_handles(route, operation);
    ++count_;
    std::size_t slot = slot_of(route.number, operation);
    while (slots_[slot].load(std::memory_order_relaxed) != nullptr)
      slot = (slot + 1) & (slots_.size() - 1);
    slots_[slot].store(&entry, std::memory_order_release);
    return &entry.handles;
  }

  const std::size_t most_;
  std::vector<std::atomic<const Entry*>> slots_;
  std::mutex mutex_;
  std::unique_ptr<Entry[]> entries_;
  std::size_t count_ = 0;
  std::atomic<bool> full_{false};
};

Observability::Observability(Engine& engine, const Routes& routes, ObservabilityOptions options)
    : engine_(engine), options_(std::move(options)) {
  constexpr std::size_t operations_limit = 100'000;
  constexpr std::size_t body_bytes_limit = 64U << 10;
  if (!(options_.log_sample_rate >= 0 && options_.log_sample_rate <= 1))
    throw std::invalid_argument("log_sample_rate is not between 0 and 1");
  if (options_.slow_request.count() < 0) throw std::invalid_argument("slow_request is negative");
  if (options_.operations_max > operations_limit)
    throw std::invalid_argument("operations_max is above 100000");
  if (options_.log_body_bytes_max > body_bytes_limit)
    throw std::invalid_argument("log_body_bytes_max is above 65536");
  routes_.reserve(routes.all().size());
  for (const Route& route : routes.all()) routes_.push_back(make_handles(route, {}));
  if (options_.operation && options_.operations_max > 0)
    operations_ = std::make_unique<Operations>(options_.operations_max);
  if (!options_.metrics) return;
  in_flight_gauge_ = engine.gauge("InFlight", Unit::count, options_.tags);
  if (options_.metrics_by_tenant) {
    requests_by_tenant_ = engine.per(engine.counter("TenantRequests", Unit::count, options_.tags),
                                     ContextField::tenant, "TenantID");
  }
}

Observability::~Observability() = default;

Observability::Handles Observability::make_handles(const Route& route,
                                                   std::string_view operation) const {
  Handles handles;
  handles.span = engine_.span_name(operation.empty() ? std::string_view(route.name) : operation);
  if (!options_.metrics) return handles;
  Dimensions dimensions = options_.tags;
  dimensions.push_back({"Method", route.method});
  dimensions.push_back({"Route", route.path_template});
  if (!operation.empty()) dimensions.push_back({"Operation", std::string(operation)});
  handles.requests = engine_.counter("Requests", Unit::count, dimensions);
  handles.client_errors = engine_.counter("ClientErrors", Unit::count, dimensions);
  handles.throttles = engine_.counter("Throttles", Unit::count, dimensions);
  handles.faults = engine_.counter("Faults", Unit::count, dimensions);
  handles.slow = engine_.counter("SlowRequests", Unit::count, dimensions);
  handles.latency = engine_.histogram("Latency", Unit::microseconds, dimensions);
  return handles;
}

Verdict Observability::before(State& state, Exchange& exchange) {
  if (exchange.tenant.empty()) exchange.tenant = extract(options_.tenant, exchange);
  if (exchange.user.empty()) exchange.user = extract(options_.user, exchange);
  state.handles_ = &routes_[exchange.route.number];
  if (operations_) {
    state.operation_ = extract(options_.operation, exchange);
    const Handles* const found = state.operation_.empty()
                                     ? nullptr
                                     : operations_->find(*this, exchange.route, state.operation_);
    if (found != nullptr) {
      state.handles_ = found;
    } else {
      state.operation_ = {};
    }
  }
  ContextFields fields{
      .tenant = exchange.tenant, .user = exchange.user, .request_id = exchange.request_id};
  const Headers& headers = exchange.request.headers;
  std::string parents;
  std::string states;
  IncomingTrace incoming{.xray = headers.find(trace_header_name),
                         .traceparent = joined(headers, traceparent_name, parents)};
  if (!incoming.empty()) {
    if (!incoming.traceparent.empty())
      incoming.tracestate = joined(headers, tracestate_name, states);
    (options_.trust_trace_header ? fields.trace : fields.link) = engine_.trace_of(incoming);
  }
  state.context_.emplace(fields);
  exchange.context = &*state.context_;
  if (options_.tracing) begin_span(state, exchange);
  if (options_.metrics) {
    in_flight_gauge_.set(
        static_cast<double>(in_flight_.fetch_add(1, std::memory_order_relaxed) + 1));
  }
  return Verdict::proceed;
}

void Observability::begin_span(State& state, Exchange& exchange) const {
  const Scope scope(*state.context_);
  const RequestView& request = exchange.request;
  Span& span = state.span_.emplace(InPlace{[&] {
    return engine_.span(state.handles_->span,
                        {.host = request.host, .method = request.method, .path = request.path});
  }});
  state.context_->follow();
  if (options_.respond_trace_header) respond_trace(exchange);
  span.detach();
  if (!span.recording()) return;
  std::array<char, url_bytes_max> url;
  std::size_t bytes = 0;
  // Without the query, which may hold secrets.
  for (std::string_view part :
       {request.scheme, std::string_view("://"), request.host, request.path}) {
    part = part.substr(0, url.size() - bytes);
    std::copy(part.begin(), part.end(), url.begin() + static_cast<std::ptrdiff_t>(bytes));
    bytes += part.size();
  }
  span.http_request(
      {.method = request.method,
       .url = {url.data(), bytes},
       .user_agent = request.header("User-Agent"),
       .client_ip = exchange.client_address,
       .x_forwarded_for = exchange.client_address.data() != request.peer_address.data()});
}

void Observability::respond_trace(Exchange& exchange) {
  const spillway::detail::Active& active = spillway::detail::current_active();
  if (!active.trace_id) return;
  std::array<std::byte, 4096> memory;  // ByteBuffer's first step.
  std::pmr::monotonic_buffer_resource resource(memory.data(), memory.size());
  spillway::detail::ByteBuffer out(&resource);
  out.append("Root=");
  spillway::detail::append_xray_trace_id(out, active.trace_id);
  if (active.sampled != Sampled::unknown)
    out.append(active.sampled == Sampled::yes ? ";Sampled=1" : ";Sampled=0");
  exchange.add_header(trace_header_name, out.view());
}

void Observability::after(State& state, const Exchange& exchange,
                          const ResponseFacts& facts) noexcept {
  const double micros =
      std::chrono::duration<double, std::micro>(exchange.ended - exchange.begun).count();
  const bool slow =
      options_.slow_request.count() > 0 && exchange.ended - exchange.begun >= options_.slow_request;
  const Scope scope(*state.context_);
  if (options_.metrics) {
    in_flight_gauge_.set(
        static_cast<double>(in_flight_.fetch_sub(1, std::memory_order_relaxed) - 1));
    measure(state, facts, micros, slow);
  }
  if (options_.logging) log(state, exchange, facts, micros, slow);
  engine_.end_request(
      facts.status >= 500 || facts.ending != Ending::sent || !exchange.exception().type.empty(),
      exchange.ended - exchange.begun);
  if (Span* const span = state.span()) {
    span->http_response(facts.status, facts.body_bytes);
    if (facts.ending == Ending::failed || !exchange.exception().type.empty()) span->fault();
    if (span->recording() && !exchange.exception().type.empty()) {
      span->record_exception(
          {.type = exchange.exception().type, .message = exchange.exception().message});
    }
    if (!exchange.decision.empty()) span->annotate("decision", exchange.decision);
    if (facts.ending == Ending::broken) span->error();
    span->end();
  }
}

void Observability::measure(const State& state, const ResponseFacts& facts, double micros,
                            bool slow) const noexcept {
  const Handles& handles = *state.handles_;
  handles.requests.add(1U);
  handles.latency.record(micros);
  if (options_.metrics_by_tenant) requests_by_tenant_.add(1U);
  if (facts.status >= 500) {
    handles.faults.add(1U);
  } else if (facts.status >= 400) {
    handles.client_errors.add(1U);
    if (facts.status == 429) handles.throttles.add(1U);
  }
  if (slow) handles.slow.add(1U);
}

void Observability::log(const State& state, const Exchange& exchange, const ResponseFacts& facts,
                        double micros, bool slow) const noexcept {
  if (facts.status >= 500 || !exchange.exception().type.empty() || facts.ending == Ending::broken) {
    write_log<Severity::error>(state, exchange, facts, micros, slow);
  } else if (facts.status >= 400 || slow) {
    write_log<Severity::warn>(state, exchange, facts, micros, slow);
  } else if (options_.log_sample_rate >= 1 ||
             static_cast<double>(spillway::detail::next_span_id() >> 11) * 0x1p-53 <
                 options_.log_sample_rate) {
    write_log<Severity::info>(state, exchange, facts, micros, slow);
  }
}

template <Severity severity>
void Observability::write_log(const State& state, const Exchange& exchange,
                              const ResponseFacts& facts, double micros, bool slow) const noexcept {
  const std::string_view method = exchange.request.method;
  const std::string_view route = exchange.route.path_template;
  const std::string_view path =
      options_.log_path ? exchange.request.path.substr(0, path_bytes_max) : std::string_view{};
  const std::string_view client =
      options_.log_client ? exchange.client_address : std::string_view{};
  // Two records, so that the usual one carries no empty fields.
  if (facts.ending == Ending::sent && exchange.exception().type.empty() && !slow &&
      state.operation_.empty() && exchange.decision.empty() && options_.log_body_bytes_max == 0) {
    SPILLWAY_LOG(engine_, severity, "request", {"method", method}, {"route", route}, {"path", path},
                 {"client", client}, {"status", facts.status}, {"duration_us", micros},
                 {"body_bytes", facts.body_bytes});
    return;
  }
  const std::size_t body_max = options_.log_body_bytes_max;
  const std::string_view request_body =
      body_max == 0
          ? std::string_view{}
          : body_text(exchange.request.body, exchange.request.header("Content-Type"), body_max);
  const std::string_view response_body = body_text(facts.body, facts.content_type, body_max);
  SPILLWAY_LOG(engine_, severity, "request", {"method", method}, {"route", route}, {"path", path},
               {"client", client}, {"status", facts.status}, {"duration_us", micros},
               {"body_bytes", facts.body_bytes}, {"operation", state.operation_}, {"slow", slow},
               {"decision", exchange.decision}, {"ending", name_of(facts.ending)},
               {"exception", exchange.exception().type},
               {"exception_message", exchange.exception().message}, {"request_body", request_body},
               {"response_body", response_body});
}

}  // namespace spillway::middleware
