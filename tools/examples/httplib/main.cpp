// SPDX-License-Identifier: Apache-2.0
//
// The shop on cpp-httplib.
#include <thread>

#include <httplib.h>

#include "../shop.hpp"
#include <spillway/middleware/httplib.hpp>

namespace {

void set(httplib::Response& response, const examples::Answer& answer) {
  response.status = answer.status;
  if (!answer.body.empty()) response.set_content(answer.body, "application/json");
}

}  // namespace

int main() {
  examples::Shop shop;
  httplib::Server server;
  spillway::middleware::httplib_use(server, shop.chain);
  server.Get(R"(/orders/([^/]+))", [&](const httplib::Request& request, auto& response) {
    set(response, shop.order(request.matches[1].str()));
  });
  server.Post("/orders", [&](const httplib::Request& request, auto& response) {
    set(response, shop.place(request.body));
  });
  server.set_tcp_nodelay(true);
  server.set_keep_alive_max_count(1'000'000);

  const int port = server.bind_to_any_port("127.0.0.1");
  std::thread serving([&] { server.listen_after_bind(); });
  shop.serve_until_stopped(static_cast<std::uint16_t>(port));
  server.stop();
  serving.join();
  shop.report();
}
