// SPDX-License-Identifier: Apache-2.0
#include "http_service.hpp"

namespace demo {

using asio::ip::tcp;

struct HttpClient::State {
  asio::io_context context;
  tcp::endpoint endpoint;
  std::optional<beast::tcp_stream> stream;
  beast::flat_buffer buffer;

  void connect() {
    stream.emplace(context);
    stream->connect(endpoint);
    stream->socket().set_option(tcp::no_delay(true));
    buffer.clear();
  }
};

HttpClient::HttpClient(std::uint16_t port) : state_(std::make_unique<State>()) {
  state_->endpoint = {asio::ip::address_v4::loopback(), port};
}
HttpClient::~HttpClient() = default;

Response HttpClient::get(const std::string& target, const std::string& trace_header,
                         const std::string& tenant) {
  http::request<http::empty_body> request{http::verb::get, target, 11};
  request.set(http::field::host, "127.0.0.1:" + std::to_string(state_->endpoint.port()));
  request.set("X-Tenant-ID", tenant);
  if (!trace_header.empty()) request.set("X-Amzn-Trace-Id", trace_header);
  for (bool fresh = !state_->stream;; fresh = true) {
    if (fresh) state_->connect();
    beast::error_code error;
    Response response;
    http::write(*state_->stream, request, error);
    if (!error) http::read(*state_->stream, state_->buffer, response, error);
    if (!error) return response;
    state_->stream.reset();
    if (fresh) throw beast::system_error(error);
  }
}

}  // namespace demo
