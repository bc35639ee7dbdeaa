// SPDX-License-Identifier: Apache-2.0
//
// `spillway recover`: ships what engines that died left in their crash_dir.
#include <chrono>
#include <filesystem>
#include <iostream>
#include <set>
#include <string>

#include "spillway/command.hpp"
#include <spillway/engine/engine.hpp>
#include <spillway/transport/url.hpp>

namespace spillway::cli {
namespace {

constexpr std::string_view usage = R"(usage: spillway recover DIRECTORY

Ships the logs and spans that processes which were killed left in DIRECTORY (their crash_dir), marked
`recovered`, as the next engine of their service would, and deletes them. Where they go says the
configuration as a service reads it (SPILLWAY_*, SPILLWAY_CONFIG_FILE, AWS_*); the name of the service
is that of each directory. Prints the account of each service on stderr. Exit status 1 when something
was not delivered.
)";

constexpr std::chrono::seconds delivery_max{60};

/// Names of the services that have something there.
std::set<std::string> services_in(const std::filesystem::path& directory) {
  std::set<std::string> services;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    const std::string name = entry.path().filename();
    const std::size_t dot = name.rfind('.');
    if (!entry.is_directory() || dot == std::string::npos) continue;
    if (const auto service = transport::percent_decode(std::string_view(name).substr(0, dot))) {
      services.insert(*service);
    }
  }
  return services;
}

}  // namespace

int run_recover(Arguments arguments) {
  if (arguments.size() == 1 && (arguments[0] == "--help" || arguments[0] == "-h")) {
    std::cout << usage;
    return 0;
  }
  if (arguments.size() != 1 || arguments[0].starts_with("-")) {
    std::cerr << usage;
    return exit_usage;
  }
  const std::filesystem::path directory = std::filesystem::absolute(arguments[0]);
  bool good = true;
  for (const std::string& service : services_in(directory)) {
    Config config;
    config.service = service;
    config.crash_dir = directory.string();
    Engine engine(config);
    engine.flush(delivery_max);
    const Stats stats = engine.shutdown(delivery_max);
    std::cerr << service << ": " << stats.to_json() << "\n";
    for (const SignalStats* const signal : {&stats.logs, &stats.spans}) {
      good &= signal->delivered == signal->recovered;
    }
  }
  return good ? 0 : 1;
}

}  // namespace spillway::cli
