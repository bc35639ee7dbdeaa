// SPDX-License-Identifier: Apache-2.0
//
// What every AWS service has in common: where it is, how a request to it is signed, and what an
// answer says about credentials, clock and pace. It does not send; AwsClient and the engine's
// exporters do.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include <spillway/transport/aws_error.hpp>
#include <spillway/transport/clock_skew.hpp>
#include <spillway/transport/credentials.hpp>
#include <spillway/transport/endpoint.hpp>
#include <spillway/transport/http.hpp>
#include <spillway/transport/sigv4.hpp>

namespace spillway::transport {

/// What an answer means.
struct AwsReply {
  Failure failure = Failure::transient;
  AwsError error;
  std::optional<std::chrono::milliseconds> asked;  ///< the server's own back-off
  /// The clock was found wrong, or the credentials are being replaced: the same request, signed
  /// again, may well be taken. At most once for a request.
  bool sign_again = false;
  /// The other side may have taken the request without saying so.
  bool uncertain = false;
  HttpResponse response;

  bool ok() const noexcept { return failure == Failure::none; }
};

/// What went wrong, for people; never a secret.
std::string describe(const HttpResponse& response, const AwsError& error);
inline std::string describe(const AwsReply& reply) { return describe(reply.response, reply.error); }

/// One thread, the chain and the clock skew are shared.
class SignedService {
 public:
  using Time = std::chrono::system_clock::time_point;

  /// `endpoint`: a URL; its path is a prefix of the service's own. `skew` null: its own.
  SignedService(const AwsService& service, std::string region, std::string_view endpoint,
                std::shared_ptr<CredentialsChain> credentials,
                std::shared_ptr<ClockSkew> skew = nullptr);

  /// Adds origin, prefix and signature to a request of path, query, headers and body. `wait`: for
  /// credentials that are being fetched.
  std::optional<CredentialsError> sign(HttpRequest& request, Time now,
                                       std::chrono::milliseconds wait = {});
  /// Reads an answer; the reply's `response` stays empty.
  AwsReply read(const HttpResponse& response, Time now);

  const std::string& origin() const noexcept { return origin_; }

 private:
  std::shared_ptr<CredentialsChain> credentials_;
  std::shared_ptr<ClockSkew> skew_;
  Sigv4Signer signer_;
  std::string origin_;
  std::string path_prefix_;
  bool trusted_ = false;
  std::shared_ptr<const Credentials> used_;
};

}  // namespace spillway::transport
