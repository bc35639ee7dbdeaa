// SPDX-License-Identifier: Apache-2.0
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include <dlfcn.h>
#include <gtest/gtest.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <spillway/transport/udp_sink.hpp>

namespace {

// Stands in for a name server that answers when the test says so.
struct SlowServer {
  std::mutex mutex;
  std::condition_variable changed;
  bool silent = false;
  int waiting = 0;

  void fall_silent() {
    const std::scoped_lock lock(mutex);
    silent = true;
  }
  void answer() {
    const std::scoped_lock lock(mutex);
    silent = false;
    changed.notify_all();
  }
  void ask() {
    std::unique_lock lock(mutex);
    ++waiting;
    changed.notify_all();
    changed.wait(lock, [this] { return !silent; });
    --waiting;
    changed.notify_all();
  }
  void wait_until_asked_by(int n) {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return waiting == n; });
  }
};

SlowServer& slow_server() {
  static auto* const server = new SlowServer;  // Threads that ask it may outlive the test.
  return *server;
}

}  // namespace

// The name "two.test" has two addresses on every machine, as "localhost" has on many, and "slow.test"
// is one that the name server takes its time for: this stands in front of the C library's function.
extern "C" int getaddrinfo(const char* node, const char* service, const addrinfo* hints,
                           addrinfo** result) {
  static const auto real =
      reinterpret_cast<decltype(&getaddrinfo)>(dlsym(RTLD_NEXT, "getaddrinfo"));
  const std::string_view name(node);
  const bool looked_up = (hints->ai_flags & AI_NUMERICHOST) == 0;
  if (looked_up && name == "slow.test") {
    slow_server().ask();
    return real("127.0.0.1", service, hints, result);
  }
  if (!looked_up || name != "two.test") return real(node, service, hints, result);
  addrinfo* second = nullptr;
  if (const int status = real("127.0.0.1", service, hints, &second); status != 0) return status;
  if (const int status = real("::1", service, hints, result); status != 0) return status;
  addrinfo* last = *result;
  while (last->ai_next != nullptr) last = last->ai_next;
  last->ai_next = second;
  return 0;
}

namespace spillway::transport {
namespace {

/// A UDP socket on loopback, as a daemon has.
class Listener {
 public:
  /// Port 0: any. Not listening when the machine has no such address, or the port is taken.
  explicit Listener(int family = AF_INET, std::uint16_t port = 0)
      : descriptor_(socket(family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)) {
    sockaddr_storage storage{};
    socklen_t size = 0;
    if (family == AF_INET) {
      auto& address = reinterpret_cast<sockaddr_in&>(storage);
      address.sin_family = AF_INET;
      address.sin_port = htons(port);
      address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
      size = sizeof address;
    } else {
      auto& address = reinterpret_cast<sockaddr_in6&>(storage);
      address.sin6_family = AF_INET6;
      address.sin6_port = htons(port);
      address.sin6_addr = in6addr_loopback;
      size = sizeof address;
    }
    if (bind(descriptor_, reinterpret_cast<sockaddr*>(&storage), size) != 0) return;
    getsockname(descriptor_, reinterpret_cast<sockaddr*>(&storage), &size);
    port_ = ntohs(family == AF_INET ? reinterpret_cast<sockaddr_in&>(storage).sin_port
                                    : reinterpret_cast<sockaddr_in6&>(storage).sin6_port);
  }
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;
  ~Listener() { close(descriptor_); }

