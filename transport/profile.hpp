// SPDX-License-Identifier: Apache-2.0
//
// The shared AWS files: ~/.aws/config and ~/.aws/credentials, or where AWS_CONFIG_FILE and
// AWS_SHARED_CREDENTIALS_FILE say.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>

namespace spillway::transport {

/// The settings of one section. Nested settings (`services`' indented lines) are under
/// "outer.inner".
struct ProfileSection {
  std::map<std::string, std::string, std::less<>> settings;
  /// Empty when there is none.
  std::string get(std::string_view key) const;
};

using ProfileFile = std::map<std::string, ProfileSection, std::less<>>;

/// Reads the INI dialect of the AWS files: `[section]`, `key = value`, comments by # or ; at the
/// start of a line or behind a blank, indented lines nested under the last key. Lines that are none
/// of these are passed over, as botocore does.
ProfileFile parse_profile_file(std::string_view text);

/// AWS_PROFILE, or "default".
std::string profile_name();

/// A profile from both files, the credentials file winning; nothing when neither has it. Reads the
/// files at each call.
std::optional<ProfileSection> load_profile(std::string_view name);

/// A `[services NAME]` section of the config file.
std::optional<ProfileSection> load_services(std::string_view name);
/// A `[sso-session NAME]` section of the config file.
std::optional<ProfileSection> load_sso_session(std::string_view name);

}  // namespace spillway::transport
