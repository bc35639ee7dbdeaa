// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "cases.hpp"

namespace bench {

/// The libraries that CMake found on this machine, each with its own way to make the same call.
std::vector<Case> peer_cases();

}  // namespace bench
