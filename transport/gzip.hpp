// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace spillway::transport {

/// The bytes as a gzip member, at zlib's fastest level; nothing when that is no smaller than they
/// are.
std::optional<std::string> gzip(std::string_view bytes);

}  // namespace spillway::transport
