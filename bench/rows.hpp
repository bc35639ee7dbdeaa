// SPDX-License-Identifier: Apache-2.0
//
// What every benchmark program prints: JSON rows, one a line, for bench/run.py.
#pragma once

#include <cmath>
#include <cstdio>
#include <limits>
#include <string>

#include "percentiles.hpp"

namespace bench {

inline constexpr double absent = std::numeric_limits<double>::quiet_NaN();

struct Row {
  std::string suite;
  std::string name;  ///< the row's "case"
  std::string subject = "spillway";
  int threads = 1;
  Distribution ns{absent, absent, absent, absent, {}};
  double per_second = absent;
  double bytes_per_second = absent;
  double bytes = absent;          ///< of memory
  double error_percent = absent;  ///< of what is reported, against what was measured
};

inline void print(const Row& row) {
  const auto number = [](double value) {
    char text[32] = "null";
    if (!std::isnan(value)) std::snprintf(text, sizeof text, value < 1e6 ? "%.2f" : "%.0f", value);
    return std::string(text);
  };
  std::printf(
      "{\"suite\":\"%s\",\"case\":\"%s\",\"subject\":\"%s\",\"threads\":%d,\"ns_p50\":%s,\"ns_"
      "p99\":"
      "%s,\"ns_p999\":%s,\"ns_mean\":%s,\"instructions\":null,\"per_second\":%s,"
      "\"bytes_per_second\":%s,\"bytes\":%s,\"error_percent\":%s,\"ns_at_shares\":[",
      row.suite.c_str(), row.name.c_str(), row.subject.c_str(), row.threads,
      number(row.ns.p50).c_str(), number(row.ns.p99).c_str(), number(row.ns.p999).c_str(),
      number(row.ns.mean).c_str(), number(row.per_second).c_str(),
      number(row.bytes_per_second).c_str(), number(row.bytes).c_str(),
      number(row.error_percent).c_str());
  for (std::size_t i = 0; i < row.ns.at_shares.size(); ++i) {
    std::printf("%s[%g,%s]", i == 0 ? "" : ",", shares[i], number(row.ns.at_shares[i]).c_str());
  }
  std::puts("]}");
  std::fflush(stdout);
}

}  // namespace bench
