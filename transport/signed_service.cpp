// SPDX-License-Identifier: Apache-2.0
#include <utility>

#include <spillway/transport/signed_service.hpp>
#include <spillway/transport/url.hpp>

namespace spillway::transport {

SignedService::SignedService(const AwsService& service, std::string region,
                             std::string_view endpoint,
                             std::shared_ptr<CredentialsChain> credentials,
                             std::shared_ptr<ClockSkew> skew)
    : credentials_(std::move(credentials)),
      skew_(skew != nullptr ? std::move(skew) : std::make_shared<ClockSkew>()),
      signer_(std::move(region), std::string(service.prefix)) {
  const auto url = parse_url(endpoint);
  origin_ = url ? url->origin() : std::string(endpoint);
  if (url && url->path != "/") path_prefix_ = url->path;
  while (path_prefix_.ends_with('/')) path_prefix_.pop_back();
  // Verified by TLS, or from this machine: nobody between us moves our clock.
  trusted_ = url && (url->scheme == "https" || url->host == "127.0.0.1" || url->host == "[::1]" ||
                     url->host == "localhost");
}

std::optional<CredentialsError> SignedService::sign(HttpRequest& request, Time now,
                                                    std::chrono::milliseconds wait) {
  CredentialsResult credentials =
      wait.count() > 0 ? credentials_->get_within(now, wait) : credentials_->get(now);
  if (auto* const error = std::get_if<CredentialsError>(&credentials)) return std::move(*error);
  used_ = std::get<std::shared_ptr<const Credentials>>(std::move(credentials));
  request.origin = origin_;
  request.path = path_prefix_ + request.path;
  signer_.sign(request, *used_, skew_->corrected(now));
  return std::nullopt;
}

AwsReply SignedService::read(const HttpResponse& response, Time now) {
  AwsReply reply;
  const bool answered = response.outcome == HttpOutcome::answered;
  if (answered && response.status / 100 != 2) reply.error = parse_aws_error(response);
  reply.failure = classify(response, reply.error);
  reply.asked = retry_after(response);
  // 5xx: a gateway may have lost the answer to a request that was carried out.
  reply.uncertain = response.outcome == HttpOutcome::lost ||
                    response.outcome == HttpOutcome::too_large ||
                    (answered && response.status >= 500 && reply.failure != Failure::throttled);
  const bool moved = skew_->learn(response, now, trusted_);
  if (may_be_clock_skew(reply.error)) reply.sign_again = moved;
  if (reply.failure == Failure::credentials && !reply.sign_again && used_ != nullptr) {
    reply.sign_again = credentials_->refused(*used_, now);
  }
  return reply;
}

std::string describe(const HttpResponse& response, const AwsError& error) {
  if (response.outcome != HttpOutcome::answered) {
    return error.message.empty() ? "no answer: " + response.error : error.message;
  }
  std::string text = "answered " + std::to_string(response.status);
  if (!error.code.empty()) text.append(" ").append(error.code);
  if (!error.message.empty()) text.append(": ").append(error.message);
  return text;
}

}  // namespace spillway::transport
