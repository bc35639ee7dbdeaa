// SPDX-License-Identifier: Apache-2.0
//
// A case of record_percentiles: one call of one subject.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "percentiles.hpp"

namespace bench {

using Samples = std::vector<double>;

struct Case {
  std::string name;
  std::string subject;
  Plan plan;
  /// Called on each measuring thread; appends its samples.
  std::function<void(const Plan&, Samples&)> run;
};

/// Calls `call(state, i)` with the state that `make()` gives the measuring thread, and `state.rest()`,
/// where there is one, behind each burst.
template <class Make, class Call>
std::function<void(const Plan&, Samples&)> calls_on(Make make, Call call) {
  return [make, call](const Plan& plan, Samples& samples) {
    auto&& state = make();
    measure(
        plan, [&](int i) { call(state, i); },
        [&] {
          if constexpr (requires { state.rest(); }) state.rest();
        },
        samples);
  };
}

}  // namespace bench
