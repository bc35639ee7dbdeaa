// SPDX-License-Identifier: Apache-2.0
//
// Whom a limit counts: a name and a few fields of a request. A key lives on the stack of the thread
// that decides and refers to the request's texts; a store keeps a hash of it, and where processes
// share it, a canonical text.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include <spillway/middleware/ip_address.hpp>
#include <spillway/middleware/siphash.hpp>

namespace spillway::middleware {

class RateKey {
 public:
  static constexpr std::size_t fields_max = 6;

  /// `name` is the limit's. Names and values must outlive the key.
  explicit RateKey(std::string_view name) noexcept : name_(name) {}

  /// Adds a field; "" is a value of its own: who cannot be told apart is counted together. A secret
  /// value stands in no text, only its digest does. False: there are fields_max already.
  bool add(std::string_view field, std::string_view value, bool secret = false) noexcept {
    if (count_ == fields_max) return false;
    fields_[count_++] = {field, value, secret ? Kind::secret : Kind::text};
    return true;
  }
  /// The same for an address, which must outlive the key.
  bool add(std::string_view field, const IpAddress& address) noexcept {
    if (count_ == fields_max) return false;
    const auto& bytes = address.bytes();
    fields_[count_++] = {
        field, {reinterpret_cast<const char*>(bytes.data()), bytes.size()}, Kind::address};
    return true;
  }

  /// Different for different names and values, however they are made up of each other's texts.
  detail::Hash128 hash() const noexcept;

  /// "api|tenant=acme|user=u-17": the same in every process. Bytes other than letters, digits and
  /// "-._:@/{}" are percent-encoded, so that no value can imitate a field; a secret is the first 32
  /// hexadecimal digits of its HMAC-SHA-256 with `secret_key`, or of its SHA-256 when that is empty.
  /// What would be longer than text_bytes_max ends in a digest.
  std::string text(std::string_view secret_key = {}) const;

  static constexpr std::size_t text_bytes_max = 512;

 private:
  enum class Kind : std::uint8_t { text, secret, address };
  struct Field {
    std::string_view name;
    std::string_view value;
    Kind kind = Kind::text;
  };
  std::string_view name_;
  std::array<Field, fields_max> fields_{};
  std::size_t count_ = 0;
};

}  // namespace spillway::middleware
