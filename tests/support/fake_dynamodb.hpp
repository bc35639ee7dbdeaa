// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <support/json.hpp>

#include <spillway/transport/memory_transport.hpp>

namespace spillway::testing {

/// UpdateItem on numbers, as far as a rate limiter's expressions go: `a <op> :v`,
/// attribute_not_exists(a), AND, OR; SET a = b [+|-] :v, ADD a :v. tests/integration holds the same
/// expressions against DynamoDB Local.
class FakeDynamoDb {
 public:
  using Item = std::map<std::string, std::int64_t>;

  std::map<std::string, Item> items;
  int writes = 0;
  /// Called before a request is carried out; what it returns, if anything, is the answer.
  std::function<std::optional<transport::HttpResponse>(const transport::HttpRequest&)> before{};
  /// The next answers are lost, behind the write.
  int answers_to_lose = 0;

  transport::HttpResponse answer(const transport::HttpRequest& request) {
    using transport::MemoryTransport;
    if (before) {
      if (auto instead = before(request)) return *instead;
    }
    const Json body(request.body);
    const std::string id = body["Key"]["id"]["S"].string();
    read_values(request.body);
    const auto found = items.find(id);
    const Item old = found == items.end() ? Item{} : found->second;
    ++writes;
    transport::HttpResponse response;
    if (!holds(body["ConditionExpression"].string(), old)) {
      std::string answer = R"({"__type":"com.amazonaws.dynamodb.v20120810#)"
                           R"(ConditionalCheckFailedException","message":"no")";
      if (found != items.end()) answer += ",\"Item\":" + item_text(old, id);
      response = MemoryTransport::answered(400, answer + "}");
    } else {
      Item changed;
      items[id] = updated(body["UpdateExpression"].string(), old, changed);
      response = MemoryTransport::answered(200, "{\"Attributes\":" + item_text(changed, "") + "}");
    }
    if (answers_to_lose > 0) {
      --answers_to_lose;
      return MemoryTransport::failed(transport::HttpOutcome::lost);
    }
    return response;
  }
  std::unique_ptr<transport::MemoryTransport> transport() {
    auto memory = std::make_unique<transport::MemoryTransport>();
    memory->set_answer([this](const transport::HttpRequest& request) { return answer(request); });
    return memory;
  }

 private:
  static std::vector<std::string> words_of(std::string text, std::string_view separators) {
    for (char& c : text) {
      if (separators.find(c) != std::string_view::npos) c = ' ';
    }
    std::istringstream stream(text);
    std::vector<std::string> words;
    for (std::string word; stream >> word;) words.push_back(word);
    return words;
  }
  static std::vector<std::string> split(const std::string& text, const std::string& at) {
    std::vector<std::string> parts;
    std::size_t from = 0;
    for (std::size_t to = 0; (to = text.find(at, from)) != std::string::npos;
         from = to + at.size()) {
      parts.push_back(text.substr(from, to - from));
    }
    parts.push_back(text.substr(from));
    return parts;
  }
  void read_values(const std::string& body) {
    values_.clear();
    simdjson::dom::parser parser;
    const simdjson::dom::element root = parser.parse(body);
    for (const auto field : simdjson::dom::object(root["ExpressionAttributeValues"]))
      values_[std::string(field.key)] = std::stoll(std::string(std::string_view(field.value["N"])));
  }
  std::int64_t value(const std::string& name) const {
    const auto found = values_.find(name);
    EXPECT_NE(found, values_.end()) << "no value " << name;
    return found == values_.end() ? 0 : found->second;
  }
  bool holds_one(const std::string& text, const Item& item) const {
    const std::vector<std::string> words = words_of(text, "()");
    if (words.size() == 2 && words[0] == "attribute_not_exists") return !item.contains(words[1]);
    EXPECT_EQ(words.size(), 3U) << text;
    // One side is an attribute; a comparison with one that is missing does not hold.
    const bool left = words[0][0] != ':';
    const auto found = item.find(left ? words[0] : words[2]);
    if (found == item.end()) return false;
    const std::int64_t a = left ? found->second : value(words[0]);
    const std::int64_t b = left ? value(words[2]) : found->second;
    if (words[1] == "=") return a == b;
    if (words[1] == "<") return a < b;
    if (words[1] == "<=") return a <= b;
    if (words[1] == ">") return a > b;
    if (words[1] == ">=") return a >= b;
    ADD_FAILURE() << "unknown operator in " << text;
    return false;
  }
  bool holds(const std::string& condition, const Item& item) const {
    for (const std::string& either : split(condition, " OR ")) {
      bool all = true;
      for (const std::string& one : split(either, " AND ")) all = all && holds_one(one, item);
      if (all) return true;
    }
    return false;
  }
  Item updated(const std::string& update, const Item& old, Item& changed) const {
    Item item = old;
    const auto operand = [&](const std::string& word) {
      return word[0] == ':' ? value(word) : old.at(word);
    };
    for (const std::string& clause : split(update, " ADD ")) {
      if (!clause.starts_with("SET ")) {
        const auto words = words_of(clause, "");
        changed[words.at(0)] = item[words[0]] += value(words.at(1));
        continue;
      }
      for (const std::string& one : split(clause.substr(4), ", ")) {
        const auto words = words_of(one, "");
        std::int64_t result = operand(words.at(2));
        if (words.size() == 5) result += (words[3] == "-" ? -1 : 1) * operand(words[4]);
        changed[words[0]] = item[words[0]] = result;
      }
    }
    return item;
  }
  static std::string item_text(const Item& item, const std::string& id) {
    std::string text = "{";
    for (const auto& [name, number] : item)
      text += "\"" + name + "\":{\"N\":\"" + std::to_string(number) + "\"},";
    if (!id.empty()) return text + "\"id\":{\"S\":\"" + id + "\"}}";
    if (text.back() == ',') text.pop_back();
    return text + "}";
  }

  std::map<std::string, std::int64_t> values_;
};

}  // namespace spillway::testing
