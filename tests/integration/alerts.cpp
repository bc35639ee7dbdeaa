// SPDX-License-Identifier: Apache-2.0
//
// A service that fails: its errors as alerts to an SNS topic.
//
//   alerts TOPIC_ARN TIMES     each of three errors so many times
#include <iostream>
#include <stdexcept>
#include <string>

#include <spillway/middleware/chain.hpp>
#include <spillway/middleware/observability.hpp>
#include <spillway/middleware/sns_alerts.hpp>

int main(int argc, char** argv) {
  namespace middleware = spillway::middleware;
  if (argc != 3) {
    std::cerr << "usage: alerts TOPIC_ARN TIMES\n";
    return 2;
  }
  spillway::Engine engine({.service = "shop"});
  const middleware::Routes routes{{"GET", "/orders/{id}"}, {"GET", "/pay"}};
  middleware::Observability observability(engine, routes);
  {
    middleware::SnsAlerts alerts(engine, {.topic_arn = argv[1], .service = "shop"});
    const middleware::Chain chain(routes, observability, alerts);
    for (int i = 0; i < std::stoi(argv[2]); ++i) {
      for (const char* const path : {"/orders/17", "/pay", "/elsewhere"}) {
        auto exchange = chain.begin({.method = "GET", .path = path});
        exchange.request_id = "r-1";
        exchange.guard([] { throw std::runtime_error("jane@example.com is not to be charged"); });
        exchange.finish({.status = exchange.reply().status});
      }
    }
  }  // Sends what waits.
  return 0;
}
