// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <system_error>

#include <ares.h>
#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <spillway/transport/dns.hpp>

namespace spillway::transport {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

namespace {

constexpr std::size_t addresses_max = 64;  // Of one name.

milliseconds until(steady_clock::time_point deadline) {
  return std::max(std::chrono::ceil<milliseconds>(deadline - steady_clock::now()), milliseconds(0));
}

/// One query. What it was begun with outlives it: ares_destroy() ends all callbacks.
class Query {
 public:
  Query(const std::string& servers, milliseconds timeout)
      : deadline_(steady_clock::now() + timeout) {
    static const int library = ares_library_init(ARES_LIB_INIT_ALL);
    ares_options options{};
    options.timeout = static_cast<int>(std::max<milliseconds::rep>(timeout.count() / 3, 1));
    options.tries = 2;
    char lookups[] = "fb";  // The hosts file first, as everywhere.
    options.lookups = lookups;
    if (library != ARES_SUCCESS ||
        (status_ = ares_init_options(&channel_, &options,
                                     ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_LOOKUPS)) !=
            ARES_SUCCESS) {
      channel_ = nullptr;
      return;
    }
    if (!servers.empty()) status_ = ares_set_servers_ports_csv(channel_, servers.c_str());
  }
  Query(const Query&) = delete;
  Query& operator=(const Query&) = delete;
  ~Query() {
    if (channel_ != nullptr) ares_destroy(channel_);
  }

  ares_channel channel() const { return channel_; }
  bool usable() const { return channel_ != nullptr && status_ == ARES_SUCCESS; }
  void done(int status) {
    status_ = status;
    pending_ = false;
  }
  /// Until the answer is there, or the time is over.
  void wait() {
    while (pending_) {
      const milliseconds left = until(deadline_);
      if (left == milliseconds(0)) {
        ares_cancel(channel_);  // Calls back.
        status_ = ARES_ETIMEOUT;
        return;
      }
      std::array<ares_socket_t, ARES_GETSOCK_MAXNUM> sockets{};
      const auto wanted = static_cast<unsigned>(
          ares_getsock(channel_, sockets.data(), static_cast<int>(sockets.size())));
      std::array<pollfd, ARES_GETSOCK_MAXNUM> polled{};
      nfds_t count = 0;
      for (unsigned i = 0; i < sockets.size(); ++i) {
        const bool reads = ((wanted >> i) & 1U) != 0;
        const bool writes = ((wanted >> (i + ARES_GETSOCK_MAXNUM)) & 1U) != 0;
        if (!reads && !writes) continue;
        polled[count].fd = sockets[i];
        polled[count].events = static_cast<short>((reads ? POLLIN : 0) | (writes ? POLLOUT : 0));
        ++count;
      }
      timeval most{static_cast<time_t>(left.count() / 1000),
                   static_cast<suseconds_t>(left.count() % 1000 * 1000)};
      timeval next{};
      const timeval* const wait = ares_timeout(channel_, &most, &next);
      poll(polled.data(), count, static_cast<int>(wait->tv_sec * 1000 + wait->tv_usec / 1000 + 1));
      ares_process_fd(channel_, ARES_SOCKET_BAD, ARES_SOCKET_BAD);  // Its time-outs.
      for (nfds_t i = 0; i < count; ++i) {
        const bool reads = (polled[i].revents & (POLLIN | POLLERR | POLLHUP)) != 0;
        const bool writes = (polled[i].revents & POLLOUT) != 0;
        if (reads || writes)
          ares_process_fd(channel_, reads ? polled[i].fd : ARES_SOCKET_BAD,
                          writes ? polled[i].fd : ARES_SOCKET_BAD);
      }
    }
  }
  std::string error(const std::string& name) const {
    if (status_ == ARES_SUCCESS) return {};
    return "cannot resolve " + name + ": " + ares_strerror(status_);
  }

