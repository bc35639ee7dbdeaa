// SPDX-License-Identifier: Apache-2.0
#include "local/signature.hpp"

#include <algorithm>
#include <string>
#include <utility>

#include "local/limits.hpp"
#include <spillway/transport/sha256.hpp>
#include <spillway/transport/sigv4.hpp>
#include <spillway/transport/text.hpp>

namespace spillway::local {
namespace {

using std::chrono::system_clock;
using transport::find_header;
using transport::HttpHeader;
using transport::HttpRequest;

constexpr std::string_view algorithm = "AWS4-HMAC-SHA256";

struct Objection {
  CommonError error;
  std::string message;
};

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (true) {
    const std::size_t end = text.find(separator);
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

bool contains(const std::vector<std::string_view>& names, std::string_view name) {
  return std::any_of(names.begin(), names.end(), [&](std::string_view other) {
    return transport::equal_without_case(name, other);
  });
}

/// What a request says about its signature, taken apart.
struct Claim {
  std::string_view algorithm;
  std::string_view credential;
  std::string_view signed_headers;
  std::string_view signature;
  std::string_view date;

  explicit Claim(const HttpRequest& request) : date(find_header(request.headers, "x-amz-date")) {
    const std::string_view header = find_header(request.headers, "authorization");
    const std::size_t blank = std::min(header.find(' '), header.size());
    algorithm = header.substr(0, blank);
    // "Credential=..., SignedHeaders=..., Signature=...", in any order.
    for (const std::string_view part : split(header.substr(blank), ',')) {
      const std::string_view parameter = transport::trim(part);
      const std::size_t equals = std::min(parameter.find('='), parameter.size());
      const std::string_view name = parameter.substr(0, equals);
      const std::string_view value = parameter.substr(std::min(equals + 1, parameter.size()));
      if (name == "Credential") credential = value;
      if (name == "SignedHeaders") signed_headers = value;
      if (name == "Signature") signature = value;
    }
  }
};

std::optional<Objection> check_form(const Claim& claim) {
  if (!claim.algorithm.starts_with("AWS4-")) {
    return Objection{CommonError::missing_token, "Request is missing Authentication Token"};
  }
  std::string missing;
  if (claim.credential.empty()) missing += "Authorization header requires 'Credential' parameter. ";
  if (claim.signature.empty()) missing += "Authorization header requires 'Signature' parameter. ";
  if (claim.signed_headers.empty()) {
    missing += "Authorization header requires 'SignedHeaders' parameter. ";
  }
  if (claim.date.empty()) missing += "Authorization header requires an 'X-Amz-Date' header. ";
  if (claim.algorithm != algorithm) {
    missing += "Unsupported AWS 'algorithm': only AWS4-HMAC-SHA256 is taken here. ";
  }
  if (missing.empty()) return std::nullopt;
  return Objection{CommonError::incomplete_signature, std::move(missing)};
}

// YYYYMMDDTHHMMSSZ, and nothing else.
std::optional<system_clock::time_point> parse_amz_date(std::string_view text) {
  if (text.size() != 16 || text[8] != 'T' || text[15] != 'Z') return std::nullopt;
  const auto number = [&](std::size_t at, std::size_t size) {
    return transport::parse_number<unsigned>(text.substr(at, size)).value_or(99);
  };
  const std::chrono::year_month_day day(std::chrono::year(static_cast<int>(number(0, 4))),
                                        std::chrono::month(number(4, 2)),
                                        std::chrono::day(number(6, 2)));
  const unsigned hour = number(9, 2);
  const unsigned minute = number(11, 2);
  const unsigned second = number(13, 2);
  if (!day.ok() || hour > 23 || minute > 59 || second > 59) return std::nullopt;
  return std::chrono::sys_days(day) + std::chrono::hours(hour) + std::chrono::minutes(minute) +
         std::chrono::seconds(second);
}

std::optional<Objection> check_date(std::string_view date, system_clock::time_point now) {
  const auto time = parse_amz_date(date);
  if (!time) {
    return Objection{CommonError::incomplete_signature,
                     "Date must be in ISO-8601 'basic format' (YYYYMMDDTHHMMSSZ). Got '" +
                         std::string(date) + "'."};
  }
  const bool old = *time < now - limits::clock_skew_max;
  if (!old && *time <= now + limits::clock_skew_max) return std::nullopt;
  const auto bound = old ? now - limits::clock_skew_max : now + limits::clock_skew_max;
  std::string message = old ? "Signature expired: " : "Signature not yet current: ";
  message.append(date).append(old ? " is now earlier than " : " is still later than ");
  message.append(transport::amz_date(bound)).append(" (").append(transport::amz_date(now));
  message.append(old ? " - 15 min.)" : " + 15 min.)");
  return Objection{CommonError::skewed, std::move(message)};
}

// What must be signed: the host and every X-Amz header that was sent (IAM guide, "Create a signed
// AWS API request"). The guide asks for Content-Type as well; the services do not insist.
std::optional<Objection> check_signed_headers(const HttpRequest& request,
                                              const std::vector<std::string_view>& names) {
  std::string missing;
  if (!contains(names, "host")) {
    missing += "'Host' must be a 'SignedHeader' in the AWS Authorization. ";
  }
  for (const HttpHeader& header : request.headers) {
    if (transport::lower(header.name).starts_with("x-amz-") && !contains(names, header.name)) {
      missing +=
          "'" + header.name + "' was sent and must be a 'SignedHeader' in the AWS Authorization. ";
    }
  }
  if (missing.empty()) return std::nullopt;
  return Objection{CommonError::wrong_signature, std::move(missing)};
}

std::optional<Objection> check_scope(const transport::SigningScope& scope, std::string_view term,
                                     std::string_view date, Service service) {
  std::string wrong;
  if (scope.region.empty()) wrong += "Credential should be scoped to a valid region. ";
  if (scope.service != to_string(service)) {
    wrong.append("Credential should be scoped to correct service: '").append(to_string(service));
    wrong.append("', not '").append(scope.service).append("'. ");
  }
  if (term != "aws4_request") {
    wrong += "Credential should be scoped with a valid terminator: 'aws4_request'. ";
  }
  if (scope.date != date.substr(0, 8)) {
    wrong += "Date in Credential scope does not match YYYYMMDD from X-Amz-Date. ";
  }
  if (wrong.empty()) return std::nullopt;
  return Objection{CommonError::wrong_signature, std::move(wrong)};
}

std::optional<Objection> check_signature(const HttpRequest& request, const Claim& claim,
                                         const std::vector<std::string_view>& names,
                                         const transport::SigningScope& scope,
                                         std::string_view secret) {
  std::vector<HttpHeader> headers;
  std::copy_if(request.headers.begin(), request.headers.end(), std::back_inserter(headers),
               [&](const HttpHeader& header) { return contains(names, header.name); });
  const std::string body_hash = transport::hex(transport::sha256(request.body));
  const std::string_view declared = find_header(request.headers, "x-amz-content-sha256");
  if (!declared.empty() && declared != body_hash) {
    return Objection{CommonError::wrong_signature,
                     "X-Amz-Content-Sha256 is not the SHA-256 of the body, which is " + body_hash +
                         ". This service does not take unsigned payloads."};
  }

  const std::string canonical =
      transport::canonical_request(request.method, request.path, request.query, headers, body_hash);
  const std::string to_sign = transport::string_to_sign(claim.date, scope, canonical);
  const std::string expected =
      transport::hex(transport::hmac_sha256(transport::derive_signing_key(secret, scope), to_sign));
  // The names are under the signature too: a claim of "b;a", or of a header that was not sent, is
  // a claim about another request.
  const std::string expected_names = transport::signed_header_names(headers);
  const bool right = transport::equal_in_constant_time(expected, claim.signature);
  if (right && expected_names == claim.signed_headers) return std::nullopt;
  // As AWS says it, but for the canonical request, which may hold a session token: its hash, on the
  // last line of the string to sign, must do.
  return Objection{CommonError::wrong_signature,
                   "The request signature we calculated does not match the signature you provided. "
                   "Check your AWS Secret Access Key and signing method. SignedHeaders should have "
                   "been '" +
                       expected_names + "', the hash of the body '" + body_hash +
                       "', and the String-to-Sign\n'" + to_sign + "'\n"};
}

std::optional<Objection> check(const HttpRequest& request, Service service,
                               system_clock::time_point now,
                               const std::vector<transport::Credentials>& known) {
  const Claim claim(request);
  if (auto objection = check_form(claim)) return objection;
  if (auto objection = check_date(claim.date, now)) return objection;
  const std::vector<std::string_view> names = split(claim.signed_headers, ';');
  if (auto objection = check_signed_headers(request, names)) return objection;

  const std::vector<std::string_view> parts = split(claim.credential, '/');
  if (parts.size() != 5) {
    return Objection{CommonError::incomplete_signature,
                     "Credential must have exactly 5 slash-delimited elements, e.g. "
                     "keyid/date/region/service/term."};
  }
  const transport::SigningScope scope{std::string(parts[1]), std::string(parts[2]),
                                      std::string(parts[3])};
  if (auto objection = check_scope(scope, parts[4], claim.date, service)) return objection;

  const auto key = std::find_if(known.begin(), known.end(), [&](const auto& credentials) {
    return credentials.access_key_id == parts[0];
  });
  if (key == known.end()) {
    return Objection{CommonError::unknown_key,
                     "The security token included in the request is invalid."};
  }
  if (auto objection = check_signature(request, claim, names, scope, key->secret_access_key)) {
    return objection;
  }
  const std::string_view token = find_header(request.headers, "x-amz-security-token");
  if (!transport::equal_in_constant_time(token, key->session_token)) {
    return Objection{
        CommonError::unknown_key,
        "The security token included in the request is invalid: it is not the one that "
        "belongs to this key."};
  }
  return std::nullopt;
}

}  // namespace

SignatureVerifier::SignatureVerifier(std::vector<transport::Credentials> known)
    : known_(std::move(known)) {}

Refusal SignatureVerifier::refuse(const HttpRequest& request, Service service, Protocol protocol,
                                  system_clock::time_point now) const {
  auto objection = check(request, service, now, known_);
  if (!objection) return std::nullopt;
  return common_error(protocol, objection->error, std::move(objection->message));
}

}  // namespace spillway::local
