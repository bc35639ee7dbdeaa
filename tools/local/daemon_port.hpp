// SPDX-License-Identifier: Apache-2.0
//
// The UDP port of the X-Ray daemon: a datagram is a header line and a segment document. There is no
// answer; what is wrong with a datagram is counted.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <thread>

#include <simdjson.h>

#include "local/options.hpp"
#include "local/socket.hpp"
#include "local/store.hpp"

namespace spillway::local {

class DaemonPort {
 public:
  DaemonPort(const Options& options, Store& store);
  ~DaemonPort();

  std::uint16_t port() const { return port_; }
  /// Waits until `count` datagrams have been dealt with since the last reset; false when time is
  /// up.
  bool wait_for(std::uint64_t count, std::chrono::milliseconds time);

 private:
  void receive_all();
  /// Takes every datagram that is there.
  void drain();
  void take(std::string_view datagram);

  Store& store_;
  FileDescriptor socket_;
  std::uint16_t port_;
  StopSignal stop_;
  std::condition_variable arrived_;  ///< with the store's mutex
  std::uint32_t lost_ = 0;           ///< the kernel's counter, as last seen
  simdjson::dom::parser parser_;
  std::thread thread_;
};

}  // namespace spillway::local
