// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>

#include <spillway/middleware/http_server.hpp>

namespace spillway {
namespace {

constexpr std::size_t request_id_chars_max = 128;

bool is_usable_id(std::string_view id) {
  return !id.empty() && id.size() <= request_id_chars_max &&
         std::all_of(id.begin(), id.end(), [](char c) { return c > ' ' && c <= '~'; });
}

// 32 hexadecimal digits, on the stack.
std::array<char, 32> new_request_id() noexcept {
  constexpr std::string_view hex = "0123456789abcdef";
  std::array<char, 32> text{};
  const std::uint64_t words[2] = {detail::next_span_id(), detail::next_span_id()};
  for (std::size_t i = 0; i < text.size(); ++i)
    text[i] = hex[words[i / 16] >> (60 - i % 16 * 4) & 15U];
  return text;
}

// The first address of X-Forwarded-For: the client, as the outermost proxy saw it.
std::string_view first_of(std::string_view forwarded_for) {
  forwarded_for = forwarded_for.substr(0, forwarded_for.find(','));
  const auto begin = forwarded_for.find_first_not_of(' ');
  if (begin == std::string_view::npos) return {};
  return forwarded_for.substr(begin, forwarded_for.find_last_not_of(' ') - begin + 1);
}

}  // namespace

HttpServerObservability::HttpServerObservability(Engine& engine, HttpServerOptions options)
    : engine_(engine),
      options_(std::move(options)),
      in_flight_gauge_(engine.gauge("InFlight", Unit::count)) {
  if (options_.metrics_by_tenant) {
    requests_by_tenant_ =
        engine.per(engine.counter("TenantRequests"), ContextField::tenant, "TenantID");
  }
}

HttpServerObservability::Route HttpServerObservability::route(std::string_view method,
                                                              std::string_view path_template) {
  Route route;
  route.method_ = method;
  route.template_ = path_template;
  route.span_ = engine_.span_name(route.method_ + " " + route.template_);
  const Dimensions dimensions{{"Method", route.method_}, {"Route", route.template_}};
  route.requests_ = engine_.counter("Requests", Unit::count, dimensions);
  route.client_errors_ = engine_.counter("ClientErrors", Unit::count, dimensions);
  route.faults_ = engine_.counter("Faults", Unit::count, dimensions);
  route.latency_ = engine_.histogram("Latency", Unit::microseconds, dimensions);
  return route;
}

Context HttpServerObservability::make_context(const HttpServerRequest& request) const {
  ContextFields fields{
      .tenant = request.tenant, .user = request.user, .request_id = request.request_id};
  std::array<char, 32> made{};
  if (!is_usable_id(fields.request_id)) {
    made = new_request_id();
    fields.request_id = {made.data(), made.size()};
  }
  auto caller = engine_.trace_of({request.trace_header, request.traceparent, request.tracestate});
  (options_.trust_trace_header ? fields.trace : fields.link) = std::move(caller);
  return Context(fields);
}

HttpServerObservability::Request::Request(HttpServerObservability& server, const Route& route,
                                          const HttpServerRequest& request)
    : server_(server),
      route_(route),
      method_(request.method),
      context_(server.make_context(request)),
      scope_(context_),
      span_(server.engine_.span(route.span_)),
      begun_(std::chrono::steady_clock::now()) {
  const auto in_flight = server_.in_flight_.fetch_add(1, std::memory_order_relaxed) + 1;
  server_.in_flight_gauge_.set(static_cast<double>(in_flight));
  if (span_.recording()) {
    const bool forwarded = server.options_.trust_forwarded_for && !request.forwarded_for.empty();
    // The query may hold secrets; the path is what the segment is about.
    const std::string_view path = request.target.substr(0, request.target.find('?'));
    std::array<char, 256> url{};
    std::size_t bytes = 0;
    for (std::string_view part : {request.scheme, std::string_view("://"), request.host, path}) {
      part = part.substr(0, url.size() - bytes);
      std::copy(part.begin(), part.end(), url.begin() + static_cast<std::ptrdiff_t>(bytes));
      bytes += part.size();
    }
    span_.http_request({.method = request.method,
                        .url = {url.data(), bytes},
                        .user_agent = request.user_agent,
                        .client_ip = forwarded ? first_of(request.forwarded_for) : request.peer_ip,
                        .x_forwarded_for = forwarded});
  }
}

HttpServerObservability::Request::~Request() {
  if (!finished_) {
    span_.fault();
    finish(500);
  }
}

void HttpServerObservability::Request::finish(int status, std::int64_t body_bytes) noexcept {
  if (finished_) return;
  finished_ = true;
  const auto took = std::chrono::steady_clock::now() - begun_;
  const double micros = std::chrono::duration<double, std::micro>(took).count();
  const auto in_flight = server_.in_flight_.fetch_sub(1, std::memory_order_relaxed) - 1;
  server_.in_flight_gauge_.set(static_cast<double>(in_flight));
  route_.requests_.add(1U);
  route_.latency_.record(micros);
  if (server_.options_.metrics_by_tenant) server_.requests_by_tenant_.add(1U);
  if (status >= 500) {
    route_.faults_.add(1U);
  } else if (status >= 400) {
    route_.client_errors_.add(1U);
  }
  SPILLWAY_INFO(server_.engine_, "request", {"method", method_}, {"route", route_.template_},
                {"status", status}, {"duration_us", micros}, {"body_bytes", body_bytes});
  span_.http_response(status, body_bytes);
  span_.end();
}

}  // namespace spillway
