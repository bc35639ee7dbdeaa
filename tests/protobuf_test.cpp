// SPDX-License-Identifier: Apache-2.0
//
// The pieces of the wire format against a parser of our own for tests, and the reader against
// damaged bytes.
#include <limits>
#include <random>
#include <string>

#include <gtest/gtest.h>
#include <support/protobuf.hpp>
#include <support/seed.hpp>

#include <spillway/encoders/protobuf.hpp>

namespace {

using namespace spillway::detail;
using namespace spillway::detail::protobuf;
using spillway::testing::ProtoMessage;

TEST(Protobuf, NumbersOfEverySizeComeBack) {
  for (int bits = 0; bits <= 64; ++bits) {
    const std::uint64_t power = bits == 64 ? 0 : std::uint64_t{1} << bits;
    for (const std::uint64_t value : {power - 1, power, power + 1}) {
      ByteBuffer out;
      append_varint_field(out, 3, value);
      append_fixed64_field(out, 20, value);
      const ProtoMessage message(out.view());
      EXPECT_EQ(message.varint(3), value);
      EXPECT_EQ(message.fixed64(20), value);
      char room[varint_bytes_max];
      EXPECT_EQ(varint_bytes(value), static_cast<std::size_t>(write_varint(room, value) - room));
    }
  }
}

TEST(Protobuf, ZigzagTurnsSmallMagnitudesIntoSmallNumbers) {
  EXPECT_EQ(zigzag(0), 0U);
  EXPECT_EQ(zigzag(-1), 1U);
  EXPECT_EQ(zigzag(1), 2U);
  EXPECT_EQ(zigzag(std::numeric_limits<std::int64_t>::max()), ~std::uint64_t{1});
  EXPECT_EQ(zigzag(std::numeric_limits<std::int64_t>::min()), ~std::uint64_t{0});
}

// The length of a nested message takes one to four bytes; two are left for it.
TEST(Protobuf, NestedMessagesOfEveryLengthClass) {
  for (const std::size_t size : {0U, 1U, 124U, 125U, 126U, 127U, 128U, 129U, 16'379U, 16'380U,
                                 16'381U, 16'384U, 2'097'148U, 2'097'152U}) {
    const std::string text(size, 'x');
    ByteBuffer out;
    out.append("\x08\x07");  // What stands before it stays.
    const std::size_t outer = begin_nested(out, 2);
    const std::size_t inner = begin_nested(out, 4);
    append_bytes_field(out, 1, text);
    end_nested(out, inner);
    append_varint_field(out, 5, 99);
    end_nested(out, outer);
    append_varint_field(out, 6, 100);
    const ProtoMessage message(out.view());
    EXPECT_EQ(message.varint(1), 7U);
    EXPECT_EQ(message.varint(6), 100U);
    EXPECT_EQ(message.message(2).varint(5), 99U);
    EXPECT_TRUE(message.message(2).message(4).text(1) == text) << size;
  }
}

TEST(Protobuf, TextThatIsNoUtf8BecomesSo) {
  using namespace std::string_view_literals;
  const auto made = [](std::string_view text) {
    ByteBuffer out;
    append_string_field(out, 1, text);
    return ProtoMessage(out.view()).text(1);
  };
  const std::string mark = "\xEF\xBF\xBD";
  EXPECT_EQ(made(""), "");
  EXPECT_EQ(made("ordinary text, longer than a word"), "ordinary text, longer than a word");
  EXPECT_EQ(made("gr\xC3\xBC\xC3\x9F \xF0\x9F\x9A\x80"), "gr\xC3\xBC\xC3\x9F \xF0\x9F\x9A\x80");
  EXPECT_EQ(made("nul \0 stays"sv), "nul \0 stays"sv);
  EXPECT_EQ(made("cut \xC3"), "cut " + mark);
  EXPECT_EQ(made("12345678\xFFtail"), "12345678" + mark + "tail");
  EXPECT_EQ(made("\xC0\x80"), mark + mark);                        // Overlong.
  EXPECT_EQ(made("\xED\xA0\x80"), mark + mark + mark);             // A surrogate.
  EXPECT_EQ(made("\xF4\x90\x80\x80"), mark + mark + mark + mark);  // Past U+10FFFF.
}

TEST(ProtobufReader, ReadsWhatWasWritten) {
  ByteBuffer out;
  append_varint_field(out, 1, 300);
  append_string_field(out, 2, "text");
  append_fixed64_field(out, 300, 5);
  Reader reader(out.view());
  ASSERT_TRUE(reader.next());
  EXPECT_EQ(reader.field(), 1U);
  EXPECT_EQ(reader.number(), 300U);
  ASSERT_TRUE(reader.next());
  EXPECT_EQ(reader.bytes(), "text");
  EXPECT_EQ(reader.number(), 0U);
  ASSERT_TRUE(reader.next());
  EXPECT_EQ(reader.field(), 300U);
  EXPECT_EQ(reader.number(), 5U);
  EXPECT_FALSE(reader.next());
  EXPECT_FALSE(reader.damaged());
}

TEST(ProtobufReader, DamagedBytesEndIt) {
  using namespace std::string_view_literals;
  for (const std::string_view bytes :
       {"\x80"sv, "\x08"sv, "\x09\x01\x02"sv, "\x12\x05hey"sv, "\x0b"sv, "\x0f\x01"sv, "\x00\x01"sv,
        "\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01x"sv, "\x0d\x01\x02\x03"sv,
        "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"sv}) {
    Reader reader(bytes);
    EXPECT_FALSE(reader.next());
    EXPECT_TRUE(reader.damaged());
    EXPECT_FALSE(reader.next());
  }
}

// Random bytes, and good ones with a byte changed, never lead outside (the sanitizers watch).
TEST(ProtobufReader, SurvivesAnyBytes) {
  const std::uint64_t seed = spillway::testing::seed_or(20261121);
  SCOPED_TRACE(spillway::testing::seed_note(seed));
  std::mt19937_64 random(seed);
  std::uint64_t fields = 0;
  for (int round = 0; round < 20'000; ++round) {
    std::string bytes(random() % 64, '\0');
    for (char& c : bytes) c = static_cast<char>(random() % (round % 2 == 0 ? 256 : 32));
    std::size_t taken = 0;
    for (Reader reader(bytes); reader.next();) {
      ++fields;
      taken += reader.bytes().size() + 1;
      ASSERT_LE(taken, bytes.size());
    }
  }
  EXPECT_GT(fields, 5'000U);
}

}  // namespace