 private:
  const steady_clock::time_point deadline_;
  ares_channel channel_ = nullptr;
  int status_ = ARES_ENOTINITIALIZED;
  bool pending_ = true;
};

std::string text_of(const sockaddr* address) {
  std::array<char, INET6_ADDRSTRLEN> text{};
  const void* const bytes =
      address->sa_family == AF_INET
          ? static_cast<const void*>(&reinterpret_cast<const sockaddr_in*>(address)->sin_addr)
          : static_cast<const void*>(&reinterpret_cast<const sockaddr_in6*>(address)->sin6_addr);
  return inet_ntop(address->sa_family, bytes, text.data(), text.size()) != nullptr ? text.data()
                                                                                   : "";
}

}  // namespace

DnsAddresses DnsResolver::addresses(const std::string& name, milliseconds timeout) const {
  // c-ares 1.18 asks servers for some of them.
  std::array<unsigned char, sizeof(in6_addr)> numeric{};
  if (inet_pton(AF_INET, name.c_str(), numeric.data()) == 1 ||
      inet_pton(AF_INET6, name.c_str(), numeric.data()) == 1)
    return {{name}, {}};
  DnsAddresses result;
  Query query(servers_, timeout);
  struct Call {
    DnsAddresses& result;
    Query& query;
  } call{result, query};
  if (query.usable()) {
    ares_addrinfo_hints hints{};
    hints.ai_family = AF_UNSPEC;
    hints.ai_flags = ARES_AI_NOSORT;  // Which would connect to each.
    ares_getaddrinfo(
        query.channel(), name.c_str(), nullptr, &hints,
        [](void* argument, int status, int /*timeouts*/, ares_addrinfo* found) {
          auto& to = *static_cast<Call*>(argument);
          to.query.done(status);
          if (found == nullptr) return;
          for (const ares_addrinfo_node* node = found->nodes;
               node != nullptr && to.result.addresses.size() < addresses_max;
               node = node->ai_next) {
            if (node->ai_family != AF_INET && node->ai_family != AF_INET6) continue;
            to.result.addresses.push_back(text_of(node->ai_addr));
          }
          ares_freeaddrinfo(found);
        },
        &call);
    query.wait();
  }
  result.error = query.error(name);
  if (result.error.empty() && result.addresses.empty())
    result.error = "cannot resolve " + name + ": it has no address";
  return result;
}

DnsServices DnsResolver::services(const std::string& name, milliseconds timeout) const {
  DnsServices result;
  Query query(servers_, timeout);
  struct Call {
    DnsServices& result;
    Query& query;
  } call{result, query};
  if (query.usable()) {
    ares_query(
        query.channel(), name.c_str(), ns_c_in, ns_t_srv,
        [](void* argument, int status, int /*timeouts*/, unsigned char* answer, int bytes) {
          auto& to = *static_cast<Call*>(argument);
          ares_srv_reply* records = nullptr;
          if (status == ARES_SUCCESS) status = ares_parse_srv_reply(answer, bytes, &records);
          to.query.done(status);
          for (const ares_srv_reply* one = records;
               one != nullptr && to.result.services.size() < addresses_max; one = one->next)
            to.result.services.push_back({one->host, one->port, one->priority, one->weight});
          if (records != nullptr) ares_free_data(records);
        },
        &call);
    query.wait();
  }
  result.error = query.error(name);
  if (result.error.empty() && result.services.empty())
    result.error = "cannot resolve " + name + ": it has no SRV record";
  return result;
}

namespace {

std::string connect_once(const std::string& address, std::uint16_t port,
                         steady_clock::time_point deadline) {
  sockaddr_storage to{};
  socklen_t size = 0;
  auto& v4 = reinterpret_cast<sockaddr_in&>(to);
  auto& v6 = reinterpret_cast<sockaddr_in6&>(to);
  if (inet_pton(AF_INET, address.c_str(), &v4.sin_addr) == 1) {
    v4.sin_family = AF_INET;
    v4.sin_port = htons(port);
    size = sizeof v4;
  } else if (inet_pton(AF_INET6, address.c_str(), &v6.sin6_addr) == 1) {
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(port);
    size = sizeof v6;
  } else {
    return address + " is no address";
  }
  const auto failed = [&](int error) {
    return "cannot connect to " + address + " port " + std::to_string(port) + ": " +
           std::generic_category().message(error);
  };
  const int descriptor = socket(to.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (descriptor < 0) return failed(errno);
  int error = connect(descriptor, reinterpret_cast<const sockaddr*>(&to), size) == 0 ? 0 : errno;
  if (error == EINPROGRESS) {
    pollfd look{descriptor, POLLOUT, 0};
    int ready = 0;
    do {
      ready = poll(&look, 1, static_cast<int>(until(deadline).count()));
    } while (ready < 0 && errno == EINTR);
    socklen_t bytes = sizeof error;
    if (ready == 0) {
      error = ETIMEDOUT;
    } else if (ready < 0 || getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &error, &bytes) != 0) {
      error = errno;
    }
  }
  close(descriptor);
  return error == 0 ? std::string() : failed(error);
}

}  // namespace

std::string try_connect(const std::vector<std::string>& addresses, std::uint16_t port,
                        milliseconds timeout) {
  const auto deadline = steady_clock::now() + timeout;
  std::string error = "there is no address";
  std::size_t left = addresses.size();
  for (const std::string& address : addresses) {
    // Each gets its share of the time, so that one that swallows packets does not take all of it.
    const auto share = until(deadline) / static_cast<int>(left--);
    error = connect_once(address, port, steady_clock::now() + share);
    if (error.empty()) break;
  }
  return error;
}

}  // namespace spillway::transport
