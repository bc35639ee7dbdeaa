// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdint>
#include <cstring>

#include <spillway/middleware/rate_limit/key.hpp>
#include <spillway/transport/sha256.hpp>

namespace spillway::middleware {

namespace {

constexpr std::size_t digest_digits = 32;

constexpr bool is_plain(char c) noexcept {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
         std::string_view("-._:@/{}").find(c) != std::string_view::npos;
}

void append_encoded(std::string& out, std::string_view text) {
  constexpr std::string_view hex = "0123456789ABCDEF";
  for (const char c : text) {
    if (is_plain(c)) {
      out += c;
      continue;
    }
    const auto byte = static_cast<unsigned char>(c);
    out.append({'%', hex[byte >> 4], hex[byte & 15]});
  }
}

std::string digest(std::string_view key, std::string_view text) {
  const transport::Sha256 hash =
      key.empty() ? transport::sha256(text)
                  : transport::hmac_sha256(
                        {reinterpret_cast<const std::uint8_t*>(key.data()), key.size()}, text);
  return transport::hex(hash).substr(0, digest_digits);
}

// Texts one behind the other, each with its length in front, on the stack; a text that finds no room
// goes in as its hash.
class Pieces {
 public:
  void add(std::string_view text) noexcept {
    const auto size = static_cast<std::uint32_t>(text.size());
    if (used_ + sizeof size + text.size() > raw_bytes_max) {
      const detail::Hash128 hash = detail::siphash128(detail::process_hash_key(), text);
      put(&size, sizeof size);
      put(&hash, sizeof hash);
      return;
    }
    put(&size, sizeof size);
    put(text.data(), text.size());
  }
  std::string_view view() const noexcept { return {bytes_.data(), used_}; }

 private:
  static constexpr std::size_t raw_bytes_max = 512;
  static constexpr std::size_t pieces_max = 1 + 2 * RateKey::fields_max;
  static constexpr std::size_t hashes_bytes_max =
      pieces_max * (sizeof(std::uint32_t) + sizeof(detail::Hash128));

  void put(const void* from, std::size_t size) noexcept {
    if (size != 0) std::memcpy(bytes_.data() + used_, from, size);
    used_ += size;
  }
  std::array<char, raw_bytes_max + hashes_bytes_max> bytes_;
  std::size_t used_ = 0;
};

}  // namespace

detail::Hash128 RateKey::hash() const noexcept {
  Pieces pieces;
  pieces.add(name_);
  for (std::size_t i = 0; i < count_; ++i) {
    pieces.add(fields_[i].name);
    pieces.add(fields_[i].value);
  }
  return detail::siphash128(detail::process_hash_key(), pieces.view());
}

std::string RateKey::text(std::string_view secret_key) const {
  std::string out;
  append_encoded(out, name_);
  for (std::size_t i = 0; i < count_; ++i) {
    out += '|';
    append_encoded(out, fields_[i].name);
    out += '=';
    const std::string_view value = fields_[i].value;
    if (fields_[i].kind == Kind::secret && !value.empty()) {
      out += digest(secret_key, value);
    } else if (fields_[i].kind == Kind::address) {
      std::array<std::uint8_t, 16> bytes{};
      std::memcpy(bytes.data(), value.data(), bytes.size());
      out += IpAddress(bytes).text();
    } else {
      append_encoded(out, value);
    }
  }
  if (out.size() > text_bytes_max) {
    const std::string tail = "|" + digest({}, out);
    out.resize(text_bytes_max - tail.size());
    out += tail;
  }
  return out;
}

}  // namespace spillway::middleware
