// SPDX-License-Identifier: Apache-2.0
//
// What a profile of the shared files may say about credentials, alone or as the source of another's
// role.
#include <algorithm>
#include <array>
#include <cstdlib>
#include <utility>
#include <vector>

#include <openssl/evp.h>

#include <spillway/transport/credential_documents.hpp>
#include <spillway/transport/credential_sources.hpp>
#include <spillway/transport/endpoint.hpp>
#include <spillway/transport/process.hpp>
#include <spillway/transport/profile.hpp>
#include <spillway/transport/retry.hpp>
#include <spillway/transport/signed_service.hpp>
#include <spillway/transport/sts.hpp>
#include <spillway/transport/text.hpp>
#include <spillway/transport/url.hpp>

namespace spillway::transport {

using std::chrono::milliseconds;

namespace {

constexpr milliseconds process_timeout(60'000);  // As long as the AWS SDKs wait.
constexpr milliseconds sso_timeout(5'000);
constexpr int sso_attempts_max = 3;

constexpr AwsService sso_portal{"portal.sso", "SSO", "sso"};

std::string environment(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? std::string() : std::string(value);
}

std::string titled(const std::string& profile) { return "profile '" + profile + "'"; }

/// What one profile says, nothing else. Asked by `name` of it in `profile`.
class ProfileReader {
 public:
  ProfileReader(const SourceParts& parts, bool may_wait) : parts_(parts), may_wait_(may_wait) {}

  bool has_role(const ProfileSection& profile) const {
    return !profile.get("role_arn").empty() && profile.get("web_identity_token_file").empty();
  }

  /// The role of a profile, assumed with what its source has.
  SourceResult role(const std::string& name, const ProfileSection& profile) {
    if (!profile.get("mfa_serial").empty()) {
      return wrong(name, "mfa_serial wants a code that a service cannot ask for");
    }
    const std::string source = profile.get("source_profile");
    const std::string kind = profile.get("credential_source");
    if (source.empty() == kind.empty()) {
      return wrong(name, source.empty() ? "role_arn needs source_profile or credential_source"
                                        : "has both source_profile and credential_source");
    }
    visited_.push_back(name);
    SourceResult base = source.empty() ? service(name, kind) : from(name, source);
    if (auto* const absent = std::get_if<NotConfigured>(&base)) {
      return wrong(name, "its source has no credentials: " + absent->reason);
    }
    auto* const by = std::get_if<Credentials>(&base);
    if (by == nullptr) return base;
    if (!may_wait_) return CredentialsError{{}, true};
    return assume_role(parts_, request(name, profile), *by);
  }

  SourceResult web_identity(const std::string& name, const ProfileSection& profile) {
    const std::string file = profile.get("web_identity_token_file");
    if (file.empty()) {
      return NotConfigured{titled(name) + " has no web_identity_token_file"};
    }
    if (profile.get("role_arn").empty()) {
      return wrong(name, "web_identity_token_file needs role_arn");
    }
    if (!may_wait_) return CredentialsError{{}, true};
    return assume_role_with_web_identity(parts_, request(name, profile), file);
  }

  /// SSO, keys or a program.
  SourceResult own(const std::string& name, const ProfileSection& profile) {
    if (!profile.get("sso_account_id").empty() || !profile.get("sso_role_name").empty()) {
      return sso(name, profile);
    }
    const std::string id = profile.get("aws_access_key_id");
    std::string secret = profile.get("aws_secret_access_key");
    std::string token = profile.get("aws_session_token");
    if (!id.empty() || !secret.empty()) {
      SourceResult result = keys(name, id, secret, token);
      wipe(secret);
      wipe(token);
      return result;
    }
    if (const std::string command = profile.get("credential_process"); !command.empty()) {
      return process(name, command);
    }
    return NotConfigured{titled(name) +
                         " has no role_arn, aws_access_key_id, credential_process or SSO"};
  }

 private:
  static CredentialsError wrong(const std::string& name, const std::string& what) {
    return CredentialsError{titled(name) + ": " + what};
  }

  static RoleRequest request(const std::string& name, const ProfileSection& profile) {
    std::string session = profile.get("role_session_name");
    if (session.empty()) session = environment("AWS_ROLE_SESSION_NAME");
    return {titled(name), profile.get("role_arn"), std::move(session), profile.get("external_id"),
            profile.get("duration_seconds")};
  }

  // The credentials of profile `source`, which profile `name` is based on.
  SourceResult from(const std::string& name, const std::string& source) {
    const auto profile = load_profile(source);
    if (!profile) return wrong(name, "source_profile '" + source + "' is in neither file");
    const bool seen = std::find(visited_.begin(), visited_.end(), source) != visited_.end();
    // A profile may be its own source, by its keys.
    if (seen && source == name) return own(source, *profile);
    if (seen) return wrong(name, "source_profile '" + source + "' leads in a circle");
    if (has_role(*profile)) return role(source, *profile);
    SourceResult result = web_identity(source, *profile);
    if (!std::holds_alternative<NotConfigured>(result)) return result;
    return own(source, *profile);
  }

  SourceResult service(const std::string& name, const std::string& kind) {
    if (kind == "Environment") return environment_credentials()->get(may_wait_);
    if (kind == "EcsContainer") return container_credentials(parts_)->get(may_wait_);
    if (kind == "Ec2InstanceMetadata") return instance_credentials(parts_)->get(may_wait_);
    return wrong(name, "credential_source '" + kind +
                           "' is none of Environment, EcsContainer and Ec2InstanceMetadata");
  }

  static SourceResult keys(const std::string& name, const std::string& id,
                           const std::string& secret, const std::string& token) {
    if (id.empty() || secret.empty()) {
      return wrong(name, "has only one of aws_access_key_id and aws_secret_access_key");
    }
    return Credentials(id, secret, token);
  }

  SourceResult process(const std::string& name, const std::string& command) const {
    if (!may_wait_) return CredentialsError{{}, true};
    const auto words = split_words(command);
    if (!words) return wrong(name, "credential_process has a quote that does not end");
    ProcessResult run =
        run_process(*words, process_timeout, [&] { return parts_.http->stopped(); });
    if (!run.succeeded) return wrong(name, "credential_process: " + run.error);
    const std::string source = titled(name) + ": credential_process";
    const std::optional<std::int64_t> version = json_number(run.output, "Version");
    if (version && *version != 1) {
      wipe(run.output);
      return CredentialsError{source + ": Version must be 1"};
    }
    return credentials_from_json(source, run.output, process_members);
  }

  SourceResult sso(const std::string& name, const ProfileSection& profile) const {
    const std::string session_name = profile.get("sso_session");
    ProfileSection session = profile;
    if (!session_name.empty()) {
      const auto found = load_sso_session(session_name);
      if (!found)
        return wrong(name, "sso_session '" + session_name + "' is not in the config file");
      session = *found;
    }
    const std::string region = session.get("sso_region");
    const std::string key = session_name.empty() ? session.get("sso_start_url") : session_name;
    const std::string account = profile.get("sso_account_id");
    const std::string role_name = profile.get("sso_role_name");
    if (region.empty() || key.empty() || account.empty() || role_name.empty()) {
      return wrong(name,
                   "SSO needs sso_account_id, sso_role_name, sso_region and sso_session or "
                   "sso_start_url");
    }
    if (!may_wait_) return CredentialsError{{}, true};
    const std::string login = "run 'aws sso login --profile " + name + "'";
    std::optional<std::string> cached =
        read_small_file(environment("HOME") + "/.aws/sso/cache/" + sha1_hex(key) + ".json");
    if (!cached) return wrong(name, "there is no SSO token: " + login);
    std::string token = json_text(*cached, "accessToken");
    const auto expires = parse_time(json_text(*cached, "expiresAt"));
    wipe(*cached);
    const auto now = parts_.now ? parts_.now() : std::chrono::system_clock::now();
    if (token.empty() || !expires || *expires <= now || !unusable_of({{"token", token}}).empty()) {
      wipe(token);
      return wrong(name, (expires && *expires <= now ? "the SSO token has expired: "
                                                     : "the SSO token's file is not usable: ") +
                             login);
    }
    return role_of_sso(
        titled(name) + ": SSO", region,
        "role_name=" + percent_encode(role_name) + "&account_id=" + percent_encode(account),
        std::move(token));
  }

  SourceResult role_of_sso(const std::string& source, const std::string& region, std::string query,
                           std::string token) const {
    const auto url =
        parse_url(configured_endpoint(sso_portal).value_or(service_endpoint(sso_portal, region)));
    if (!url) return CredentialsError{source + ": the endpoint is not a URL"};
    HttpRequest request;
    request.method = "GET";
    request.origin = url->origin();
    request.path = (url->path == "/" ? std::string() : url->path) + "/federation/credentials";
    request.query = std::move(query);
    request.headers = {{"x-amz-sso_bearer_token", std::move(token)}};
    for (int attempt = 1;; ++attempt) {
      HttpResponse response = parts_.http->send(request, sso_timeout);
      if (response.outcome == HttpOutcome::answered && response.status == 200) {
        return credentials_from_json(source, response.body, sso_members);
      }
      const AwsError error = parse_aws_error(response);
      const Failure failure = classify(response, error);
      CredentialsError failed{source + " " + describe(response, error)};
      if ((failure != Failure::transient && failure != Failure::throttled) ||
          attempt == sso_attempts_max) {
        return failed;
      }
      const milliseconds wait = backoff(failure, attempt, 0.5, retry_after(response));
      if (!(parts_.pause ? parts_.pause(wait) : parts_.http->pause(wait))) return failed;
    }
  }

  static std::string sha1_hex(std::string_view text) {
    std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
    unsigned size = 0;
    EVP_Digest(text.data(), text.size(), digest.data(), &size, EVP_sha1(), nullptr);
    constexpr std::string_view hex = "0123456789abcdef";
    std::string result;
    for (unsigned i = 0; i < size; ++i) result += {hex[digest[i] >> 4], hex[digest[i] & 15]};
    return result;
  }

  const SourceParts& parts_;
  const bool may_wait_;
  std::vector<std::string> visited_;
};

/// The profile that is in use, or why there is none.
struct Chosen {
  std::string name = profile_name();
  std::optional<ProfileSection> profile = load_profile(name);

  SourceResult missing() const {
    if (environment("AWS_PROFILE").empty()) {
      return NotConfigured{"the shared files have no profile 'default'"};
    }
    return CredentialsError{"AWS_PROFILE names '" + name +
                            "', which is in neither the shared credentials nor the config file"};
  }
};

class AssumedRole final : public CredentialsProvider {
 public:
  explicit AssumedRole(SourceParts parts) : parts_(std::move(parts)) {}
  SourceResult get(bool may_wait) override {
    const Chosen chosen;
    if (!chosen.profile) return chosen.missing();
    ProfileReader reader(parts_, may_wait);
    if (!reader.has_role(*chosen.profile)) {
      return NotConfigured{titled(chosen.name) + " has no role_arn to assume"};
    }
    return reader.role(chosen.name, *chosen.profile);
  }

 private:
  const SourceParts parts_;
};

class WebIdentity final : public CredentialsProvider {
 public:
  explicit WebIdentity(SourceParts parts) : parts_(std::move(parts)) {}
  SourceResult get(bool may_wait) override {
    const std::string file = environment("AWS_WEB_IDENTITY_TOKEN_FILE");
    if (!file.empty()) {
      RoleRequest role{"AWS_WEB_IDENTITY_TOKEN_FILE", environment("AWS_ROLE_ARN"),
                       environment("AWS_ROLE_SESSION_NAME")};
      if (role.role_arn.empty()) {
        return CredentialsError{"AWS_WEB_IDENTITY_TOKEN_FILE is set but not AWS_ROLE_ARN"};
      }
      if (!may_wait) return CredentialsError{{}, true};
      return assume_role_with_web_identity(parts_, role, file);
    }
    const Chosen chosen;
    if (!chosen.profile) return NotConfigured{"AWS_WEB_IDENTITY_TOKEN_FILE is not set"};
    return ProfileReader(parts_, may_wait).web_identity(chosen.name, *chosen.profile);
  }

 private:
  const SourceParts parts_;
};

class ProfileCredentials final : public CredentialsProvider {
 public:
  explicit ProfileCredentials(SourceParts parts) : parts_(std::move(parts)) {}
  SourceResult get(bool may_wait) override {
    const Chosen chosen;
    if (!chosen.profile) return chosen.missing();
    return ProfileReader(parts_, may_wait).own(chosen.name, *chosen.profile);
  }

 private:
  const SourceParts parts_;
};

}  // namespace

std::unique_ptr<CredentialsProvider> assume_role_credentials(SourceParts parts) {
  return std::make_unique<AssumedRole>(std::move(parts));
}
std::unique_ptr<CredentialsProvider> web_identity_credentials(SourceParts parts) {
  return std::make_unique<WebIdentity>(std::move(parts));
}
std::unique_ptr<CredentialsProvider> profile_credentials(SourceParts parts) {
  return std::make_unique<ProfileCredentials>(std::move(parts));
}

}  // namespace spillway::transport
