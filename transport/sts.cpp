// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <fstream>
#include <functional>
#include <random>
#include <utility>
#include <variant>
#include <vector>

#include <spillway/transport/credential_documents.hpp>
#include <spillway/transport/endpoint.hpp>
#include <spillway/transport/retry.hpp>
#include <spillway/transport/signed_service.hpp>
#include <spillway/transport/sts.hpp>
#include <spillway/transport/text.hpp>
#include <spillway/transport/url.hpp>

namespace spillway::transport {

using std::chrono::milliseconds;

namespace {

constexpr milliseconds request_timeout(5'000);
constexpr int attempts_max = 3;
// Of an assumed role's session (AssumeRole, API reference).
constexpr std::int64_t duration_s_min = 900;
constexpr std::int64_t duration_s_max = 43'200;
constexpr std::size_t token_chars_max = 20'000;

CredentialsError wrong(const RoleRequest& role, const std::string& what) {
  return CredentialsError{role.source + ": " + what};
}

void append_pair(std::string& body, std::string_view name, std::string_view value) {
  body.append("&").append(name).append("=").append(percent_encode(value));
}

/// A form without what differs between the operations, or what is wrong with the role.
std::variant<std::string, CredentialsError> form(const SourceParts& parts, const RoleRequest& role,
                                                 std::string_view operation) {
  if (!role.role_arn.starts_with("arn:")) {
    return wrong(role, "the role is not of the form arn:aws:iam::123456789012:role/NAME");
  }
  std::string session = role.session_name;
  if (session.empty()) {
    const auto now = parts.now ? parts.now() : std::chrono::system_clock::now();
    session = "spillway-" +
              std::to_string(
                  std::chrono::duration_cast<std::chrono::seconds>(now.time_since_epoch()).count());
  }
  const auto is_legal = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view("_+=,.@-").find(c) != std::string_view::npos;
  };
  if (session.size() < 2 || session.size() > 64 ||
      !std::all_of(session.begin(), session.end(), is_legal)) {
    return wrong(role, "the role session name must be 2 to 64 letters, digits or _+=,.@-");
  }
  std::string body("Action=");
  body.append(operation).append("&Version=2011-06-15");
  append_pair(body, "RoleArn", role.role_arn);
  append_pair(body, "RoleSessionName", session);
  if (!role.external_id.empty()) append_pair(body, "ExternalId", role.external_id);
  if (!role.duration_seconds.empty()) {
    const auto seconds = parse_number<std::int64_t>(role.duration_seconds);
    if (!seconds || *seconds < duration_s_min || *seconds > duration_s_max) {
      return wrong(role, "duration_seconds must be a number from 900 to 43200");
    }
    append_pair(body, "DurationSeconds", role.duration_seconds);
  }
  return body;
}

/// Where the operations go, with their signer or without.
struct Sts {
  std::string region;
  std::string endpoint;
};
std::variant<Sts, CredentialsError> sts_of(const SourceParts& parts, const RoleRequest& role) {
  Sts found;
  found.region = parts.region.empty() ? configured_region() : parts.region;
  if (found.region.empty()) {
    return wrong(role, "no region for STS: set AWS_REGION, or region in the profile");
  }
  found.endpoint = configured_endpoint(sts).value_or(service_endpoint(sts, found.region));
  if (!parse_url(found.endpoint)) return wrong(role, "the endpoint of STS is not a URL");
  return found;
}

/// Makes, sends and judges a request until it is taken, refused or out of attempts.
SourceResult call(const SourceParts& parts, const RoleRequest& role,
                  const std::function<std::variant<HttpRequest, CredentialsError>()>& make,
                  const std::function<AwsReply(const HttpResponse&)>& read) {
  std::minstd_rand random(std::random_device{}());
  bool signed_again = false;
  for (int attempt = 1;;) {
    auto made = make();
    if (auto* const error = std::get_if<CredentialsError>(&made)) return std::move(*error);
    HttpResponse response =
        parts.http->send(std::move(std::get<HttpRequest>(made)), request_timeout);
    const AwsReply reply = read(response);
    if (reply.ok()) return credentials_from_sts(role.source + ": STS", response.body);
    const CredentialsError error =
        wrong(role, "STS for " + role.role_arn + ": " + describe(response, reply.error));
    if (reply.sign_again && !std::exchange(signed_again, true)) continue;
    const bool may_retry =
        reply.failure == Failure::transient || reply.failure == Failure::throttled;
    if (!may_retry || attempt == attempts_max) return error;
    const double draw = std::uniform_real_distribution<double>(0, 1)(random);
    const milliseconds wait = backoff(reply.failure, attempt, draw, reply.asked);
    if (!(parts.pause ? parts.pause(wait) : parts.http->pause(wait))) return error;
    ++attempt;
  }
}

HttpRequest posted(std::string body) {
  HttpRequest request;
  request.headers = {{"Content-Type", "application/x-www-form-urlencoded; charset=utf-8"}};
  request.body = std::move(body);
  return request;
}

}  // namespace

SourceResult assume_role(const SourceParts& parts, const RoleRequest& role, const Credentials& by) {
  auto made = form(parts, role, "AssumeRole");
  if (auto* const error = std::get_if<CredentialsError>(&made)) return std::move(*error);
  auto where = sts_of(parts, role);
  if (auto* const error = std::get_if<CredentialsError>(&where)) return std::move(*error);
  const auto& body = std::get<std::string>(made);
  const auto& [region, endpoint] = std::get<Sts>(where);
  std::vector<std::unique_ptr<CredentialsProvider>> one;
  Credentials signer = by;
  signer.expiration.reset();  // Just fetched; whether they still serve, STS says.
  one.push_back(static_credentials(std::move(signer)));
  CredentialsChain::Options inline_options;
  inline_options.background = false;
  SignedService service(sts, region, endpoint,
                        std::make_shared<CredentialsChain>(std::move(one), inline_options));
  const auto now = [&] { return parts.now ? parts.now() : std::chrono::system_clock::now(); };
  return call(
      parts, role,
      [&]() -> std::variant<HttpRequest, CredentialsError> {
        HttpRequest request = posted(body);
        if (auto error = service.sign(request, now())) return std::move(*error);
        return request;
      },
      [&](const HttpResponse& response) { return service.read(response, now()); });
}

SourceResult assume_role_with_web_identity(const SourceParts& parts, const RoleRequest& role,
                                           const std::string& token_file) {
  auto made = form(parts, role, "AssumeRoleWithWebIdentity");
  if (auto* const error = std::get_if<CredentialsError>(&made)) return std::move(*error);
  auto where = sts_of(parts, role);
  if (auto* const error = std::get_if<CredentialsError>(&where)) return std::move(*error);
  const auto url = parse_url(std::get<Sts>(where).endpoint);
  return call(
      parts, role,
      [&]() -> std::variant<HttpRequest, CredentialsError> {
        std::optional<std::string> token = read_small_file(token_file);
        const std::string_view bare = token ? trim(*token) : std::string_view{};
        if (bare.size() < 4 || bare.size() > token_chars_max) {
          const bool is_read = token.has_value();
          if (token) wipe(*token);
          return wrong(
              role, "the web identity token file '" + token_file +
                        (is_read ? "' has no token of 4 to 20000 characters" : "' cannot be read"));
        }
        std::string body = std::get<std::string>(made);
        append_pair(body, "WebIdentityToken", bare);
        wipe(*token);
        HttpRequest request = posted(std::move(body));
        request.origin = url->origin();
        request.path = url->path;
        return request;
      },
      [](const HttpResponse& response) {
        AwsReply reply;
        if (response.outcome == HttpOutcome::answered && response.status / 100 != 2) {
          reply.error = parse_aws_error(response);
        }
        reply.failure = classify(response, reply.error);
        reply.asked = retry_after(response);
        return reply;
      });
}

std::optional<std::string> read_small_file(const std::string& path) {
  constexpr std::size_t bytes_max = 1U << 20;
  std::ifstream file(path, std::ios::binary);
  std::string text(4096, '\0');
  std::size_t size = 0;
  while (file && size <= bytes_max) {
    if (text.size() == size) text.resize(2 * size);
    file.read(text.data() + size, static_cast<std::streamsize>(text.size() - size));
    size += static_cast<std::size_t>(file.gcount());
  }
  if (!file.eof() || size == 0) return std::nullopt;
  text.resize(size);
  return text;
}

}  // namespace spillway::transport
