// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <atomic>
#include <memory>
#include <new>
#include <system_error>

#include <arpa/inet.h>
#include <netdb.h>
#include <sys/socket.h>

#include <spillway/transport/background_thread.hpp>
#include <spillway/transport/host_lookup.hpp>

namespace spillway::transport {
namespace {

/// What the thread that looks a name up leaves. `done` (release, acquire) hands the rest over.
struct Lookup {
  std::atomic<bool> done{false};
  HostAddresses found;

  void run(const std::string& host) noexcept {
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* list = nullptr;
    const int status = getaddrinfo(host.c_str(), nullptr, &hints, &list);
    try {
      if (status != 0) found.error = gai_strerror(status);
      for (const addrinfo* at = list; status == 0 && at != nullptr; at = at->ai_next) {
        std::array<char, INET6_ADDRSTRLEN> text{};
        if (at->ai_family == AF_INET) {
          const auto& address = *reinterpret_cast<const sockaddr_in*>(at->ai_addr);
          inet_ntop(AF_INET, &address.sin_addr, text.data(), text.size());
        } else if (at->ai_family == AF_INET6) {
          const in6_addr& address = reinterpret_cast<const sockaddr_in6*>(at->ai_addr)->sin6_addr;
          if (IN6_IS_ADDR_V4MAPPED(&address)) {
            inet_ntop(AF_INET, &address.s6_addr[12], text.data(), text.size());
          } else {
            inet_ntop(AF_INET6, &address, text.data(), text.size());
          }
        }
        if (text[0] != '\0') found.addresses.emplace_back(text.data());
      }
    } catch (const std::bad_alloc&) {
      found.addresses.clear();
    }
    if (list != nullptr) freeaddrinfo(list);
    done.store(true, std::memory_order_release);
  }
};

std::string without_brackets(const std::string& host) {
  return host.size() > 2 && host.front() == '[' ? host.substr(1, host.size() - 2) : host;
}

}  // namespace

bool is_ip_address(const std::string& host) noexcept {
  std::array<unsigned char, sizeof(in6_addr)> bytes{};
  const bool brackets = host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (!brackets && inet_pton(AF_INET, host.c_str(), bytes.data()) == 1) return true;
  std::array<char, INET6_ADDRSTRLEN> inner{};
  const std::size_t size = host.size() - (brackets ? 2 : 0);
  if (size >= inner.size()) return false;
  host.copy(inner.data(), size, brackets ? 1 : 0);
  return inet_pton(AF_INET6, inner.data(), bytes.data()) == 1;
}

HostAddresses look_up(const std::string& host, std::chrono::milliseconds timeout,
                      BlockingHttp& stop) {
  const auto lookup = std::make_shared<Lookup>();
  const std::string name = without_brackets(host);
  if (is_ip_address(host)) {
    lookup->run(name);  // Asks nobody.
    return lookup->found;
  }
  try {
    start_thread("spillway-name", [lookup, name] { lookup->run(name); }).detach();
  } catch (const std::system_error& error) {
    return {{}, error.what()};
  }
  constexpr std::chrono::milliseconds slice(5);
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  while (!lookup->done.load(std::memory_order_acquire)) {
    if (std::chrono::steady_clock::now() >= deadline || !stop.pause(slice)) {
      return {{}, "no answer within its time"};
    }
  }
  return lookup->found;
}

}  // namespace spillway::transport
