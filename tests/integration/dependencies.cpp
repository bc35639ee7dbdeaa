// SPDX-License-Identifier: Apache-2.0
//
// What a service finds out about others, for tests/integration/test_moto_dependencies.py:
//
//   integration_dependencies table NAME               the health check of a DynamoDB table: "pass", ...
//   integration_dependencies discover NAMESPACE NAME  a service's endpoints in Cloud Map, one a line
#include <atomic>
#include <chrono>
#include <cstdio>
#include <string_view>

#include <spillway/middleware/client/discovery.hpp>
#include <spillway/middleware/health/checkers.hpp>

int main(int argc, char** argv) {
  using namespace std::chrono_literals;
  namespace middleware = spillway::middleware;
  const std::string_view what = argc > 2 ? argv[1] : "";
  if (what == "table") {
    const std::atomic<bool> stopping{false};
    const auto check = middleware::check_dynamodb_table({.table = argv[2]});
    const middleware::CheckResult result = check(middleware::CheckRun(30s, stopping));
    std::printf("%s\n%s\n", std::string(to_string(result.status)).c_str(), result.output.c_str());
    return 0;
  }
  if (what == "discover" && argc > 3) {
    const auto discover =
        middleware::cloud_map_endpoints({.namespace_name = argv[2], .service = argv[3]});
    const middleware::Discovered found = discover(30s);
    for (const middleware::ServiceEndpoint& one : found.endpoints)
      std::printf("%s %s\n", one.origin.c_str(), one.zone.c_str());
    std::fprintf(stderr, "%s", found.error.c_str());
    return found.error.empty() ? 0 : 1;
  }
  std::fprintf(stderr, "usage: see the head of dependencies.cpp\n");
  return 2;
}
