// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace spillway::local {

enum class InflateResult : std::uint8_t {
  ok,
  broken,     ///< not gzip, cut short, or followed by something else
  too_large,  ///< would pass `bytes_max`
};

/// Inflates one gzip member into `output`, replacing what it held. Never writes more than
/// `bytes_max`: a few kilobytes may stand for gigabytes.
InflateResult gunzip(std::string_view input, std::size_t bytes_max, std::string& output);

}  // namespace spillway::local
