// SPDX-License-Identifier: Apache-2.0
//
// The subcommands of the command-line tool: each is a function in a file of its own.
#pragma once

#include <span>
#include <string_view>

namespace spillway::cli {

/// For arguments that make no sense, as getopt's users are used to.
inline constexpr int exit_usage = 2;

/// Each takes what stands behind its name and returns the process's exit code.
using Arguments = std::span<const std::string_view>;

int run_decode(Arguments arguments);
int run_local(Arguments arguments);
int run_recover(Arguments arguments);

}  // namespace spillway::cli
