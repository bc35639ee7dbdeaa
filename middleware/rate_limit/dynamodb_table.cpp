// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <limits>
#include <thread>
#include <utility>

#include <simdjson.h>

#include <spillway/buffers/byte_buffer.hpp>
#include <spillway/encoders/json.hpp>
#include <spillway/middleware/rate_limit/dynamodb_table.hpp>
#include <spillway/transport/text.hpp>

namespace spillway::detail {
namespace {

using middleware::RateAlgorithm;
using middleware::RateDecision;
using std::chrono::milliseconds;
using transport::AwsReply;

constexpr std::int64_t second_ns = 1'000'000'000;
constexpr milliseconds status_poll{250};

// ---- Requests ----

struct Number {
  std::string_view name;  // of the expressions' value: ":room"
  std::int64_t value;
};

// One UpdateItem.
struct Update {
  std::string_view condition;
  std::string_view update;
  std::vector<Number> values;
};

std::string json_text(std::string_view text) {
  ByteBuffer out;
  append_json_string(out, text);
  return std::string(out.view());
}

std::string body_of(std::string_view table, std::string_view id, const Update& update) {
  std::string body =
      "{\"TableName\":" + json_text(table) + ",\"Key\":{\"id\":{\"S\":" + json_text(id) +
      "}},\"ConditionExpression\":" + json_text(update.condition) +
      ",\"UpdateExpression\":" + json_text(update.update) + ",\"ExpressionAttributeValues\":{";
  bool first = true;
  for (const Number& number : update.values) {
    body.append(std::exchange(first, false) ? "" : ",").append(json_text(number.name));
    body.append(":{\"N\":\"").append(std::to_string(number.value)).append("\"}");
  }
  return body +
         "},\"ReturnValues\":\"UPDATED_NEW\",\"ReturnValuesOnConditionCheckFailure\":\"ALL_OLD\"}";
}

std::string id_of(std::string_view key, const RateRule& rule, std::int64_t fresh_at) {
  std::string id(to_string(rule.algorithm));
  id.append("/").append(std::to_string(rule.window_ns / 1'000'000)).append("ms/").append(key);
  if (rule.algorithm == RateAlgorithm::fixed_window)
    id.append("/").append(std::to_string(fresh_at / rule.window_ns));
  return id;
}

std::int64_t expiry_s(std::int64_t fresh_at) {
  return fresh_at / second_ns + 1 + std::chrono::seconds(item_grace).count();
}

// ---- Answers ----

// The numbers of an item, or of a part of it.
struct Item {
  std::optional<std::int64_t> fresh_at;
  std::optional<std::int64_t> taken;
  std::optional<std::int64_t> taken_before;
};

Item item_of(const std::string& body, const char* member) {
  Item item;
  simdjson::dom::parser parser;
  simdjson::dom::element answer;
  simdjson::dom::element values;
  if (parser.parse(body).get(answer) != simdjson::SUCCESS ||
      answer[member].get(values) != simdjson::SUCCESS) {
    return item;
  }
  const auto read = [&](const char* name) -> std::optional<std::int64_t> {
    std::string_view text;
    if (values[name]["N"].get(text) != simdjson::SUCCESS) return std::nullopt;
    const auto number = transport::parse_number<std::int64_t>(text);
    if (!number || *number < 0 || *number >= rate_time_max) return std::nullopt;
    return number;
  };
  item.fresh_at = read("fresh_at");
  item.taken = read("taken");
  item.taken_before = read("taken_before");
  return item;
}

std::uint32_t count_of(std::optional<std::int64_t> number) {
  constexpr std::int64_t most = std::numeric_limits<std::uint32_t>::max();
  return static_cast<std::uint32_t>(std::min(number.value_or(0), most));
}

// ---- The forms ----

// Where a fixed window that `now` lies in ends.
std::int64_t window_end(const RateRule& rule, std::int64_t now) {
  return now - now % rule.window_ns + rule.window_ns;
}

// The furthest that the rule can bring a state ahead of `now`.
std::int64_t horizon(const RateRule& rule, std::int64_t now) {
  const std::int64_t tolerance = std::chrono::nanoseconds(shared_clock_tolerance).count();
  return now + tolerance +
         (rule.algorithm == RateAlgorithm::token_bucket ? rule.depth_ns : 2 * rule.window_ns);
}

// Whether the stored state is one that this rule and a clock like ours can have made.
bool is_credible(const RateState& state, const RateRule& rule, std::int64_t now) {
  return state.fresh_at <= horizon(rule, now);
}

// What a write does: the state that it was made for becomes `fresh`, with `permits` more taken; by
// then so many as `spare` may have been taken by others.
struct Step {
  RateState old;
  RateState fresh;
  std::int64_t permits;
  std::int64_t spare;
};

Update update_of(const RateRule& rule, const Step& step, std::int64_t now) {
  const std::int64_t permits = step.permits;
  const Number fresh_at{":fresh_at", step.fresh.fresh_at};
  if (rule.algorithm == RateAlgorithm::fixed_window) {
    return {"attribute_not_exists(taken) OR taken <= :room",
            "SET expires_at = :expires ADD taken :permits",
            {{":room", rule.permits - permits},
             {":permits", permits},
             {":expires", expiry_s(step.fresh.fresh_at)}}};
  }
  if (rule.algorithm == RateAlgorithm::token_bucket) {
    const std::int64_t cost = permits * rule.interval_ns;
    const Number expires{":expires", expiry_s(now + rule.depth_ns)};
    const std::string_view set = "SET fresh_at = :fresh_at, expires_at = :expires";
    if (!is_credible(step.old, rule, now))
      return {"fresh_at = :old", set, {{":old", step.old.fresh_at}, fresh_at, expires}};
    if (step.old.fresh_at >= now) {
      return {"fresh_at >= :now AND fresh_at <= :latest",
              "SET fresh_at = fresh_at + :cost, expires_at = :expires",
              {{":now", now}, {":latest", now + rule.depth_ns - cost}, {":cost", cost}, expires}};
    }
    return {"attribute_not_exists(fresh_at) OR fresh_at < :now",
            set,
            {{":now", now}, fresh_at, expires}};
  }
  if (step.old.fresh_at == step.fresh.fresh_at) {
    return {"fresh_at = :fresh_at AND taken_before = :before AND taken <= :room",
            "SET taken = taken + :permits",
            {fresh_at,
             {":before", step.fresh.previous},
             {":room", std::int64_t{step.old.current} + step.spare},
             {":permits", permits}}};
  }
  Update moved{
      "attribute_not_exists(fresh_at)",
      "SET fresh_at = :fresh_at, taken = :taken, taken_before = :before, expires_at = :expires",
      {fresh_at,
       {":taken", step.fresh.current},
       {":before", step.fresh.previous},
       {":expires", expiry_s(step.fresh.fresh_at)}}};
  if (step.old.fresh_at != 0) {
    moved.condition = "fresh_at = :old AND taken = :old_taken";
    moved.values.push_back({":old", step.old.fresh_at});
    moved.values.push_back({":old_taken", step.old.current});
  }
  return moved;
}

// The state that decisions are made on, from the one that is stored.
RateState believed(const RateState& stored, const RateRule& rule, std::int64_t least,
                   std::int64_t now) {
  if (is_credible(stored, rule, now)) return stored;
  // Of a bucket nothing is believed to be left but what is asked for.
  if (rule.algorithm == RateAlgorithm::token_bucket)
    return {now + std::max(rule.depth_ns - least * rule.interval_ns, std::int64_t{0}), 0, 0};
  return {};
}

SharedTake failed(const AwsReply& reply, std::int64_t permits) {
  SharedTake result;
  result.permits = reply.uncertain ? permits : 0;
  result.outcome = reply.uncertain ? SharedTake::Outcome::lost
                   : reply.failure == transport::Failure::throttled
                       ? SharedTake::Outcome::throttled
                       : SharedTake::Outcome::unavailable;
  result.error = describe(reply);
  return result;
}

bool is_condition_failure(const AwsReply& reply) {
  return reply.error.code == "ConditionalCheckFailedException";
}

}  // namespace

DynamoDbTable::DynamoDbTable(Parts parts)
    : table_(std::move(parts.table)),
      timeout_(parts.timeout),
      skew_(parts.skew != nullptr ? std::move(parts.skew)
                                  : std::make_shared<transport::ClockSkew>()),
      now_(parts.now ? std::move(parts.now) : [] { return std::chrono::system_clock::now(); }),
      pause_(parts.pause ? std::move(parts.pause)
                         : [](milliseconds time) { std::this_thread::sleep_for(time); }),
      // A write that may have been carried out is not sent again: it would take twice.
      client_({.service = transport::dynamodb,
               .region = std::move(parts.region),
               .endpoint = std::move(parts.endpoint),
               .credentials = std::move(parts.credentials),
               .http = std::move(parts.http),
               .skew = skew_,
               .attempts_max = 1,
               .now = now_}) {}

std::int64_t DynamoDbTable::now_ns() {
  const auto now = skew_->corrected(now_()).time_since_epoch();
  return std::max(std::chrono::nanoseconds(now).count(), std::int64_t{0});
}

AwsReply DynamoDbTable::call(std::string_view operation, std::string body, milliseconds timeout) {
  return client_.call_json("DynamoDB_20120810." + std::string(operation), "1.0", std::move(body),
                           timeout);
}

SharedTake DynamoDbTable::take(const SharedWish& wish, const RateState& guess) {
  const RateRule& rule = wish.rule;
  const std::int64_t now = wish.now_ns;
  const bool fixed = rule.algorithm == RateAlgorithm::fixed_window;
  RateState stored = guess;
  if (fixed && stored.fresh_at != window_end(rule, now)) stored = {};
  SharedTake result;
  for (bool confirmed = false; result.writes < writes_per_take_max;) {
    const RateState base = believed(stored, rule, wish.least, now);
    RateState probe = base;
    const RateDecision least = detail::take(probe, rule, wish.least, now);
    if (!least.admitted()) {
      if (confirmed || wish.least > rule.capacity) {
        result.outcome = SharedTake::Outcome::denied;
        result.left = least.remaining;
        result.state = base;
        result.least = wish.least;
        result.retry_after_ns = least.retry_after_ns;
        return result;
      }
      stored = {};  // A guess denies nothing: the table is asked.
      continue;
    }
    const std::int64_t left = wish.least + least.remaining;
    const std::int64_t fair = (left - 1) / wish.share + 1;
    Step step{stored, base, std::min({wish.want, left, std::max(fair, wish.least)}), 0};
    step.spare = detail::take(step.fresh, rule, step.permits, now).remaining;

    const AwsReply reply = call(
        "UpdateItem",
        body_of(table_, id_of(wish.key, rule, step.fresh.fresh_at), update_of(rule, step, now)),
        timeout_);
    ++result.writes;
    if (reply.ok()) {
      const Item item = item_of(reply.response.body, "Attributes");
      result.outcome = SharedTake::Outcome::taken;
      result.permits = step.permits;
      result.state = step.fresh;
      if (item.fresh_at) result.state.fresh_at = *item.fresh_at;
      if (item.taken) result.state.current = count_of(item.taken);
      RateState behind = result.state;
      const RateDecision next = detail::take(behind, rule, 1, now);
      result.left = next.admitted() ? next.remaining + 1 : next.remaining;
      return result;
    }
    if (!is_condition_failure(reply)) {
      const int writes = result.writes;
      result = failed(reply, step.permits);
      result.writes = writes;
      return result;
    }
    confirmed = true;
    const Item item = item_of(reply.response.body, "Item");
    stored = {item.fresh_at.value_or(0), count_of(item.taken), count_of(item.taken_before)};
    if (fixed) stored.fresh_at = window_end(rule, now);
  }
  result.outcome = SharedTake::Outcome::throttled;
  result.error = "lost " + std::to_string(writes_per_take_max) + " races for one key";
  return result;
}

bool DynamoDbTable::give_back(std::string_view key, const RateRule& rule, std::int64_t permits,
                              std::int64_t receipt, std::int64_t now) {
  const auto update = [&](std::int64_t fresh_at, const Update& one) {
    return call("UpdateItem", body_of(table_, id_of(key, rule, fresh_at), one), timeout_);
  };
  if (rule.algorithm == RateAlgorithm::token_bucket) {
    // From its receipt on, the bucket may have been full since: what was taken has flowed back.
    if (now >= receipt) return true;
    const AwsReply reply =
        update(receipt, {"fresh_at > :now",
                         "SET fresh_at = fresh_at - :cost",
                         {{":now", now}, {":cost", permits * rule.interval_ns}}});
    return reply.ok() || is_condition_failure(reply);
  }
  if (rule.algorithm == RateAlgorithm::fixed_window) {
    if (now >= receipt) return true;
    const AwsReply reply = update(
        receipt, {"taken >= :permits", "SET taken = taken - :permits", {{":permits", permits}}});
    return reply.ok() || is_condition_failure(reply);
  }
  if (now >= receipt) return true;
  const AwsReply reply = update(receipt, {"fresh_at = :receipt AND taken >= :permits",
                                          "SET taken = taken - :permits",
                                          {{":receipt", receipt}, {":permits", permits}}});
  if (reply.ok()) return true;
  if (!is_condition_failure(reply)) return false;
  const AwsReply before =
      update(receipt, {"fresh_at = :next AND taken_before >= :permits",
                       "SET taken_before = taken_before - :permits",
                       {{":next", receipt + rule.window_ns}, {":permits", permits}}});
  return before.ok() || is_condition_failure(before);
}

// ---- The table itself ----

namespace {

struct TableFacts {
  std::string status;
  bool fits = false;  // its keys are as ours
};

std::optional<TableFacts> facts_of(const std::string& body) {
  simdjson::dom::parser parser;
  simdjson::dom::element table;
  std::string_view status;
  if (parser.parse(body).at_key("Table").get(table) != simdjson::SUCCESS ||
      table["TableStatus"].get(status) != simdjson::SUCCESS) {
    return std::nullopt;
  }
  TableFacts facts{std::string(status), false};
  simdjson::dom::array keys;
  simdjson::dom::array attributes;
  std::string_view name;
  std::string_view type;
  if (table["KeySchema"].get(keys) == simdjson::SUCCESS && keys.size() == 1 &&
      keys.at(0)["AttributeName"].get(name) == simdjson::SUCCESS && name == "id" &&
      table["AttributeDefinitions"].get(attributes) == simdjson::SUCCESS) {
    for (const simdjson::dom::element attribute : attributes) {
      facts.fits = facts.fits ||
                   (attribute["AttributeName"].get(name) == simdjson::SUCCESS && name == "id" &&
                    attribute["AttributeType"].get(type) == simdjson::SUCCESS && type == "S");
    }
  }
  return facts;
}

}  // namespace

std::optional<std::string> DynamoDbTable::create(milliseconds timeout) {
  const std::string named = "{\"TableName\":" + json_text(table_);
  const std::string where = "DynamoDB table \"" + table_ + "\": ";
  const auto begun = std::chrono::steady_clock::now();
  milliseconds paused(0);  // which counts also where a pause takes no time
  const auto left = [&] {
    const auto took = std::chrono::floor<milliseconds>(std::chrono::steady_clock::now() - begun);
    return timeout - std::max(took, paused);
  };
  const auto ask = [&](std::string_view operation, std::string body) {
    return call(operation, std::move(body), std::max(std::min(left(), timeout_), milliseconds(1)));
  };
  bool asked_for = false;
  for (;; paused += status_poll, pause_(std::min(status_poll, std::max(left(), milliseconds(1))))) {
    if (left() <= milliseconds(0))
      return where + "not ACTIVE within " + std::to_string(timeout.count()) + " ms";
    const AwsReply reply = ask("DescribeTable", named + "}");
    if (reply.ok()) {
      const auto facts = facts_of(reply.response.body);
      if (!facts) return where + "DescribeTable's answer cannot be read";
      if (!facts->fits) {
        return where + "its key is not \"id\", a string, alone; name a table of our own";
      }
      if (facts->status == "ACTIVE") break;
      continue;
    }
    // After CreateTable the table can be unknown for some moments.
    if (reply.error.code == "ResourceNotFoundException") {
      if (std::exchange(asked_for, true)) continue;
      const AwsReply made =
          ask("CreateTable", named +
                                 ",\"BillingMode\":\"PAY_PER_REQUEST\","
                                 "\"KeySchema\":[{\"AttributeName\":\"id\",\"KeyType\":\"HASH\"}],"
                                 "\"AttributeDefinitions\":[{\"AttributeName\":\"id\","
                                 "\"AttributeType\":\"S\"}]}");
      // In use: another process was first.
      if (!made.ok() && made.error.code != "ResourceInUseException" &&
          made.failure != transport::Failure::transient) {
        return where + "CreateTable: " + describe(made);
      }
      continue;
    }
    if (reply.failure != transport::Failure::transient &&
        reply.failure != transport::Failure::throttled) {
      return where + "DescribeTable: " + describe(reply);
    }
  }
  const AwsReply ttl = ask("UpdateTimeToLive", named +
                                                   ",\"TimeToLiveSpecification\":{\"Enabled\":true,"
                                                   "\"AttributeName\":\"expires_at\"}}");
  // ValidationException: it is on already.
  if (!ttl.ok() && ttl.error.code != "ValidationException")
    return where + "UpdateTimeToLive: " + describe(ttl);
  return std::nullopt;
}

}  // namespace spillway::detail
