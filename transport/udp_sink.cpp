// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <new>
#include <system_error>
#include <utility>

#include <netdb.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <spillway/transport/background_thread.hpp>
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

/// What the thread that looks a name up shares with the sink. `done` (release, acquire) hands the
/// rest over.
struct UdpSink::Lookup {
  std::atomic<bool> done{false};
  int status = 0;
  std::vector<SocketAddress> found;

  int run(const HostPort& target, int flags) noexcept {
    addrinfo hints{};
    hints.ai_socktype = SOCK_DGRAM;
    hints.ai_flags = flags;
    addrinfo* list = nullptr;
    status = getaddrinfo(target.host.c_str(), target.port.c_str(), &hints, &list);
    try {
      for (const addrinfo* at = list; status == 0 && at != nullptr; at = at->ai_next) {
        SocketAddress& address = found.emplace_back();
        std::memcpy(&address.bytes, at->ai_addr, at->ai_addrlen);
        address.size = at->ai_addrlen;
        address.family = at->ai_family;
      }
    } catch (const std::bad_alloc&) {
      status = EAI_MEMORY;
    }
    if (list != nullptr) freeaddrinfo(list);
    done.store(true, std::memory_order_release);
    return status;
  }
};

UdpSink::UdpSink(std::string address) : address_(std::move(address)) {}

UdpSink::~UdpSink() {
  if (descriptor_ >= 0) close(descriptor_);
}

void UdpSink::fail(int error) {
  error_ = "cannot send to " + address_ + ": " + std::strerror(error);
  if (descriptor_ >= 0) close(std::exchange(descriptor_, -1));
}

void UdpSink::fail_lookup(const char* reason) {
  error_ = "cannot resolve " + address_ + ": " + reason;
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
  if (lookup_ == nullptr) {
    const HostPort target = udp_host_port(address_);
    if (target.host.empty()) {
      fail_lookup("not of the form host:port");
      return DatagramResult::failed;
    }
    auto lookup = std::make_shared<Lookup>();
    if (lookup->run(target, AI_NUMERICHOST) == EAI_NONAME) {
      lookup->done.store(false, std::memory_order_relaxed);
      try {
        start_thread("spillway-name", [lookup, target] { lookup->run(target, 0); }).detach();
      } catch (const std::system_error& error) {
        fail_lookup(error.what());
        return DatagramResult::failed;
      }
    }
    lookup_ = std::move(lookup);
  }
  if (!lookup_->done.load(std::memory_order_acquire)) return DatagramResult::busy;
  const std::shared_ptr<Lookup> lookup = std::exchange(lookup_, nullptr);
  if (lookup->status != 0) {
    fail_lookup(gai_strerror(lookup->status));
    return DatagramResult::failed;
  }
  targets_ = std::move(lookup->found);
  return DatagramResult::sent;
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
