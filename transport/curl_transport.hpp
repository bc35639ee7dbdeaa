// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include <spillway/transport/http.hpp>

namespace spillway::transport {

/// HTTP/1.1 over libcurl's multi interface: many requests on one thread, connections kept alive.
/// Follows no redirect, sends no Expect, verifies TLS against the system's certificates or
/// AWS_CA_BUNDLE, honours the proxy variables. Every wait, name resolution too, ends within the
/// request's time-out (CURLOPT_QUICK_EXIT, libcurl 7.87).
class CurlTransport final : public HttpTransport {
 public:
  /// Throws std::runtime_error when libcurl cannot start. Touches no network.
  CurlTransport();
  ~CurlTransport() override;

  void start(std::uint64_t id, HttpRequest request, std::chrono::milliseconds timeout) override;
  std::vector<HttpCompletion> poll(std::chrono::milliseconds wait) override;
  void wake() noexcept override;
  void cancel_all() noexcept override;

 private:
  struct Exchange;
  struct State;
  void perform();
  std::unique_ptr<State> state_;
};

}  // namespace spillway::transport
