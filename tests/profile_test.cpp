// SPDX-License-Identifier: Apache-2.0
#include <string>

#include <gtest/gtest.h>
#include <support/environment.hpp>
#include <support/temporary_file.hpp>

#include <spillway/transport/profile.hpp>

namespace spillway::transport {
namespace {

using testing::ScopedVariable;

TEST(ProfileFileTest, SectionsAndSettings) {
  const ProfileFile file = parse_profile_file(
      "ignored = before any section\n"
      "[default]\n"
      "region = eu-west-1\n"
      "aws_secret_access_key=abc=def==\n"
      "  \n"
      "[ profile dev ]\r\n"
      "REGION\t=\tus-east-1 \r\n"
      "empty =\n"
      "no equals sign\n"
      "[broken\n"
      "region = nowhere\n"
      "[default]\n"
      "output = json");
  ASSERT_EQ(file.size(), 2U);
  EXPECT_EQ(file.at("default").get("region"), "eu-west-1");
  EXPECT_EQ(file.at("default").get("output"), "json") << "a section may go on further down";
  EXPECT_EQ(file.at("default").get("aws_secret_access_key"), "abc=def==");
  EXPECT_EQ(file.at("profile dev").get("region"), "us-east-1");
  EXPECT_EQ(file.at("profile dev").get("empty"), "");
  EXPECT_EQ(file.at("profile dev").get("missing"), "");
  EXPECT_EQ(file.at("profile dev").settings.size(), 2U);
}

TEST(ProfileFileTest, CommentsBeginAtTheStartOrBehindABlank) {
  const ProfileFile file = parse_profile_file(
      "# first\n; second\n[default] # of the section\n"
      "a = 1 # one\nb = 2 ; two\nc = x#y;z\n  # nested comment\nd =# nothing\n");
  const ProfileSection& section = file.at("default");
  EXPECT_EQ(section.get("a"), "1");
  EXPECT_EQ(section.get("b"), "2");
  EXPECT_EQ(section.get("c"), "x#y;z") << "secrets have such characters";
  EXPECT_EQ(section.get("d"), "# nothing");
}

TEST(ProfileFileTest, IndentedSettingsAreNestedUnderTheLast) {
  const ProfileFile file = parse_profile_file(
      "[services local]\ncloudwatch =\n  endpoint_url = http://a\n\tother = 1\n"
      "xray = \n endpoint_url = http://b\n[default]\n  region = indented\n");
  const ProfileSection& services = file.at("services local");
  EXPECT_EQ(services.get("cloudwatch.endpoint_url"), "http://a");
  EXPECT_EQ(services.get("cloudwatch.other"), "1");
  EXPECT_EQ(services.get("xray.endpoint_url"), "http://b");
  EXPECT_EQ(file.at("default").get("region"), "indented");
}

TEST(ProfileFileTest, AnyBytesAreSurvived) {
  EXPECT_TRUE(parse_profile_file("").empty());
  EXPECT_TRUE(parse_profile_file(std::string("\0\n=\n]\n[\xff", 8)).empty());
  EXPECT_EQ(parse_profile_file("[]").size(), 1U);
  EXPECT_EQ(parse_profile_file("[a]\n=value").at("a").get(""), "")
      << "a setting without a name is none";
}

class LoadProfileTest : public ::testing::Test {
 protected:
  testing::TemporaryDirectory directory_;
  const std::string config_ = directory_.path("config");
  const std::string shared_ = directory_.path("credentials");
  ScopedVariable config_file_{"AWS_CONFIG_FILE", config_.c_str()};
  ScopedVariable credentials_file_{"AWS_SHARED_CREDENTIALS_FILE", shared_.c_str()};
  ScopedVariable profile_{"AWS_PROFILE", nullptr};
};

TEST_F(LoadProfileTest, NoFilesAreNoProfile) {
  EXPECT_FALSE(load_profile("default"));
  EXPECT_FALSE(load_services("any"));
}

TEST_F(LoadProfileTest, ADirectoryInAFilesPlaceIsNoProfile) {
  const ScopedVariable config_file("AWS_CONFIG_FILE", "/");
  const ScopedVariable credentials_file("AWS_SHARED_CREDENTIALS_FILE", "/");
  EXPECT_FALSE(load_profile("default"));
}

TEST_F(LoadProfileTest, TheCredentialsFileWins) {
  directory_.write("config", "[profile dev]\nregion = eu-west-1\naws_access_key_id = config\n");
  directory_.write("credentials", "[dev]\naws_access_key_id = credentials\n[only]\na = b\n");
  const auto dev = load_profile("dev");
  ASSERT_TRUE(dev);
  EXPECT_EQ(dev->get("region"), "eu-west-1");
  EXPECT_EQ(dev->get("aws_access_key_id"), "credentials");
  EXPECT_EQ(load_profile("only")->get("a"), "b");
  EXPECT_FALSE(load_profile("profile dev"));
  EXPECT_FALSE(load_profile("default"));
}

TEST_F(LoadProfileTest, TheDefaultMayBeSpeltBothWays) {
  directory_.write("config", "[default]\nregion = short\n");
  EXPECT_EQ(load_profile("default")->get("region"), "short");
  directory_.write("config", "[default]\nregion = short\n[profile default]\nregion = long\n");
  EXPECT_EQ(load_profile("default")->get("region"), "long");
}

TEST_F(LoadProfileTest, FilesAreReadAtEachCall) {
  directory_.write("credentials", "[default]\naws_access_key_id = one\n");
  EXPECT_EQ(load_profile("default")->get("aws_access_key_id"), "one");
  directory_.write("credentials", "[default]\naws_access_key_id = two\n");
  EXPECT_EQ(load_profile("default")->get("aws_access_key_id"), "two");
}

TEST_F(LoadProfileTest, WithoutVariablesTheFilesAreInTheHome) {
  const testing::TemporaryDirectory home;
  std::filesystem::create_directory(home.path(".aws"));
  home.write(".aws/config", "[default]\nregion = at-home\n");
  const ScopedVariable home_variable("HOME", home.path("").c_str());
  const ScopedVariable no_config("AWS_CONFIG_FILE", nullptr);
  const ScopedVariable empty_credentials("AWS_SHARED_CREDENTIALS_FILE", "");
  EXPECT_EQ(load_profile("default")->get("region"), "at-home");
  const ScopedVariable no_home("HOME", nullptr);
  EXPECT_FALSE(load_profile("default"));
}

TEST_F(LoadProfileTest, TheNameIsTheVariablesOrDefault) {
  EXPECT_EQ(profile_name(), "default");
  const ScopedVariable empty("AWS_PROFILE", "");
  EXPECT_EQ(profile_name(), "default");
  const ScopedVariable named("AWS_PROFILE", "dev");
  EXPECT_EQ(profile_name(), "dev");
}

}  // namespace
}  // namespace spillway::transport
