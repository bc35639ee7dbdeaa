// SPDX-License-Identifier: Apache-2.0
//
// The step that tells people of errors through an SNS topic: of each kind of error at once when it
// begins, then once in a while with how often it came. A kind is a route, a status and an exception's
// type. Behind Observability.
//
//   SnsAlerts alerts(engine, {.topic_arn = "arn:aws:sns:eu-west-1:123456789012:errors",
//                             .service = "orders"});
//   Chain chain(routes, request_id, observability, alerts, ...);
//
// A subject and a message in plain text: kind, exception, how often, request id, trace id, tenant;
// secrets are taken out as they are of logs. Bodies, headers and paths are never in it.
//
// A request that ends well costs one comparison. One that does not costs a look-up without a lock, and
// an alert that is due a place in a bounded queue; a thread of its own signs and sends. Permission:
// sns:Publish. Credentials, region and endpoint are found as everywhere else.
//
// Metrics: Alerts by Outcome (sent; failed: SNS did not take it; suppressed: past alerts_max;
// dropped: the queue was full, or it was never sent before the end). What cannot be sent is logged when
// that begins.
//
// Make it in the process that uses it: its thread does not survive a fork.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include <spillway/engine/engine.hpp>
#include <spillway/middleware/exchange.hpp>
#include <spillway/transport/http.hpp>

namespace spillway::middleware {

struct SnsAlertsOptions {
  std::string topic_arn;   ///< one that ends in ".fifo" is a FIFO topic
  std::string service;     ///< who speaks; begins the subject
  int status_min = 500;    ///< from this status on, and every exception; 400 to 599
  std::string region{};    ///< empty: the topic's
  std::string endpoint{};  ///< URL; empty: AWS_ENDPOINT_URL_SNS and so on, then the region's own

  std::chrono::seconds repeat_after{300};  ///< the same kind is told of again then, not before
  std::uint32_t alerts_max = 10;           ///< of all kinds, in each `interval`
  std::chrono::seconds interval{60};
  std::size_t kinds_max = 256;  ///< told apart at the same time
  std::size_t queue_max = 64;

  std::string redact = Config().redact.get();            ///< as in Config
  std::string redact_keys = Config().redact_keys.get();  ///< as in Config
  std::chrono::milliseconds request_timeout{10'000};     ///< of an alert, its retries included
  std::chrono::milliseconds close_timeout{2'000};        ///< of the destructor
};

/// What alerts run on, for tests; the default is the machine itself.
struct SnsAlertsRuntime {
  std::unique_ptr<transport::HttpTransport> http{};  ///< null: libcurl
  bool thread = true;                                ///< false: nothing is sent but by step()
};

class SnsAlerts {
 public:
  struct State {};

  /// `engine` outlives it. Throws std::invalid_argument that lists everything that cannot work. Touches
  /// no network.
  SnsAlerts(Engine& engine, const SnsAlertsOptions& options, SnsAlertsRuntime runtime = {});
  /// Sends what waits, for close_timeout at most.
  ~SnsAlerts();
  SnsAlerts(const SnsAlerts&) = delete;
  SnsAlerts& operator=(const SnsAlerts&) = delete;

  void after(State& /*state*/, const Exchange& exchange, const ResponseFacts& facts) noexcept {
    if (facts.status >= status_min_ || !exchange.exception().type.empty()) [[unlikely]]
      note(exchange, facts);
  }

  /// Without a thread: sends one alert; false: none waits.
  bool step();

 private:
  class Sender;
  struct Kind;
  struct Kinds;
  [[gnu::cold]] void note(const Exchange& exchange, const ResponseFacts& facts) noexcept;

  const int status_min_;
  const std::chrono::nanoseconds repeat_after_;
  std::unique_ptr<Kinds> kinds_;
  std::unique_ptr<Sender> sender_;
};

}  // namespace spillway::middleware
