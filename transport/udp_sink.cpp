// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <spillway/transport/text.hpp>
#include <spillway/transport/udp_sink.hpp>

namespace spillway::transport {

namespace {

HostPort host_port_of(std::string_view address, std::string_view prefix, std::string_view other) {
  for (std::string_view rest = trim(address); !rest.empty();) {
    const std::size_t end = std::min(rest.find(' '), rest.size());
    std::string_view part = rest.substr(0, end);
    rest = trim(rest.substr(end));
    if (part.starts_with(other)) continue;
    if (part.starts_with(prefix)) part.remove_prefix(prefix.size());
    return parse_host_port(part);
  }
  return {};
}

}  // namespace

HostPort udp_host_port(std::string_view address) { return host_port_of(address, "udp:", "tcp:"); }
HostPort tcp_host_port(std::string_view address) { return host_port_of(address, "tcp:", "udp:"); }

UdpSink::UdpSink(std::string address) : address_(std::move(address)) {}

UdpSink::~UdpSink() {
  if (descriptor_ >= 0) close(descriptor_);
}

void UdpSink::fail(int error) {
  error_ = "cannot send to " + address_ + ": " + std::strerror(error);
  if (descriptor_ >= 0) close(std::exchange(descriptor_, -1));
}

void UdpSink::fail_lookup(std::string_view reason) {
  error_ = "cannot resolve " + address_ + ": " + std::string(reason);
}

// To the address that the socket is connected to; `failed` closes it.
DatagramResult UdpSink::transmit(std::string_view head, std::string_view body) {
  std::array<iovec, 2> parts{
      {{const_cast<char*>(head.data()), head.size()},  // NOLINT: sendmsg's type
       {const_cast<char*>(body.data()), body.size()}}};
  msghdr message{};
  message.msg_iov = parts.data();
  message.msg_iovlen = parts.size();
  int error = 0;
  if (sendmsg(descriptor_, &message, MSG_NOSIGNAL) >= 0) {
    // On loopback the refusal is there already; from elsewhere it comes with the next datagram.
    socklen_t size = sizeof error;
    getsockopt(descriptor_, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error == 0) return DatagramResult::sent;
  } else {
    error = errno;
  }
  switch (error) {
    case EAGAIN:
    case ENOBUFS:
    case EINTR:
      return DatagramResult::busy;
    case EMSGSIZE:
      return DatagramResult::too_large;
    default:
      fail(error);
      return DatagramResult::failed;
  }
}

// `sent`: targets_ are known. `busy`: not yet.
DatagramResult UdpSink::look_up() {
  const HostPort target = udp_host_port(address_);
  if (target.host.empty()) {
    fail_lookup("not of the form host:port");
    return DatagramResult::failed;
  }
  switch (lookup_.look_up(target, targets_)) {
    case AddressLookup::State::known:
      return DatagramResult::sent;
    case AddressLookup::State::pending:
      return DatagramResult::busy;
    case AddressLookup::State::failed:
      fail_lookup(lookup_.error());
  }
  return DatagramResult::failed;
}

DatagramResult UdpSink::send(std::string_view head, std::string_view body) {
  if (descriptor_ >= 0) {
    const DatagramResult result = transmit(head, body);
    if (result != DatagramResult::failed) return result;
  }
  if (targets_.empty()) {
    if (const DatagramResult known = look_up(); known != DatagramResult::sent) return known;
  }
  for (const SocketAddress& target : targets_) {
    descriptor_ = socket(target.family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (descriptor_ < 0 ||
        connect(descriptor_, reinterpret_cast<const sockaddr*>(&target.bytes), target.size) != 0) {
      fail(errno);
      continue;
    }
    const DatagramResult result = transmit(head, body);
    if (result != DatagramResult::failed) return result;
  }
  targets_.clear();  // The name may mean another machine by now.
  return DatagramResult::failed;
}

}  // namespace spillway::transport
