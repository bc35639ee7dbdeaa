// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace spillway {

/// Severity of a log record, in OpenTelemetry's words; `off` is a level to set, never one of a
/// record.
enum class Severity : std::uint8_t { trace, debug, info, warn, error, fatal, off };

constexpr std::string_view to_string(Severity severity) noexcept {
  constexpr std::array<std::string_view, 7> names{"TRACE", "DEBUG", "INFO", "WARN",
                                                  "ERROR", "FATAL", "OFF"};
  return names[static_cast<std::size_t>(severity)];
}

}  // namespace spillway
