// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>

#include <spillway/encoders/json.hpp>

namespace spillway::testing {

/// Reads CBOR (RFC 8949) by its own rules and writes it as JSON, so that it can be compared with what
/// the JSON encoders make. Throws when the bytes are no one item.
class CborAsJson {
 public:
  static std::string of(std::string_view bytes) {
    CborAsJson reader(bytes);
    reader.item();
    if (!reader.rest_.empty()) throw std::runtime_error("bytes behind the item");
    return std::string(reader.out_.view());
  }

 private:
  explicit CborAsJson(std::string_view bytes) : rest_(bytes) {}

  std::uint64_t number(std::size_t bytes) {
    if (rest_.size() < bytes) throw std::runtime_error("the item is cut");
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < bytes; ++i) {
      value = value << 8 | static_cast<unsigned char>(rest_[i]);
    }
    rest_.remove_prefix(bytes);
    return value;
  }

  void item() {
    const auto first = static_cast<unsigned>(number(1));
    const unsigned major = first >> 5;
    const unsigned low = first & 31U;
    if (low > 27) throw std::runtime_error("a length that is not known");
    if (major == 7) return simple(low);
    const std::uint64_t value = low < 24 ? low : number(std::size_t{1} << (low - 24));
    switch (major) {
      case 0:
        return detail::append_number(out_, value);
      case 1:
        return detail::append_number(out_, -1 - static_cast<std::int64_t>(value));
      case 3:
        if (rest_.size() < value) throw std::runtime_error("the text is cut");
        detail::append_json_string(out_, rest_.substr(0, value));
        return rest_.remove_prefix(value);
      case 4:
        return row('[', ']', value, [this] { item(); });
      case 5:
        return row('{', '}', value, [this] {
          item();
          out_.append(':');
          item();
        });
      case 6:
        if (value != 1) throw std::runtime_error("a tag that is no time");
        return item();
      default:
        throw std::runtime_error("a byte string");
    }
  }

  void simple(unsigned low) {
    if (low == 20) return out_.append("false");
    if (low == 21) return out_.append("true");
    if (low == 26) {
      return detail::append_number(
          out_, double{std::bit_cast<float>(static_cast<std::uint32_t>(number(4)))});
    }
    if (low == 27) return detail::append_number(out_, std::bit_cast<double>(number(8)));
    throw std::runtime_error("a simple value that nobody sends");
  }

  template <class One>
  void row(char open, char close, std::uint64_t count, One&& one) {
    out_.append(open);
    for (std::uint64_t i = 0; i < count; ++i) {
      if (i != 0) out_.append(',');
      one();
    }
    out_.append(close);
  }

  std::string_view rest_;
  detail::ByteBuffer out_;
};

}  // namespace spillway::testing
