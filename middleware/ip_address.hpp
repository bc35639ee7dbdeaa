// SPDX-License-Identifier: Apache-2.0
//
// IP addresses as 16 bytes, networks, and whose request it is behind trusted proxies. Nothing here
// allocates but the reading of configurations; nothing asks a name server.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace spillway::middleware {

/// An IPv6 address; an IPv4 address in its mapped form (::ffff:a.b.c.d), so that each address has
/// one form only.
class IpAddress {
 public:
  IpAddress() = default;  ///< ::
  explicit IpAddress(const std::array<std::uint8_t, 16>& bytes) noexcept : bytes_(bytes) {}

  /// Reads what servers and proxies write: "203.0.113.7", "203.0.113.7:4711", "2001:db8::1",
  /// "[2001:db8::1]:4711", "::ffff:203.0.113.7", "fe80::1%eth0" (the zone is dropped), with blanks
  /// or double quotes around it. Anything else, octal and short forms too: nothing.
  static std::optional<IpAddress> parse(std::string_view text) noexcept;

  bool is_v4() const noexcept;
  const std::array<std::uint8_t, 16>& bytes() const noexcept { return bytes_; }
  /// The address with everything behind the first bits zero; bits of the address's own family.
  IpAddress prefix(int v4_bits, int v6_bits) const noexcept;
  /// "203.0.113.7", "2001:db8::1".
  std::string text() const;
  /// The same without a heap: a view of what was written to `to`.
  static constexpr std::size_t text_bytes_max = 46;  // POSIX: INET6_ADDRSTRLEN, with a zero behind.
  std::string_view write(std::array<char, text_bytes_max>& to) const noexcept;

  friend bool operator==(const IpAddress&, const IpAddress&) = default;

 private:
  std::array<std::uint8_t, 16> bytes_{};
};

/// A block of addresses: "10.0.0.0/8", "2001:db8::/32", "192.0.2.1".
class IpNetwork {
 public:
  static std::optional<IpNetwork> parse(std::string_view text) noexcept;
  bool contains(const IpAddress& address) const noexcept;

 private:
  IpAddress first_;
  int bits_ = 128;  ///< of the 16 bytes
};

/// The client of a request. `peer` is the other end of the connection, `forwarded_for` the value of
/// X-Forwarded-For. The header is believed only as far as trusted proxies wrote it: it is read from
/// the right while the address to the right of an element is a trusted proxy's. The answer is the
/// first address that is not, or the last good one when an element is no address.
std::optional<IpAddress> client_address(std::string_view peer, std::string_view forwarded_for,
                                        std::span<const IpNetwork> trusted) noexcept;
/// The same for a header that came as several fields, in the order of the message.
std::optional<IpAddress> client_address(std::string_view peer,
                                        std::span<const std::string_view> forwarded_for,
                                        std::span<const IpNetwork> trusted) noexcept;
IpAddress client_address(const IpAddress& peer, std::span<const std::string_view> forwarded_for,
                         std::span<const IpNetwork> trusted) noexcept;

/// Proxies are looked for so far, from the right; what stands further left is not read.
inline constexpr int forwarded_hops_max = 32;

}  // namespace spillway::middleware
