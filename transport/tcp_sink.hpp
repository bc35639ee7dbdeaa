// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <spillway/transport/address_lookup.hpp>
#include <spillway/transport/stream_sink.hpp>

namespace spillway::transport {

/// A TCP connection that bytes are written to and nothing is read from. It knows how many of them the
/// other side's kernel has: what a connection that breaks has swallowed can be sent again on the next
/// one. One thread; no call takes longer than its `wait`.
class TcpSink {
 public:
  enum class Link : std::uint8_t { up, pending, failed };

  /// `address`: host:port. The host is a name or an address; all of a name's are tried.
  explicit TcpSink(std::string address);
  TcpSink(const TcpSink&) = delete;
  TcpSink& operator=(const TcpSink&) = delete;
  ~TcpSink();

  bool is_up() const noexcept { return link_ == Link::up; }
  /// Connects, or goes on with it. `failed`: no address takes it, see error(); the next call looks
  /// them up anew.
  Link connect(std::chrono::milliseconds wait);

  /// On a connection that is up: writes as much of `text` as goes within `wait` and removes it from
  /// `text`. `failed`, with `text` empty too: the connection has ended; it is closed.
  WriteResult write(std::string_view& text, std::chrono::milliseconds wait);
  /// Bytes of this connection, or of the last one, that the other side has acknowledged when write()
  /// returned. A kernel that does not tell (before Linux 4.2): all that were written.
  std::uint64_t acknowledged() const noexcept { return acknowledged_; }
  const std::string& error() const noexcept { return error_; }

 private:
  /// What goes unacknowledged for longer ends the connection.
  static constexpr std::chrono::milliseconds unacknowledged_max{10'000};
  static constexpr std::chrono::milliseconds connect_max{5'000};  // to one address

  bool begin(const SocketAddress& target);
  /// The error of a connection attempt that has ended; EINPROGRESS while it has not.
  int progress(std::chrono::milliseconds wait);
  bool is_closed_by_peer();
  void read_acknowledged() noexcept;
  void end(int error);
  void fail(std::string_view what, std::string_view why);
  void disconnect() noexcept;

  const std::string address_;
  AddressLookup lookup_{SOCK_STREAM};
  std::vector<SocketAddress> targets_;  // not tried yet
  Link link_ = Link::failed;
  int descriptor_ = -1;
  std::chrono::steady_clock::time_point connect_until_{};
  std::uint64_t written_ = 0;
  std::uint64_t acknowledged_ = 0;
  std::uint64_t acknowledged_at_start_ = 0;  // the kernel counts the connection's beginning too
  std::string error_;
};

}  // namespace spillway::transport
