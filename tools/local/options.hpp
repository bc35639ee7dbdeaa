// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "local/faults.hpp"
#include <spillway/transport/credentials.hpp>

namespace spillway::local {

struct Options {
  std::string host = "127.0.0.1";  ///< a loopback address: 127.x.y.z, ::1 or localhost
  std::uint16_t http_port = 0;     ///< 0: any free one
  std::uint16_t udp_port = 0;
  /// Who may sign. One with a session token must be used with it.
  std::vector<transport::Credentials> credentials{{"local", "local-secret"}};
  bool check_signatures = true;
  std::vector<Fault> faults{};

  // What is kept for reading back; counts go on beyond it. 2^20 log events are a demo's ten seconds
  // at 100 000 a second.
  std::size_t log_events_kept_max = 1U << 20;
  std::size_t log_bytes_kept_max = 256U << 20;
  std::size_t trace_documents_kept_max = 100'000;
  std::size_t trace_bytes_kept_max = 128U << 20;
  std::size_t metric_series_max = 100'000;
  std::size_t log_streams_max = 10'000;  ///< groups and streams together; more are refused

  std::size_t connections_max = 256;         ///< each has a thread; one more is answered 503
  std::size_t udp_buffer_bytes = 16U << 20;  ///< asked of the kernel, which may give less

  /// The time that signatures and time stamps are held against; the system clock when empty. Any
  /// thread calls it.
  std::function<std::chrono::system_clock::time_point()> clock{};
};

}  // namespace spillway::local
