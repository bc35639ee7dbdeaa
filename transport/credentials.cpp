// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdlib>
#include <initializer_list>
#include <utility>

#include <openssl/crypto.h>

#include <spillway/transport/credentials.hpp>
#include <spillway/transport/profile.hpp>

namespace spillway::transport {
namespace {

constexpr std::chrono::minutes advisory_refresh{15};

std::string environment(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? std::string() : std::string(value);
}

void wipe(std::string& secret) noexcept { OPENSSL_cleanse(secret.data(), secret.size()); }

/// The name of the first value that cannot go into a header; empty when all can. A line break at the
/// end comes from secrets that were made of a file.
std::string_view unusable_of(
    std::initializer_list<std::pair<std::string_view, const std::string*>> values) {
  for (const auto& [name, value] : values) {
    const auto is_bad = [](char c) { return static_cast<unsigned char>(c) <= 0x20 || c == 0x7f; };
    if (std::any_of(value->begin(), value->end(), is_bad)) return name;
  }
  return {};
}

class StaticCredentials final : public CredentialsProvider {
 public:
  explicit StaticCredentials(Credentials credentials) : credentials_(std::move(credentials)) {}
  std::optional<CredentialsResult> get() override { return credentials_; }

 private:
  Credentials credentials_;
};

class EnvironmentCredentials final : public CredentialsProvider {
 public:
  std::optional<CredentialsResult> get() override {
    std::string id = environment("AWS_ACCESS_KEY_ID");
    std::string secret = environment("AWS_SECRET_ACCESS_KEY");
    if (id.empty() && secret.empty()) return std::nullopt;
    if (id.empty() || secret.empty()) {
      return CredentialsError{std::string("the environment has ") +
                              (id.empty() ? "AWS_SECRET_ACCESS_KEY but not AWS_ACCESS_KEY_ID"
                                          : "AWS_ACCESS_KEY_ID but not AWS_SECRET_ACCESS_KEY") +
                              "; set both or neither"};
    }
    std::string token = environment("AWS_SESSION_TOKEN");
    if (const std::string_view name = unusable_of({{"AWS_ACCESS_KEY_ID", &id},
                                                   {"AWS_SECRET_ACCESS_KEY", &secret},
                                                   {"AWS_SESSION_TOKEN", &token}});
        !name.empty()) {
      return CredentialsError{std::string(name) +
                              " has a blank, a line break or another character that no key has"};
    }
    return Credentials(std::move(id), std::move(secret), std::move(token));
  }
};

class ProfileCredentials final : public CredentialsProvider {
 public:
  std::optional<CredentialsResult> get() override {
    const bool named = std::getenv("AWS_PROFILE") != nullptr;
    const std::string name = profile_name();
    const auto profile = load_profile(name);
    if (!profile) {
      if (!named) return std::nullopt;
      return CredentialsError{"AWS_PROFILE names '" + name +
                              "', which is in neither the shared credentials nor the config file"};
    }
    const std::string id = profile->get("aws_access_key_id");
    const std::string secret = profile->get("aws_secret_access_key");
    if (id.empty() && secret.empty()) return std::nullopt;
    if (id.empty() || secret.empty()) {
      return CredentialsError{"profile '" + name + "' has only one of aws_access_key_id and " +
                              "aws_secret_access_key"};
    }
    return Credentials(id, secret, profile->get("aws_session_token"));
  }
};

}  // namespace

Credentials::Credentials(std::string id, std::string secret, std::string token)
    : access_key_id(std::move(id)),
      secret_access_key(std::move(secret)),
      session_token(std::move(token)) {}

Credentials::~Credentials() {
  wipe(secret_access_key);
  wipe(session_token);
}

CredentialsChain::CredentialsChain(std::vector<std::unique_ptr<CredentialsProvider>> providers)
    : providers_(std::move(providers)) {}

CredentialsResult CredentialsChain::get(std::chrono::system_clock::time_point now) {
  if (cached_ && (!cached_->expiration || *cached_->expiration - now > advisory_refresh)) {
    return *cached_;
  }
  for (const auto& provider : providers_) {
    std::optional<CredentialsResult> result = provider->get();
    if (!result) continue;
    if (auto* const fresh = std::get_if<Credentials>(&*result)) {
      cached_ = *fresh;
    } else if (cached_ && *cached_->expiration > now) {
      return *cached_;  // Tried early; there is time to try again.
    }
    return std::move(*result);
  }
  return CredentialsError{
      "no AWS credentials found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile in "
      "~/.aws/credentials"};
}

void CredentialsChain::forget() noexcept { cached_.reset(); }

CredentialsChain default_credentials_chain() {
  std::vector<std::unique_ptr<CredentialsProvider>> providers;
  providers.push_back(environment_credentials());
  providers.push_back(profile_credentials());
  return CredentialsChain(std::move(providers));
}

std::unique_ptr<CredentialsProvider> static_credentials(Credentials credentials) {
  return std::make_unique<StaticCredentials>(std::move(credentials));
}
std::unique_ptr<CredentialsProvider> environment_credentials() {
  return std::make_unique<EnvironmentCredentials>();
}
std::unique_ptr<CredentialsProvider> profile_credentials() {
  return std::make_unique<ProfileCredentials>();
}

}  // namespace spillway::transport