  bool listening() const { return port_ != 0; }
  std::uint16_t port() const { return port_; }
  /// The next datagram, which on loopback is there when it was sent.
  std::optional<std::string> receive() const {
    std::string text(65'536, '\0');
    const ssize_t size = recv(descriptor_, text.data(), text.size(), 0);
    if (size < 0) return std::nullopt;
    text.resize(static_cast<std::size_t>(size));
    return text;
  }

 private:
  const int descriptor_;
  std::uint16_t port_ = 0;
};

std::string at(std::string_view host, std::uint16_t port) {
  return std::string(host) + ":" + std::to_string(port);
}

// Sends, and waits for the name to be looked up before.
DatagramResult send(UdpSink& sink, std::string_view body) {
  DatagramResult result = sink.send("", body);
  while (result == DatagramResult::busy) {
    std::this_thread::yield();
    result = sink.send("", body);
  }
  return result;
}

TEST(UdpSinkTest, HeadAndBodyAreOneDatagram) {
  const Listener daemon;
  UdpSink sink(at("127.0.0.1", daemon.port()));
  EXPECT_EQ(sink.send("{\"format\":\"json\"}\n", "{\"name\":\"a\"}"), DatagramResult::sent);
  EXPECT_EQ(sink.send("", "second"), DatagramResult::sent);
  EXPECT_EQ(daemon.receive(), "{\"format\":\"json\"}\n{\"name\":\"a\"}");
  EXPECT_EQ(daemon.receive(), "second");
  EXPECT_EQ(daemon.receive(), std::nullopt);
}

TEST(UdpSinkTest, TheLargestDatagramGoesAndOneByteMoreIsTooLarge) {
  const Listener daemon;
  UdpSink sink(at("127.0.0.1", daemon.port()));
  const std::string head(30, 'h');
  EXPECT_EQ(sink.send(head, std::string(65'477, 'x')), DatagramResult::sent);
  EXPECT_EQ(daemon.receive().value_or("").size(), 65'507U);
  EXPECT_EQ(sink.send(head, std::string(65'478, 'x')), DatagramResult::too_large);
  EXPECT_EQ(sink.send(head, "small"), DatagramResult::sent) << "it goes on";
}

TEST(UdpSinkTest, ADaemonOnOneOfANamesAddressesIsFound) {
  for (const int family : {AF_INET, AF_INET6}) {
    const Listener daemon(family);
    if (!daemon.listening()) continue;  // A machine without IPv6.
    UdpSink sink(at("two.test", daemon.port()));
    EXPECT_EQ(send(sink, "first"), DatagramResult::sent);
    EXPECT_EQ(send(sink, "second"), DatagramResult::sent);
    EXPECT_EQ(daemon.receive(), "first") << "on " << (family == AF_INET ? "IPv4" : "IPv6");
    EXPECT_EQ(daemon.receive(), "second");
  }
}

TEST(UdpSinkTest, ADaemonThatMovesToAnotherOfANamesAddressesIsFound) {
  auto daemon = std::make_unique<Listener>(AF_INET);
  const std::uint16_t port = daemon->port();
  UdpSink sink(at("two.test", port));
  EXPECT_EQ(send(sink, "one"), DatagramResult::sent);
  EXPECT_EQ(daemon->receive(), "one");
  daemon = std::make_unique<Listener>(AF_INET6, port);
  if (!daemon->listening()) GTEST_SKIP() << "a machine without IPv6";
  EXPECT_EQ(send(sink, "two"), DatagramResult::sent);
  EXPECT_EQ(daemon->receive(), "two");
}

TEST(UdpSinkTest, ADaemonThatIsNotThereIsSaidAndFoundWhenItComes) {
  std::uint16_t port = 0;
  {
    const Listener gone;
    port = gone.port();
  }
  UdpSink sink(at("127.0.0.1", port));
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(sink.send("", "lost"), DatagramResult::failed);
    EXPECT_NE(sink.error().find(at("127.0.0.1", port)), std::string::npos);
  }
  const Listener daemon(AF_INET, port);
  ASSERT_TRUE(daemon.listening());
  EXPECT_EQ(sink.send("", "text"), DatagramResult::sent);
  EXPECT_EQ(daemon.receive(), "text");
}

TEST(UdpSinkTest, ADaemonThatStartsAgainGetsTheNextDatagram) {
  auto daemon = std::make_unique<Listener>();
  const std::uint16_t port = daemon->port();
  UdpSink sink(at("127.0.0.1", port));
  EXPECT_EQ(sink.send("", "one"), DatagramResult::sent);
  daemon.reset();
  EXPECT_EQ(sink.send("", "two"), DatagramResult::failed);
  daemon = std::make_unique<Listener>(AF_INET, port);
  ASSERT_TRUE(daemon->listening());
  EXPECT_EQ(sink.send("", "three"), DatagramResult::sent);
  EXPECT_EQ(daemon->receive(), "three");
}

TEST(UdpSinkTest, AnAddressInFiguresIsKnownAtOnce) {
  const Listener daemon;
  UdpSink sink(at("127.0.0.1", daemon.port()));
  EXPECT_EQ(sink.send("", "text"), DatagramResult::sent);
}

TEST(UdpSinkTest, WhileANameIsLookedUpNobodyWaits) {
  const Listener daemon;
  slow_server().fall_silent();
  {
    UdpSink impatient(at("slow.test", daemon.port()));
    EXPECT_EQ(impatient.send("", "never"), DatagramResult::busy);
    slow_server().wait_until_asked_by(1);
  }  // Gone before its answer.
  UdpSink sink(at("slow.test", daemon.port()));
  for (int i = 0; i < 3; ++i) EXPECT_EQ(sink.send("", "early"), DatagramResult::busy);
  slow_server().wait_until_asked_by(2);
  slow_server().answer();
  slow_server().wait_until_asked_by(0);
  EXPECT_EQ(send(sink, "one"), DatagramResult::sent);
  slow_server().fall_silent();  // The answer is kept.
  EXPECT_EQ(sink.send("", "two"), DatagramResult::sent);
  EXPECT_EQ(daemon.receive(), "one");
  EXPECT_EQ(daemon.receive(), "two");
  EXPECT_EQ(daemon.receive(), std::nullopt);
  slow_server().answer();
}

TEST(UdpSinkTest, AnAddressThatIsNoneFails) {
  for (const char* const address : {"", "host", ":2000", "256.256.256.256:2000"}) {
    UdpSink sink(address);
    EXPECT_EQ(send(sink, "text"), DatagramResult::failed) << address;
    EXPECT_NE(sink.error(), "");
  }
}

TEST(UdpHostPortTest, TheDaemonsForms) {
  struct Case {
    const char* address;
    const char* host;
    const char* port;
  };
  for (const Case& c : {
           Case{"127.0.0.1:2000", "127.0.0.1", "2000"},
           Case{" xray:2000 ", "xray", "2000"},
           Case{"udp:xray:2000", "xray", "2000"},
           Case{"tcp:other:1 udp:xray:2000", "xray", "2000"},
           Case{"udp:xray:2000 tcp:other:1", "xray", "2000"},
           Case{"[::1]:2000", "::1", "2000"},
           Case{"udp:[fe80::1]:65535", "fe80::1", "65535"},
           Case{"", "", ""},
           Case{"xray", "", ""},
           Case{":2000", "", ""},
           Case{"xray:", "", ""},
           Case{"xray:0", "", ""},
           Case{"xray:65536", "", ""},
           Case{"xray:20x", "", ""},
           Case{"tcp:only:2000", "", ""},
       }) {
    EXPECT_EQ(udp_host_port(c.address).host, c.host) << c.address;
    EXPECT_EQ(udp_host_port(c.address).port, c.port) << c.address;
  }
}

TEST(UdpAddressTest, TheDaemonsProxyIsNamedBesideIt) {
  EXPECT_EQ(tcp_host_port("127.0.0.1:2000").port, "2000");
  EXPECT_EQ(tcp_host_port("udp:xray:2000 tcp:other:1").host, "other");
  EXPECT_EQ(tcp_host_port("tcp:[::1]:2000").host, "::1");
  EXPECT_EQ(tcp_host_port("udp:only:2000").host, "");
}

}  // namespace
}  // namespace spillway::transport
