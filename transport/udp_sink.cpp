// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>

#include <netdb.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <spillway/transport/text.hpp>
#include <spillway/transport/udp_sink.hpp>

namespace spillway::transport {

HostPort udp_host_port(std::string_view address) {
  for (std::string_view rest = trim(address); !rest.empty();) {
    const std::size_t end = std::min(rest.find(' '), rest.size());
    std::string_view part = rest.substr(0, end);
    rest = trim(rest.substr(end));
    if (part.starts_with("tcp:")) continue;
    if (part.starts_with("udp:")) part.remove_prefix(4);
    const std::size_t colon = part.rfind(':');
    if (colon == std::string_view::npos || colon == 0) return {};
    std::string_view host = part.substr(0, colon);
    if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
    const auto port = parse_number<std::uint16_t>(part.substr(colon + 1));
    if (!port || *port == 0) return {};
    return {std::string(host), std::to_string(*port)};
  }
  return {};
}

UdpSink::UdpSink(std::string address) : address_(std::move(address)) {}

UdpSink::~UdpSink() {
  if (descriptor_ >= 0) close(descriptor_);
}

void UdpSink::fail(int error) {
  error_ = "cannot send to " + address_ + ": " + std::strerror(error);
  if (descriptor_ >= 0) close(std::exchange(descriptor_, -1));
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

DatagramResult UdpSink::send(std::string_view head, std::string_view body) {
  if (descriptor_ >= 0) {
    const DatagramResult result = transmit(head, body);
    if (result != DatagramResult::failed) return result;
  }
  const HostPort target = udp_host_port(address_);
  addrinfo hints{};
  hints.ai_socktype = SOCK_DGRAM;
  addrinfo* found = nullptr;
  if (const int status = getaddrinfo(target.host.c_str(), target.port.c_str(), &hints, &found);
      status != 0) {
    error_ = "cannot resolve " + address_ + ": " + gai_strerror(status);
    return DatagramResult::failed;
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> addresses(found, &freeaddrinfo);
  for (const addrinfo* at = found; at != nullptr; at = at->ai_next) {
    descriptor_ = socket(at->ai_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (descriptor_ < 0 || connect(descriptor_, at->ai_addr, at->ai_addrlen) != 0) {
      fail(errno);
      continue;
    }
    const DatagramResult result = transmit(head, body);
    if (result != DatagramResult::failed) return result;
  }
  return DatagramResult::failed;
}

}  // namespace spillway::transport
