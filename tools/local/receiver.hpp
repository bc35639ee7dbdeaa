// SPDX-License-Identifier: Apache-2.0
//
// A strict stand-in for CloudWatch, CloudWatch Logs and X-Ray, in their own protocols and OTLP, and for
// the X-Ray daemon on this machine: it verifies signatures, enforces the services' limits, goes wrong on demand, and tells what arrived.
// `spillway local` runs one; tests and the demo embed it. See README.md in this folder.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "local/faults.hpp"
#include "local/observed.hpp"
#include "local/options.hpp"

namespace spillway::local {

/// Listens from construction to destruction, on threads of its own. Every member function may be
/// called from any thread.
class Receiver {
 public:
  /// Throws std::system_error when a port cannot be had and std::invalid_argument when the host is
  /// not a loopback address.
  explicit Receiver(const Options& options = {});
  ~Receiver();

  std::uint16_t http_port() const;
  std::uint16_t udp_port() const;
  /// "http://127.0.0.1:4566": for AWS_ENDPOINT_URL.
  std::string endpoint() const;
  /// "127.0.0.1:2000": for AWS_XRAY_DAEMON_ADDRESS.
  std::string daemon_address() const;

  /// What arrived so far. Empty arguments stand for all.
  std::vector<MetricStatistics> metrics(std::string_view metric_namespace = {},
                                        std::string_view name = {}) const;
  std::vector<LogStreamSummary> log_streams() const;
  /// The accepted events of a stream in the order of their arrival, from position `from` on, as far
  /// as they are kept.
  std::vector<LogEvent> log_events(
      std::string_view group, std::string_view stream, std::uint64_t from = 0,
      std::size_t limit = std::numeric_limits<std::size_t>::max()) const;
  std::vector<Segment> segments(std::string_view trace_id = {}) const;
  TraceCounts trace_counts() const;
  Statistics statistics() const;

  /// Datagrams have no answer to wait for: this waits until `count` of them have been dealt with.
  /// Returns false when time is up.
  bool wait_for_datagrams(std::uint64_t count,
                          std::chrono::milliseconds time = std::chrono::seconds(10));

  /// The control pages' texts.
  std::string metrics_json() const;
  std::string logs_json() const;
  std::string traces_json() const;
  std::string stats_json() const;
  std::string faults_json() const;

  /// Makes the group too when it is missing; for tests that are not about creating.
  void create_log_stream(std::string_view group, std::string_view stream);

  /// Returns the fault's id, or 0 when there are 1000 already.
  std::uint64_t add_fault(Fault fault);
  void clear_faults();
  std::vector<FaultReport> faults() const;

  /// Forgets what arrived, groups and streams included. Faults stay.
  void reset();

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace spillway::local
