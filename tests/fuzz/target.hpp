// SPDX-License-Identifier: Apache-2.0
//
// What a fuzz target is. Each is a function of some bytes that ends the process when the code under
// it breaks a promise; sanitizers see the rest. All targets are in one program: libfuzzer.cpp gives
// them to libFuzzer, replay.cpp runs them over tests/fuzz/corpus with any compiler.
//
//   SPILLWAY_FUZZ_TARGET(url) { ... bytes ... }
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <string_view>
#include <type_traits>

#include <simdjson.h>

namespace spillway::fuzz {

using Target = void (*)(std::string_view bytes);

/// By name, which is also the name of its folder in the corpus.
inline std::map<std::string, Target, std::less<>>& targets() {
  static std::map<std::string, Target, std::less<>> all;
  return all;
}

#define SPILLWAY_FUZZ_TARGET(name)                                     \
  static void fuzz_##name(std::string_view bytes);                     \
  [[maybe_unused]] static const bool registered_##name =               \
      ::spillway::fuzz::targets().emplace(#name, &fuzz_##name).second; \
  static void fuzz_##name(std::string_view bytes)

/// A promise of the code under test.
inline void require(bool holds, const char* promise) {
  if (holds) return;
  std::fprintf(stderr, "broken promise: %s\n", promise);
  std::abort();
}

/// A JSON text as an independent parser reads it.
class Parsed {
 public:
  explicit Parsed(std::string_view text) : text_(text) {
    require(parser_.parse(text_).get(root) == simdjson::SUCCESS, "the output is JSON");
  }

 private:
  simdjson::padded_string text_;
  simdjson::dom::parser parser_;

 public:
  simdjson::dom::element root;
};

/// Makes values of bytes, and zeros when they have run out.
class Input {
 public:
  explicit Input(std::string_view bytes) : rest_(bytes) {}

  bool empty() const { return rest_.empty(); }
  template <class T>
  requires std::is_trivially_copyable_v<T> T take() {
    T value{};
    const std::size_t bytes = std::min(sizeof value, rest_.size());
    if (bytes != 0) std::memcpy(&value, rest_.data(), bytes);
    rest_.remove_prefix(bytes);
    return value;
  }
  /// 0 up to `max`, which is at most 255.
  std::size_t up_to(std::size_t max) { return take<std::uint8_t>() % (max + 1); }
  bool flag() { return (take<std::uint8_t>() & 1U) != 0; }
  /// At most 255 bytes, or as many times that as `scale` says.
  std::string text(std::size_t scale = 1) {
    const std::size_t wanted = take<std::uint8_t>() * scale;
    const std::size_t bytes = std::min(wanted, rest_.size());
    std::string value(rest_.substr(0, bytes));
    rest_.remove_prefix(bytes);
    return value;
  }
  std::string_view rest() const { return rest_; }

 private:
  std::string_view rest_;
};

}  // namespace spillway::fuzz
