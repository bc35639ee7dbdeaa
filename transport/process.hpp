// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace spillway::transport {

/// The words of a command line as a POSIX shell splits them: blanks, quotes and backslashes, and
/// nothing that a shell would replace. Nothing when a quote does not end.
std::optional<std::vector<std::string>> split_words(std::string_view command);

inline constexpr std::size_t process_output_bytes_max = 64U << 10;

struct ProcessResult {
  bool succeeded = false;
  std::string output;  ///< of a program that succeeded
  std::string error;   ///< what went wrong, with the first words that the program wrote to stderr
};

/// Runs a program, found by PATH, without a shell and without standard input, and ends it, with what
/// it started, when `timeout` is over or `stopped` says so. Waits.
ProcessResult run_process(const std::vector<std::string>& words, std::chrono::milliseconds timeout,
                          const std::function<bool()>& stopped);

}  // namespace spillway::transport
