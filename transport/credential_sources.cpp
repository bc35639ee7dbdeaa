// SPDX-License-Identifier: Apache-2.0
#include <cstdlib>
#include <utility>

#include <spillway/transport/credential_documents.hpp>
#include <spillway/transport/credential_sources.hpp>

namespace spillway::transport {
namespace {

std::string environment(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? std::string() : std::string(value);
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
    std::string token = environment("AWS_SESSION_TOKEN");
    SourceResult result = read(id, secret, token);
    wipe(secret);
    wipe(token);
    return result;
  }

 private:
  static SourceResult read(const std::string& id, const std::string& secret,
                           const std::string& token) {
    if (id.empty() && secret.empty()) return NotConfigured{"AWS_ACCESS_KEY_ID is not set"};
    if (id.empty() || secret.empty()) {
      return CredentialsError{std::string("the environment has ") +
                              (id.empty() ? "AWS_SECRET_ACCESS_KEY but not AWS_ACCESS_KEY_ID"
                                          : "AWS_ACCESS_KEY_ID but not AWS_SECRET_ACCESS_KEY") +
                              "; set both or neither"};
    }
    if (const std::string_view name = unusable_of({{"AWS_ACCESS_KEY_ID", id},
                                                   {"AWS_SECRET_ACCESS_KEY", secret},
                                                   {"AWS_SESSION_TOKEN", token}});
        !name.empty()) {
      return CredentialsError{std::string(name) +
                              " has a blank, a line break or another character that no key has"};
    }
    Credentials credentials(id, secret, token);
    if (const std::string expiration = environment("AWS_CREDENTIAL_EXPIRATION");
        !expiration.empty()) {
      credentials.expiration = parse_time(expiration);
      if (!credentials.expiration) {
        return CredentialsError{
            "AWS_CREDENTIAL_EXPIRATION must be a time like 2026-11-21T01:19:54Z"};
      }
    }
    return credentials;
  }
};

}  // namespace

std::unique_ptr<CredentialsProvider> static_credentials(Credentials credentials) {
  return std::make_unique<StaticCredentials>(std::move(credentials));
}
std::unique_ptr<CredentialsProvider> environment_credentials() {
  return std::make_unique<EnvironmentCredentials>();
}

std::shared_ptr<CredentialsChain> default_credentials_chain(CredentialsChain::Options options,
                                                            std::unique_ptr<HttpTransport> http,
                                                            std::string region) {
  SourceParts parts;
  parts.http = std::make_shared<BlockingHttp>(std::move(http));
  parts.region = std::move(region);
  std::vector<std::unique_ptr<CredentialsProvider>> sources;
  sources.push_back(environment_credentials());
  sources.push_back(assume_role_credentials(parts));
  sources.push_back(web_identity_credentials(parts));
  sources.push_back(profile_credentials(parts));
  sources.push_back(container_credentials(parts));
  sources.push_back(instance_credentials(parts));
  return std::make_shared<CredentialsChain>(std::move(sources), std::move(options), parts.http);
}

}  // namespace spillway::transport
