// SPDX-License-Identifier: Apache-2.0
#include <random>
#include <string>

#include <gtest/gtest.h>
#include <support/seed.hpp>

#include <spillway/engine/trace_header.hpp>

namespace spillway {
namespace {

constexpr const char* root = "1-6b00e354-0f1e2d3c4b5a69788796a5b4";
constexpr TraceId root_id{0x6b00e3540f1e2d3c, 0x4b5a69788796a5b4};

TEST(TraceHeaderTest, ItsThreeFields) {
  const auto parent = parse_trace_header(
      "Root=1-6b00e354-0f1e2d3c4b5a69788796a5b4;Parent=1a2b3c4d5e6f7081;Sampled=1");
  ASSERT_TRUE(parent);
  EXPECT_EQ(parent->trace_id, root_id);
  EXPECT_EQ(parent->parent_id, 0x1a2b3c4d5e6f7081U);
  EXPECT_EQ(parent->sampled, Sampled::yes);
}

TEST(TraceHeaderTest, AnyOrderBlanksAndOtherFields) {
  const auto parent = parse_trace_header(
      std::string(" Self=1-67891234-12456789abcdef012345678a ;Lineage=25:1a:3; Sampled=0 ;; ="
                  ";Parent=1a2b3c4d5e6f7081;\tRoot=") +
      root + " ;x");
  ASSERT_TRUE(parent);
  EXPECT_EQ(parent->trace_id, root_id);
  EXPECT_EQ(parent->parent_id, 0x1a2b3c4d5e6f7081U);
  EXPECT_EQ(parent->sampled, Sampled::no);
}

TEST(TraceHeaderTest, WithoutALegalRootItIsNothing) {
  for (const char* const header :
       {"", ";", "Sampled=1", "Root", "Root=", "Root=;Sampled=1",
        "root=1-6b00e354-0f1e2d3c4b5a69788796a5b4", "Root=1-00000000-000000000000000000000000",
        "Root=2-6b00e354-0f1e2d3c4b5a69788796a5b4", "Root=1-6B00E354-0F1E2D3C4B5A69788796A5B4",
        "Root=1-6b00e354-0f1e2d3c4b5a69788796a5b", "Root=1-6b00e354-0f1e2d3c4b5a69788796a5b44",
        "Root=1-6b00e354-0f1e2d3c4b5a69788796a5bg", "Root=1-6b00e354:0f1e2d3c4b5a69788796a5b4",
        "Root=1-6b00e3540-f1e2d3c4b5a69788796a5b4", "Root=\"1-6b00e354-0f1e2d3c4b5a69788796a5b4\"",
        "Root=1-6b00e354-0f1e2d3c4b5a69788796a5b4,Parent=1a2b3c4d5e6f7081",
        "Root=bad;Root=1-6b00e354-0f1e2d3c4b5a69788796a5b4"}) {
    EXPECT_FALSE(parse_trace_header(header)) << header;
  }
}

TEST(TraceHeaderTest, AnIllegalParentOrDecisionIsAsIfItWereNotThere) {
  const auto parse = [](const std::string& rest) {
    const auto parent = parse_trace_header("Root=" + std::string(root) + rest);
    EXPECT_TRUE(parent) << rest;
    return parent.value_or(TraceParent{});
  };
  for (const char* const bad : {";Parent=", ";Parent=1a2b3c4d5e6f708", ";Parent=1a2b3c4d5e6f70811",
                                ";Parent=1A2B3C4D5E6F7081", ";Parent=0000000000000000", ""}) {
    EXPECT_EQ(parse(bad).parent_id, 0U) << bad;
  }
  for (const char* const bad : {";Sampled=", ";Sampled=?", ";Sampled=2", ";Sampled=true", ""}) {
    EXPECT_EQ(parse(bad).sampled, Sampled::unknown) << bad;
  }
}

TEST(TraceHeaderTest, ALongHeaderIsNotRead) {
  const std::string header = "Root=" + std::string(root) + ";";
  EXPECT_TRUE(parse_trace_header(header + std::string(4096 - header.size(), 'x')));
  EXPECT_FALSE(parse_trace_header(header + std::string(4097 - header.size(), 'x')));
}

TEST(TraceHeaderTest, AnyBytesAreSurvivedAndWhatIsReadCanBeWritten) {
  const std::uint64_t seed = testing::seed_or(12);
  SCOPED_TRACE(testing::seed_note(seed));
  std::mt19937_64 random(seed);
  const std::string whole = "Root=" + std::string(root) + ";Parent=1a2b3c4d5e6f7081;Sampled=1";
  for (int i = 0; i < 20'000; ++i) {
    std::string header = whole;
    for (std::uint64_t changes = random() % 4; changes > 0; --changes) {
      header[random() % header.size()] = static_cast<char>(random());
    }
    header.resize(random() % 4 == 0 ? random() % header.size() : header.size());
    if (const auto parent = parse_trace_header(header)) {
      ASSERT_EQ(parse_trace_id(to_string(parent->trace_id)), parent->trace_id);
    }
  }
}

TEST(TraceHeaderTest, WhatIsNotUnderstoodIsCarriedButNotTheLoadBalancersOwn) {
  const auto parent = parse_trace_header(
      "Self=1-67891234-12456789abcdef012345678a;Lineage=1:5d5ff8e0:0; Root=" + std::string(root) +
      ";CalledFrom=app ;novalue;=x;Tail=a=b;Parent=1a2b3c4d5e6f7081");
  ASSERT_TRUE(parent);
  EXPECT_EQ(parent->fields.view(), "Lineage=1:5d5ff8e0:0;CalledFrom=app;Tail=a=b");
}

TEST(TraceHeaderTest, WhatIsCarriedHasABound) {
  std::string header = "Root=" + std::string(root);
  for (int i = 0; i < 100; ++i) header += ";Key" + std::to_string(i) + "=123456789";
  const auto parent = parse_trace_header(header);
  ASSERT_TRUE(parent);
  EXPECT_LE(parent->fields.view().size(), 512U);
  EXPECT_TRUE(parent->fields.view().starts_with("Key0=123456789;Key1=")) << "the first ones stay";
  EXPECT_TRUE(parent->fields.view().ends_with("=123456789")) << "and whole ones";
}

TEST(TraceHeaderTest, CharactersThatAHeaderMayNotHave) {
  const std::string good = "Root=" + std::string(root);
  ASSERT_TRUE(parse_trace_header(good + ";Key=a b"));
  for (const std::string_view bad :
       {std::string_view("\r"), std::string_view("\n"), std::string_view("\r\nX-Evil: 1"),
        std::string_view("\0", 1), std::string_view("\x1b"), std::string_view("\x7f"),
        std::string_view("\x80"), std::string_view("\xc3\xa9")}) {
    EXPECT_FALSE(parse_trace_header(good + ";Key=" + std::string(bad)));
    EXPECT_FALSE(parse_trace_header(good + std::string(bad)));
  }
}

// ---- W3C Trace Context level 1 ----

constexpr const char* w3c_root = "6b00e3540f1e2d3c4b5a69788796a5b4";

std::string traceparent(std::string_view version = "00", std::string_view trace = w3c_root,
                        std::string_view parent = "1a2b3c4d5e6f7081",
                        std::string_view flags = "01") {
  std::string text(version);
  for (const std::string_view part : {trace, parent, flags}) text.append("-").append(part);
  return text;
}

TEST(TraceparentTest, ItsFields) {
  const auto parent = parse_traceparent(traceparent());
  ASSERT_TRUE(parent);
  EXPECT_EQ(parent->trace_id, root_id);
  EXPECT_EQ(parent->parent_id, 0x1a2b3c4d5e6f7081U);
  EXPECT_EQ(parent->sampled, Sampled::yes);
  EXPECT_TRUE(parse_traceparent("\t " + traceparent() + "  ")) << "blanks around a header's value";
}

TEST(TraceparentTest, OnlyTheLastBitOfTheFlagsSaysSampled) {
  for (const auto& [flags, sampled] : {std::pair("00", Sampled::no),
                                       {"01", Sampled::yes},
                                       {"02", Sampled::no},
                                       {"fe", Sampled::no},
                                       {"ff", Sampled::yes},
                                       {"10", Sampled::no}}) {
    const auto parent = parse_traceparent(traceparent("00", w3c_root, "1a2b3c4d5e6f7081", flags));
    ASSERT_TRUE(parent) << flags;
    EXPECT_EQ(parent->sampled, sampled) << flags;
  }
}

TEST(TraceparentTest, WhatIsNotLegal) {
  const std::string good = traceparent();
  const std::string zeros(32, '0');
  for (const std::string& bad : {std::string(),
                                 std::string("00"),
                                 good.substr(0, 54),
                                 good + "0",
                                 good + "-",
                                 good + "-01",
                                 good + ",",
                                 good + "," + good,
                                 traceparent("ff"),
                                 traceparent("0"),
                                 traceparent("000"),
                                 traceparent("0g"),
                                 traceparent("0A"),
                                 traceparent("00", zeros),
                                 traceparent("00", "6B00E3540F1E2D3C4B5A69788796A5B4"),
                                 traceparent("00", w3c_root + 1),
                                 traceparent("00", std::string(w3c_root) + "0"),
                                 traceparent("00", std::string("g") + (w3c_root + 1)),
                                 traceparent("00", w3c_root, "0000000000000000"),
                                 traceparent("00", w3c_root, "1A2B3C4D5E6F7081"),
                                 traceparent("00", w3c_root, "1a2b3c4d5e6f708"),
                                 traceparent("00", w3c_root, "1a2b3c4d5e6f70811"),
                                 traceparent("00", w3c_root, "1a2b3c4d5e6f708x"),
                                 traceparent("00", w3c_root, "1a2b3c4d5e6f7081", "1"),
                                 traceparent("00", w3c_root, "1a2b3c4d5e6f7081", "0x"),
                                 traceparent("00", w3c_root, "1a2b3c4d5e6f7081", "0A"),
                                 traceparent("00", w3c_root, "1a2b3c4d5e6f7081", "001")}) {
    EXPECT_FALSE(parse_traceparent(bad, "rojo=1")) << bad;
  }
  std::string dots = good;
  dots[2] = '.';
  EXPECT_FALSE(parse_traceparent(dots));
}

TEST(TraceparentTest, LaterVersionsAreReadAsFarAsTheyAreKnown) {
  for (const char* const version : {"01", "cc", "fe"}) {
    EXPECT_TRUE(parse_traceparent(traceparent(version))) << version;
    EXPECT_TRUE(parse_traceparent(traceparent(version) + "-what-the-future-brings")) << version;
    EXPECT_TRUE(parse_traceparent(traceparent(version) + "-")) << version;
    EXPECT_FALSE(parse_traceparent(traceparent(version) + ".x")) << version;
    EXPECT_FALSE(parse_traceparent(traceparent(version) + "0")) << version;
  }
}

std::string carried(std::string_view tracestate) {
  const auto parent = parse_traceparent(traceparent(), tracestate);
  EXPECT_TRUE(parent) << "a tracestate costs nobody the traceparent";
  return parent ? std::string(parent->trace_state.view()) : "?";
}

TEST(TracestateTest, LegalOnesAreCarried) {
  const std::string key_256 = "k" + std::string(255, 'z');
  const std::string value_256(256, '~');
  const std::string tenant = std::string(241, 't') + "@" + std::string(14, 'v');
  for (const std::string& legal :
       {std::string("foo=1"), std::string("foo=1,bar=2"), std::string("rojo=00f067aa0ba902b7"),
        std::string("0tenant@sys=x"), std::string("abcdefghijklmnopqrstuvwxyz0123456789_-*/=a"),
        std::string("foo= leading"), std::string("foo=!\"#$%&'()*+-./0:;<>?@AZ[\\]^_`az{|}~"),
        tenant + "=1", key_256 + "=1"}) {
    EXPECT_EQ(carried(legal), legal);
  }
  EXPECT_EQ(carried("k=" + value_256), "k=" + value_256);
  EXPECT_EQ(carried("foo=1 \t , \t bar=2, baz=3"), "foo=1,bar=2,baz=3");
  EXPECT_EQ(carried("foo=1,"), "foo=1") << "empty members are allowed";
  EXPECT_EQ(carried(",,foo=1,,bar=2"), "foo=1,bar=2");
  EXPECT_EQ(carried(""), "");
  EXPECT_EQ(carried("foo=1,bar=2,foo=3"), "foo=1,bar=2") << "the first is the latest in time";
}

TEST(TracestateTest, AnIllegalOneIsLostAsAWhole) {
  for (const std::string& bad : {std::string("foo"),
                                 std::string("foo="),
                                 std::string("=1"),
                                 std::string("foo =1"),
                                 std::string("FOO=1"),
                                 std::string("foo.bar=1"),
                                 std::string("1foo=1"),
                                 std::string("foo@=1"),
                                 std::string("@foo=1"),
                                 std::string("foo@@bar=1"),
                                 std::string("foo@bar@baz=1"),
                                 std::string("foo@1bar=1"),
                                 std::string("foo=a=b"),
                                 std::string("foo=\x01"),
                                 std::string("foo=\xc3\xa9"),
                                 std::string("foo=a\nX-Evil: 1"),
                                 std::string(257, 'k') + "=1",
                                 "k=" + std::string(257, 'v'),
                                 std::string(242, 't') + "@v=1",
                                 "t@" + std::string(15, 'v') + "=1"}) {
    EXPECT_EQ(carried("ok=1," + bad), "") << bad;
  }
  EXPECT_EQ(carried("a=" + std::string(10'000, 'x')), "");
}

TEST(TracestateTest, ThirtyTwoMembersAndNotOneMore) {
  std::string list;
  for (int i = 0; i < 32; ++i) list += (i == 0 ? "k" : ",k") + std::to_string(i) + "=v";
  EXPECT_EQ(carried(list), list);
  EXPECT_EQ(carried(list + ",k32=v"), "");
  EXPECT_EQ(carried(list + ",k0=again"), list) << "not one more member, but one twice";
}

TEST(TracestateTest, PastFiveHundredTwelveCharactersLongMembersGoFirst) {
  const std::string long_member = "long=" + std::string(200, 'l');
  std::string list = "first=1";
  for (int i = 0; i < 4; ++i) list += ",k" + std::to_string(i) + "=" + std::string(100, 's');
  EXPECT_EQ(carried(list), list);
  EXPECT_EQ(carried(long_member + "," + list), list);
  const std::string more = list + ",last=" + std::string(110, 's');
  EXPECT_EQ(carried(more), list) << "then those at the end";
  const std::string exact = "a=" + std::string(252, 'x') + ",b=" + std::string(255, 'y');
  ASSERT_EQ(exact.size(), 512U);
  EXPECT_EQ(carried(exact), exact);
}

TEST(TraceHeadersTest, WhichOfTwoHeadersCounts) {
  const std::string other = "1-6b00e354-ffffffffffffffffffffffff";
  const auto trace_of = [](const IncomingTrace& headers) {
    const auto parent = parse_trace_headers(headers);
    return parent ? to_string(parent->trace_id) : "none";
  };
  EXPECT_EQ(trace_of({}), "none");
  EXPECT_EQ(trace_of({.xray = "Root=" + other}), other);
  EXPECT_EQ(trace_of({.traceparent = traceparent()}), root);
  EXPECT_EQ(trace_of({.xray = "Root=bad", .traceparent = traceparent()}), root);
  EXPECT_EQ(trace_of({.xray = "Root=" + other, .traceparent = "bad"}), other);
  EXPECT_EQ(trace_of({.xray = "Root=" + other, .traceparent = traceparent()}), root)
      << "a load balancer's";
  EXPECT_EQ(trace_of({.xray = "Root=" + other + ";Sampled=1", .traceparent = traceparent()}),
            other);
  EXPECT_EQ(trace_of({.xray = "Root=" + other + ";Parent=1a2b3c4d5e6f7081",
                      .traceparent = traceparent()}),
            other);
}

TEST(TraceHeadersTest, TwoHeadersOfOneTraceAreJoined) {
  const std::string xray = "Root=" + std::string(root) + ";Lineage=1:5d5ff8e0:0";
  const auto parent =
      parse_trace_headers({.xray = xray, .traceparent = traceparent(), .tracestate = "rojo=1"});
  ASSERT_TRUE(parent);
  EXPECT_EQ(parent->parent_id, 0x1a2b3c4d5e6f7081U);
  EXPECT_EQ(parent->sampled, Sampled::yes);
  EXPECT_EQ(parent->fields.view(), "Lineage=1:5d5ff8e0:0");
  EXPECT_EQ(parent->trace_state.view(), "rojo=1");
}

TEST(TraceHeadersTest, WhatComesInGoesOut) {
  const auto parent = parse_trace_headers(
      {.xray = "Root=" + std::string(root) + ";Parent=1a2b3c4d5e6f7081;Sampled=1;Lineage=x:1",
       .traceparent = traceparent(),
       .tracestate = "rojo=1, congo=2"});
  const Context context{{.trace = parent}};
  const Scope scope(context);
  const OutgoingTrace out = current_trace_headers();
  EXPECT_EQ(out.xray,
            "Root=" + std::string(root) + ";Parent=1a2b3c4d5e6f7081;Sampled=1;Lineage=x:1");
  EXPECT_EQ(out.traceparent, traceparent());
  EXPECT_EQ(out.tracestate, "rojo=1,congo=2");
  EXPECT_EQ(current_trace_header(), out.xray);
  const Context copy = Context::current();
  const Scope inner(copy);
  EXPECT_EQ(current_trace_headers().tracestate, "rojo=1,congo=2") << "on another thread as well";
}

TEST(TraceHeadersTest, WithoutASpanToNameATraceparentHasAnIdOfItsOwn) {
  const Context context{{.trace = parse_trace_header("Root=" + std::string(root) + ";Sampled=0")}};
  const Scope scope(context);
  const auto again = parse_traceparent(current_trace_headers().traceparent);
  ASSERT_TRUE(again);
  EXPECT_EQ(again->trace_id, root_id);
  EXPECT_NE(again->parent_id, 0U);
  EXPECT_EQ(again->sampled, Sampled::no);
}

TEST(TraceHeadersTest, AThreadInNoTraceHasNone) {
  const OutgoingTrace out = current_trace_headers();
  EXPECT_EQ(out.xray + out.traceparent + out.tracestate, "");
}

TEST(TraceIdTest, TextAndBack) {
  EXPECT_EQ(to_hex(root_id), w3c_root);
  EXPECT_EQ(parse_trace_id_hex(w3c_root), root_id);
  EXPECT_EQ(parse_trace_id_hex(std::string(32, '0')), std::nullopt);
  EXPECT_EQ(to_string(root_id), root);
  EXPECT_EQ(parse_trace_id(root), root_id);
  EXPECT_EQ(to_string(TraceId{0, 1}), "1-00000000-000000000000000000000001");
  EXPECT_EQ(parse_trace_id(std::string(root) + " "), std::nullopt);
}

TEST(TraceHeaderTest, AThreadInNoTraceSendsNone) { EXPECT_EQ(current_trace_header(), ""); }

}  // namespace
}  // namespace spillway
