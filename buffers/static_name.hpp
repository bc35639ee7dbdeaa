// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace spillway {

/// A name that is a string literal: span names, annotation keys, field keys. The constructor runs
/// in the compiler, so a name built at run time is a compile error; that is what lets a record
/// carry a number in place of a string. Names that are known only at run time (route templates) are
/// interned once: see `span_name()` in engine/engine.hpp.
class StaticName {
 public:
  consteval StaticName(
      const char* text)  // NOLINT(google-explicit-constructor): a literal is a name
      : text_(text), bytes_(length_of(text)), hash_(hash_of(text)) {}

  constexpr const char* data() const noexcept { return text_; }
  constexpr std::string_view view() const noexcept { return {text_, bytes_}; }
  /// FNV-1a of the characters: the place to look in a thread's name cache.
  constexpr std::uint32_t hash() const noexcept { return hash_; }

 private:
  static consteval std::uint32_t length_of(const char* text) {
    std::uint32_t bytes = 0;
    while (text[bytes] != '\0') ++bytes;
    if (bytes == 0) throw "a name must have at least one character";
    return bytes;
  }
  static consteval std::uint32_t hash_of(const char* text) {
    std::uint32_t hash = 2166136261U;
    for (; *text != '\0'; ++text) {
      hash = (hash ^ static_cast<unsigned char>(*text)) * 16777619U;
    }
    return hash;
  }

  const char* text_;
  std::uint32_t bytes_;
  std::uint32_t hash_;
};

}  // namespace spillway
