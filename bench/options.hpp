// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <chrono>
#include <string_view>
#include <vector>

namespace bench {

/// What every benchmark program understands: [--quick | --smoke] [--case NAME].
struct Options {
  double effort = 1;      ///< --quick: a fifth; --smoke: just enough to see that it runs
  std::string_view only;  ///< --case; empty: all
  std::vector<std::string_view> arguments;  ///< the others

  Options(int argc, char** argv) {
    for (int i = 1; i < argc; ++i) {
      const std::string_view argument = argv[i];
      if (argument == "--quick") {
        effort = 0.2;
      } else if (argument == "--smoke") {
        effort = 0.005;
      } else if (argument == "--case" && i + 1 < argc) {
        only = argv[++i];
      } else {
        arguments.push_back(argument);
      }
    }
  }

  bool wants(std::string_view name) const { return only.empty() || only == name; }
  /// So many of `full` as the effort allows, at least one.
  int times(int full) const { return std::max(1, static_cast<int>(full * effort)); }
  std::chrono::milliseconds lasting(std::chrono::milliseconds full) const {
    return std::chrono::milliseconds(times(static_cast<int>(full.count())));
  }
};

}  // namespace bench
