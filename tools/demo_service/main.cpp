// SPDX-License-Identifier: Apache-2.0
//
// The demo: a shop of two HTTP services in one process, each with its own engine. "orders" serves
// several tenants and asks "inventory" inside each request, so that traces cross a real connection.
// Where telemetry goes is said by the environment (SPILLWAY_*, AWS_*), as for any service.
//
//   spillway-demo-service [--port N] [--threads N] [--telemetry on|off] [--report FILE]
//   [--port-file FILE]
//
// SIGTERM ends it: connections are closed, the engines shut down, and the report says what was
// served and where every record is.
#include <atomic>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <initializer_list>
#include <iostream>
#include <memory>
#include <string>
#include <string_view>

#include <pthread.h>
#include <signal.h>

#include "http_service.hpp"
#include <spillway/middleware/observability.hpp>
#include <spillway/middleware/request_id.hpp>
#include <spillway/spillway.hpp>

namespace demo {
namespace {

namespace middleware = spillway::middleware;
using std::chrono::milliseconds;

struct Options {
  std::uint16_t port = 0;
  int threads = 2;
  bool telemetry = true;
  std::string report;
  std::string port_file;
};

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string_view name = argv[i];
    const std::string value = argv[i + 1];
    if (name == "--port") {
      options.port = static_cast<std::uint16_t>(std::stoi(value));
    } else if (name == "--threads") {
      options.threads = std::stoi(value);
    } else if (name == "--telemetry") {
      options.telemetry = value != "off";
    } else if (name == "--report") {
      options.report = value;
    } else if (name == "--port-file") {
      options.port_file = value;
    } else {
      throw std::invalid_argument("unknown option " + std::string(name));
    }
  }
  if (argc % 2 == 0) throw std::invalid_argument("an option has no value");
  return options;
}

Response json(http::status status, std::string body) {
  Response response{status, 11};
  response.set(http::field::content_type, "application/json");
  response.body() = std::move(body);
  response.prepare_payload();
  return response;
}

std::string_view target_of(const Request& request) {
  return {request.target().data(), request.target().size()};
}

// "/orders/17" under "/orders/" is 17.
int id_in(std::string_view target, std::string_view prefix) {
  int id = 0;
  target.remove_prefix(std::min(prefix.size(), target.size()));
  std::from_chars(target.data(), target.data() + target.size(), id);
  return id;
}

/// What both services have: an engine, and the steps around their handlers.
struct Telemetry {
  Telemetry(const char* service, std::initializer_list<middleware::RouteSpec> specs)
      : engine(spillway::Config{.service = service}), routes(specs) {}

  spillway::Engine engine;
  const middleware::Routes routes;
  middleware::RequestId request_id;
  middleware::Observability observability{engine, routes};
  const middleware::Chain<middleware::RequestId, middleware::Observability> observed{
      routes, request_id, observability};
  const middleware::Chain<> bare{routes};
};

/// How much of a product is there.
class Inventory {
 public:
  Response handle(const Request& request) {
    served.fetch_add(1, std::memory_order_relaxed);
    const int sku = id_in(target_of(request), "/stock/");
    stock_.record(sku % 40);
    return json(http::status::ok,
                "{\"sku\":" + std::to_string(sku) + ",\"stock\":" + std::to_string(sku % 40) + "}");
  }

  Telemetry telemetry{"inventory", {{"GET", "/stock/{sku}"}}};
  std::atomic<std::uint64_t> served{0};

 private:
  const spillway::Histogram stock_ =
      telemetry.engine.histogram("StockLevel", spillway::Unit::count);
};

/// Takes and shows orders.
class Orders {
 public:
  explicit Orders(std::uint16_t inventory_port) : inventory_port_(inventory_port) {}

  Response handle(const Request& request) {
    served.fetch_add(1, std::memory_order_relaxed);
    return request.method() == http::verb::post ? place(request) : show(request);
  }

  Telemetry telemetry{"orders", {{"GET", "/orders/{id}"}, {"POST", "/orders"}}};
  std::atomic<std::uint64_t> served{0};

 private:
  Response show(const Request& request) {
    const int id = id_in(target_of(request), "/orders/");
    if (id % 50 == 0) {
      SPILLWAY_WARN(engine_, "no such order", {"order_id", id});
      return json(http::status::not_found, "{\"error\":\"no such order\"}");
    }
    const std::string stock = stock_of(id, request);
    return json(http::status::ok,
                "{\"order_id\":" + std::to_string(id) + ",\"item\":" + stock + "}");
  }

