// SPDX-License-Identifier: Apache-2.0
//
// Writes the JSON of answers. Reading is simdjson's.
#pragma once

#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>

namespace spillway::local {

/// Appends `text` in quotes, escaped. The text is UTF-8 already.
void append_json_string(std::string& output, std::string_view text);

/// Appends the shortest text that reads back as the same number; null for what JSON has no number
/// for.
void append_json_number(std::string& output, double number);

/// Builds one JSON text from calls in order; puts the commas. The caller balances begin and end.
class JsonWriter {
 public:
  JsonWriter& begin_object() { return open('{'); }
  JsonWriter& end_object() { return close('}'); }
  JsonWriter& begin_array() { return open('['); }
  JsonWriter& end_array() { return close(']'); }

  JsonWriter& key(std::string_view name);
  JsonWriter& value(std::string_view text);
  JsonWriter& value(const char* text) { return value(std::string_view(text)); }
  JsonWriter& value(double number);
  JsonWriter& value(bool truth);
  template <std::integral Integer>
  JsonWriter& value(Integer number) {
    separate();
    text_ += std::to_string(number);
    return *this;
  }
  JsonWriter& null();
  /// A value that is JSON already.
  JsonWriter& raw(std::string_view json);

  template <class Value>
  JsonWriter& field(std::string_view name, const Value& content) {
    return key(name).value(content);
  }

  std::string take() { return std::move(text_); }

 private:
  JsonWriter& open(char bracket);
  JsonWriter& close(char bracket);
  void separate();

  std::string text_;
  bool needs_comma_ = false;
};

}  // namespace spillway::local
