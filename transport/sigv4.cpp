// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <charconv>
#include <ctime>
#include <map>
#include <utility>
#include <vector>

#include <openssl/crypto.h>

#include <spillway/transport/sigv4.hpp>
#include <spillway/transport/text.hpp>
#include <spillway/transport/url.hpp>

namespace spillway::transport {
namespace {

constexpr std::string_view algorithm = "AWS4-HMAC-SHA256";

// RFC 3986 section 5.2.4 without the relative cases, and doubled slashes collapsed, as every
// service but S3 does. "/a/b/.." is "/a", as botocore and aws-c-auth sign it; by the RFC, and in
// AWS's Rust SDK, it would be "/a/".
std::string normalise_path(std::string_view path) {
  std::vector<std::string_view> segments;
  for (std::size_t at = 0; at <= path.size();) {
    const std::size_t end = std::min(path.find('/', at), path.size());
    const std::string_view segment = path.substr(at, end - at);
    if (segment == "..") {
      if (!segments.empty()) segments.pop_back();
    } else if (!segment.empty() && segment != ".") {
      segments.push_back(segment);
    }
    at = end + 1;
  }
  std::string result;
  for (const std::string_view segment : segments) result.append("/").append(segment);
  if (result.empty() || path.ends_with('/')) result += '/';
  return result;
}

// Encoded the one canonical way, however the wire spells it ("*" and "%2a" are both "%2A").
std::string canonical_component(std::string_view text) {
  std::string decoded;
  for (std::size_t i = 0; i < text.size(); ++i) {
    unsigned byte = 0;
    if (text[i] == '%' && i + 2 < text.size() &&
        std::from_chars(&text[i + 1], &text[i + 1] + 2, byte, 16).ptr == &text[i + 1] + 2) {
      decoded += static_cast<char>(byte);
      i += 2;
    } else {
      decoded += text[i];
    }
  }
  return percent_encode(decoded);
}

std::string canonical_query(std::string_view query) {
  std::vector<std::pair<std::string, std::string>> parameters;
  while (!query.empty()) {
    const std::size_t end = std::min(query.find('&'), query.size());
    const std::string_view parameter = query.substr(0, end);
    const std::size_t equals = std::min(parameter.find('='), parameter.size());
    if (!parameter.empty()) {
      parameters.emplace_back(
          canonical_component(parameter.substr(0, equals)),
          canonical_component(parameter.substr(std::min(equals + 1, parameter.size()))));
    }
    query.remove_prefix(std::min(end + 1, query.size()));
  }
  std::sort(parameters.begin(), parameters.end());
  std::string result;
  for (const auto& [name, value] : parameters) {
    if (!result.empty()) result += '&';
    result.append(name).append("=").append(value);
  }
  return result;
}

// Trimmed, and each run of blanks (folded lines too) a single space.
std::string canonical_value(std::string_view value) {
  std::string result;
  for (const char c : trim(value)) {
    const bool blank = c == ' ' || c == '\t' || c == '\r' || c == '\n';
    if (!blank) {
      result += c;
    } else if (result.back() != ' ') {
      result += ' ';
    }
  }
  return result;
}

std::map<std::string, std::string> canonical_headers(std::span<const HttpHeader> headers) {
  std::map<std::string, std::string> result;
  for (const HttpHeader& header : headers) {
    auto [at, added] = result.try_emplace(lower(header.name), canonical_value(header.value));
    if (!added) at->second.append(",").append(canonical_value(header.value));
  }
  return result;
}

std::span<const std::uint8_t> bytes_of(std::string_view text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

void remove_header(HttpRequest& request, std::string_view name) {
  std::erase_if(request.headers,
                [&](const HttpHeader& header) { return equal_without_case(header.name, name); });
}
void set_header(HttpRequest& request, std::string_view name, std::string value) {
  remove_header(request, name);
  request.headers.push_back({std::string(name), std::move(value)});
}

}  // namespace

std::string SigningScope::text() const {
  return date + "/" + region + "/" + service + "/aws4_request";
}

std::string amz_date(std::chrono::system_clock::time_point time) {
  const std::time_t seconds = std::chrono::system_clock::to_time_t(time);
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  std::array<char, 32> text{};
  return {text.data(), std::strftime(text.data(), text.size(), "%Y%m%dT%H%M%SZ", &utc)};
}

bool is_signable(std::string_view name) noexcept {
  constexpr std::array<std::string_view, 12> excluded{"authorization",
                                                      "connection",
                                                      "expect",
                                                      "keep-alive",
                                                      "proxy-authenticate",
                                                      "te",
                                                      "proxy-authorization",
                                                      "trailer",
                                                      "transfer-encoding",
                                                      "upgrade",
                                                      "user-agent",
                                                      "x-amzn-trace-id"};
  return std::none_of(excluded.begin(), excluded.end(),
                      [&](std::string_view other) { return equal_without_case(name, other); });
}

std::string signed_header_names(std::span<const HttpHeader> headers) {
  std::string names;
  for (const auto& [name, value] : canonical_headers(headers)) {
    if (!names.empty()) names += ';';
    names += name;
  }
  return names;
}

std::string canonical_request(std::string_view method, std::string_view path,
                              std::string_view query, std::span<const HttpHeader> headers,
                              std::string_view body_sha256_hex) {
  std::string result(method);
  // The path on the wire is encoded already; encoding it once more is what the services check.
  result.append("\n").append(percent_encode(normalise_path(path), true));
  result.append("\n").append(canonical_query(query)).append("\n");
  for (const auto& [name, value] : canonical_headers(headers)) {
    result.append(name).append(":").append(value).append("\n");
  }
  result.append("\n").append(signed_header_names(headers));
  result.append("\n").append(body_sha256_hex);
  return result;
}

std::string string_to_sign(std::string_view amz_date, const SigningScope& scope,
                           std::string_view canonical_request) {
  std::string result(algorithm);
  result.append("\n").append(amz_date).append("\n").append(scope.text());
  result.append("\n").append(hex(sha256(canonical_request)));
  return result;
}

Sha256 derive_signing_key(std::string_view secret, const SigningScope& scope) {
  std::string first = "AWS4" + std::string(secret);
  Sha256 key = hmac_sha256(bytes_of(first), scope.date);
  OPENSSL_cleanse(first.data(), first.size());
  key = hmac_sha256(key, scope.region);
  key = hmac_sha256(key, scope.service);
  return hmac_sha256(key, "aws4_request");
}

Sigv4Signer::Sigv4Signer(std::string region, std::string service)
    : region_(std::move(region)), service_(std::move(service)) {}

Sigv4Signer::~Sigv4Signer() { OPENSSL_cleanse(key_.data(), key_.size()); }

const Sha256& Sigv4Signer::signing_key(const Credentials& credentials, const SigningScope& scope) {
  // The secret belongs to the comparison: a rotated secret may keep its key id.
  if (key_date_ != scope.date || key_credentials_.access_key_id != credentials.access_key_id ||
      key_credentials_.secret_access_key != credentials.secret_access_key) {
    key_ = derive_signing_key(credentials.secret_access_key, scope);
    key_date_ = scope.date;
    key_credentials_ = credentials;
  }
  return key_;
}

void Sigv4Signer::sign(HttpRequest& request, const Credentials& credentials,
                       std::chrono::system_clock::time_point now) {
  const std::string date = amz_date(now);
  const SigningScope scope{date.substr(0, 8), region_, service_};
  const auto url = parse_url(request.origin);
  set_header(request, "Host", url ? url->host_header() : std::string());
  set_header(request, "X-Amz-Date", date);
  remove_header(request, "X-Amz-Security-Token");  // Of the credentials before these.
  if (!credentials.session_token.empty()) {
    set_header(request, "X-Amz-Security-Token", std::string(credentials.session_token));
  }

  std::vector<HttpHeader> headers;
  std::copy_if(request.headers.begin(), request.headers.end(), std::back_inserter(headers),
               [](const HttpHeader& header) { return is_signable(header.name); });
  // A service that wants the hash as a header (or a literal in its place) has put it there before.
  const std::string_view declared = find_header(headers, "x-amz-content-sha256");
  const std::string body_hash =
      declared.empty() ? hex(sha256(request.body)) : std::string(declared);
  const std::string canonical =
      canonical_request(request.method, request.path, request.query, headers, body_hash);
  const std::string signature =
      hex(hmac_sha256(signing_key(credentials, scope), string_to_sign(date, scope, canonical)));

  std::string authorization(algorithm);
  authorization.append(" Credential=")
      .append(credentials.access_key_id)
      .append("/")
      .append(scope.text());
  authorization.append(", SignedHeaders=").append(signed_header_names(headers));
  authorization.append(", Signature=").append(signature);
  set_header(request, "Authorization", std::move(authorization));
}

}  // namespace spillway::transport
