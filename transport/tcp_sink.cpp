// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <utility>

#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <spillway/transport/tcp_sink.hpp>

namespace spillway::transport {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

namespace {

/// Waits for the descriptor; what it says, 0 when the time is up.
short wait_for(int descriptor, short events, milliseconds wait) noexcept {
  pollfd ready{descriptor, events, 0};
  return poll(&ready, 1, static_cast<int>(wait.count())) > 0 ? ready.revents : short{0};
}

// Bytes acknowledged since the connection began, and 1 for its beginning (RFC 4898,
// tcpEStatsAppHCThruOctetsAcked).
bool kernel_acknowledged(int descriptor, std::uint64_t& bytes) noexcept {
  tcp_info info{};
  socklen_t size = sizeof info;
  constexpr std::size_t needed =
      offsetof(tcp_info, tcpi_bytes_acked) + sizeof(info.tcpi_bytes_acked);
  if (getsockopt(descriptor, IPPROTO_TCP, TCP_INFO, &info, &size) != 0 || size < needed) {
    return false;
  }
  bytes = info.tcpi_bytes_acked;
  return true;
}

}  // namespace

TcpSink::TcpSink(std::string address) : address_(std::move(address)) {}
TcpSink::~TcpSink() { disconnect(); }

void TcpSink::disconnect() noexcept {
  if (descriptor_ >= 0) close(std::exchange(descriptor_, -1));
  link_ = Link::failed;
}

void TcpSink::fail(std::string_view what, std::string_view why) {
  error_.assign(what).append(address_).append(": ").append(why);
  disconnect();
}

TcpSink::Link TcpSink::connect(milliseconds wait) {
  if (link_ == Link::up) return link_;
  const auto deadline = steady_clock::now() + wait;
  const auto left = [&] {
    return std::max(std::chrono::ceil<milliseconds>(deadline - steady_clock::now()),
                    milliseconds(0));
  };
  if (link_ != Link::pending) {
    const HostPort target = parse_host_port(address_);
    if (target.host.empty()) {
      fail("cannot connect to ", "not of the form host:port");
      return link_;
    }
    switch (lookup_.look_up(target, targets_)) {
      case AddressLookup::State::pending:
        return Link::pending;
      case AddressLookup::State::failed:
        fail("cannot resolve ", lookup_.error());
        return link_;
      case AddressLookup::State::known:
        link_ = Link::pending;
    }
  }
  int error = EADDRNOTAVAIL;
  while (true) {
    if (descriptor_ < 0) {
      if (targets_.empty()) {
        fail("cannot connect to ", std::strerror(error));
        return link_;
      }
      const SocketAddress target = targets_.front();
      targets_.erase(targets_.begin());
      if (!begin(target)) {
        error = errno;
        if (descriptor_ >= 0) close(std::exchange(descriptor_, -1));
        continue;
      }
    }
    error = progress(left());
    if (error == EINPROGRESS) return link_;
    if (error == 0) break;
    close(std::exchange(descriptor_, -1));
  }
  link_ = Link::up;
  targets_.clear();
  written_ = acknowledged_ = acknowledged_at_start_ = 0;
  kernel_acknowledged(descriptor_, acknowledged_at_start_);
  return link_;
}

bool TcpSink::begin(const SocketAddress& target) {
  descriptor_ = socket(target.family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (descriptor_ < 0) return false;
  const int on = 1;
  const auto longest = static_cast<unsigned>(unacknowledged_max.count());
  // Where one is not taken the connection works all the same.
  setsockopt(descriptor_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  setsockopt(descriptor_, IPPROTO_TCP, TCP_USER_TIMEOUT, &longest, sizeof longest);
  connect_until_ = steady_clock::now() + connect_max;
  return ::connect(descriptor_, reinterpret_cast<const sockaddr*>(&target.bytes), target.size) ==
             0 ||
         errno == EINPROGRESS;
}

int TcpSink::progress(milliseconds wait) {
  if (wait_for(descriptor_, POLLOUT, wait) == 0) {
    return steady_clock::now() < connect_until_ ? EINPROGRESS : ETIMEDOUT;
  }
  int error = 0;
  socklen_t size = sizeof error;
  getsockopt(descriptor_, SOL_SOCKET, SO_ERROR, &error, &size);
  return error;
}

bool TcpSink::is_closed_by_peer() {
  while (true) {
    // Whatever it says is of no interest, but hides that it has ended.
    char ignored[256];
    const ssize_t size = recv(descriptor_, ignored, sizeof ignored, MSG_DONTWAIT);
    if (size > 0) continue;
    if (size < 0 && errno == EINTR) continue;
    if (size < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return false;
    if (size == 0) errno = ECONNRESET;
    return true;
  }
}

void TcpSink::read_acknowledged() noexcept {
  std::uint64_t bytes = 0;
  acknowledged_ = kernel_acknowledged(descriptor_, bytes)
                      ? std::min(bytes - std::min(bytes, acknowledged_at_start_), written_)
                      : written_;
}

void TcpSink::end(int error) {
  read_acknowledged();
  fail("lost the connection to ", std::strerror(error));
}

WriteResult TcpSink::write(std::string_view& text, milliseconds wait) {
  if (link_ != Link::up) return WriteResult::failed;
  const auto deadline = steady_clock::now() + wait;
  if (is_closed_by_peer()) {
    end(errno);
    return WriteResult::failed;
  }
  while (!text.empty()) {
    const ssize_t sent = send(descriptor_, text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent > 0) {
      written_ += static_cast<std::uint64_t>(sent);
      text.remove_prefix(static_cast<std::size_t>(sent));
      continue;
    }
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && errno != EAGAIN && errno != EWOULDBLOCK) {
      end(errno);
      return WriteResult::failed;
    }
    const auto left = std::chrono::ceil<milliseconds>(deadline - steady_clock::now());
    if (left <= milliseconds(0) || wait_for(descriptor_, POLLOUT, left) == 0) {
      read_acknowledged();
      return WriteResult::busy;
    }
  }
  read_acknowledged();
  return WriteResult::written;
}

}  // namespace spillway::transport
