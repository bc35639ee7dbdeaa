// SPDX-License-Identifier: Apache-2.0
//
// `spillway recover`: ships what engines that died left in their crash_dir.
#include <chrono>
#include <filesystem>
#include <iostream>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "spillway/command.hpp"
#include <spillway/engine/crash_recovery.hpp>
#include <spillway/engine/engine.hpp>
#include <spillway/transport/url.hpp>

namespace spillway::cli {
namespace {

constexpr std::string_view usage = R"(usage: spillway recover DIRECTORY

Ships the records that processes which were killed left in DIRECTORY (their crash_dir), marked
`recovered`, as the next engine of their service would, and deletes what was delivered. Where they go
says the configuration as a service reads it (SPILLWAY_*, SPILLWAY_CONFIG_FILE, AWS_*); the name of the
service is that of each directory. Begins with none of them when records are there that the
configuration sends nowhere. Prints the account of each service on stderr. Exit status 1 when something
was not delivered: it stays in DIRECTORY, or in the spool_dir of the configuration; what the destination
refuses for good, or does not take any more for its age, is dropped and counted.
)";

constexpr std::chrono::seconds delivery_max{60};
constexpr std::chrono::seconds last_chance{1};  // when that was not enough

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

/// Counts only.
class NoRecords final : public detail::RecoveredRecords {
  void begin_process() override {}
  void begin_lane() override {}
  void on_context(std::uint32_t /*trace_flags*/, std::span<const std::byte> /*body*/) override {}
  void on_log(const detail::SiteInfo& /*site*/, std::uint32_t /*dead_site*/,
              std::int64_t /*wall_ns*/, std::uint64_t /*span_id*/,
              std::span<const std::byte> /*values*/) override {}
  void on_event(const detail::SiteInfo& /*site*/, std::uint32_t /*dead_site*/,
                std::int64_t /*wall_ns*/, std::uint64_t /*span_id*/,
                std::span<const std::byte> /*values*/) override {}
  void on_sample(const detail::SeriesKey& /*series*/, std::int64_t /*wall_ns*/,
                 double /*value*/) override {}
  void on_point(const detail::SeriesKey& /*series*/,
                const detail::CrashMetricsReader::Point& /*point*/) override {}
  void on_span(std::string_view /*name*/, std::int64_t /*start_ns*/, std::int64_t /*end_ns*/,
               const detail::SpanBody& /*body*/, std::span<const std::byte> /*entries*/) override {}
  void on_span_part(std::uint64_t /*span_id*/, std::span<const std::byte> /*entries*/) override {}
};

/// What the dead engines of a service left; it stays as it is.
detail::CrashRecovery::Counts look_at(const std::string& directory, const std::string& service) {
  const auto found = detail::CrashRecovery::find(directory, service, {});
  if (found == nullptr) return {};
  NoRecords records;
  found->read(records, [] { return false; });
  return found->counts();
}

/// Whether the configuration has a destination for all that is there; says what has none.
bool goes_somewhere(const Config& given, const detail::CrashRecovery::Counts& found) {
  std::vector<ConfigError> errors;  // The engine will say them.
  const Config config = resolve(given, errors);
  const auto check = [&](bool is_none, std::uint64_t records, const char* what,
                         const char* variable) {
    if (!is_none || records == 0) return true;
    std::cerr << "spillway recover: " << given.service.get() << " has left " << records << " "
              << what << ", and the configuration sends them nowhere: set " << variable << "\n";
    return false;
  };
  const bool logs = check(config.logs == LogsTo::none, found.logs, "log records", "SPILLWAY_LOGS");
  const bool metrics = check(config.metrics == MetricsTo::none, found.measurements, "measurements",
                             "SPILLWAY_METRICS");
  return check(config.traces == TracesTo::none, found.spans, "spans", "SPILLWAY_TRACES") && logs &&
         metrics;
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
  bool can_go = true;
  std::vector<Config> configs;
  for (const std::string& service : services_in(directory)) {
    Config config;
    config.service = service;
    config.crash_dir = directory.string();
    const auto found = look_at(directory.string(), service);
    can_go &= goes_somewhere(config, found);
    good &= found.left == 0;
    configs.push_back(std::move(config));
  }
  if (!can_go) return 1;
  for (const Config& config : configs) {
    Engine engine(config);
    const bool flushed = engine.flush(delivery_max);
    const Stats stats = engine.shutdown(flushed ? delivery_max : last_chance);
    std::cerr << config.service.get() << ": " << stats.to_json() << "\n";
    for (const SignalStats* const signal : {&stats.metrics, &stats.logs, &stats.spans}) {
      good &= signal->delivered == signal->recovered;
    }
  }
  return good ? 0 : 1;
}

}  // namespace spillway::cli
