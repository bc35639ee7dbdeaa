// SPDX-License-Identifier: Apache-2.0
//
// The credentials that a container service and an EC2 instance hand out over HTTP beside the
// process. Rules of both: botocore's utils.py (ContainerMetadataFetcher, IMDSFetcher), read 2026-08.
#include <algorithm>
#include <array>
#include <cstdlib>
#include <utility>
#include <variant>

#include <arpa/inet.h>

#include <spillway/transport/credential_documents.hpp>
#include <spillway/transport/credential_sources.hpp>
#include <spillway/transport/host_lookup.hpp>
#include <spillway/transport/profile.hpp>
#include <spillway/transport/sts.hpp>
#include <spillway/transport/text.hpp>
#include <spillway/transport/url.hpp>

namespace spillway::transport {

using std::chrono::milliseconds;

namespace {

std::string environment(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? std::string() : std::string(value);
}

std::string failure_of(const HttpResponse& response) {
  return response.outcome == HttpOutcome::answered ? "answered " + std::to_string(response.status)
                                                   : "does not answer: " + response.error;
}

// ---- Container ----

constexpr milliseconds container_timeout(2'000);
constexpr milliseconds container_pause(1'000);
constexpr int container_attempts_max = 3;
constexpr std::string_view container_origin = "http://169.254.170.2";
// The container service and the Pod Identity agent; a loopback address is fine too.
constexpr std::array<std::string_view, 3> container_addresses{"169.254.170.2", "169.254.170.23",
                                                              "fd00:ec2::23"};

bool is_container_address(const std::string& address) noexcept {
  in_addr v4{};
  if (inet_pton(AF_INET, address.c_str(), &v4) == 1 && ntohl(v4.s_addr) >> 24 == 127) return true;
  return address == "::1" || std::find(container_addresses.begin(), container_addresses.end(),
                                       address) != container_addresses.end();
}

class ContainerCredentials final : public CredentialsProvider {
 public:
  explicit ContainerCredentials(SourceParts parts) : parts_(std::move(parts)) {}

  SourceResult get(bool may_wait) override {
    const std::string relative = environment("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
    const std::string full = environment("AWS_CONTAINER_CREDENTIALS_FULL_URI");
    if (relative.empty() && full.empty()) {
      return NotConfigured{"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI and _FULL_URI are not set"};
    }
    if (!may_wait) return CredentialsError{{}, true};
    const bool is_relative = !relative.empty();
    source_ = is_relative ? "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"
                          : "AWS_CONTAINER_CREDENTIALS_FULL_URI";
    if (is_relative && !relative.starts_with('/')) return wrong("must begin with /");
    auto made = request(is_relative ? std::string(container_origin) + relative : full);
    if (auto* const error = std::get_if<CredentialsError>(&made)) return std::move(*error);
    SourceResult result = NotConfigured{};
    for (int attempt = 1; attempt <= container_attempts_max; ++attempt) {
      if (attempt > 1 && !pause()) break;
      HttpRequest ready = std::get<HttpRequest>(made);
      if (auto error = authorize(ready)) return std::move(*error);
      HttpResponse response = parts_.http->send(std::move(ready), container_timeout);
      if (response.outcome != HttpOutcome::answered || response.status != 200) {
        result = wrong("the container's credentials service " + failure_of(response));
        continue;
      }
      result = credentials_from_json(source_, response.body, metadata_members);
      if (std::holds_alternative<Credentials>(result)) break;
    }
    return result;
  }

 private:
  CredentialsError wrong(const std::string& what) const {
    return CredentialsError{source_ + ": " + what};
  }
  bool pause() const {
    return parts_.pause ? parts_.pause(container_pause) : parts_.http->pause(container_pause);
  }

  // To an address that was checked and stays: what a name stands for may change between a check and
  // the connection.
  std::variant<HttpRequest, CredentialsError> request(const std::string& text) const {
    const auto url = parse_url(text);
    if (!url) return wrong("is not an http or https URL of a host, a port and a path");
    HttpRequest request;
    request.method = "GET";
    request.origin = url->origin();
    request.path = url->path;
    request.query = url->query;
    request.headers = {{"Accept", "application/json"}};
    if (url->scheme == "https") return request;
    const bool looks_like_number =
        url->host.find_first_not_of("0123456789abcdefx.") == std::string::npos &&
        url->host.find_first_of("0123456789") == 0;
    if (looks_like_number && !is_ip_address(url->host)) {
      return wrong("'" + url->host + "' is neither a name nor an IP address in its usual form");
    }
    const HostAddresses found = look_up(url->host, container_timeout, *parts_.http);
    if (found.addresses.empty()) {
      return wrong("cannot resolve '" + url->host + "': " + found.error);
    }
    for (const std::string& address : found.addresses) {
      if (is_container_address(address)) continue;
      return wrong("http is for this machine and the container service only; '" + url->host +
                   "' is " + address + ". Use https");
    }
    request.address = found.addresses.front();
    return request;
  }

  std::optional<CredentialsError> authorize(HttpRequest& request) const {
    const std::string file = environment("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
    std::string token = environment("AWS_CONTAINER_AUTHORIZATION_TOKEN");
    if (!file.empty()) {
      auto text = read_small_file(file);
      if (!text) {
        return wrong("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE '" + file + "' cannot be read");
      }
      token = std::move(*text);
      // A line break that ends the file is not part of the token.
      while (token.ends_with('\n') || token.ends_with('\r')) token.pop_back();
    }
    if (token.empty()) return std::nullopt;
    // "Basic x" and "Bearer x" have a blank.
    const bool legal = std::none_of(token.begin(), token.end(), [](char c) {
      return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
    });
    if (!legal) {
      wipe(token);
      return wrong("the authorization token has a line break or a control character");
    }
    request.headers.push_back({"Authorization", std::move(token)});
    return std::nullopt;
  }

  const SourceParts parts_;
  std::string source_;
};

// ---- Instance metadata service, version 2 ----

constexpr std::string_view token_path = "/latest/api/token";
constexpr std::string_view role_path = "/latest/meta-data/iam/security-credentials/";
constexpr int attempts_allowed_max = 10;
constexpr int timeout_s_allowed_max = 60;

/// One session with the service: a token, and what is read with it.
class InstanceMetadata {
 public:
  explicit InstanceMetadata(const SourceParts& parts) : parts_(parts) {
    const auto profile = load_profile(profile_name());
    const auto setting = [&](const char* variable, std::string_view key) {
      std::string value = environment(variable);
      return value.empty() && profile ? profile->get(key) : value;
    };
    base_ = setting("AWS_EC2_METADATA_SERVICE_ENDPOINT", "ec2_metadata_service_endpoint");
    if (base_.empty()) {
      const std::string mode =
          setting("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "ec2_metadata_service_endpoint_mode");
      const bool is_v6 = equal_without_case(mode, "ipv6");
      base_ = is_v6 ? "http://[fd00:ec2::254]" : "http://169.254.169.254";
    }
    const auto limited = [](const char* name, int otherwise, int most) {
      const auto value = parse_number<int>(environment(name));
      return value && *value > 0 ? std::min(*value, most) : otherwise;
    };
    timeout_ =
        std::chrono::seconds(limited("AWS_METADATA_SERVICE_TIMEOUT", 1, timeout_s_allowed_max));
    attempts_max_ = limited("AWS_METADATA_SERVICE_NUM_ATTEMPTS", 1, attempts_allowed_max);
  }

  static bool is_disabled() {
    return equal_without_case(environment("AWS_EC2_METADATA_DISABLED"), "true");
  }

  /// Begins the session. An answer other than 200: the service's; not answered: there is none.
  HttpResponse open() {
    HttpResponse failed;
    failed.outcome = HttpOutcome::refused_locally;
    const auto url = parse_url(base_);
    if (!url) {
      failed.error = "AWS_EC2_METADATA_SERVICE_ENDPOINT is not a URL";
      return failed;
    }
    origin_ = url->origin();
    prefix_ = url->path == "/" ? std::string() : url->path;
    while (prefix_.ends_with('/')) prefix_.pop_back();
    // By its address: no proxy can reach what is beside this machine.
    HostAddresses found = look_up(url->host, timeout_, *parts_.http);
    if (found.addresses.empty()) {
      failed.outcome = HttpOutcome::not_connected;
      failed.error = "cannot resolve '" + url->host + "': " + found.error;
      return failed;
    }
    address_ = std::move(found.addresses.front());
    // Six hours, the longest there is.
    HttpResponse response =
        ask("PUT", token_path, {{"x-aws-ec2-metadata-token-ttl-seconds", "21600"}});
    if (response.outcome == HttpOutcome::answered && response.status == 200) {
      token_ = trim(response.body);
      wipe(response.body);
    }
    return response;
  }
  HttpResponse read(const std::string& path) {
    return ask("GET", path, {{"x-aws-ec2-metadata-token", std::string(token_)}});
  }

 private:
  HttpResponse ask(std::string_view method, std::string_view path,
                   std::vector<HttpHeader> headers) const {
    HttpRequest request;
    request.method = method;
    request.origin = origin_;
    request.path = prefix_ + std::string(path);
    request.headers = std::move(headers);
    request.address = address_;
    for (int attempt = 1;; ++attempt) {
      HttpResponse response = parts_.http->send(request, timeout_);
      const bool worth_it = response.outcome != HttpOutcome::answered || response.status / 100 == 5;
      if (!worth_it || attempt >= attempts_max_ || parts_.http->stopped()) return response;
    }
  }

  const SourceParts& parts_;
  std::string base_;
  std::string origin_;
  std::string prefix_;
  std::string address_;
  Secret token_;
  milliseconds timeout_{};
  int attempts_max_ = 1;
};

class InstanceCredentials final : public CredentialsProvider {
 public:
  explicit InstanceCredentials(SourceParts parts) : parts_(std::move(parts)) {}
  bool outlives_expiration() const noexcept override { return true; }

  SourceResult get(bool may_wait) override {
    if (InstanceMetadata::is_disabled()) {
      return NotConfigured{"AWS_EC2_METADATA_DISABLED is true"};
    }
    if (!may_wait) return CredentialsError{{}, true};
    InstanceMetadata service(parts_);
    const HttpResponse opened = service.open();
    if (opened.outcome == HttpOutcome::refused_locally) return wrong(opened.error);
    if (opened.outcome != HttpOutcome::answered) {
      // A machine that is none of EC2's, or a container one hop too far away.
      return NotConfigured{"the instance metadata service " + failure_of(opened)};
    }
    // 403 and 404: it is switched off, or too old for version 2; version 1 is never asked.
    if (opened.status == 403 || opened.status == 404 || opened.status == 405) {
      return NotConfigured{"the instance metadata service gives no token of version 2: answered " +
                           std::to_string(opened.status)};
    }
    if (opened.status != 200) return wrong("the request for a token is " + failure_of(opened));
    const HttpResponse roles = service.read(std::string(role_path));
    if (roles.outcome == HttpOutcome::answered && roles.status == 404) {
      return NotConfigured{"the instance has no role"};
    }
    if (!is_good(roles)) return wrong("the question for the role's name " + failure_of(roles));
    const std::string role(trim(std::string_view(roles.body).substr(0, roles.body.find('\n'))));
    if (role.empty()) return NotConfigured{"the instance has no role"};
    HttpResponse keys = service.read(std::string(role_path) + percent_encode(role));
    if (!is_good(keys)) return wrong("the question for the role's keys " + failure_of(keys));
    // A role that cannot be assumed is an answer of 200 with a code.
    if (const std::string code = json_text(keys.body, "Code"); !code.empty() && code != "Success") {
      wipe(keys.body);
      return wrong("the role's keys are not to be had: " + code.substr(0, 100));
    }
    CredentialsMembers members = metadata_members;
    members.must_expire = true;
    return credentials_from_json("instance metadata service", keys.body, members);
  }

 private:
  static CredentialsError wrong(const std::string& what) {
    return CredentialsError{"instance metadata service: " + what};
  }
  static bool is_good(const HttpResponse& response) noexcept {
    return response.outcome == HttpOutcome::answered && response.status == 200;
  }
  const SourceParts parts_;
};

}  // namespace

std::unique_ptr<CredentialsProvider> container_credentials(SourceParts parts) {
  return std::make_unique<ContainerCredentials>(std::move(parts));
}
std::unique_ptr<CredentialsProvider> instance_credentials(SourceParts parts) {
  return std::make_unique<InstanceCredentials>(std::move(parts));
}

}  // namespace spillway::transport
