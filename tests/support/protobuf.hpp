// SPDX-License-Identifier: Apache-2.0
//
// A parser of Protocol Buffers for tests, written from the specification and apart from the
// library's own code: what is not exactly a message fails the test.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

namespace spillway::testing {

/// A message whose fields are looked up by number; nested messages are parsed when asked for.
class ProtoMessage {
 public:
  struct Value {
    int wire_type;
    std::uint64_t number;
    std::string bytes;
  };

  ProtoMessage() = default;
  explicit ProtoMessage(std::string_view text) { parse(text); }

  bool has(int field) const { return fields_.count(field) != 0; }
  std::size_t count(int field) const { return all(field).size(); }
  const std::vector<Value>& all(int field) const {
    static const std::vector<Value> none;
    const auto found = fields_.find(field);
    return found == fields_.end() ? none : found->second;
  }

  std::uint64_t varint(int field) const { return one(field, 0).number; }
  std::int64_t sint(int field) const {
    const std::uint64_t zigzag = varint(field);
    return static_cast<std::int64_t>(zigzag >> 1) ^ -static_cast<std::int64_t>(zigzag & 1U);
  }
  std::uint64_t fixed64(int field) const { return one(field, 1).number; }
  std::uint64_t fixed32(int field) const { return one(field, 5).number; }
  double real(int field) const { return std::bit_cast<double>(fixed64(field)); }
  std::string text(int field) const { return one(field, 2).bytes; }
  ProtoMessage message(int field) const { return ProtoMessage(text(field)); }
  std::vector<ProtoMessage> messages(int field) const {
    std::vector<ProtoMessage> made;
    for (const Value& value : all(field)) {
      EXPECT_EQ(value.wire_type, 2) << "field " << field;
      made.emplace_back(value.bytes);
    }
    return made;
  }
  /// A packed list of varints.
  std::vector<std::uint64_t> packed(int field) const {
    std::vector<std::uint64_t> numbers;
    const std::string bytes = text(field);
    for (std::string_view rest = bytes; !rest.empty();) {
      if (!take_varint(rest, numbers.emplace_back())) {
        ADD_FAILURE() << "a packed list is cut";
        break;
      }
    }
    return numbers;
  }

 private:
  void parse(std::string_view text) {
    while (!text.empty()) {
      std::uint64_t key = 0;
      if (!take_varint(text, key)) return damaged("a tag");
      Value value{static_cast<int>(key & 7U), 0, {}};
      std::size_t fixed = 0;
      switch (value.wire_type) {
        case 0:
          if (!take_varint(text, value.number)) return damaged("a varint");
          break;
        case 1:
          fixed = 8;
          break;
        case 2: {
          std::uint64_t size = 0;
          if (!take_varint(text, size) || size > text.size()) return damaged("a length");
          value.bytes = text.substr(0, size);
          text.remove_prefix(size);
          break;
        }
        case 5:
          fixed = 4;
          break;
        default:
          return damaged("a wire type");
      }
      if (fixed > text.size()) return damaged("a fixed number");
      for (std::size_t i = 0; i < fixed; ++i) {
        value.number |= std::uint64_t{static_cast<unsigned char>(text[i])} << (8 * i);
      }
      text.remove_prefix(fixed);
      fields_[static_cast<int>(key >> 3)].push_back(std::move(value));
    }
  }
  static bool take_varint(std::string_view& text, std::uint64_t& value) {
    value = 0;
    for (int shift = 0; shift < 70 && !text.empty(); shift += 7) {
      const auto byte = static_cast<unsigned char>(text.front());
      text.remove_prefix(1);
      value |= std::uint64_t{byte & 0x7FU} << shift;
      if (byte < 0x80) return true;
    }
    return false;
  }
  void damaged(const char* what) { ADD_FAILURE() << "no message: " << what << " is damaged"; }
  Value one(int field, int wire_type) const {
    const auto& values = all(field);
    EXPECT_EQ(values.size(), 1U) << "field " << field;
    if (values.size() != 1) return {wire_type, 0, {}};
    EXPECT_EQ(values.front().wire_type, wire_type) << "field " << field;
    return values.front();
  }

  std::map<int, std::vector<Value>> fields_;
};

/// OTLP attributes as text, a letter for their type in front: s, b, i, d. Keys must differ.
inline std::map<std::string, std::string> attributes_of(const ProtoMessage& message, int field) {
  std::map<std::string, std::string> made;
  for (const ProtoMessage& pair : message.messages(field)) {
    const ProtoMessage value = pair.message(2);
    std::string text;
    if (value.has(1)) text += "s:" + value.text(1);
    if (value.has(2)) text += value.varint(2) != 0 ? "b:true" : "b:false";
    if (value.has(3)) text += "i:" + std::to_string(static_cast<std::int64_t>(value.varint(3)));
    if (value.has(4)) text += "d:" + std::to_string(value.real(4));
    EXPECT_TRUE(made.emplace(pair.text(1), text).second) << "twice: " << pair.text(1);
  }
  return made;
}

/// The one item of a scope that an encoder appended.
inline ProtoMessage otlp_item(std::string_view bytes) { return ProtoMessage(bytes).message(2); }

}  // namespace spillway::testing
