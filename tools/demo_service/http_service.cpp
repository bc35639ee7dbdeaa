// SPDX-License-Identifier: Apache-2.0
#include "http_service.hpp"

#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/strand.hpp>
#include <boost/beast/core.hpp>

namespace demo {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using asio::ip::tcp;

namespace {

// One connection: read, handle, write, again.
class Session : public std::enable_shared_from_this<Session> {
 public:
  Session(tcp::socket socket, const HttpService::Handler& handler)
      : stream_(std::move(socket)), handler_(handler) {
    beast::error_code ignored;
    stream_.socket().set_option(tcp::no_delay(true), ignored);
    peer_ip_ = stream_.socket().remote_endpoint(ignored).address().to_string(ignored);
  }

  void read() {
    request_ = {};
    http::async_read(stream_, buffer_, request_,
                     [self = shared_from_this()](beast::error_code error, std::size_t /*bytes*/) {
                       if (!error) self->handle();
                     });
  }
  void close() {
    beast::error_code ignored;
    stream_.socket().shutdown(tcp::socket::shutdown_both, ignored);
  }

 private:
  void handle() {
    response_ = handler_(request_, peer_ip_);
    response_.keep_alive(request_.keep_alive());
    response_.prepare_payload();
    http::async_write(stream_, response_,
                      [self = shared_from_this()](beast::error_code error, std::size_t /*bytes*/) {
                        if (!error && self->response_.keep_alive()) self->read();
                      });
  }

  beast::tcp_stream stream_;
  beast::flat_buffer buffer_;
  const HttpService::Handler& handler_;
  std::string peer_ip_;
  Request request_;
  Response response_;
};

}  // namespace

struct HttpService::State {
  asio::io_context context;
  tcp::acceptor acceptor{context};
  Handler handler;
  std::vector<std::thread> threads;
  std::mutex mutex;
  std::vector<std::weak_ptr<Session>> sessions;

  void accept() {
    acceptor.async_accept(
        asio::make_strand(context), [this](beast::error_code error, tcp::socket socket) {
          if (error) return;
          const auto session = std::make_shared<Session>(std::move(socket), handler);
          {
            const std::scoped_lock lock(mutex);
            std::erase_if(sessions, [](const auto& one) { return one.expired(); });
            sessions.push_back(session);
          }
          session->read();
          accept();
        });
  }
};

HttpService::HttpService(std::uint16_t port, int threads, Handler handler)
    : state_(std::make_unique<State>()) {
  state_->handler = std::move(handler);
  state_->acceptor.open(tcp::v4());
  state_->acceptor.set_option(asio::socket_base::reuse_address(true));
  state_->acceptor.bind({asio::ip::address_v4::loopback(), port});
  state_->acceptor.listen();
  state_->accept();
  for (int i = 0; i < threads; ++i) {
    state_->threads.emplace_back([this] { state_->context.run(); });
  }
}

HttpService::~HttpService() {
  asio::post(state_->context, [this] {
    beast::error_code ignored;
    state_->acceptor.close(ignored);
    const std::scoped_lock lock(state_->mutex);
    for (const auto& weak : state_->sessions) {
      if (const auto session = weak.lock()) session->close();
    }
  });
  for (std::thread& thread : state_->threads) thread.join();
}

std::uint16_t HttpService::port() const { return state_->acceptor.local_endpoint().port(); }

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
