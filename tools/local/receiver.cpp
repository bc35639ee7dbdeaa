// SPDX-License-Identifier: Apache-2.0
#include "local/receiver.hpp"

#include <utility>

#include "local/daemon_port.hpp"
#include "local/gateway.hpp"
#include "local/http_server.hpp"

namespace spillway::local {

struct Receiver::Parts {
  explicit Parts(const Options& options)
      : host(options.host),
        store(options),
        faults(options.faults),
        gateway(options, store, faults),
        http(options, gateway, store),
        daemon(options, store) {}

  std::string address(std::uint16_t port) const {
    const bool v6 = host.find(':') != std::string::npos;
    return (v6 ? "[" + host + "]" : host) + ":" + std::to_string(port);
  }

  std::string host;
  Store store;
  FaultBox faults;
  Gateway gateway;
  HttpServer http;
  DaemonPort daemon;
};

Receiver::Receiver(const Options& options) : parts_(std::make_unique<Parts>(options)) {}
Receiver::~Receiver() = default;

std::uint16_t Receiver::http_port() const { return parts_->http.port(); }
std::uint16_t Receiver::udp_port() const { return parts_->daemon.port(); }
std::string Receiver::endpoint() const { return "http://" + parts_->address(http_port()); }
std::string Receiver::daemon_address() const { return parts_->address(udp_port()); }

std::vector<MetricStatistics> Receiver::metrics(std::string_view metric_namespace,
                                                std::string_view name) const {
  const std::scoped_lock lock(parts_->store.mutex);
  return parts_->store.metrics.find(metric_namespace, name);
}

std::vector<LogStreamSummary> Receiver::log_streams() const {
  const std::scoped_lock lock(parts_->store.mutex);
  return parts_->store.logs.summaries();
}

std::vector<LogEvent> Receiver::log_events(std::string_view group, std::string_view stream,
                                           std::uint64_t from, std::size_t limit) const {
  const std::scoped_lock lock(parts_->store.mutex);
  return parts_->store.logs.events(group, stream, from, limit);
}

std::vector<Segment> Receiver::segments(std::string_view trace_id) const {
  const std::scoped_lock lock(parts_->store.mutex);
  return parts_->store.traces.segments(trace_id);
}

TraceCounts Receiver::trace_counts() const {
  const std::scoped_lock lock(parts_->store.mutex);
  return parts_->store.traces.counts();
}

Statistics Receiver::statistics() const {
  const std::scoped_lock lock(parts_->store.mutex);
  return parts_->store.statistics;
}

bool Receiver::wait_for_datagrams(std::uint64_t count, std::chrono::milliseconds time) {
  return parts_->daemon.wait_for(count, time);
}

std::string Receiver::metrics_json() const { return parts_->gateway.control().metrics_json(); }
std::string Receiver::logs_json() const { return parts_->gateway.control().logs_json(); }
std::string Receiver::traces_json() const { return parts_->gateway.control().traces_json(); }
std::string Receiver::stats_json() const { return parts_->gateway.control().statistics_json(); }
std::string Receiver::faults_json() const { return parts_->gateway.control().faults_json(); }

void Receiver::create_log_stream(std::string_view group, std::string_view stream) {
  const auto now = std::chrono::duration_cast<std::chrono::milliseconds>(
      parts_->gateway.now().time_since_epoch());
  const std::scoped_lock lock(parts_->store.mutex);
  parts_->store.logs.create_group(group, now.count());
  parts_->store.logs.create_stream(*parts_->store.logs.find_group(group), stream, now.count());
}

std::uint64_t Receiver::add_fault(Fault fault) { return parts_->faults.add(std::move(fault)); }
void Receiver::clear_faults() { parts_->faults.clear(); }
std::vector<FaultReport> Receiver::faults() const { return parts_->faults.reports(); }
void Receiver::reset() { parts_->store.clear(); }

}  // namespace spillway::local
