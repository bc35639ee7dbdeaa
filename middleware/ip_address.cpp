// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <charconv>
#include <cstring>

#include <arpa/inet.h>

#include <spillway/middleware/ip_address.hpp>
#include <spillway/transport/text.hpp>

namespace spillway::middleware {
namespace {

constexpr std::array<std::uint8_t, 12> mapped_prefix{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

// "203.0.113.7", as inet_pton() reads it: four decimal numbers without zeros in front.
bool read_v4(std::string_view text, std::uint8_t* to) noexcept {
  for (int part = 0; part < 4; ++part) {
    if (part > 0) {
      if (!text.starts_with('.')) return false;
      text.remove_prefix(1);
    }
    unsigned value = 0;
    std::size_t digits = 0;
    for (; digits < text.size() && text[digits] >= '0' && text[digits] <= '9'; ++digits) {
      value = value * 10 + static_cast<unsigned>(text[digits] - '0');
      if (value > 255 || (digits > 0 && text.front() == '0')) return false;
    }
    if (digits == 0) return false;
    to[part] = static_cast<std::uint8_t>(value);
    text.remove_prefix(digits);
  }
  return text.empty();
}

bool read_v6(std::string_view text, std::uint8_t* to) noexcept {
  std::array<char, INET6_ADDRSTRLEN> terminated{};
  if (text.empty() || text.size() >= terminated.size() || text.find('\0') != text.npos)
    return false;
  std::copy(text.begin(), text.end(), terminated.begin());
  return inet_pton(AF_INET6, terminated.data(), to) == 1;
}

bool is_port(std::string_view text) noexcept {
  return text.size() <= 5 && text.find_first_not_of("0123456789") == std::string_view::npos &&
         transport::parse_number<std::uint16_t>(text).has_value();
}

}  // namespace

std::optional<IpAddress> IpAddress::parse(std::string_view text) noexcept {
  text = transport::trim(text);
  if (text.size() >= 2 && text.front() == '"' && text.back() == '"') {
    text = text.substr(1, text.size() - 2);
  }
  std::array<std::uint8_t, 16> bytes{};
  const auto colon = text.find(':');
  if (!text.starts_with('[') && (colon == text.npos || text.find(':', colon + 1) == text.npos)) {
    // No colon, or one: IPv4, with a port behind the colon.
    if (colon != text.npos && !is_port(text.substr(colon + 1))) return std::nullopt;
    if (!read_v4(text.substr(0, colon), bytes.data() + mapped_prefix.size())) return std::nullopt;
    std::copy(mapped_prefix.begin(), mapped_prefix.end(), bytes.begin());
    return IpAddress(bytes);
  }
  if (text.starts_with('[')) {
    const auto close = text.find(']');
    if (close == text.npos) return std::nullopt;
    const std::string_view behind = text.substr(close + 1);
    if (!behind.empty() && (behind.front() != ':' || !is_port(behind.substr(1))))
      return std::nullopt;
    text = text.substr(1, close - 1);
  }
  if (!read_v6(text.substr(0, text.find('%')), bytes.data())) return std::nullopt;
  return IpAddress(bytes);
}

bool IpAddress::is_v4() const noexcept {
  return std::equal(mapped_prefix.begin(), mapped_prefix.end(), bytes_.begin());
}

IpAddress IpAddress::prefix(int v4_bits, int v6_bits) const noexcept {
  int bits = is_v4() ? 96 + std::clamp(v4_bits, 0, 32) : std::clamp(v6_bits, 0, 128);
  IpAddress result = *this;
  for (std::uint8_t& byte : result.bytes_) {
    if (bits < 8) byte &= static_cast<std::uint8_t>(0xff00 >> bits);
    bits = std::max(bits - 8, 0);
  }
  return result;
}

std::string_view IpAddress::write(std::array<char, text_bytes_max>& to) const noexcept {
  static_assert(text_bytes_max == INET6_ADDRSTRLEN);
  constexpr socklen_t room = INET6_ADDRSTRLEN;
  if (!is_v4()) return inet_ntop(AF_INET6, bytes_.data(), to.data(), room);
  char* at = to.data();
  for (std::size_t i = mapped_prefix.size(); i < bytes_.size(); ++i) {
    if (i > mapped_prefix.size()) *at++ = '.';
    at = std::to_chars(at, to.data() + to.size(), bytes_[i]).ptr;
  }
  return {to.data(), static_cast<std::size_t>(at - to.data())};
}

std::string IpAddress::text() const {
  std::array<char, text_bytes_max> out;
  return std::string(write(out));
}

std::optional<IpNetwork> IpNetwork::parse(std::string_view text) noexcept {
  text = transport::trim(text);
  const auto slash = text.find('/');
  const std::string_view host = text.substr(0, slash);
  // A port, brackets or a zone are no part of a network.
  if (host.find_first_of("[]%\"") != host.npos) return std::nullopt;
  if (const auto dot = host.find('.');
      dot != host.npos && host.rfind(':') != host.npos && host.rfind(':') > dot)
    return std::nullopt;
  const auto address = IpAddress::parse(host);
  if (!address) return std::nullopt;
  IpNetwork network;
  // A mapped address that was written as IPv6 counts its bits as IPv6.
  const bool counts_as_v4 = address->is_v4() && host.find(':') == host.npos;
  if (slash != text.npos) {
    const std::string_view length = text.substr(slash + 1);
    const auto bits = transport::parse_number<int>(length);
    if (!bits || *bits < 0 || *bits > (counts_as_v4 ? 32 : 128)) return std::nullopt;
    // "::ffff:10.0.0.0/8" would be all of IPv4, and more: who writes it means "10.0.0.0/8".
    if (address->is_v4() && !counts_as_v4 && *bits < 96) return std::nullopt;
    network.bits_ = *bits + (counts_as_v4 ? 96 : 0);
  }
  network.first_ = *address;
  return network;
}

bool IpNetwork::contains(const IpAddress& address) const noexcept {
  const auto& a = first_.bytes();
  const auto& b = address.bytes();
  const auto whole = static_cast<std::size_t>(bits_ / 8);
  if (std::memcmp(a.data(), b.data(), whole) != 0) return false;
  const int rest = bits_ % 8;
  return rest == 0 || (a[whole] ^ b[whole]) >> (8 - rest) == 0;
}

std::optional<IpAddress> client_address(std::string_view peer, std::string_view forwarded_for,
                                        std::span<const IpNetwork> trusted) noexcept {
  return client_address(peer, {&forwarded_for, 1}, trusted);
}

std::optional<IpAddress> client_address(std::string_view peer,
                                        std::span<const std::string_view> forwarded_for,
                                        std::span<const IpNetwork> trusted) noexcept {
  const auto address = IpAddress::parse(peer);
  return address ? std::optional(client_address(*address, forwarded_for, trusted)) : std::nullopt;
}

IpAddress client_address(const IpAddress& peer, std::span<const std::string_view> forwarded_for,
                         std::span<const IpNetwork> trusted) noexcept {
  IpAddress client = peer;
  const auto is_trusted = [&](const IpAddress& address) {
    return std::any_of(trusted.begin(), trusted.end(),
                       [&](const IpNetwork& network) { return network.contains(address); });
  };
  int hops = 0;
  for (auto field = forwarded_for.rbegin(); field != forwarded_for.rend(); ++field) {
    for (std::string_view list = *field;;) {
      if (hops++ == forwarded_hops_max || !is_trusted(client)) return client;
      const auto comma = list.rfind(',');
      const bool last = comma == list.npos;
      const std::string_view element = transport::trim(last ? list : list.substr(comma + 1));
      // Lists may have empty elements, which mean nothing (RFC 9110, 5.6.1.2).
      if (!element.empty()) {
        const auto next = IpAddress::parse(element);
        if (!next) return client;
        client = *next;
      }
      if (last) break;
      list = list.substr(0, comma);
    }
  }
  return client;
}

}  // namespace spillway::middleware
