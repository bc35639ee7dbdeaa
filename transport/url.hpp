// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace spillway::transport {

/// The parts of an http or https URL that a request needs. No user, no fragment: a URL with either
/// is refused.
struct Url {
  std::string scheme;  ///< "http" or "https"
  std::string host;    ///< lower case; an IPv6 address stands in its brackets
  std::uint16_t port;  ///< the scheme's own when the text named none
  std::string path;    ///< begins with '/'
  std::string query;

  /// "https://host", with the port when it is not the scheme's own.
  std::string origin() const;
  /// What the Host header says: the host, with the port when it is not the scheme's own.
  std::string host_header() const;
};

std::optional<Url> parse_url(std::string_view text);

/// The same as views into the text, in the case that it has; allocates nothing. The path may be empty.
struct UrlView {
  std::string_view scheme;
  std::string_view host;
  std::uint16_t port;
  std::string_view path;
  std::string_view query;
  bool is_own_port() const noexcept;  ///< the scheme's
};
std::optional<UrlView> split_url(std::string_view text) noexcept;

/// Percent-encodes every byte but A-Z a-z 0-9 - . _ ~ (RFC 3986 unreserved) and, when asked, '/'.
std::string percent_encode(std::string_view text, bool keep_slash = false);
/// The bytes that percent-encoded text stands for; nothing when a '%' is not followed by two
/// hexadecimal digits.
std::optional<std::string> percent_decode(std::string_view text);

}  // namespace spillway::transport
