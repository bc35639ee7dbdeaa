// SPDX-License-Identifier: Apache-2.0
#include "local/socket.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <stdexcept>
#include <system_error>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

namespace spillway::local {
namespace {

[[noreturn]] void throw_errno(const std::string& what) {
  throw std::system_error(errno, std::generic_category(), what);
}

struct Address {
  sockaddr_storage storage{};
  socklen_t size = 0;
};

Address loopback_address(const std::string& host, std::uint16_t port) {
  Address address;
  const std::string text = host == "localhost" ? "127.0.0.1" : host;
  auto& v4 = reinterpret_cast<sockaddr_in&>(address.storage);
  auto& v6 = reinterpret_cast<sockaddr_in6&>(address.storage);
  if (inet_pton(AF_INET, text.c_str(), &v4.sin_addr) == 1 &&
      ntohl(v4.sin_addr.s_addr) >> 24 == 127) {
    v4.sin_family = AF_INET;
    v4.sin_port = htons(port);
    address.size = sizeof v4;
  } else if (inet_pton(AF_INET6, text.c_str(), &v6.sin6_addr) == 1 &&
             IN6_IS_ADDR_LOOPBACK(&v6.sin6_addr)) {
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(port);
    address.size = sizeof v6;
  } else {
    // Anybody who can reach the port could fill the store and read it.
    throw std::invalid_argument("host '" + host + "' must be 127.x.y.z, ::1 or localhost");
  }
  return address;
}

}  // namespace

void FileDescriptor::reset() noexcept {
  if (fd_ >= 0) close(fd_);
  fd_ = -1;
}

StopSignal::StopSignal() : event_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (event_.get() < 0) throw_errno("eventfd");
}

void StopSignal::call() noexcept {
  const std::uint64_t one = 1;
  // It can only fail when it has been called 2^64 times already.
  [[maybe_unused]] const auto written = write(event_.get(), &one, sizeof one);
}

bool StopSignal::called() const {
  pollfd event{event_.get(), POLLIN, 0};
  return poll(&event, 1, 0) > 0;
}

bool StopSignal::wait_for(int fd, bool write,
                          std::optional<std::chrono::steady_clock::time_point> deadline) const {
  using std::chrono::milliseconds;
  std::array<pollfd, 2> fds{
      {{event_.get(), POLLIN, 0}, {fd, static_cast<short>(write ? POLLOUT : POLLIN), 0}}};
  while (true) {
    int timeout = -1;
    if (deadline) {
      const auto left =
          std::chrono::ceil<milliseconds>(*deadline - std::chrono::steady_clock::now());
      timeout = static_cast<int>(std::clamp<std::int64_t>(left.count(), 0, 1'000'000'000));
    }
    const int ready = poll(fds.data(), fds.size(), timeout);
    if (ready < 0 && errno == EINTR) continue;
    return ready > 0 && fds[0].revents == 0;
  }
}

FileDescriptor open_listener(const std::string& host, std::uint16_t port, SocketKind kind) {
  const Address address = loopback_address(host, port);
  const int type = kind == SocketKind::stream ? SOCK_STREAM : SOCK_DGRAM;
  FileDescriptor listener(
      socket(address.storage.ss_family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (listener.get() < 0) throw_errno("socket");
  const std::string name = host + " port " + std::to_string(port);
  if (kind == SocketKind::stream) {
    const int yes = 1;
    setsockopt(listener.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  }
  if (bind(listener.get(), reinterpret_cast<const sockaddr*>(&address.storage), address.size) !=
      0) {
    throw_errno("cannot bind " + name);
  }
  if (kind == SocketKind::stream && listen(listener.get(), SOMAXCONN) != 0) {
    throw_errno("cannot listen on " + name);
  }
  return listener;
}

std::uint16_t port_of(const FileDescriptor& listener) {
  sockaddr_storage storage{};
  socklen_t size = sizeof storage;
  if (getsockname(listener.get(), reinterpret_cast<sockaddr*>(&storage), &size) != 0) {
    throw_errno("getsockname");
  }
  return ntohs(storage.ss_family == AF_INET6
                   ? reinterpret_cast<const sockaddr_in6&>(storage).sin6_port
                   : reinterpret_cast<const sockaddr_in&>(storage).sin_port);
}

}  // namespace spillway::local
