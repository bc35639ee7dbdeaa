// SPDX-License-Identifier: Apache-2.0
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <support/environment.hpp>
#include <support/temporary_file.hpp>

#include <spillway/transport/credentials.hpp>

namespace spillway::transport {
namespace {

using namespace std::chrono_literals;
using testing::ScopedVariable;
using Time = std::chrono::system_clock::time_point;

constexpr const char* canary = "canary-secret";
const Time now = Time(std::chrono::seconds(1'795'222'800));

class CredentialsTest : public ::testing::Test {
 protected:
  static const Credentials& taken(const CredentialsResult& result) {
    static const Credentials none;
    const auto* const credentials = std::get_if<Credentials>(&result);
    EXPECT_NE(credentials, nullptr);
    return credentials == nullptr ? none : *credentials;
  }
  static std::string refused(const CredentialsResult& result) {
    const auto* const error = std::get_if<CredentialsError>(&result);
    EXPECT_NE(error, nullptr);
    const std::string message = error == nullptr ? std::string() : error->message;
    EXPECT_EQ(message.find(canary), std::string::npos) << "an error never has the value";
    return message;
  }

  testing::TemporaryDirectory directory_;
  const std::string shared_ = directory_.path("credentials");
  const std::string config_ = directory_.path("config");
  ScopedVariable id_{"AWS_ACCESS_KEY_ID", nullptr};
  ScopedVariable secret_{"AWS_SECRET_ACCESS_KEY", nullptr};
  ScopedVariable token_{"AWS_SESSION_TOKEN", nullptr};
  ScopedVariable profile_{"AWS_PROFILE", nullptr};
  ScopedVariable config_file_{"AWS_CONFIG_FILE", config_.c_str()};
  ScopedVariable credentials_file_{"AWS_SHARED_CREDENTIALS_FILE", shared_.c_str()};
};

TEST_F(CredentialsTest, TheEnvironmentComesFirst) {
  directory_.write("credentials",
                   "[default]\naws_access_key_id = FILE\naws_secret_access_key = s\n");
  const ScopedVariable id("AWS_ACCESS_KEY_ID", "ENVIRONMENT");
  const ScopedVariable secret("AWS_SECRET_ACCESS_KEY", canary);
  const ScopedVariable token("AWS_SESSION_TOKEN", "token");
  CredentialsChain chain = default_credentials_chain();
  const CredentialsResult result = chain.get(now);
  EXPECT_EQ(taken(result).access_key_id, "ENVIRONMENT");
  EXPECT_EQ(taken(result).secret_access_key, canary);
  EXPECT_EQ(taken(result).session_token, "token");
}

TEST_F(CredentialsTest, ThenTheFiles) {
  directory_.write("config",
                   "[default]\naws_access_key_id = CONFIG\naws_secret_access_key = c\n"
                   "[profile dev]\naws_access_key_id = DEV\naws_secret_access_key = d\n"
                   "aws_session_token = t\n");
  EXPECT_EQ(taken(default_credentials_chain().get(now)).access_key_id, "CONFIG");
  directory_.write("credentials",
                   "[default]\naws_access_key_id = SHARED\naws_secret_access_key = s\n");
  EXPECT_EQ(taken(default_credentials_chain().get(now)).access_key_id, "SHARED");
  const ScopedVariable named("AWS_PROFILE", "dev");
  const CredentialsResult dev = default_credentials_chain().get(now);
  EXPECT_EQ(taken(dev).access_key_id, "DEV");
  EXPECT_EQ(taken(dev).session_token, "t");
}

TEST_F(CredentialsTest, NoneIsAnErrorThatSaysWhatToDo) {
  const std::string message = refused(default_credentials_chain().get(now));
  EXPECT_NE(message.find("AWS_ACCESS_KEY_ID"), std::string::npos);
  EXPECT_NE(message.find("~/.aws/credentials"), std::string::npos);
}

TEST_F(CredentialsTest, HalfAPairIsAnErrorAndNotTheNextSource) {
  directory_.write("credentials",
                   "[default]\naws_access_key_id = FILE\naws_secret_access_key = s\n"
                   "[half]\naws_secret_access_key = canary-secret\n");
  {
    const ScopedVariable secret("AWS_SECRET_ACCESS_KEY", canary);
    EXPECT_NE(refused(default_credentials_chain().get(now)).find("not AWS_ACCESS_KEY_ID"),
              std::string::npos);
  }
  {
    const ScopedVariable id("AWS_ACCESS_KEY_ID", "AKID");
    EXPECT_NE(refused(default_credentials_chain().get(now)).find("not AWS_SECRET_ACCESS_KEY"),
              std::string::npos);
  }
  const ScopedVariable named("AWS_PROFILE", "half");
  EXPECT_NE(refused(default_credentials_chain().get(now)).find("'half'"), std::string::npos);
}

TEST_F(CredentialsTest, AProfileThatIsNamedAndMissingIsAnError) {
  const ScopedVariable named("AWS_PROFILE", "nowhere");
  EXPECT_NE(refused(default_credentials_chain().get(now)).find("'nowhere'"), std::string::npos);
}

TEST_F(CredentialsTest, AValueThatNoHeaderCanCarryIsAnErrorThatNamesItsSource) {
  // As a secret store leaves it that keeps the line break of the file it was made of.
  for (const char* const tail : {"\n", "\r", " ", "\t", "\x01"}) {
    const std::string broken = std::string(canary) + tail;
    const ScopedVariable id("AWS_ACCESS_KEY_ID", "AKID");
    const ScopedVariable secret("AWS_SECRET_ACCESS_KEY", broken.c_str());
    EXPECT_NE(refused(default_credentials_chain().get(now)).find("AWS_SECRET_ACCESS_KEY"),
              std::string::npos);
    const ScopedVariable good("AWS_SECRET_ACCESS_KEY", canary);
    const ScopedVariable token("AWS_SESSION_TOKEN", broken.c_str());
    EXPECT_NE(refused(default_credentials_chain().get(now)).find("AWS_SESSION_TOKEN"),
              std::string::npos);
    const ScopedVariable no_token("AWS_SESSION_TOKEN", nullptr);
    const ScopedVariable broken_id("AWS_ACCESS_KEY_ID", broken.c_str());
    EXPECT_NE(refused(default_credentials_chain().get(now)).find("AWS_ACCESS_KEY_ID"),
              std::string::npos);
  }
}

// ---- The chain ----

/// Answers as it is told and counts how often it was asked.
class ScriptedProvider final : public CredentialsProvider {
 public:
  ScriptedProvider(std::vector<std::optional<CredentialsResult>> answers, int& asked)
      : answers_(std::move(answers)), asked_(asked) {}
  std::optional<CredentialsResult> get() override {
    const auto next = static_cast<std::size_t>(asked_++);
    return answers_[std::min(next, answers_.size() - 1)];
  }

 private:
  std::vector<std::optional<CredentialsResult>> answers_;
  int& asked_;
};

Credentials expiring(std::string id, Time expiration) {
  Credentials credentials(std::move(id), "s");
  credentials.expiration = expiration;
  return credentials;
}

CredentialsChain chain_of(std::vector<std::optional<CredentialsResult>> answers, int& asked) {
  std::vector<std::unique_ptr<CredentialsProvider>> providers;
  providers.push_back(std::make_unique<ScriptedProvider>(std::move(answers), asked));
  return CredentialsChain(std::move(providers));
}

TEST(CredentialsChainTest, WhatDoesNotExpireIsAskedForOnce) {
  int asked = 0;
  CredentialsChain chain = chain_of({Credentials("A", "s"), Credentials("B", "s")}, asked);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(std::get<Credentials>(chain.get(now + i * 1000h)).access_key_id, "A");
  }
  EXPECT_EQ(asked, 1);
  chain.forget();
  EXPECT_EQ(std::get<Credentials>(chain.get(now)).access_key_id, "B");
}

TEST(CredentialsChainTest, WhatExpiresIsRenewedAQuarterOfAnHourBefore) {
  int asked = 0;
  CredentialsChain chain = chain_of({expiring("A", now + 1h), expiring("B", now + 2h)}, asked);
  EXPECT_EQ(std::get<Credentials>(chain.get(now)).access_key_id, "A");
  EXPECT_EQ(std::get<Credentials>(chain.get(now + 44min)).access_key_id, "A");
  EXPECT_EQ(asked, 1);
  EXPECT_EQ(std::get<Credentials>(chain.get(now + 45min)).access_key_id, "B");
  EXPECT_EQ(asked, 2);
}

TEST(CredentialsChainTest, ARenewalThatFailsEarlyIsToleratedUntilTheyExpire) {
  int asked = 0;
  CredentialsChain chain =
      chain_of({expiring("A", now + 1h), CredentialsError{"file half written"}}, asked);
  EXPECT_EQ(std::get<Credentials>(chain.get(now)).access_key_id, "A");
  EXPECT_EQ(std::get<Credentials>(chain.get(now + 50min)).access_key_id, "A");
  EXPECT_EQ(std::get<CredentialsError>(chain.get(now + 1h)).message, "file half written");
  EXPECT_EQ(asked, 3) << "it was tried each time";
}

TEST(CredentialsChainTest, WhatIsNotConfiguredIsPassedOverAndAnErrorIsNot) {
  int first = 0;
  int second = 0;
  int third = 0;
  std::vector<std::unique_ptr<CredentialsProvider>> providers;
  using Answers = std::vector<std::optional<CredentialsResult>>;
  providers.push_back(std::make_unique<ScriptedProvider>(Answers{std::nullopt}, first));
  providers.push_back(std::make_unique<ScriptedProvider>(
      Answers{CredentialsError{"broken"}, Credentials("A", "s")}, second));
  providers.push_back(std::make_unique<ScriptedProvider>(Answers{Credentials("B", "s")}, third));
  CredentialsChain chain(std::move(providers));
  EXPECT_EQ(std::get<CredentialsError>(chain.get(now)).message, "broken");
  EXPECT_EQ(std::get<Credentials>(chain.get(now)).access_key_id, "A") << "an error is not kept";
  EXPECT_EQ(first, 2);
  EXPECT_EQ(third, 0);
}

TEST(CredentialsChainTest, FixedCredentialsAreThemselves) {
  const auto provider = static_credentials(Credentials("A", "s", "t"));
  const auto result = provider->get();
  ASSERT_TRUE(result);
  EXPECT_EQ(std::get<Credentials>(*result).session_token, "t");
}

}  // namespace
}  // namespace spillway::transport
