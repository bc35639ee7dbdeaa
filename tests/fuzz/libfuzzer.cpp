// SPDX-License-Identifier: Apache-2.0
//
// The targets under libFuzzer:  SPILLWAY_TEST_FUZZ=url fuzz -max_total_time=60 corpus/url
#include "target.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t bytes) {
  static const spillway::fuzz::Target target = [] {
    const char* const name = std::getenv("SPILLWAY_TEST_FUZZ");
    const auto found = spillway::fuzz::targets().find(name == nullptr ? "" : name);
    if (found != spillway::fuzz::targets().end()) return found->second;
    std::fprintf(stderr, "SPILLWAY_TEST_FUZZ must name a target, one of:\n");
    for (const auto& [known, function] : spillway::fuzz::targets()) {
      std::fprintf(stderr, "  %s\n", known.c_str());
    }
    std::exit(2);
  }();
  target({reinterpret_cast<const char*>(data), bytes});
  return 0;
}
