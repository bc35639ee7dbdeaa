// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <iostream>
#include <mutex>
#include <set>
#include <string>

#include <boost/asio.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <sys/socket.h>

#include "../shop.hpp"

namespace examples {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using tcp = asio::ip::tcp;
using Request = http::request<http::string_body>;
using Response = http::response<http::string_body>;

inline Response response_of(const Answer& answer, const Request& request) {
  Response response{static_cast<http::status>(answer.status), request.version()};
  response.keep_alive(request.keep_alive());
  if (!answer.body.empty()) response.set(http::field::content_type, "application/json");
  response.body() = answer.body;
  response.prepare_payload();
  return response;
}

inline std::string peer_of(const tcp::socket& socket) {
  boost::system::error_code ignored;
  return socket.remote_endpoint(ignored).address().to_string(ignored);
}

/// After an accept() that failed the next one is so much later: what it failed on, too many open files
/// above all, is still there, and so is the connection that waits.
inline constexpr auto accept_pause = 50ms;

/// Whether accept() failed because the service ends; what else fails is told, and passes.
inline bool has_ended(const boost::system::error_code& error) {
  if (error == asio::error::operation_aborted || error == asio::error::bad_descriptor ||
      error == asio::error::invalid_argument)
    return true;
  std::cerr << "accept: " + error.message() + "\n";
  return false;
}

/// When a step lets a request wait, its turn comes as the end of async_wait(), on the connection's executor,
/// which is a strand. Stands where the exchange does, before it.
class Turn {
 public:
  explicit Turn(const asio::any_io_executor& executor)
      : timer_(std::make_shared<asio::steady_timer>(executor,
                                                    asio::steady_timer::time_point::max())) {}
  middleware::Resumer resumer() noexcept {
    return {[](void* turn) noexcept { static_cast<Turn*>(turn)->come(); }, this};
  }
  /// In the same piece of work that has found the exchange waiting: a turn that has come already is
  /// behind it in the strand.
  template <class Token>
  auto async_wait(Token&& token) {
    return timer_->async_wait(std::forward<Token>(token));
  }

 private:
  void come() noexcept {
    asio::post(timer_->get_executor(), [timer = timer_] { timer->cancel(); });
  }
  std::shared_ptr<asio::steady_timer> timer_;
};

/// The open connections. Shutting them down ends a service without cutting off what is being answered.
class Connections {
 public:
  /// Stands in the list until its end, which comes before the socket's.
  class Entry {
   public:
    Entry(Connections& list, tcp::socket& socket) : list_(list), handle_(socket.native_handle()) {
      const std::scoped_lock lock(list_.mutex_);
      list_.handles_.insert(handle_);
      if (list_.closed_) ::shutdown(handle_, SHUT_RD);
    }
    Entry(const Entry&) = delete;
    Entry& operator=(const Entry&) = delete;
    ~Entry() {
      const std::scoped_lock lock(list_.mutex_);
      list_.handles_.erase(handle_);
    }

   private:
    Connections& list_;
    const int handle_;
  };

  /// No request comes in any more; answers under way go out.
  void shut_down() {
    const std::scoped_lock lock(mutex_);
    closed_ = true;
    for (const int handle : handles_) ::shutdown(handle, SHUT_RD);
  }

 private:
  std::mutex mutex_;
  std::set<int> handles_;
  bool closed_ = false;
};

}  // namespace examples
