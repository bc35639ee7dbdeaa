// SPDX-License-Identifier: Apache-2.0
//
// Calls to another service: its endpoints are discovered and chosen between, and a call that fails is
// tried elsewhere as far as that may be.
//
//   ServiceClient orders({.name = "orders",
//                         .discover = dns_endpoints({.name = "orders.internal", .port = 8080}),
//                         .signer = signer, .engine = &engine});
//   const ServiceReply reply = orders.call({.method = "GET", .path = "/orders/17"}, 300ms);
//   if (reply.outcome != ServiceOutcome::answered) ... reply.error ...
//
// In a call, in this order: a permit of the bulkhead; an endpoint whose circuit breaker is not open; the
// headers of the calling thread's trace and context (tenant, user, request id) and the time that is left
// (X-Request-Timeout); the signature; the request; a retry within deadline and budget (retry.hpp), on
// another endpoint where there is one. A call is a span of the calling thread's trace.
//
// Every decision leaves a record, with the trace id of the request that the calling thread serves: one of
// the log for an attempt that failed (what became of it: `decision`) and for a call that ends without an
// answer (`outcome`, which says bulkhead_full, breakers_open, ...), annotations of the span (`attempts`,
// `retry_stopped`, `outcome`), the counters ServiceCalls by Outcome and ServiceRetryDecisions by Reason.
//
// Discovery runs in the background every `refresh`. One that fails changes nothing: the endpoints that
// are known stay in use.
//
// Threads: any may call, and waits. One thread of its own discovers. Connections are kept alive, one set
// for each call that is under way at once.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include <spillway/engine/clock.hpp>
#include <spillway/middleware/client/discovery.hpp>
#include <spillway/middleware/resilience/bulkhead.hpp>
#include <spillway/middleware/resilience/circuit_breaker.hpp>
#include <spillway/middleware/resilience/retry.hpp>
#include <spillway/middleware/signing/signer.hpp>
#include <spillway/transport/http.hpp>

namespace spillway {
class Engine;
}

namespace spillway::middleware {

enum class Balance : std::uint8_t {
  round_robin,
  least_in_flight,  ///< of this client's own calls
  weighted          ///< by chance, in proportion to the endpoints' weights
};

struct ServiceClientOptions {
  std::string name;  ///< of the service: in metrics, logs and as the span's name
  Discover discover;
  std::chrono::milliseconds refresh{30'000};
  std::chrono::milliseconds discovery_timeout{5'000};

  Balance balance = Balance::round_robin;
  /// This process's availability zone: endpoints in it go first, others serve when those do not. Empty:
  /// zones are not told apart.
  std::string zone{};

  CircuitBreakerOptions breaker{};  ///< one for each endpoint
  RetryOptions retry{};
  BulkheadOptions bulkhead{};
  std::chrono::milliseconds attempt_timeout{
      10'000};                                    ///< of one attempt; the call's own ends it sooner
  std::size_t request_body_bytes_max = 1U << 20;  ///< answers: transport::response_bytes_max

  /// HMAC signatures for services of ours. Null: none.
  std::shared_ptr<const RequestSigner> signer{};
  /// SigV4 for what stands behind IAM (API Gateway, Lambda URLs): the service's signing name
  /// ("execute-api"). Empty: none. The region and the credentials are the environment's.
  std::string sigv4_service{};
  std::string sigv4_region{};

  Engine* engine = nullptr;  ///< for metrics, logs and spans; outlives the client. Null: none
  bool threads = true;       ///< false: discovery runs in refresh() only, for tests
  std::function<std::unique_ptr<transport::HttpTransport>()> http{};  ///< null: libcurl; for tests

  /// Throws std::invalid_argument that lists everything that cannot work.
  void check() const;
};

/// What to send; the client adds the rest. Path and query are as they go over the wire.
struct ServiceRequest {
  std::string method = "GET";
  std::string path = "/";
  std::string query{};
  std::vector<transport::HttpHeader> headers{};
  std::string body{};
  /// The method may be carried out twice although HTTP does not say so. Also true of requests with an
  /// Idempotency-Key header.
  bool idempotent = false;
};

enum class ServiceOutcome : std::uint8_t {
  answered,       ///< with whatever status
  failed,         ///< no answer; see error
  no_endpoint,    ///< none is known
  breakers_open,  ///< those of all endpoints
  bulkhead_full,
  timed_out,  ///< the time was over before an answer came
  refused     ///< the request cannot be sent: too large, not to be signed
};
inline constexpr std::size_t service_outcome_count = 7;
std::string_view to_string(ServiceOutcome outcome) noexcept;

struct ServiceReply {
  ServiceOutcome outcome = ServiceOutcome::failed;
  transport::HttpResponse response{};  ///< when answered
  std::string error{};                 ///< for people, when not; never a secret
  int attempts = 0;
  /// Why the last attempt, which failed, was not followed by another one. Nothing: it did not fail.
  std::optional<RetryReason> retry_stopped{};
};

class ServiceClient {
 public:
  /// Throws std::invalid_argument for options that cannot work. Asks no network.
  explicit ServiceClient(ServiceClientOptions options);
  ServiceClient(const ServiceClient&) = delete;
  ServiceClient& operator=(const ServiceClient&) = delete;
  /// No call is under way any more. Waits for a discovery, discovery_timeout at most.
  ~ServiceClient();

  /// Waits for the answer, at most `timeout`; the first calls also for the first discovery.
  ServiceReply call(const ServiceRequest& request, std::chrono::milliseconds timeout);

  /// Discovers now. Empty: it did; else why not.
  std::string refresh();
  std::size_t endpoint_count() const;

 private:
  class Core;
  std::unique_ptr<Core> core_;
};

}  // namespace spillway::middleware
