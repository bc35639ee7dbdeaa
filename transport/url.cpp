// SPDX-License-Identifier: Apache-2.0
#include <charconv>

#include <spillway/transport/text.hpp>
#include <spillway/transport/url.hpp>

namespace spillway::transport {
namespace {

std::uint16_t default_port(std::string_view scheme) noexcept {
  return equal_without_case(scheme, "https") ? 443 : 80;
}

bool is_host(std::string_view host) noexcept {
  if (host.empty()) return false;
  if (host.front() == '[') {
    return host.size() > 2 && host.back() == ']' &&
           host.find_first_not_of("0123456789abcdefABCDEF:.", 1) == host.size() - 1;
  }
  return host.find_first_not_of(
             "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._") ==
         std::string_view::npos;
}

bool is_clean(std::string_view text) noexcept {
  for (const char c : text) {
    if (static_cast<unsigned char>(c) <= ' ' || c == 0x7f || c == '#') return false;
  }
  return true;
}

}  // namespace

std::string Url::origin() const { return scheme + "://" + host_header(); }

std::string Url::host_header() const {
  return port == default_port(scheme) ? host : host + ":" + std::to_string(port);
}

bool UrlView::is_own_port() const noexcept { return port == default_port(scheme); }

std::optional<UrlView> split_url(std::string_view text) noexcept {
  const auto scheme_end = text.find("://");
  if (scheme_end == std::string_view::npos || !is_clean(text)) return std::nullopt;
  UrlView url{};
  url.scheme = text.substr(0, scheme_end);
  if (!equal_without_case(url.scheme, "http") && !equal_without_case(url.scheme, "https"))
    return std::nullopt;
  text.remove_prefix(scheme_end + 3);

  const auto authority_end = text.find_first_of("/?");
  const std::string_view authority = text.substr(0, authority_end);
  const auto bracket = authority.find(']');
  const auto port_colon = authority.find(':', bracket == std::string_view::npos ? 0 : bracket);
  url.host = authority.substr(0, port_colon);
  url.port = default_port(url.scheme);
  if (port_colon != std::string_view::npos) {
    const auto port = parse_number<std::uint16_t>(authority.substr(port_colon + 1));
    if (!port || *port == 0) return std::nullopt;
    url.port = *port;
  }
  if (!is_host(url.host)) return std::nullopt;

  if (authority_end != std::string_view::npos) {
    text.remove_prefix(authority_end);
    const auto query = text.find('?');
    url.path = text.substr(0, query);
    if (query != std::string_view::npos) url.query = text.substr(query + 1);
  }
  return url;
}

std::optional<Url> parse_url(std::string_view text) {
  const auto url = split_url(text);
  if (!url) return std::nullopt;
  return Url{.scheme = lower(url->scheme),
             .host = lower(url->host),
             .port = url->port,
             .path = url->path.empty() ? "/" : std::string(url->path),
             .query = std::string(url->query)};
}

std::string percent_encode(std::string_view text, bool keep_slash) {
  constexpr std::string_view hex = "0123456789ABCDEF";
  constexpr std::string_view unreserved =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
  std::string result;
  result.reserve(text.size());
  for (const char c : text) {
    if (unreserved.find(c) != std::string_view::npos || (keep_slash && c == '/')) {
      result += c;
    } else {
      const auto byte = static_cast<unsigned char>(c);
      result += {'%', hex[byte >> 4], hex[byte & 15]};
    }
  }
  return result;
}

std::optional<std::string> percent_decode(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  while (!text.empty()) {
    if (text.front() != '%') {
      result += text.front();
      text.remove_prefix(1);
      continue;
    }
    unsigned byte = 0;
    if (text.size() < 3) return std::nullopt;
    const char* const digits_end = text.data() + 3;
    if (std::from_chars(text.data() + 1, digits_end, byte, 16).ptr != digits_end)
      return std::nullopt;
    result += static_cast<char>(byte);
    text.remove_prefix(3);
  }
  return result;
}

}  // namespace spillway::transport