  Response place(const Request& request) {
    const int id = next_order_.fetch_add(1, std::memory_order_relaxed);
    const std::string stock = stock_of(id, request);
    if (id % 200 == 0) {
      SPILLWAY_ERROR(engine_, "payment refused", {"order_id", id}, {"provider", "acme"});
      return json(http::status::internal_server_error, "{\"error\":\"payment\"}");
    }
    const double total = 9.5 + id % 90;
    order_total_.record(total);
    SPILLWAY_INFO(engine_, "order placed", {"order_id", id}, {"total", total}, {"currency", "EUR"});
    return json(http::status::created,
                "{\"order_id\":" + std::to_string(id) + ",\"item\":" + stock + "}");
  }

  std::string stock_of(int id, const Request& request) {
    const auto tenant = request["X-Tenant-ID"];
    auto call = engine_.span("inventory");
    call.remote();
    call.annotate("sku", id % 1000);
    thread_local HttpClient client(inventory_port_);
    const std::string target = "/stock/" + std::to_string(id % 1000);
    const Response response =
        client.get(target, spillway::current_trace_header(), {tenant.data(), tenant.size()});
    call.http_request({.method = "GET", .url = "http://inventory/stock/{sku}"});
    call.http_response(static_cast<int>(response.result_int()),
                       static_cast<std::int64_t>(response.body().size()));
    return response.body();
  }

  const std::uint16_t inventory_port_;
  spillway::Engine& engine_ = telemetry.engine;
  const spillway::Histogram order_total_ = engine_.histogram("OrderTotal", spillway::Unit::none);
  std::atomic<int> next_order_{1};
};

std::string report_of(std::uint64_t served, const spillway::Stats& stats) {
  return "{\"served\":" + std::to_string(served) + ",\"stats\":" + stats.to_json() + "}";
}

template <class Service, class Chain>
auto start(std::uint16_t port, int threads, Service& service, const Chain& chain) {
  return std::make_unique<HttpService<Service, Chain>>(port, threads, service, chain);
}

// Serves until a signal of `ending`. `chain_of` says which chain of a service's telemetry is used.
template <class ChainOf>
int serve(const Options& options, const sigset_t& ending, ChainOf chain_of) {
  Inventory inventory;
  auto inventory_http = start(0, options.threads, inventory, chain_of(inventory.telemetry));
  Orders orders(inventory_http->port());
  auto orders_http = start(options.port, options.threads, orders, chain_of(orders.telemetry));
  if (!options.port_file.empty()) {
    std::ofstream(options.port_file + ".new") << orders_http->port() << "\n";
    std::rename((options.port_file + ".new").c_str(), options.port_file.c_str());
  }
  std::cerr << "demo: orders at http://127.0.0.1:" << orders_http->port() << "\n";

  int signal = 0;
  sigwait(&ending, &signal);
  orders_http.reset();
  inventory_http.reset();
  const spillway::Stats orders_stats = orders.telemetry.engine.shutdown(milliseconds(15'000));
  const spillway::Stats inventory_stats = inventory.telemetry.engine.shutdown(milliseconds(15'000));
  if (!options.report.empty()) {
    std::ofstream(options.report) << "{\"orders\":" << report_of(orders.served, orders_stats)
                                  << ",\"inventory\":"
                                  << report_of(inventory.served, inventory_stats) << "}\n";
  }
  return 0;
}

int run(const Options& options) {
  sigset_t ending;
  sigemptyset(&ending);
  sigaddset(&ending, SIGTERM);
  sigaddset(&ending, SIGINT);
  pthread_sigmask(SIG_BLOCK, &ending, nullptr);
  if (options.telemetry)
    return serve(
        options, ending, [](Telemetry & of) -> auto& { return of.observed; });
  return serve(
      options, ending, [](Telemetry & of) -> auto& { return of.bare; });
}

}  // namespace
}  // namespace demo

int main(int argc, char** argv) try {
  return demo::run(demo::parse(argc, argv));
} catch (const std::exception& error) {
  std::cerr << "spillway-demo-service: " << error.what() << "\n";
  return 2;
}
