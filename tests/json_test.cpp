// SPDX-License-Identifier: Apache-2.0
//
// The pieces of JSON text, each read back by another parser.
#include <array>
#include <bit>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <support/json.hpp>
#include <support/seed.hpp>

#include <spillway/encoders/json.hpp>

namespace spillway::detail {
namespace {

using testing::Json;
using namespace std::string_literals;

template <class Append, class... Args>
std::string text_of(Append append, const Args&... args) {
  ByteBuffer out;
  append(out, args...);
  return std::string(out.view());
}
std::string escaped(std::string_view text) { return text_of(append_json_string, text); }
std::string number(double value) {
  return text_of([](ByteBuffer& out, double v) { append_number(out, v); }, value);
}

// ---- Strings ----

TEST(JsonStringTest, PlainTextIsItself) {
  EXPECT_EQ(escaped(""), "\"\"");
  EXPECT_EQ(escaped("order placed /?&<>'"), "\"order placed /?&<>'\"");
  EXPECT_EQ(escaped("Gr\xc3\xbc\xc3\x9f"
                    "e \xe4\xbd\xa0 \xf0\x9f\x98\x80"),
            "\"Gr\xc3\xbc\xc3\x9f"
            "e \xe4\xbd\xa0 \xf0\x9f\x98\x80\"");
}

TEST(JsonStringTest, EachByteAtEachPlaceIsAsItIsAlone) {
  for (int byte = 0; byte < 256; ++byte) {
    detail::ByteBuffer alone;
    const char c = static_cast<char>(byte);
    detail::append_json_escaped(alone, {&c, 1});
    for (const std::size_t size :
         {1U, 2U, 3U, 4U, 5U, 7U, 8U, 9U, 15U, 16U, 17U, 19U, 31U, 32U, 33U, 49U}) {
      for (std::size_t at = 0; at < size; ++at) {
        std::string text(size, '~');
        text[at] = c;
        const std::string expected =
            std::string(at, '~') + std::string(alone.view()) + std::string(size - at - 1, '~');
        detail::ByteBuffer out;
        detail::append_json_escaped(out, text);
        ASSERT_EQ(out.view(), expected) << byte << " at " << at << " of " << size;
        out.clear();
        detail::append_json_string(out, text);
        ASSERT_EQ(out.view(), '"' + expected + '"');
        std::vector<char> written(json_string_bytes_max(text));
        char* const end = write_json_string(written.data(), text);
        ASSERT_EQ(std::string_view(written.data(), static_cast<std::size_t>(end - written.data())),
                  out.view());
      }
    }
  }
}

// Against the escapes of each character alone: any mix of them, at any place of any block. What is
// written has exactly the room that it asks for.
TEST(JsonStringTest, AnyMixIsItsCharactersOneByOne) {
  const std::uint64_t seed = testing::seed_or(9);
  SCOPED_TRACE(testing::seed_note(seed));
  std::mt19937_64 random(seed);
  const std::string characters[] = {"a",    "\"",       "\\",           "\n",
                                    "\x1b", "\xc3\xbc", "\xe2\x80\xa8", "\xff"};
  for (int round = 0; round < 5000; ++round) {
    const std::size_t plain = random() % 20;  // of so many, one is another
    std::string text;
    std::string expected;
    for (std::size_t left = random() % 90; left > 0; --left) {
      const std::string& one =
          characters[random() % (plain + 1) == 0 ? random() % std::size(characters) : 0];
      text += one;
      const std::string alone = escaped(one);
      expected += alone.substr(1, alone.size() - 2);
    }
    ASSERT_EQ(escaped(text), '"' + expected + '"');
    std::vector<char> written(json_string_bytes_max(text));
    char* const end = write_json_string(written.data(), text);
    ASSERT_EQ(std::string(written.data(), end), '"' + expected + '"');
  }
}

TEST(JsonStringTest, QuotesBackslashesAndControlsAreEscaped) {
  EXPECT_EQ(escaped("a\"b\\c"), R"("a\"b\\c")");
  EXPECT_EQ(escaped("\n\r\t"), R"("\n\r\t")");
  EXPECT_EQ(escaped("\0\x01\x1b\x1f\x7f"s), R"("\u0000\u0001\u001b\u001f\u007f")");
}

TEST(JsonStringTest, WhatChangesTheTextAroundItIsEscaped) {
  EXPECT_EQ(escaped("\xc2\x80\xc2\x9b\xc2\x9f"), R"("\u0080\u009b\u009f")") << "C1 controls";
  EXPECT_EQ(escaped("\xc2\xa0"), "\"\xc2\xa0\"") << "the first behind them";
  EXPECT_EQ(escaped("\xe2\x80\xa8\xe2\x80\xa9"), R"("\u2028\u2029")") << "line separators";
  EXPECT_EQ(escaped("\xe2\x80\xaa\xe2\x80\xae\xe2\x81\xa6\xe2\x81\xa9"),
            R"("\u202a\u202e\u2066\u2069")")
      << "bidi controls";
}

TEST(JsonStringTest, BytesThatAreNotUtf8AreReplacedOneByOne) {
  const std::string mark = "\\ufffd";
  struct Case {
    std::string bytes;
    std::string text;
  };
  for (const Case& c : {
           Case{"\x80", mark},                                            // a continuation alone
           Case{"\xc3", mark},                                            // cut
           Case{"\xc3z", mark + "z"},                                     // broken off
           Case{"\xe4\xbd", mark + mark},                                 // cut in three
           Case{"\xf0\x9f\x98", mark + mark + mark},                      // cut in four
           Case{"\xc0\xaf", mark + mark},                                 // overlong '/'
           Case{"\xe0\x80\xaf", mark + mark + mark},                      // overlong in three
           Case{"\xf0\x80\x80\xaf", mark + mark + mark + mark},           // overlong in four
           Case{"\xed\xa0\x80", mark + mark + mark},                      // lone surrogate
           Case{"\xf4\x90\x80\x80", mark + mark + mark + mark},           // above U+10FFFF
           Case{"\xff\xfe", mark + mark},                                 // never legal
           Case{"\xf4\x8f\xbf\xbf", "\xf4\x8f\xbf\xbf"},                  // U+10FFFF itself
           Case{"\xed\x9f\xbf\xee\x80\x80", "\xed\x9f\xbf\xee\x80\x80"},  // around the surrogates
       }) {
    EXPECT_EQ(escaped(c.bytes), "\"" + c.text + "\"");
  }
}

TEST(JsonStringTest, AnyBytesReadBackAsValidText) {
  const std::uint64_t seed = testing::seed_or(5);
  SCOPED_TRACE(testing::seed_note(seed));
  std::mt19937_64 random(seed);
  for (int round = 0; round < 2000; ++round) {
    std::string bytes;
    const std::size_t size = random() % 60;
    for (std::size_t i = 0; i < size; ++i) {
      bytes += static_cast<char>(random() % 3 == 0 ? random() % 128 : random());
    }
    const std::string text = escaped(bytes);
    ASSERT_TRUE(simdjson::validate_utf8(text));
    const std::string back = Json(text).string();
    if (simdjson::validate_utf8(bytes)) {
      ASSERT_EQ(back, bytes);
    }
    ASSERT_FALSE(HasFailure()) << "round " << round;
  }
}

// ---- Numbers ----

TEST(JsonNumberTest, DoublesAreTheShortestTextThatReadsBack) {
  EXPECT_EQ(number(0), "0");
  EXPECT_EQ(number(0.1), "0.1");
  EXPECT_EQ(number(17), "17");
  EXPECT_EQ(number(-2.5), "-2.5");
  EXPECT_EQ(number(1e300), "1e+300");
}

TEST(JsonNumberTest, TheShortWayWritesWhatTheLongOneDoes) {
  const auto check = [](double value) {
    std::array<char, 32> expected{};
    const char* const end = std::to_chars(expected.data(), expected.data() + 32, value).ptr;
    detail::ByteBuffer out;
    detail::append_number(out, value);
    ASSERT_EQ(out.view(),
              std::string_view(expected.data(), static_cast<std::size_t>(end - expected.data())));
  };
  const std::uint64_t seed = testing::seed_or(4);
  SCOPED_TRACE(testing::seed_note(seed));
  std::mt19937_64 random(seed);
  for (double value = 1; value < 1e12; value *= 10) {
    for (const double near : {value, value - 1, value + 1, value * 3, value / 8, value + 0.001}) {
      check(near);
      check(std::nextafter(near, 0));
      check(std::nextafter(near, 1e300));
    }
  }
  for (int i = 0; i < 200'000; ++i) {
    const double magnitude = std::pow(10, static_cast<double>(random() % 12));
    const double digits = std::pow(10, static_cast<double>(random() % 6));
    const double value = std::uniform_real_distribution<double>(0.1, 1)(random) * magnitude;
    check(value);
    check(std::round(value * digits) / digits);
    check(std::floor(value));
  }
}

TEST(JsonNumberTest, ExtremesReadBack) {
  using Limits = std::numeric_limits<double>;
  for (const double value :
       {Limits::max(), Limits::lowest(), Limits::min(), Limits::denorm_min(), Limits::epsilon(),
        0x1p360, 0x1p-360, 1.0 / 3, 9007199254740993.0, 1e22, 1e23, 5e-324}) {
    EXPECT_EQ(Json(number(value)).number(), value);
    EXPECT_EQ(Json(number(-value)).number(), -value);
  }
  EXPECT_EQ(number(-0.0), "-0");
}

TEST(JsonNumberTest, OnlyWhat64BitsHoldIsWrittenWithoutAnExponent) {
  // Parsers that keep integers apart from doubles refuse longer ones.
  EXPECT_EQ(number(-0x1p63), "-9.223372036854776e+18");
  EXPECT_EQ(number(std::nextafter(0x1p63, 0.0)), "9223372036854774784");
  EXPECT_EQ(number(123456789012345683968.0), "1.2345678901234568e+20");
  EXPECT_EQ(number(-123456789012345683968.0), "-1.2345678901234568e+20");
}

TEST(JsonNumberTest, AnyFiniteDoubleReadsBack) {
  const std::uint64_t seed = testing::seed_or(6);
  SCOPED_TRACE(testing::seed_note(seed));
  std::mt19937_64 random(seed);
  for (int i = 0; i < 20'000; ++i) {
    // Any bits, and whole numbers around where integers end.
    const double value = i % 2 == 0
                             ? std::bit_cast<double>(random())
                             : std::floor(std::exp2(static_cast<double>(random() % 1200) / 10));
    if (!std::isfinite(value)) continue;
    ASSERT_EQ(Json(number(value)).number(), value);
    ASSERT_EQ(Json(number(-value)).number(), -value);
  }
}

TEST(JsonNumberTest, WhatIsNoNumberIsAString) {
  const double inf = std::numeric_limits<double>::infinity();
  EXPECT_EQ(number(std::nan("")), "\"NaN\"");
  EXPECT_EQ(number(-std::nan("")), "\"NaN\"");
  EXPECT_EQ(number(inf), "\"Infinity\"");
  EXPECT_EQ(number(-inf), "\"-Infinity\"");
}

TEST(JsonNumberTest, IntegersKeepEveryDigit) {
  ByteBuffer out;
  append_number(out, ~std::uint64_t{0});
  out.append(' ');
  append_number(out, std::numeric_limits<std::int64_t>::min());
  EXPECT_EQ(out.view(), "18446744073709551615 -9223372036854775808");
}

TEST(JsonNumberTest, EveryFourDigitsInEachPlace) {
  for (std::uint64_t four = 0; four < 10'000; ++four) {
    for (const std::uint64_t value :
         {four, four * 10'000 + 1, four * 100'000'000 + 9'999, four * 1'000'000'000'000 + four,
          700'000'000'000 + four * 10'000 + (9'999 - four)}) {
      ByteBuffer out;
      append_number(out, value);
      ASSERT_EQ(out.view(), std::to_string(value));
    }
  }
}

TEST(JsonNumberTest, IntegersOfEachWidth) {
  const auto check = [](auto value) {
    ByteBuffer out;
    append_number(out, value);
    ASSERT_EQ(out.view(), std::to_string(value));
  };
  check(std::uint64_t{0});
  for (std::uint64_t power = 1;; power *= 10) {
    for (const std::uint64_t value : {power - 1, power, power + 1, power * 2 - 1}) {
      check(value);
      check(static_cast<std::int64_t>(value));
      check(static_cast<std::int64_t>(0 - value));
    }
    if (power > ~std::uint64_t{0} / 10) break;
  }
  for (int bits = 0; bits < 64; ++bits) check((std::uint64_t{1} << bits) - 1);
}

// ---- Ids and times ----

TEST(JsonIdTest, IdsHaveTheirLeadingZeroes) {
  EXPECT_EQ(text_of(append_hex16, std::uint64_t{0xABC}), "0000000000000abc");
  EXPECT_EQ(text_of(append_hex16, ~std::uint64_t{0}), "ffffffffffffffff");
  EXPECT_EQ(text_of(append_xray_trace_id, TraceId{0x6b00e3540f1e2d3c, 0x4b5a69788796a5b4}),
            "1-6b00e354-0f1e2d3c4b5a69788796a5b4");
  EXPECT_EQ(text_of(append_xray_trace_id, TraceId{0, 1}), "1-00000000-000000000000000000000001");
}

TEST(JsonIdTest, EveryDigitStandsInItsPlace) {
  for (int shift = 0; shift < 64; shift += 4) {
    for (std::uint64_t digit = 0; digit < 16; ++digit) {
      const std::uint64_t value = digit << shift;
      std::array<char, 40> expected{};
      std::snprintf(expected.data(), expected.size(), "%016llx",
                    static_cast<unsigned long long>(value));
      ByteBuffer out;
      append_hex16(out, value);
      ASSERT_EQ(out.view(), expected.data());
      out.clear();
      append_xray_trace_id(out, {value, ~value});
      std::snprintf(expected.data(), expected.size(), "1-%08llx-%08llx%016llx",
                    static_cast<unsigned long long>(value >> 32),
                    static_cast<unsigned long long>(value & 0xFFFF'FFFF),
                    static_cast<unsigned long long>(~value));
      ASSERT_EQ(out.view(), expected.data());
    }
  }
}

TEST(JsonTimeTest, TimesOfDayAndTheirFractions) {
  const auto iso = [](std::int64_t time_ns) { return text_of(append_iso8601, time_ns); };
  EXPECT_EQ(iso(0), "1970-01-01T00:00:00.000000000Z");
  EXPECT_EQ(iso(1'795'222'800'123'456'789), "2026-11-21T01:00:00.123456789Z");
  EXPECT_EQ(iso(1'795'222'800'999'999'999), "2026-11-21T01:00:00.999999999Z");
  EXPECT_EQ(iso(951'782'400'000'000'000), "2000-02-29T00:00:00.000000000Z");
  EXPECT_EQ(iso(2'147'483'648'000'000'001), "2038-01-19T03:14:08.000000001Z");
  EXPECT_EQ(iso(std::numeric_limits<std::int64_t>::max()), "2262-04-11T23:47:16.854775807Z");
}

TEST(JsonTimeTest, TimesBeforeTheEpochAreWhole) {
  const auto iso = [](std::int64_t time_ns) { return text_of(append_iso8601, time_ns); };
  // On a thread that has written no time yet this is the second that its memory begins with.
  EXPECT_EQ(iso(-1), "1969-12-31T23:59:59.999999999Z");
  EXPECT_EQ(iso(-1'000'000'000), "1969-12-31T23:59:59.000000000Z");
  EXPECT_EQ(iso(std::numeric_limits<std::int64_t>::min()), "1677-09-21T00:12:43.145224192Z");
}

TEST(JsonTimeTest, EpochSecondsHaveSixDecimals) {
  const auto seconds = [](std::int64_t time_ns) {
    std::array<char, number_bytes_max> text{};
    char* const end = write_epoch_seconds(text.data(), time_ns);
    return std::string(text.data(), end);
  };
  EXPECT_EQ(seconds(0), "0.000000");
  EXPECT_EQ(seconds(1'795'220'308'120'145'000), "1795220308.120145");
  EXPECT_EQ(seconds(1'000), "0.000001");
  EXPECT_EQ(seconds(499), "0.000000");
  EXPECT_EQ(seconds(500), "0.000001") << "rounded";
  EXPECT_EQ(seconds(1'999'999'999), "2.000000") << "up into the next second";
  EXPECT_EQ(seconds(std::numeric_limits<std::int64_t>::max()), "9223372036.854776");
  EXPECT_EQ(seconds(999'999'999'999'999'499), "999999999.999999");
  EXPECT_EQ(seconds(999'999'999'999'999'500), "1000000000.000000");
  for (std::int64_t micros = 0; micros < 1'000'000; micros += 97) {
    std::array<char, number_bytes_max> expected{};
    std::snprintf(expected.data(), expected.size(), "%lld.%06lld", 1'795'000'000LL + micros * 7,
                  static_cast<long long>(micros));
    ASSERT_EQ(seconds((1'795'000'000 + micros * 7) * 1'000'000'000 + micros * 1000),
              expected.data());
  }
  EXPECT_EQ(seconds(-1), "0.000000") << "X-Ray knows no time before 1970";
  EXPECT_EQ(seconds(-1'234'567'890), "0.000000");
}

// ---- Cutting ----

TEST(CutUtf8Test, NoCharacterIsSplit) {
  const std::string text = "a\xc3\xbc\xe4\xbd\xa0\xf0\x9f\x98\x80z";  // 1 + 2 + 3 + 4 + 1 bytes
  const std::size_t whole[] = {0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10, 11, 11};
  for (std::size_t bytes = 0; bytes < std::size(whole); ++bytes) {
    EXPECT_EQ(cut_utf8(text, bytes).size(), whole[bytes]) << bytes;
  }
  EXPECT_EQ(cut_utf8("", 0), "");
  EXPECT_EQ(cut_utf8("abc", ~std::size_t{0}), "abc");
}

TEST(CutUtf8Test, BytesThatAreNotUtf8CostAtMostThree) {
  EXPECT_GE(cut_utf8(std::string(100, '\x80'), 50).size(), 47U);
}

}  // namespace
}  // namespace spillway::detail
