// SPDX-License-Identifier: Apache-2.0
#include "local/http_server.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <ctime>
#include <limits>
#include <optional>
#include <utility>

#include <boost/asio/buffer.hpp>
#include <boost/asio/error.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "local/limits.hpp"

namespace spillway::local {
namespace {

namespace http = boost::beast::http;
using boost::system::error_code;
using std::chrono::steady_clock;
using Parser = http::request_parser<http::string_body>;

constexpr auto closing_time_max = std::chrono::seconds(1);

error_code make_error(boost::system::errc::errc_t code) {
  return boost::system::errc::make_error_code(code);
}

/// A connected socket as Beast's SyncReadStream and SyncWriteStream. Asio's own synchronous calls
/// know no timeout.
class Stream {
 public:
  Stream(FileDescriptor socket, const StopSignal& stop) : socket_(std::move(socket)), stop_(stop) {}

  void set_deadline(steady_clock::time_point deadline) { deadline_ = deadline; }

  /// Whether a byte, or the end, is there to be read before `deadline`.
  bool wait_readable(steady_clock::time_point deadline) {
    return stop_.wait_for(socket_.get(), false, deadline);
  }

  template <class Buffers>
  std::size_t read_some(const Buffers& buffers, error_code& error) {
    const boost::asio::mutable_buffer buffer = *boost::asio::buffer_sequence_begin(buffers);
    return transfer(false, error, [&] {
      return recv(socket_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    });
  }
  template <class Buffers>
  std::size_t read_some(const Buffers& buffers) {
    error_code error;
    const std::size_t size = read_some(buffers, error);
    if (error) throw boost::system::system_error(error);
    return size;
  }

  /// Ends our side, then reads on until the peer ends its own: closing with unread bytes would
  /// reset the connection and could take the answer with it.
  void close_gently(steady_clock::time_point deadline) {
    shutdown(socket_.get(), SHUT_WR);
    std::array<char, 4096> discarded{};
    while (wait_readable(deadline) &&
           recv(socket_.get(), discarded.data(), discarded.size(), MSG_DONTWAIT) > 0) {
    }
  }

  template <class Buffers>
  std::size_t write_some(const Buffers& buffers, error_code& error) {
    for (auto at = boost::asio::buffer_sequence_begin(buffers);
         at != boost::asio::buffer_sequence_end(buffers); ++at) {
      const boost::asio::const_buffer buffer = *at;
      if (buffer.size() == 0) continue;
      return transfer(true, error, [&] {
        return send(socket_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
      });
    }
    error = {};
    return 0;
  }
  template <class Buffers>
  std::size_t write_some(const Buffers& buffers) {
    error_code error;
    const std::size_t size = write_some(buffers, error);
    if (error) throw boost::system::system_error(error);
    return size;
  }

 private:
  template <class Call>
  std::size_t transfer(bool write, error_code& error, const Call& call) {
    while (true) {
      const ssize_t size = call();
      if (size > 0) {
        error = {};
        return static_cast<std::size_t>(size);
      }
      if (size == 0) {
        error = boost::asio::error::eof;
        return 0;
      }
      if (errno == EINTR) continue;
      if (errno != EAGAIN && errno != EWOULDBLOCK) {
        error = error_code(errno, boost::system::system_category());
        return 0;
      }
      if (!stop_.wait_for(socket_.get(), write, deadline_)) {
        error = make_error(boost::system::errc::timed_out);
        return 0;
      }
    }
  }

  FileDescriptor socket_;
  const StopSignal& stop_;
  steady_clock::time_point deadline_{};
};

// ---- Between Beast's messages and ours ----

std::string_view view(boost::beast::string_view text) { return {text.data(), text.size()}; }

transport::HttpRequest to_request(const http::request_header<>& header) {
  transport::HttpRequest request;
  request.method = std::string(header.method_string());
  const std::string_view target = view(header.target());
  const std::size_t question = target.find('?');
  request.path = target.substr(0, question);
  if (question != std::string_view::npos) request.query = target.substr(question + 1);
  for (const auto& field : header) {
    request.headers.push_back({std::string(field.name_string()), std::string(field.value())});
  }
  return request;
}

std::string http_date(std::chrono::system_clock::time_point time) {
  const std::time_t seconds = std::chrono::system_clock::to_time_t(time);
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  std::array<char, 64> text{};
  return {text.data(), std::strftime(text.data(), text.size(), "%a, %d %b %Y %H:%M:%S GMT", &utc)};
}

/// One connection: requests one after the other until either side has had enough.
class Session {
 public:
  Session(FileDescriptor socket, const StopSignal& stop, Gateway& gateway)
      : stream_(std::move(socket), stop), stop_(stop), gateway_(gateway) {}

  void run() {
    while (serve_one()) {
    }
  }

 private:
  // False when the connection is to be closed.
  bool serve_one() {
    if (buffer_.size() == 0 &&
        !stream_.wait_readable(steady_clock::now() + limits::idle_connection_max)) {
      return false;
    }
    stream_.set_deadline(steady_clock::now() + limits::request_time_max);
    Parser parser;
    parser.header_limit(limits::header_bytes_max);
    // No limit until the header has said which operation it is (boost::none counts as 0 in 1.74).
    parser.body_limit(std::numeric_limits<std::uint64_t>::max());
    error_code error;
    http::read_header(stream_, buffer_, parser, error);
    if (error) return answer_bad_header(error);
    if (parser.get().target().size() > limits::url_bytes_max) {
      return send(plain_error(414, "the URL is too long"), {}, false);
    }

    transport::HttpRequest request = to_request(parser.get());
    std::optional<std::uint64_t> announced;
    if (const auto length = parser.content_length()) announced = *length;
    // What follows on the connection is a body that nobody reads: close.
    if (const auto refusal = gateway_.screen(request, announced)) return send(*refusal, {}, false);
    if (!read_body(parser, request)) return false;

    const bool keep_alive = parser.get().keep_alive();
    const Gateway::Outcome outcome = gateway_.handle(request, workspace_);
    if (outcome.delay.count() > 0 && !stop_.sleep_for(outcome.delay)) return false;
    if (outcome.reply.hang_up) return false;
    return send(outcome.reply, outcome.skew, keep_alive);
  }

  bool answer_bad_header(error_code error) {
    if (error == http::error::end_of_stream || error == http::error::partial_message ||
        error.category() != make_error_code(http::error::bad_method).category()) {
      return false;
    }
    return error == http::error::header_limit
               ? send(plain_error(431, "the headers are too long"), {}, false)
               : send(plain_error(400, "not HTTP/1.1: " + error.message()), {}, false);
  }

  // False when there is none, or none that is wanted; the answer has been sent then.
  bool read_body(Parser& parser, transport::HttpRequest& request) {
    error_code error;
    if (boost::beast::iequals(parser.get()[http::field::expect], "100-continue")) {
      http::response<http::empty_body> go_on(http::status::continue_, 11);
      http::write(stream_, go_on, error);
      if (error) return false;
    }
    parser.body_limit(Gateway::body_bytes_max(request));
    http::read(stream_, buffer_, parser, error);
    if (error == http::error::body_limit) {
      send(gateway_.too_large(request), {}, false);
      return false;
    }
    if (error) {
      answer_bad_header(error);
      return false;
    }
    request.body = std::move(parser.get().body());
    return true;
  }

  bool send(const Reply& reply, std::chrono::seconds skew, bool keep_alive) {
    http::response<http::string_body> response;
    response.version(11);
    response.result(static_cast<unsigned>(reply.status));
    response.set(http::field::date, http_date(gateway_.now() + skew));
    response.set("x-amzn-RequestId", request_id());
    if (!reply.body.empty()) response.set(http::field::content_type, reply.content_type);
    for (const auto& [name, value] : reply.headers) response.insert(name, value);
    response.keep_alive(keep_alive);
    response.body() = reply.body;
    response.prepare_payload();
    stream_.set_deadline(steady_clock::now() + limits::request_time_max);
    error_code error;
    http::write(stream_, response, error);
    if (!error && !keep_alive) stream_.close_gently(steady_clock::now() + closing_time_max);
    return !error && keep_alive;
  }

  // In the form of the services' own.
  static std::string request_id() {
    static std::atomic<std::uint64_t> last{0};
    std::string digits = std::to_string(last.fetch_add(1, std::memory_order_relaxed) + 1);
    digits.insert(0, 12 - std::min<std::size_t>(12, digits.size()), '0');
    return "00000000-0000-4000-8000-" + digits;
  }

  Stream stream_;
  const StopSignal& stop_;
  Gateway& gateway_;
  Workspace workspace_;
  boost::beast::flat_buffer buffer_;
};

}  // namespace

HttpServer::HttpServer(const Options& options, Gateway& gateway, Store& store)
    : gateway_(gateway),
      store_(store),
      connections_max_(options.connections_max),
      listener_(open_listener(options.host, options.http_port, SocketKind::stream)),
      port_(port_of(listener_)),
      acceptor_([this] { accept_all(); }) {}

HttpServer::~HttpServer() {
  stop_.call();
  acceptor_.join();
  forget_done(true);
}

void HttpServer::accept_all() {
  while (stop_.wait_for(listener_.get(), false, std::nullopt)) {
    forget_done(false);
    FileDescriptor socket(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (socket.get() >= 0) {
      start(std::move(socket));
    } else if (errno == EMFILE || errno == ENFILE) {
      // The connection stays in the queue and would be announced again at once.
      stop_.sleep_for(std::chrono::milliseconds(10));
    }
  }
}

void HttpServer::start(FileDescriptor socket) {
  const int yes = 1;
  setsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  const bool full = connections_.size() >= connections_max_;
  {
    const std::scoped_lock lock(store_.mutex);
    ++(full ? store_.statistics.connections_refused : store_.statistics.connections);
  }
  if (full) {
    constexpr std::string_view busy =
        "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    [[maybe_unused]] const auto sent =
        send(socket.get(), busy.data(), busy.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    return;
  }
  Connection& connection = connections_.emplace_back();
  connection.thread = std::thread([this, &connection, socket = std::move(socket)]() mutable {
    serve(std::move(socket));
    connection.done = true;
  });
}

void HttpServer::serve(FileDescriptor socket) { Session(std::move(socket), stop_, gateway_).run(); }

void HttpServer::forget_done(bool all) {
  for (auto at = connections_.begin(); at != connections_.end();) {
    if (!all && !at->done) {
      ++at;
      continue;
    }
    at->thread.join();
    at = connections_.erase(at);
  }
}

}  // namespace spillway::local
