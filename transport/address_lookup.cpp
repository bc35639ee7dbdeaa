// SPDX-License-Identifier: Apache-2.0
#include <atomic>
#include <cstdint>
#include <cstring>
#include <new>
#include <system_error>
#include <utility>

#include <netdb.h>

#include <spillway/transport/address_lookup.hpp>
#include <spillway/transport/background_thread.hpp>
#include <spillway/transport/text.hpp>

namespace spillway::transport {

HostPort parse_host_port(std::string_view text) {
  const std::size_t colon = text.rfind(':');
  if (colon == std::string_view::npos || colon == 0) return {};
  std::string_view host = text.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  const auto port = parse_number<std::uint16_t>(text.substr(colon + 1));
  if (host.empty() || !port || *port == 0) return {};
  return {std::string(host), std::to_string(*port)};
}

/// What the thread that looks a name up shares with the object. `done` (release, acquire) hands the
/// rest over.
struct AddressLookup::Work {
  std::atomic<bool> done{false};
  int status = 0;
  std::vector<SocketAddress> found;

  int run(const HostPort& target, int socket_type, int flags) noexcept {
    addrinfo hints{};
    hints.ai_socktype = socket_type;
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

AddressLookup::State AddressLookup::look_up(const HostPort& target,
                                            std::vector<SocketAddress>& found) {
  if (work_ == nullptr) {
    auto work = std::make_shared<Work>();
    if (work->run(target, socket_type_, AI_NUMERICHOST) == EAI_NONAME) {
      work->done.store(false, std::memory_order_relaxed);
      try {
        start_thread("spillway-name", [work, target, type = socket_type_] {
          work->run(target, type, 0);
        }).detach();
      } catch (const std::system_error& error) {
        error_ = error.what();
        return State::failed;
      }
    }
    work_ = std::move(work);
  }
  if (!work_->done.load(std::memory_order_acquire)) return State::pending;
  const std::shared_ptr<Work> work = std::exchange(work_, nullptr);
  if (work->status != 0) {
    error_ = gai_strerror(work->status);
    return State::failed;
  }
  found = std::move(work->found);
  return State::known;
}

}  // namespace spillway::transport
