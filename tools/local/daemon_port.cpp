// SPDX-License-Identifier: Apache-2.0
#include "local/daemon_port.hpp"

#include <array>
#include <cerrno>
#include <cstring>
#include <optional>

#include <sys/socket.h>

#include "local/trace_document.hpp"
#include <spillway/transport/text.hpp>

namespace spillway::local {
namespace {

// The largest that UDP can carry, and the daemon's own receive buffer.
constexpr std::size_t datagram_bytes_max = 64U << 10;

// The document behind a valid header line; nothing when there is no such. The daemon reads the
// header as JSON, "json" in any case, version 1, and splits at the first newline
// (aws-xray-daemon, cmd/tracing/daemon.go and pkg/tracesegment, v3.6.6).
std::optional<std::string_view> document_of(std::string_view datagram,
                                            simdjson::dom::parser& parser) {
  const std::size_t newline = datagram.find('\n');
  if (newline == std::string_view::npos || newline + 1 == datagram.size()) return std::nullopt;
  simdjson::dom::object header;
  std::string_view format;
  std::int64_t version = 0;
  if (parser.parse(datagram.data(), newline).get(header) != simdjson::SUCCESS ||
      header["format"].get(format) != simdjson::SUCCESS ||
      header["version"].get(version) != simdjson::SUCCESS ||
      !transport::equal_without_case(format, "json") || version != 1) {
    return std::nullopt;
  }
  return datagram.substr(newline + 1);
}

}  // namespace

DaemonPort::DaemonPort(const Options& options, Store& store)
    : store_(store),
      socket_(open_listener(options.host, options.udp_port, SocketKind::datagram)),
      port_(port_of(socket_)) {
  const int bytes = static_cast<int>(options.udp_buffer_bytes);
  // Past the system's limit where that is permitted, up to it elsewhere.
  if (setsockopt(socket_.get(), SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes) != 0) {
    setsockopt(socket_.get(), SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
  }
  const int yes = 1;
  setsockopt(socket_.get(), SOL_SOCKET, SO_RXQ_OVFL, &yes, sizeof yes);
  thread_ = std::thread([this] { receive_all(); });
}

DaemonPort::~DaemonPort() {
  stop_.call();
  thread_.join();
}

bool DaemonPort::wait_for(std::uint64_t count, std::chrono::milliseconds time) {
  std::unique_lock lock(store_.mutex);
  return arrived_.wait_for(lock, time, [&] { return store_.statistics.datagrams >= count; });
}

void DaemonPort::receive_all() {
  while (stop_.wait_for(socket_.get(), false, std::nullopt)) drain();
}

void DaemonPort::drain() {
  std::array<char, datagram_bytes_max> bytes;  // NOLINT: filled by the kernel.
  std::array<char, CMSG_SPACE(sizeof(std::uint32_t))> control{};
  while (!stop_.called()) {
    iovec part{bytes.data(), bytes.size()};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    const ssize_t size = recvmsg(socket_.get(), &message, MSG_DONTWAIT);
    if (size < 0 && errno == EINTR) continue;
    if (size < 0) return;
    for (cmsghdr* note = CMSG_FIRSTHDR(&message); note != nullptr;
         note = CMSG_NXTHDR(&message, note)) {
      if (note->cmsg_level == SOL_SOCKET && note->cmsg_type == SO_RXQ_OVFL) {
        std::uint32_t lost = 0;
        std::memcpy(&lost, CMSG_DATA(note), sizeof lost);
        const std::scoped_lock lock(store_.mutex);
        store_.statistics.datagrams_lost += lost - lost_;
        lost_ = lost;
      }
    }
    take({bytes.data(), static_cast<std::size_t>(size)});
  }
}

void DaemonPort::take(std::string_view datagram) {
  const auto document = document_of(datagram, parser_);
  DocumentReport report;
  if (document) report = check_document(*document, parser_);

  const std::scoped_lock lock(store_.mutex);
  Statistics& statistics = store_.statistics;
  ++statistics.datagrams;
  statistics.datagram_bytes += datagram.size();
  if (!document) {
    ++statistics.datagrams_malformed;
  } else if (report.problems.empty()) {
    store_.traces.add(*document, report, TraceRoute::udp);
  }
  for (const DocumentProblem& problem : report.problems) ++statistics.partial_rejects[problem.code];
  arrived_.notify_all();
}

}  // namespace spillway::local
