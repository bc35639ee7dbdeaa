// SPDX-License-Identifier: Apache-2.0
#include <random>
#include <utility>

#include <spillway/transport/aws_client.hpp>

namespace spillway::transport {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

namespace {

AwsClient::Parts completed(AwsClient::Parts parts) {
  if (parts.endpoint.empty()) {
    parts.endpoint =
        configured_endpoint(parts.service).value_or(service_endpoint(parts.service, parts.region));
  }
  if (!parts.now) parts.now = [] { return std::chrono::system_clock::now(); };
  if (!parts.draw) {
    parts.draw = [engine = std::mt19937_64(std::random_device{}())]() mutable {
      return std::uniform_real_distribution<double>(0, 1)(engine);
    };
  }
  return parts;
}

}  // namespace

AwsClient::AwsClient(Parts parts)
    : parts_(completed(std::move(parts))),
      service_(parts_.service, parts_.region, parts_.endpoint, parts_.credentials, parts_.skew),
      http_(std::move(parts_.http)) {}

AwsReply AwsClient::call(HttpRequest request, milliseconds timeout) {
  const auto deadline = steady_clock::now() + timeout;
  const auto left = [&] {
    return std::chrono::duration_cast<milliseconds>(deadline - steady_clock::now());
  };
  AwsReply reply;
  bool signed_again = false;
  int paid = 0;
  for (int attempt = 1;;) {
    HttpRequest ready = request;
    if (auto error = service_.sign(ready, parts_.now(), std::max(left(), milliseconds(1)))) {
      reply.failure = Failure::credentials;
      reply.error.message = std::move(error->message);
      return reply;
    }
    if (left() <= milliseconds(0)) {
      reply.error.message = "out of time before the request";
      return reply;
    }
    HttpResponse response = http_.send(std::move(ready), left());
    reply = service_.read(response, parts_.now());
    reply.response = std::move(response);
    if (reply.ok()) {
      quota_.succeeded(paid);
      return reply;
    }
    if (reply.sign_again && !std::exchange(signed_again, true)) continue;
    if (reply.failure != Failure::transient && reply.failure != Failure::throttled) return reply;
    if (attempt >= parts_.attempts_max) return reply;
    const milliseconds wait = backoff(reply.failure, attempt, parts_.draw(), reply.asked);
    if (wait >= left() || !quota_.take(reply.failure)) return reply;
    paid = RetryQuota::cost(reply.failure);
    if (!http_.pause(wait)) return reply;
    ++attempt;
  }
}

AwsReply AwsClient::call_json(std::string_view target, std::string_view version, std::string body,
                              milliseconds timeout) {
  HttpRequest request;
  request.headers = {{"Content-Type", "application/x-amz-json-" + std::string(version)},
                     {"X-Amz-Target", std::string(target)}};
  request.body = std::move(body);
  return call(std::move(request), timeout);
}

}  // namespace spillway::transport
