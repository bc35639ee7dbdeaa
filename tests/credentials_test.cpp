// SPDX-License-Identifier: Apache-2.0
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <support/environment.hpp>
#include <support/temporary_file.hpp>

#include <spillway/transport/credential_sources.hpp>

namespace spillway::transport {
namespace {

using namespace std::chrono_literals;
using testing::ScopedVariable;
using Time = std::chrono::system_clock::time_point;

constexpr const char* canary = "canary-secret";
const Time now = Time(std::chrono::seconds(1'795'222'800));

class CredentialsTest : public ::testing::Test {
 protected:
  static Credentials taken(const CredentialsResult& result) {
    const auto* const credentials = std::get_if<std::shared_ptr<const Credentials>>(&result);
    EXPECT_NE(credentials, nullptr);
    return credentials == nullptr ? Credentials() : **credentials;
  }
  static std::string refused(const CredentialsResult& result) {
    const auto* const error = std::get_if<CredentialsError>(&result);
    EXPECT_NE(error, nullptr);
    const std::string message = error == nullptr ? std::string() : error->message;
    EXPECT_EQ(message.find(canary), std::string::npos) << "an error never has the value";
    return message;
  }

  static CredentialsResult found() {
    return default_credentials_chain({.background = false})->get(now);
  }

  testing::TemporaryDirectory directory_;
  const std::string shared_ = directory_.path("credentials");
  const std::string config_ = directory_.path("config");
  ScopedVariable id_{"AWS_ACCESS_KEY_ID", nullptr};
  ScopedVariable secret_{"AWS_SECRET_ACCESS_KEY", nullptr};
  ScopedVariable token_{"AWS_SESSION_TOKEN", nullptr};
  ScopedVariable expiration_{"AWS_CREDENTIAL_EXPIRATION", nullptr};
  ScopedVariable no_instance_{"AWS_EC2_METADATA_DISABLED", "true"};
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
  const CredentialsResult result = found();
  EXPECT_EQ(taken(result).access_key_id, "ENVIRONMENT");
  EXPECT_EQ(taken(result).secret_access_key, canary);
  EXPECT_EQ(taken(result).session_token, "token");
}

TEST_F(CredentialsTest, TheEnvironmentMaySayWhenItExpires) {
  const ScopedVariable id("AWS_ACCESS_KEY_ID", "ENVIRONMENT");
  const ScopedVariable secret("AWS_SECRET_ACCESS_KEY", canary);
  {
    const ScopedVariable expiration("AWS_CREDENTIAL_EXPIRATION", "2026-11-21T02:00:00Z");
    EXPECT_EQ(taken(found()).expiration, now + 1h);
  }
  const ScopedVariable past("AWS_CREDENTIAL_EXPIRATION", "2026-11-21T00:59:59Z");
  EXPECT_NE(refused(found()).find("have expired"), std::string::npos);
  const ScopedVariable garbage("AWS_CREDENTIAL_EXPIRATION", "tomorrow");
  EXPECT_NE(refused(found()).find("AWS_CREDENTIAL_EXPIRATION"), std::string::npos);
}

TEST_F(CredentialsTest, ThenTheFiles) {
  directory_.write("config",
                   "[default]\naws_access_key_id = CONFIG\naws_secret_access_key = c\n"
                   "[profile dev]\naws_access_key_id = DEV\naws_secret_access_key = d\n"
                   "aws_session_token = t\n");
  EXPECT_EQ(taken(found()).access_key_id, "CONFIG");
  directory_.write("credentials",
                   "[default]\naws_access_key_id = SHARED\naws_secret_access_key = s\n");
  EXPECT_EQ(taken(found()).access_key_id, "SHARED");
  const ScopedVariable named("AWS_PROFILE", "dev");
  const CredentialsResult dev = found();
  EXPECT_EQ(taken(dev).access_key_id, "DEV");
  EXPECT_EQ(taken(dev).session_token, "t");
}

TEST_F(CredentialsTest, NoneIsAnErrorThatSaysWhatToDo) {
  const std::string message = refused(found());
  EXPECT_NE(message.find("AWS_ACCESS_KEY_ID"), std::string::npos);
  EXPECT_NE(message.find("~/.aws/credentials"), std::string::npos);
}

TEST_F(CredentialsTest, HalfAPairIsAnErrorAndNotTheNextSource) {
  directory_.write("credentials",
                   "[default]\naws_access_key_id = FILE\naws_secret_access_key = s\n"
                   "[half]\naws_secret_access_key = canary-secret\n");
  {
    const ScopedVariable secret("AWS_SECRET_ACCESS_KEY", canary);
    EXPECT_NE(refused(found()).find("not AWS_ACCESS_KEY_ID"), std::string::npos);
  }
  {
    const ScopedVariable id("AWS_ACCESS_KEY_ID", "AKID");
    EXPECT_NE(refused(found()).find("not AWS_SECRET_ACCESS_KEY"), std::string::npos);
  }
  const ScopedVariable named("AWS_PROFILE", "half");
  EXPECT_NE(refused(found()).find("'half'"), std::string::npos);
}

TEST_F(CredentialsTest, AProfileThatIsNamedAndMissingIsAnError) {
  const ScopedVariable named("AWS_PROFILE", "nowhere");
  EXPECT_NE(refused(found()).find("'nowhere'"), std::string::npos);
}

TEST_F(CredentialsTest, AValueThatNoHeaderCanCarryIsAnErrorThatNamesItsSource) {
  // As a secret store leaves it that keeps the line break of the file it was made of.
  for (const char* const tail : {"\n", "\r", " ", "\t", "\x01"}) {
    const std::string broken = std::string(canary) + tail;
    const ScopedVariable id("AWS_ACCESS_KEY_ID", "AKID");
    const ScopedVariable secret("AWS_SECRET_ACCESS_KEY", broken.c_str());
    EXPECT_NE(refused(found()).find("AWS_SECRET_ACCESS_KEY"), std::string::npos);
    const ScopedVariable good("AWS_SECRET_ACCESS_KEY", canary);
    const ScopedVariable token("AWS_SESSION_TOKEN", broken.c_str());
    EXPECT_NE(refused(found()).find("AWS_SESSION_TOKEN"), std::string::npos);
    const ScopedVariable no_token("AWS_SESSION_TOKEN", nullptr);
    const ScopedVariable broken_id("AWS_ACCESS_KEY_ID", broken.c_str());
    EXPECT_NE(refused(found()).find("AWS_ACCESS_KEY_ID"), std::string::npos);
  }
}

// ---- The chain ----

/// Answers as it is told and counts how often it was asked.
class ThrowingProvider final : public CredentialsProvider {
 public:
  SourceResult get(bool may_wait) override {
    if (!may_wait) return CredentialsError{"being fetched", true};
    throw std::runtime_error("the source is broken");
  }
};

// Here, and on the thread that fetches them, where nobody would catch it.
TEST(CredentialsChainTest, ASourceThatThrowsIsAnErrorOfItsOwn) {
  for (const bool background : {false, true}) {
    std::vector<std::unique_ptr<CredentialsProvider>> sources;
    sources.push_back(std::make_unique<ThrowingProvider>());
    CredentialsChain chain(std::move(sources), {.background = background, .draw = {}});
    const CredentialsResult result = chain.get_within(now, std::chrono::hours(1));
    const auto* const error = std::get_if<CredentialsError>(&result);
    ASSERT_NE(error, nullptr);
    EXPECT_EQ(error->message, "the source is broken");
  }
}

class ScriptedProvider final : public CredentialsProvider {
 public:
  /// `fetched`: as over a network, so not when nobody may wait.
  ScriptedProvider(std::vector<SourceResult> answers, int& asked, bool fetched = false)
      : answers_(std::move(answers)), asked_(asked), fetched_(fetched) {}
  SourceResult get(bool may_wait) override {
    if (fetched_ && !may_wait) return CredentialsError{"", true};
    const auto next = static_cast<std::size_t>(asked_++);
    return answers_[std::min(next, answers_.size() - 1)];
  }
  bool outlives_expiration() const noexcept override { return fetched_; }

 private:
  std::vector<SourceResult> answers_;
  int& asked_;
  const bool fetched_;
};

Credentials expiring(std::string_view id, Time expiration) {
  Credentials credentials(id, "s");
  credentials.expiration = expiration;
  return credentials;
}

std::unique_ptr<CredentialsChain> chain_of(std::vector<SourceResult> answers, int& asked,
                                           bool fetched = false) {
  std::vector<std::unique_ptr<CredentialsProvider>> sources;
  sources.push_back(std::make_unique<ScriptedProvider>(std::move(answers), asked, fetched));
  return std::make_unique<CredentialsChain>(std::move(sources),
                                            CredentialsChain::Options{.background = false});
}

std::string id_of(const CredentialsResult& result) {
  const auto* const credentials = std::get_if<std::shared_ptr<const Credentials>>(&result);
  return credentials == nullptr ? "none: " + std::get<CredentialsError>(result).message
                                : (*credentials)->access_key_id;
}

TEST(CredentialsChainTest, WhatDoesNotExpireIsAskedForOnce) {
  int asked = 0;
  const auto chain = chain_of({Credentials("A", "s"), Credentials("B", "s")}, asked);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(id_of(chain->get(now + i * 1000h)), "A");
  EXPECT_EQ(asked, 1);
}

TEST(CredentialsChainTest, WhatExpiresIsRenewedAQuarterOfAnHourBefore) {
  int asked = 0;
  const auto chain = chain_of({expiring("A", now + 1h), expiring("B", now + 2h)}, asked);
  EXPECT_EQ(id_of(chain->get(now)), "A");
  EXPECT_EQ(id_of(chain->get(now + 44min)), "A");
  EXPECT_EQ(asked, 1);
  EXPECT_EQ(id_of(chain->get(now + 45min)), "B");
  EXPECT_EQ(asked, 2);
}

TEST(CredentialsChainTest, WhatLivesShortlyIsRenewedAtHalfItsLifeAndNotAtEachCall) {
  int asked = 0;
  const auto chain = chain_of({expiring("A", now + 10min), expiring("B", now + 20min)}, asked);
  EXPECT_EQ(id_of(chain->get(now)), "A");
  EXPECT_EQ(id_of(chain->get(now + 4min)), "A");
  EXPECT_EQ(asked, 1);
  EXPECT_EQ(id_of(chain->get(now + 5min)), "B");
}

TEST(CredentialsChainTest, ARenewalThatFailsIsToleratedUntilTheyExpireAndTriedAgainWithPauses) {
  int asked = 0;
  const auto chain =
      chain_of({expiring("A", now + 1h), CredentialsError{"file half written"}}, asked);
  EXPECT_EQ(id_of(chain->get(now)), "A");
  EXPECT_EQ(id_of(chain->get(now + 50min)), "A");
  EXPECT_EQ(asked, 2);
  EXPECT_EQ(id_of(chain->get(now + 50min + 999ms)), "A");
  EXPECT_EQ(asked, 2) << "not at each call";
  EXPECT_EQ(id_of(chain->get(now + 50min + 1s)), "A");
  EXPECT_EQ(asked, 3);
  EXPECT_EQ(id_of(chain->get(now + 50min + 2s)), "A");
  EXPECT_EQ(asked, 3) << "after a second failure twice as long";
  EXPECT_EQ(id_of(chain->get(now + 1h)), "none: file half written");
}

TEST(CredentialsChainTest, PausesEndAtTheLongestAndWhenTheClockWasSetBack) {
  int asked = 0;
  const auto chain = chain_of({CredentialsError{"broken"}}, asked);
  Time at = now;
  for (int i = 0; i < 20; ++i, at += 30s) EXPECT_EQ(id_of(chain->get(at)), "none: broken");
  EXPECT_EQ(asked, 20);
  EXPECT_EQ(id_of(chain->get(at - 24h)), "none: broken");
  EXPECT_EQ(asked, 21) << "not a day later";
}

TEST(CredentialsChainTest, WhatHasExpiredAlreadyIsAnError) {
  int asked = 0;
  const auto chain = chain_of({expiring("A", now)}, asked);
  EXPECT_NE(id_of(chain->get(now)).find("have expired"), std::string::npos);
}

TEST(CredentialsChainTest, OldOnesOfAServiceInTroubleStayInUse) {
  int asked = 0;
  const auto chain = chain_of(
      {expiring("A", now - 1min), CredentialsError{"does not answer"}, expiring("B", now + 6h)},
      asked, true);
  EXPECT_EQ(id_of(chain->get(now)), "A") << "expired, and all there is";
  EXPECT_EQ(id_of(chain->get(now + 14min)), "A");
  EXPECT_EQ(asked, 1);
  EXPECT_EQ(id_of(chain->get(now + 15min)), "A") << "the refresh fails";
  EXPECT_EQ(asked, 2);
  EXPECT_EQ(id_of(chain->get(now + 15min + 1s)), "B");
}

TEST(CredentialsChainTest, OldOnesStayInUseWhileTheServiceIsAway) {
  int asked = 0;
  const auto chain =
      chain_of({expiring("A", now + 1h), CredentialsError{"does not answer"}}, asked, true);
  for (auto at = now; at < now + 6h; at += 30s) EXPECT_EQ(id_of(chain->get(at)), "A");
}

TEST(CredentialsChainTest, WhatIsNotConfiguredIsPassedOverAndAnErrorIsNot) {
  int first = 0;
  int second = 0;
  int third = 0;
  std::vector<std::unique_ptr<CredentialsProvider>> sources;
  using Answers = std::vector<SourceResult>;
  sources.push_back(std::make_unique<ScriptedProvider>(Answers{NotConfigured{"first"}}, first));
  sources.push_back(std::make_unique<ScriptedProvider>(
      Answers{CredentialsError{"broken"}, Credentials("A", "s")}, second));
  sources.push_back(std::make_unique<ScriptedProvider>(Answers{Credentials("B", "s")}, third));
  CredentialsChain chain(std::move(sources), {.background = false});
  EXPECT_EQ(id_of(chain.get(now)), "none: broken");
  EXPECT_EQ(id_of(chain.get(now + 1s)), "A") << "an error is not kept";
  EXPECT_EQ(first, 2);
  EXPECT_EQ(third, 0);
}

TEST(CredentialsChainTest, WithoutAnySourceTheErrorSaysOfEachWhyNot) {
  int asked = 0;
  std::vector<std::unique_ptr<CredentialsProvider>> sources;
  for (const char* const reason : {"no variable", "no role"}) {
    sources.push_back(std::make_unique<ScriptedProvider>(
        std::vector<SourceResult>{NotConfigured{reason}}, asked));
  }
  CredentialsChain chain(std::move(sources), {.background = false});
  const std::string message = id_of(chain.get(now));
  EXPECT_NE(message.find("no variable"), std::string::npos);
  EXPECT_NE(message.find("no role"), std::string::npos);
}

TEST(CredentialsChainTest, WhatAServiceRefusesIsFetchedAnewButNotAtEachRefusal) {
  int asked = 0;
  const auto chain =
      chain_of({Credentials("A", "s"), Credentials("A", "s"), Credentials("B", "s")}, asked, true);
  EXPECT_EQ(id_of(chain->get(now)), "A");
  EXPECT_FALSE(chain->refused(Credentials("A", "s"), now + 29s));
  EXPECT_EQ(asked, 1);
  EXPECT_FALSE(chain->refused(Credentials("A", "s"), now + 30s)) << "the same again";
  EXPECT_EQ(asked, 2);
  EXPECT_EQ(id_of(chain->get(now + 59s)), "A");
  EXPECT_EQ(id_of(chain->get(now + 60s)), "B") << "without another refusal";
  EXPECT_TRUE(chain->refused(Credentials("A", "s"), now + 61s)) << "an answer to an older request";
  EXPECT_EQ(asked, 3);
}

TEST(CredentialsChainTest, FilesAreReadAgainAtEachRefusal) {
  int asked = 0;
  const auto chain = chain_of(
      {Credentials("A", "s"), Credentials("A", "s"), Credentials("A", "t"), Credentials("A", "u")},
      asked);
  EXPECT_EQ(id_of(chain->get(now)), "A");
  EXPECT_FALSE(chain->refused(Credentials("A", "s"), now)) << "nothing new";
  EXPECT_TRUE(chain->refused(Credentials("A", "s"), now)) << "another secret";
  EXPECT_EQ(asked, 3);
}

TEST(CredentialsChainTest, FixedCredentialsAreThemselves) {
  const auto provider = static_credentials(Credentials("A", "s", "t"));
  EXPECT_EQ(std::get<Credentials>(provider->get(false)).session_token, "t");
}

// ---- The chain with a thread of its own ----

/// Fetches when it is let go.
class GatedProvider final : public CredentialsProvider {
 public:
  struct Gate {
    std::mutex mutex;
    std::condition_variable opened;
    int allowed = 0;
    int fetches = 0;
    void open() {
      const std::scoped_lock lock(mutex);
      ++allowed;
      opened.notify_all();
    }
  };
  GatedProvider(std::shared_ptr<Gate> gate, std::shared_ptr<BlockingHttp> http)
      : gate_(std::move(gate)), http_(std::move(http)) {}
  SourceResult get(bool may_wait) override {
    if (!may_wait) return CredentialsError{"", true};
    std::unique_lock lock(gate_->mutex);
    ++gate_->fetches;
    while (gate_->allowed == 0 && !http_->stopped()) gate_->opened.wait_for(lock, 1ms);
    if (http_->stopped()) return CredentialsError{"stopped"};
    --gate_->allowed;
    return expiring(std::to_string(gate_->fetches), now + gate_->fetches * 1h);
  }

 private:
  const std::shared_ptr<Gate> gate_;
  const std::shared_ptr<BlockingHttp> http_;
};

class BackgroundChainTest : public ::testing::Test {
 protected:
  std::shared_ptr<GatedProvider::Gate> gate = std::make_shared<GatedProvider::Gate>();
  std::shared_ptr<BlockingHttp> http = std::make_shared<BlockingHttp>();
  std::unique_ptr<CredentialsChain> chain = [this] {
    std::vector<std::unique_ptr<CredentialsProvider>> sources;
    sources.push_back(std::make_unique<GatedProvider>(gate, http));
    return std::make_unique<CredentialsChain>(std::move(sources), CredentialsChain::Options{},
                                              http);
  }();
  bool is_pending(Time at) {
    const CredentialsResult result = chain->get(at);
    const auto* const error = std::get_if<CredentialsError>(&result);
    return error != nullptr && error->pending;
  }
};

TEST_F(BackgroundChainTest, NobodyWaitsAndOneFetchRuns) {
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(is_pending(now));
  gate->open();
  EXPECT_EQ(id_of(chain->get_within(now, 60s)), "1");
  EXPECT_EQ(gate->fetches, 1);
}

TEST_F(BackgroundChainTest, TheOldOnesServeWhileNewOnesAreFetched) {
  EXPECT_TRUE(is_pending(now));
  gate->open();
  EXPECT_EQ(id_of(chain->get_within(now, 60s)), "1");
  for (int i = 0; i < 10; ++i) EXPECT_EQ(id_of(chain->get(now + 50min)), "1");
  EXPECT_TRUE(is_pending(now + 1h)) << "and then nobody may use them";
  gate->open();
  EXPECT_EQ(id_of(chain->get_within(now + 1h, 60s)), "2");
  EXPECT_EQ(gate->fetches, 2);
}

TEST_F(BackgroundChainTest, TheEndDoesNotWaitForAFetch) {
  EXPECT_TRUE(is_pending(now));
  chain.reset();
  EXPECT_TRUE(http->stopped());
}

}  // namespace
}  // namespace spillway::transport
