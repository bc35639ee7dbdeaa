// SPDX-License-Identifier: Apache-2.0
//
// The documents in which credentials come: JSON of programs and metadata services, XML of STS. What
// they say ends in a Credentials; the text itself is overwritten. An error names the source and the
// member that is wrong, never a value.
#pragma once

#include <chrono>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

#include <spillway/transport/credentials.hpp>

namespace spillway::transport {

/// "2026-11-21T01:19:54Z", with a fraction or an offset (+01:00) where there is one (RFC 3339).
std::optional<std::chrono::system_clock::time_point> parse_time(std::string_view text) noexcept;

/// How a JSON document names its members.
struct CredentialsMembers {
  std::string_view id = "AccessKeyId";
  std::string_view secret = "SecretAccessKey";
  std::string_view token = "SessionToken";
  std::string_view expiration = "Expiration";
  std::string_view object{};         ///< the member that has them all; empty: the document itself
  bool expiration_is_epoch = false;  ///< milliseconds since 1970 in place of a text
  bool must_expire = true;           ///< a document without an expiration is an error
};
/// What a `credential_process` prints.
inline constexpr CredentialsMembers process_members{.must_expire = false};
/// Of the container service and the instance metadata service.
inline constexpr CredentialsMembers metadata_members{.token = "Token", .must_expire = false};
/// Of GetRoleCredentials.
inline constexpr CredentialsMembers sso_members{.id = "accessKeyId",
                                                .secret = "secretAccessKey",
                                                .token = "sessionToken",
                                                .expiration = "expiration",
                                                .object = "roleCredentials",
                                                .expiration_is_epoch = true};

/// Credentials or an error that begins with `source`. `text` is wiped.
SourceResult credentials_from_json(std::string_view source, std::string& text,
                                   const CredentialsMembers& members);
/// From the answer to AssumeRole and its kin.
SourceResult credentials_from_sts(std::string_view source, std::string& text);

/// One text member of a JSON object; empty when it is not there or the text is no such object.
/// `text` is not wiped.
std::string json_text(std::string_view text, std::string_view member);
std::optional<std::int64_t> json_number(std::string_view text, std::string_view member);

/// The name of the first of these that no header can carry; empty when all are fine.
struct NamedValue {
  std::string_view name;
  std::string_view value;
};
std::string_view unusable_of(std::initializer_list<NamedValue> values) noexcept;

}  // namespace spillway::transport
