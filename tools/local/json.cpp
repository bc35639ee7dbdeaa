// SPDX-License-Identifier: Apache-2.0
#include "local/json.hpp"

#include <array>
#include <charconv>
#include <cmath>

namespace spillway::local {

void append_json_string(std::string& output, std::string_view text) {
  constexpr std::string_view digits = "0123456789abcdef";
  output += '"';
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      output += {'\\', c};
    } else if (c == '\n') {
      output += "\\n";
    } else if (byte < 0x20) {
      output.append("\\u00") += {digits[byte >> 4], digits[byte & 15]};
    } else {
      output += c;
    }
  }
  output += '"';
}

void append_json_number(std::string& output, double number) {
  if (!std::isfinite(number)) {
    output += "null";
    return;
  }
  std::array<char, 32> text{};
  const auto [end, error] = std::to_chars(text.data(), text.data() + text.size(), number);
  output.append(text.data(), end);
}

JsonWriter& JsonWriter::key(std::string_view name) {
  separate();
  append_json_string(text_, name);
  text_ += ':';
  needs_comma_ = false;
  return *this;
}

JsonWriter& JsonWriter::value(std::string_view text) {
  separate();
  append_json_string(text_, text);
  return *this;
}

JsonWriter& JsonWriter::value(double number) {
  separate();
  append_json_number(text_, number);
  return *this;
}

JsonWriter& JsonWriter::value(bool truth) { return raw(truth ? "true" : "false"); }

JsonWriter& JsonWriter::null() { return raw("null"); }

JsonWriter& JsonWriter::raw(std::string_view json) {
  separate();
  text_ += json;
  return *this;
}

JsonWriter& JsonWriter::open(char bracket) {
  separate();
  text_ += bracket;
  needs_comma_ = false;
  return *this;
}

JsonWriter& JsonWriter::close(char bracket) {
  text_ += bracket;
  needs_comma_ = true;
  return *this;
}

void JsonWriter::separate() {
  if (needs_comma_) text_ += ',';
  needs_comma_ = true;
}

}  // namespace spillway::local
