// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdlib>
#include <initializer_list>
#include <utility>

#include <spillway/transport/credential_sources.hpp>
#include <spillway/transport/profile.hpp>

namespace spillway::transport {
namespace {

std::string environment(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? std::string() : std::string(value);
}

/// The name of the first value that cannot go into a header; empty when all can. A line break at the
/// end comes from secrets that were made of a file.
std::string_view unusable_of(
    std::initializer_list<std::pair<std::string_view, std::string_view>> values) {
  for (const auto& [name, value] : values) {
    const auto is_bad = [](char c) { return static_cast<unsigned char>(c) <= 0x20 || c == 0x7f; };
    if (std::any_of(value.begin(), value.end(), is_bad)) return name;
  }
  return {};
}

class StaticCredentials final : public CredentialsProvider {
 public:
  explicit StaticCredentials(Credentials credentials) : credentials_(std::move(credentials)) {}
  SourceResult get(bool /*may_wait*/) override { return credentials_; }

 private:
  Credentials credentials_;
};

class EnvironmentCredentials final : public CredentialsProvider {
 public:
  SourceResult get(bool /*may_wait*/) override {
    std::string id = environment("AWS_ACCESS_KEY_ID");
    std::string secret = environment("AWS_SECRET_ACCESS_KEY");
    if (id.empty() && secret.empty()) return NotConfigured{"AWS_ACCESS_KEY_ID is not set"};
    if (id.empty() || secret.empty()) {
      return CredentialsError{std::string("the environment has ") +
                              (id.empty() ? "AWS_SECRET_ACCESS_KEY but not AWS_ACCESS_KEY_ID"
                                          : "AWS_ACCESS_KEY_ID but not AWS_SECRET_ACCESS_KEY") +
                              "; set both or neither"};
    }
    std::string token = environment("AWS_SESSION_TOKEN");
    SourceResult result = Credentials(id, secret, token);
    if (const std::string_view name = unusable_of({{"AWS_ACCESS_KEY_ID", id},
                                                   {"AWS_SECRET_ACCESS_KEY", secret},
                                                   {"AWS_SESSION_TOKEN", token}});
        !name.empty()) {
      result = CredentialsError{std::string(name) +
                                " has a blank, a line break or another character that no key has"};
    }
    wipe(secret);
    wipe(token);
    return result;
  }
};

class ProfileCredentials final : public CredentialsProvider {
 public:
  SourceResult get(bool /*may_wait*/) override {
    const bool named = std::getenv("AWS_PROFILE") != nullptr;
    const std::string name = profile_name();
    const auto profile = load_profile(name);
    if (!profile) {
      if (!named) return NotConfigured{"the shared files have no profile 'default'"};
      return CredentialsError{"AWS_PROFILE names '" + name +
                              "', which is in neither the shared credentials nor the config file"};
    }
    const std::string id = profile->get("aws_access_key_id");
    const std::string secret = profile->get("aws_secret_access_key");
    if (id.empty() && secret.empty()) {
      return NotConfigured{"profile '" + name + "' has no aws_access_key_id"};
    }
    if (id.empty() || secret.empty()) {
      return CredentialsError{"profile '" + name + "' has only one of aws_access_key_id and " +
                              "aws_secret_access_key"};
    }
    return Credentials(id, secret, profile->get("aws_session_token"));
  }
};

}  // namespace

std::unique_ptr<CredentialsProvider> static_credentials(Credentials credentials) {
  return std::make_unique<StaticCredentials>(std::move(credentials));
}
std::unique_ptr<CredentialsProvider> environment_credentials() {
  return std::make_unique<EnvironmentCredentials>();
}
std::unique_ptr<CredentialsProvider> profile_credentials() {
  return std::make_unique<ProfileCredentials>();
}

std::shared_ptr<CredentialsChain> default_credentials_chain(CredentialsChain::Options options,
                                                            std::unique_ptr<HttpTransport> http) {
  auto blocking = std::make_shared<BlockingHttp>(std::move(http));
  std::vector<std::unique_ptr<CredentialsProvider>> sources;
  sources.push_back(environment_credentials());
  sources.push_back(profile_credentials());
  return std::make_shared<CredentialsChain>(std::move(sources), std::move(options), blocking);
}

}  // namespace spillway::transport
