// SPDX-License-Identifier: Apache-2.0
//
// Temporary credentials for a role (AWS Security Token Service API reference, read 2026-08).
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include <spillway/transport/credential_sources.hpp>

namespace spillway::transport {

/// A role to assume, as a profile or the environment names it.
struct RoleRequest {
  std::string source;  ///< for errors: "profile 'dev'"
  std::string role_arn;
  std::string session_name{};  ///< empty: "spillway-" and the time
  std::string external_id{};
  std::string duration_seconds{};  ///< empty: the service's 3600
};

/// AssumeRole, signed with `by`. Waits; tries again as AWS's standard mode says.
SourceResult assume_role(const SourceParts& parts, const RoleRequest& role, const Credentials& by);
/// AssumeRoleWithWebIdentity with the token in a file, which is read at each attempt: what rotates
/// it may just have done so.
SourceResult assume_role_with_web_identity(const SourceParts& parts, const RoleRequest& role,
                                           const std::string& token_file);

/// A file of at most a megabyte, as it is; nothing when it cannot be read.
std::optional<std::string> read_small_file(const std::string& path);

}  // namespace spillway::transport
