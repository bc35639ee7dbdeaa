// SPDX-License-Identifier: Apache-2.0
#include <string>
#include <thread>

#include <support/golden.hpp>
#include <support/json.hpp>
#include <support/records.hpp>

#include <spillway/encoders/log_event.hpp>

namespace spillway::detail {
namespace {

using testing::Json;
using testing::Packed;

constexpr std::int64_t time_ns = testing::test_time_ms * 1'000'000 + 456'789;

SiteInfo site(Severity severity, std::string message, std::vector<SiteField> fields = {}) {
  return {severity, std::move(message), "/src/shop/orders.cpp", 42, std::move(fields)};
}

class LogEventTest : public ::testing::Test {
 protected:
  LogView view(const SiteInfo& site, std::span<const std::byte> values = {}) const {
    return {&site, time_ns, 0, &context_, values};
  }
  std::string json(const LogView& log, std::size_t bytes_max = 1 << 20) {
    ByteBuffer out;
    encoder_.append_json(log, bytes_max, out);
    return std::string(out.view());
  }
  std::string console(const LogView& log, std::size_t bytes_max = 1 << 20) {
    ByteBuffer out;
    encoder_.append_console(log, bytes_max, out);
    return std::string(out.view());
  }

  LogEncoder encoder_{"orders"};
  ContextTexts context_;
};

const std::vector<SiteField> every_type{{"integer", ValueType::integer},
                                        {"unsigned", ValueType::unsigned_integer},
                                        {"real", ValueType::real},
                                        {"yes", ValueType::boolean},
                                        {"text", ValueType::string}};

Packed one_of_every_type() {
  Packed values;
  values.number(std::int64_t{-7}).number(~std::uint64_t{0}).number(0.1).boolean(true);
  values.string("f\xc3\xbcr \"dich\"\n");
  return values;
}

TEST_F(LogEventTest, ARecordIsOneLine) {
  const SiteInfo info = site(Severity::info, "order placed", every_type);
  const SiteInfo error = site(Severity::error, "order \"lost\"");
  const Packed values = one_of_every_type();
  const std::string plain = json(view(info, values.bytes()));
  context_ = {"acme", "u-17", "r-1", {0x6b00e3540f1e2d3c, 0x4b5a69788796a5b4}};
  LogView in_span = view(error);
  in_span.span_id = 0x1a2b3c4d5e6f7081;
  const std::string with_context = json(in_span);
  testing::expect_golden("log_event.json", plain + "\n" + with_context + "\n");
  testing::expect_golden("log_event.txt",
                         console(view(info, values.bytes())) + "\n" + console(in_span) + "\n");

  const Json first(plain);
  EXPECT_EQ(first["timestamp"].string(), "2026-11-21T01:00:00.123456789Z");
  EXPECT_EQ(first["integer"].number(), -7);
  EXPECT_EQ(first["unsigned"].text(), "18446744073709551615");
  EXPECT_EQ(first["real"].number(), 0.1);
  EXPECT_TRUE(first["yes"].boolean());
  EXPECT_EQ(first["text"].string(), "f\xc3\xbcr \"dich\"\n");
  EXPECT_EQ(first.size(), 4 + every_type.size());
  const Json second(with_context);
  EXPECT_EQ(second["level"].string(), "ERROR");
  EXPECT_EQ(second["message"].string(), "order \"lost\"");
  EXPECT_EQ(second["tenant"].string(), "acme");
  EXPECT_EQ(second["user"].string(), "u-17");
  EXPECT_EQ(second["request_id"].string(), "r-1");
  EXPECT_EQ(second["trace_id"].string(), "1-6b00e354-0f1e2d3c4b5a69788796a5b4");
  EXPECT_EQ(second["span_id"].string(), "1a2b3c4d5e6f7081");
  EXPECT_EQ(second["source"].string(), "orders.cpp:42");
}

TEST_F(LogEventTest, OnlyWarningsAndWorseNameTheirSource) {
  std::vector<SiteInfo> sites;
  for (const Severity severity : {Severity::trace, Severity::debug, Severity::info, Severity::warn,
                                  Severity::error, Severity::fatal}) {
    sites.push_back(site(severity, "m"));
  }
  for (const SiteInfo& each : sites) {
    const Json event(json(view(each)));
    EXPECT_EQ(event["level"].string(), to_string(each.severity));
    EXPECT_EQ(event.has("source"), each.severity >= Severity::warn);
  }
}

TEST_F(LogEventTest, AUsersKeyIsNeverTakenForOneOfOursOrAnother) {
  std::vector<SiteField> fields;
  for (const char* const key : {"level", "field.level", "_aws", "n", "n", "n_2", "", "a\"b"}) {
    fields.push_back({key, ValueType::integer});
  }
  Packed values;
  for (std::int64_t i = 0; i < 8; ++i) values.number(i);
  const SiteInfo info = site(Severity::info, "m", fields);
  const Json event(json(view(info, values.bytes())));
  EXPECT_EQ(event["level"].string(), "INFO");
  EXPECT_EQ(event["field.level"].number(), 0);
  EXPECT_EQ(event["field"]["level"].number(), 1);
  EXPECT_EQ(event["field._aws"].number(), 2);
  EXPECT_FALSE(event.has("_aws"));
  EXPECT_EQ(event["n"].number(), 3);
  EXPECT_EQ(event["n_2"].number(), 4);
  EXPECT_EQ(event["n_2_2"].number(), 5);
  EXPECT_EQ(event[""].number(), 6);
  EXPECT_EQ(event["a\"b"].number(), 7);
}

TEST_F(LogEventTest, AKeyIsAPath) {
  struct Case {
    std::vector<std::string> keys;
    std::string expected;  // of numbers 0, 1, 2...
  };
  const Case cases[] = {
      {{"http.method", "http.status", "n"}, R"("http":{"method":0,"status":1},"n":2)"},
      {{"a.b.c", "a.b.d", "a.e", "f"}, R"("a":{"b":{"c":0,"d":1},"e":2},"f":3)"},
      {{"a.b", "n", "a.c"}, R"("a":{"b":0,"c":2},"n":1)"},
      {{"n", "a.b", "m", "a.c"}, R"("n":0,"a":{"b":1,"c":3},"m":2)"},
      {{"a.b.c", "x", "a.b.d", "y", "a.z"}, R"("a":{"b":{"c":0,"d":2},"z":4},"x":1,"y":3)"},
      {{"a", "a.b"}, R"("a":0,"a_2":{"b":1})"},
      {{"a.b", "a"}, R"("a":{"b":0},"a_2":1)"},
      {{"a.b", "a.b"}, R"("a":{"b":0,"b_2":1})"},
      {{"a.b", "a.b.c"}, R"("a":{"b":0,"b_2":{"c":1}})"},
      {{"level.x", "a.level", "_aws.Timestamp"},
       R"("field.level":{"x":0},"a":{"level":1},"field._aws":{"Timestamp":2})"},
      {{".", ".a", "a.", "a..b"}, R"(".":0,".a":1,"a.":2,"a..b":3)"},
      {{"1.2.3.4.5.6.7.8"}, R"("1":{"2":{"3":{"4":{"5":{"6":{"7":{"8":0}}}}}}})"},
      {{"1.2.3.4.5.6.7.8.9"}, R"("1.2.3.4.5.6.7.8.9":0)"},
      {{"a.\"", "\".a"}, R"("a":{"\"":0},"\"":{"a":1})"},
  };
  for (const Case& one : cases) {
    std::vector<SiteField> fields;
    Packed values;
    for (std::size_t i = 0; i < one.keys.size(); ++i) {
      fields.push_back({one.keys[i], ValueType::integer});
      values.number(static_cast<std::int64_t>(i));
    }
    // The encoder knows sites by their addresses: each has its own.
    LogEncoder encoder("s");
    const SiteInfo info = site(Severity::error, "m", fields);
    ByteBuffer out;
    encoder.append_json(view(info, values.bytes()), 1 << 20, out);
    const std::string text(out.view());
    const std::size_t begin = text.find("\"service\":\"s\",") + 14;
    EXPECT_EQ(text.substr(begin, text.find(",\"source\"") - begin), one.expected);
    EXPECT_EQ(Json(text)["message"].string(), "m");
  }
}

TEST_F(LogEventTest, ValuesOfEveryTypeKeepTheirKeysWhenTheyChangePlaces) {
  std::vector<SiteField> fields{{"o.a", ValueType::string}};
  fields.insert(fields.end(), every_type.begin(), every_type.end());
  fields.push_back({"o.b", ValueType::boolean});
  Packed values;
  values.string("first").number(std::int64_t{-7}).number(~std::uint64_t{0}).number(0.1);
  values.boolean(true).string("text").boolean(true);
  const SiteInfo info = site(Severity::info, "m", fields);
  const Json event(json(view(info, values.bytes())));
  EXPECT_EQ(event["o"]["a"].string(), "first");
  EXPECT_TRUE(event["o"]["b"].boolean());
  EXPECT_EQ(event["integer"].number(), -7);
  EXPECT_EQ(event["real"].number(), 0.1);
  EXPECT_TRUE(event["yes"].boolean());
  EXPECT_EQ(event["text"].string(), "text");
}

TEST_F(LogEventTest, ANamedLoggerIsSaid) {
  SiteInfo info = site(Severity::info, "handed out", {{"logger", ValueType::integer}});
  info.logger = "db.\"pool\"\n";
  Packed values;
  values.number(std::int64_t{1});
  const Json event(json(view(info, values.bytes())));
  EXPECT_EQ(event["logger"].string(), "db.\"pool\"\n");
  EXPECT_EQ(event["field.logger"].number(), 1);
  EXPECT_NE(console(view(info, values.bytes())).find(" db.\\\"pool\\\"\\n: handed out "),
            std::string::npos);
}

TEST_F(LogEventTest, SitesDoNotMixWhicheverOrderTheyComeIn) {
  std::vector<SiteInfo> sites;
  for (int i = 0; i < 50; ++i) sites.push_back(site(Severity::info, "m" + std::to_string(i)));
  for (const int step : {7, 43, 1}) {
    for (int i = 0; i < 50; ++i) {
      const int which = i * step % 50;
      EXPECT_EQ(Json(json(view(sites[static_cast<std::size_t>(which)])))["message"].string(),
                "m" + std::to_string(which));
    }
  }
}

TEST_F(LogEventTest, ARecordThatIsCutShortReadsAsEmptyValues) {
  const SiteInfo info = site(Severity::info, "m", every_type);
  const Packed whole = one_of_every_type();
  for (std::size_t size = 0; size < whole.bytes().size(); ++size) {
    Packed values = whole;
    values.cut(size);
    const Json event(json(view(info, values.bytes())));
    EXPECT_EQ(event.size(), 4 + every_type.size()) << size;
    ASSERT_FALSE(HasFailure());
  }
}

// ---- Size ----

const std::vector<SiteField> two_texts{{"short", ValueType::string}, {"long", ValueType::string}};

TEST_F(LogEventTest, AnEventOfExactlyTheLargestSizeIsWhole) {
  const SiteInfo info = site(Severity::info, "m", two_texts);
  Packed values;
  values.string("s").string(std::string(3000, 'x'));
  const std::string whole = json(view(info, values.bytes()));
  EXPECT_TRUE(json(view(info, values.bytes()), whole.size()) == whole);
  const std::string cut = json(view(info, values.bytes()), whole.size() - 1);
  EXPECT_LT(cut.size(), whole.size());
  const Json event(cut);
  EXPECT_TRUE(event["truncated"].boolean());
  EXPECT_EQ(event["short"].string(), "s") << "only the longest are cut";
  EXPECT_GT(event["long"].string().size(), 500U);
}

TEST_F(LogEventTest, WhateverTheStringsTheEventFits) {
  const SiteInfo info = site(Severity::error, "m", two_texts);
  const std::string kinds[] = {"x", "\"", "\x01", "\xf0\x9f\x98\x80", "\xff"};
  for (const std::string& first : kinds) {
    for (const std::string& second : kinds) {
      for (const std::size_t bytes_max : {1024U, 1025U, 4096U, 65536U}) {
        std::string a;
        std::string b;
        while (a.size() < 2 * bytes_max) a += first;
        while (b.size() < 3 * bytes_max) b += second;
        Packed values;
        values.string(a).string(b);
        const std::string text = json(view(info, values.bytes()), bytes_max);
        ASSERT_LE(text.size(), bytes_max);
        const Json event(text);
        EXPECT_TRUE(event["truncated"].boolean());
        ASSERT_FALSE(HasFailure());
      }
    }
  }
}

TEST_F(LogEventTest, EventsFollowOneAnotherInABuffer) {
  const SiteInfo info = site(Severity::info, "m", two_texts);
  Packed values;
  values.string("s").string(std::string(5000, 'x'));
  ByteBuffer out;
  encoder_.append_json(view(info, values.bytes()), 1024, out);
  const std::size_t first = out.size();
  encoder_.append_json(view(info, values.bytes()), 1024, out);
  EXPECT_EQ(out.view(0, first), out.view(first, out.size() - first));
}

// ---- For people ----

TEST_F(LogEventTest, ALineForPeopleIsOneLineAndDrivesNoTerminal) {
  context_.tenant = "a\nb";
  const SiteInfo info = site(Severity::warn, "up\x1b[31m\ndown", {{"k\n", ValueType::string}});
  Packed values;
  values.string("\x1b]0;title\x07");
  const std::string line = console(view(info, values.bytes()));
  for (const char c : line) EXPECT_GE(static_cast<unsigned char>(c), 0x20U);
}

TEST_F(LogEventTest, ColoursAreOfTheSeverityAndNothingElse) {
  LogEncoder coloured("orders", true);
  Packed values;
  values.string("\x1b[31mred\x1b[0m");
  for (int severity = 0; severity < 6; ++severity) {
    const SiteInfo info =
        site(static_cast<Severity>(severity), "m\x1b[0m", {{"k", ValueType::string}});
    ByteBuffer out;
    coloured.append_console(view(info, values.bytes()), 1 << 20, out);
    std::string line(out.view());
    for (const int nth : {1, 2}) {
      const std::size_t begin = line.find('\x1b');
      ASSERT_NE(begin, std::string::npos) << nth;
      line.erase(begin, line.find('m', begin) + 1 - begin);
    }
    EXPECT_EQ(line, console(view(info, values.bytes())));
    EXPECT_EQ(line.find('\x1b'), std::string::npos);
  }
}

TEST_F(LogEventTest, ALineForPeopleIsCutLikeAnEvent) {
  const SiteInfo info = site(Severity::info, "m", two_texts);
  Packed values;
  values.string("s").string(std::string(3000, 'x'));
  const std::string whole = console(view(info, values.bytes()));
  EXPECT_TRUE(console(view(info, values.bytes()), whole.size()) == whole);
  const std::string cut = console(view(info, values.bytes()), whole.size() - 1);
  EXPECT_LT(cut.size(), whole.size());
  EXPECT_TRUE(cut.ends_with("x\" truncated=true")) << cut.substr(cut.size() - 30);
}

}  // namespace
}  // namespace spillway::detail
