// SPDX-License-Identifier: Apache-2.0
//
// An HTTP exchange as values, and the one interface that carries it. The library sends with
// CurlTransport; tests answer with MemoryTransport. Nothing here knows what the bytes mean.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace spillway::transport {

struct HttpHeader {
  std::string name;
  std::string value;
};

/// A request to one host. Path and query are as they go over the wire: already percent-encoded.
struct HttpRequest {
  std::string method = "POST";
  std::string origin;  ///< scheme, host and port: "https://logs.eu-west-1.amazonaws.com"
  std::string path = "/";
  std::string query;  ///< without the question mark
  std::vector<HttpHeader> headers;
  std::string body;
  /// The IP address to connect to, whatever the origin's name says, and past any proxy; empty: as the
  /// name resolves. What a name was found to stand for when it was checked stays so.
  std::string address{};
};

/// How an exchange ended. Everything but `answered` left no response; of those, only
/// `refused_locally` and `not_connected` are sure not to have reached the other side.
enum class HttpOutcome : std::uint8_t {
  answered,
  not_connected,  ///< name, route, connection or TLS handshake failed
  lost,           ///< the connection broke, or time ran out, after the request may have been taken
  refused_locally,  ///< the request itself cannot be sent: a bad URL, a line break in a header
  too_large,        ///< the response exceeded response_bytes_max
};

inline constexpr std::size_t response_bytes_max = 1U << 20;
inline constexpr std::size_t response_header_bytes_max = 64U << 10;

struct HttpResponse {
  HttpOutcome outcome = HttpOutcome::not_connected;
  int status = 0;
  std::vector<HttpHeader> headers;
  std::string body;
  std::string error;  ///< for people, when not answered
};

/// The value of a header, its name compared without case; empty when absent.
std::string_view find_header(const std::vector<HttpHeader>& headers,
                             std::string_view name) noexcept;

struct HttpCompletion {
  std::uint64_t id;
  HttpResponse response;
};

/// Carries requests, many at a time. One thread calls start, poll and cancel_all; wake comes from
/// any.
class HttpTransport {
 public:
  virtual ~HttpTransport() = default;

  /// Begins an exchange; its completion is reported by poll() under `id`, even when it fails at
  /// once.
  virtual void start(std::uint64_t id, HttpRequest request, std::chrono::milliseconds timeout) = 0;
  /// Moves exchanges along, waiting at most `wait` for something to happen, and returns those that
  /// ended.
  virtual std::vector<HttpCompletion> poll(std::chrono::milliseconds wait) = 0;
  /// Makes a poll() that waits return. Any thread.
  virtual void wake() noexcept = 0;
  /// Abandons every exchange under way; none is reported any more.
  virtual void cancel_all() noexcept = 0;
};

}  // namespace spillway::transport
