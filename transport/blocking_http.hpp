// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>

#include <spillway/transport/http.hpp>

namespace spillway::transport {

/// One request after the other on an HttpTransport, for threads that may wait: they end within the
/// request's time-out, and at once when another thread says stop().
class BlockingHttp {
 public:
  /// Null: libcurl, begun with the first request.
  explicit BlockingHttp(std::unique_ptr<HttpTransport> transport = nullptr);
  ~BlockingHttp();

  /// One thread at a time. Stopped: `not_connected`, without a request.
  HttpResponse send(HttpRequest request, std::chrono::milliseconds timeout);
  /// Waits. False: stopped.
  bool pause(std::chrono::milliseconds time);

  /// Ends what waits, and all that comes after it, at once. Any thread.
  void stop() noexcept;
  bool stopped() const noexcept { return stopped_.load(std::memory_order_relaxed); }

 private:
  std::mutex mutex_;  // of the pointer: stop() may come while it is made
  std::unique_ptr<HttpTransport> transport_;
  std::atomic<bool> stopped_{false};
  std::uint64_t next_id_ = 1;
};

}  // namespace spillway::transport
