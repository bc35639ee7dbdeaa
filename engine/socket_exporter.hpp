// SPDX-License-Identifier: Apache-2.0
//
// Exporters to agents beside the process: the X-Ray daemon's and the CloudWatch agent's ports.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include <spillway/engine/exporter.hpp>

namespace spillway::detail {

/// Where the CloudWatch agent takes EMF: "tcp://host:port" or "udp://host:port".
struct AgentEndpoint {
  bool is_udp;
  std::string address;  ///< host:port
};
std::optional<AgentEndpoint> parse_agent_endpoint(std::string_view text);

std::unique_ptr<Exporter> make_xray_daemon_exporter(const Config& config);
std::unique_ptr<Exporter> make_emf_agent_exporter(const Config& config);

}  // namespace spillway::detail
