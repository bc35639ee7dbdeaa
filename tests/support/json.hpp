// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <gtest/gtest.h>
#include <simdjson.h>

namespace spillway::testing {

/// A parsed JSON text for a test: a missing member fails the test that asks for it and reads as
/// empty.
class Json {
 public:
  explicit Json(std::string_view text)
      : parser_(std::make_shared<simdjson::dom::parser>()), text_(text) {
    const auto error = parser_->parse(simdjson::padded_string(text)).get(element_);
    EXPECT_EQ(error, simdjson::SUCCESS) << simdjson::error_message(error) << " in " << text;
  }

  Json operator[](std::string_view key) const {
    simdjson::dom::element member;
    EXPECT_EQ(element_[key].get(member), simdjson::SUCCESS)
        << "no member " << key << " in " << text();
    return Json(*this, member);
  }
  Json operator[](std::size_t index) const {
    simdjson::dom::array array;
    simdjson::dom::element member;
    EXPECT_EQ(element_.get(array), simdjson::SUCCESS) << "no array: " << text();
    EXPECT_EQ(array.at(index).get(member), simdjson::SUCCESS)
        << "no element " << index << " in " << text();
    return Json(*this, member);
  }
  bool has(std::string_view key) const { return element_[key].error() == simdjson::SUCCESS; }
  std::size_t size() const {
    if (simdjson::dom::array array; element_.get(array) == simdjson::SUCCESS) return array.size();
    if (simdjson::dom::object object; element_.get(object) == simdjson::SUCCESS)
      return object.size();
    return 0;
  }
  std::string string() const {
    std::string_view value;
    EXPECT_EQ(element_.get(value), simdjson::SUCCESS) << "no string: " << text();
    return std::string(value);
  }
  double number() const {
    double value = 0;
    EXPECT_EQ(element_.get(value), simdjson::SUCCESS) << "no number: " << text();
    return value;
  }
  bool boolean() const {
    bool value = false;
    EXPECT_EQ(element_.get(value), simdjson::SUCCESS) << "no bool: " << text();
    return value;
  }
  std::string text() const { return simdjson::minify(element_); }

 private:
  Json(const Json& of, simdjson::dom::element element) : parser_(of.parser_), element_(element) {}
  std::shared_ptr<simdjson::dom::parser> parser_;
  std::string text_;
  simdjson::dom::element element_;
};

}  // namespace spillway::testing
