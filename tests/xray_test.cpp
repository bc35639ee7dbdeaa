// SPDX-License-Identifier: Apache-2.0
//
// Segment documents from spans. Whatever the spans are like, each is in exactly one document, no
// document is larger than allowed, and each is one that X-Ray's guide describes.
#include <algorithm>
#include <deque>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <vector>

#include <support/golden.hpp>
#include <support/json.hpp>
#include <support/records.hpp>
#include <support/seed.hpp>

#include <spillway/buffers/names.hpp>
#include <spillway/encoders/json.hpp>
#include <spillway/encoders/limits.hpp>
#include <spillway/encoders/xray.hpp>

namespace spillway::detail {
namespace {

using testing::Json;
using testing::Packed;

constexpr TraceId trace_id{0x6b00e3540f1e2d3c, 0x4b5a69788796a5b4};
constexpr std::int64_t start_ns = testing::test_time_ms * 1'000'000;

std::string hex16(std::uint64_t id) {
  ByteBuffer out;
  append_hex16(out, id);
  return std::string(out.view());
}

/// Spans of one segment, whose root has the id 1.
class Trace {
 public:
  SpanView& span(std::string_view name, std::uint64_t id, std::uint64_t parent,
                 std::uint16_t flags = 0) {
    const auto at = static_cast<std::int64_t>(spans_.size()) * 1'000'000;
    spans_.push_back({name_of(intern_name(name)),
                      start_ns + at,
                      start_ns + at + 500'000,
                      SpanBody{0, id, parent, 1, trace_id, flags, 0, 0},
                      {}});
    return spans_.back();
  }
  Packed& entries_of(SpanView& span) {
    owners_.push_back(&span);
    entries_.emplace_back();
    return entries_.back();
  }
  SpanView& padded(std::uint64_t id, std::uint64_t parent, std::size_t bytes) {
    SpanView& made = span("span", id, parent);
    text(entries_of(made), "pad", EntryClass::annotation, "x");
    // An annotation holds a thousand characters; metadata any, but is left out when it is too much.
    for (std::size_t i = 0; bytes > 0; ++i) {
      const std::size_t piece = std::min<std::size_t>(bytes, 1000);
      text(entries_.back(), "pad" + std::to_string(i), EntryClass::annotation,
           std::string(piece, 'x'));
      bytes -= piece;
    }
    return made;
  }
  static void text(Packed& to, std::string_view name, EntryClass entry_class,
                   std::string_view value) {
    to.entry(intern_name(name), entry_class, ValueType::string).string(value);
  }

  TraceEncoded encode(Payload& payload,
                      std::size_t bytes_max = limits::segment_document_bytes_max) {
    for (std::size_t i = 0; i < owners_.size(); ++i) owners_[i]->entries = entries_[i].bytes();
    const std::vector<SpanView> spans(spans_.begin(), spans_.end());
    return XrayEncoder({service, "2.4.1", bytes_max}).encode(spans, context, payload);
  }
  std::vector<Json> documents(std::size_t bytes_max = limits::segment_document_bytes_max) {
    Payload payload = testing::make_payload();
    encode(payload, bytes_max);
    std::vector<Json> found;
    for (const std::string& item : testing::items_of(payload)) found.emplace_back(item);
    return found;
  }
  std::size_t size() const { return spans_.size(); }

  ContextTexts context;
  std::string service = "orders";

 private:
  std::deque<SpanView> spans_;
  std::deque<SpanView*> owners_;
  std::deque<Packed> entries_;
};

/// How often each span id stands in the documents. Fails the test where a document is not as the
/// guide says.
std::map<std::string, int> census(const Payload& payload, std::size_t bytes_max,
                                  std::size_t documents_max = ~std::size_t{0}) {
  std::map<std::string, int> seen;
  EXPECT_LE(payload.items.size(), documents_max);
  for (const PayloadItem& item : payload.items) {
    EXPECT_LE(item.bytes, bytes_max);
    const Json document(payload.item(item));
    EXPECT_EQ(document["trace_id"].string(), "1-6b00e354-0f1e2d3c4b5a69788796a5b4");
    EXPECT_EQ(document["id"].string(), hex16(item.id));
    const bool segment = item.id == 1;
    EXPECT_EQ(document.has("type"), !segment);
    if (!segment) {
      EXPECT_EQ(document["type"].string(), "subsegment");
      EXPECT_TRUE(document.has("parent_id"));
    }
    std::uint64_t spans = 0;
    const std::function<void(const Json&, bool)> visit = [&](const Json& span, bool top) {
      ++spans;
      ++seen[span["id"].string()];
      EXPECT_GE(span["end_time"].number(), span["start_time"].number());
      if (!top) {
        EXPECT_FALSE(span.has("trace_id") || span.has("parent_id") || span.has("type"));
      }
      if (!span.has("subsegments")) return;
      const Json children = span["subsegments"];
      EXPECT_GE(children.size(), 1U);
      for (std::size_t i = 0; i < children.size(); ++i) visit(children[i], false);
    };
    visit(document, true);
    EXPECT_EQ(item.records, spans);
  }
  return seen;
}

// ---- One document ----

TEST(XrayTest, ASegmentWithItsSubsegmentsIsOneDocument) {
  Trace trace;
  trace.context = {"acme", "u-17", "r-1", {}};
  SpanView& root = trace.span("POST /orders", 1, 0x0f1e2d3c4b5a6978, span_error | span_throttle);
  root.end_ns += 10'857'000;
  root.body.http_status = 429;
  Packed& of_root = trace.entries_of(root);
  Trace::text(of_root, "method", EntryClass::http_request, "POST");
  Trace::text(of_root, "url", EntryClass::http_request, "https://shop.example/v1/orders");
  of_root.entry(intern_name("x_forwarded_for"), EntryClass::http_request, ValueType::boolean)
      .number(std::uint64_t{1});
  of_root.entry(intern_name("content_length"), EntryClass::http_response, ValueType::integer)
      .number(std::int64_t{17});
  of_root.entry(intern_name("retries"), EntryClass::annotation, ValueType::unsigned_integer)
      .number(std::uint64_t{1});
  of_root.entry(intern_name("queue ms"), EntryClass::metadata, ValueType::real).number(0.31);
  SpanView& aws = trace.span("DynamoDB", 2, 1, span_aws | span_error);
  aws.body.http_status = 400;
  trace.span("charge", 3, 1, span_remote | span_fault);
  trace.span("parse", 4, 3);

  Payload payload = testing::make_payload();
  EXPECT_EQ(trace.encode(payload).spans_too_large, 0U);
  testing::expect_golden("xray_segment.json", std::string(payload.bytes.view()) + "\n");
  ASSERT_EQ(payload.items.size(), 1U);
  EXPECT_EQ(census(payload, 64'000).size(), 4U);

  const Json segment(payload.item(payload.items[0]));
  EXPECT_EQ(segment["name"].string(), "orders");
  EXPECT_EQ(segment["parent_id"].string(), "0f1e2d3c4b5a6978");
  EXPECT_EQ(segment["start_time"].number(), 1795222800.123);
  EXPECT_EQ(segment["end_time"].number(), 1795222800.134357);
  EXPECT_TRUE(segment["error"].boolean() && segment["throttle"].boolean());
  EXPECT_FALSE(segment.has("fault") || segment.has("namespace"));
  EXPECT_EQ(segment["user"].string(), "u-17");
  EXPECT_EQ(segment["service"]["version"].string(), "2.4.1");
  EXPECT_EQ(segment["http"]["request"]["method"].string(), "POST");
  EXPECT_TRUE(segment["http"]["request"]["x_forwarded_for"].boolean());
  EXPECT_EQ(segment["http"]["response"]["status"].number(), 429);
  EXPECT_EQ(segment["http"]["response"]["content_length"].number(), 17);
  EXPECT_EQ(segment["annotations"]["retries"].number(), 1);
  EXPECT_EQ(segment["annotations"]["operation"].string(), "POST /orders");
  EXPECT_EQ(segment["annotations"]["tenant"].string(), "acme");
  EXPECT_EQ(segment["annotations"]["request_id"].string(), "r-1");
  EXPECT_EQ(segment["metadata"]["default"]["queue ms"].number(), 0.31);
  const Json children = segment["subsegments"];
  ASSERT_EQ(children.size(), 2U);
  const Json dynamo = children[std::size_t{0}];
  EXPECT_EQ(dynamo["namespace"].string(), "aws");
  EXPECT_EQ(dynamo["http"]["response"]["status"].number(), 400);
  EXPECT_FALSE(dynamo["http"].has("request"));
  const Json charge = children[1];
  EXPECT_EQ(charge["namespace"].string(), "remote");
  EXPECT_TRUE(charge["fault"].boolean());
  EXPECT_FALSE(charge.has("user") || charge.has("service") || charge.has("annotations"));
  EXPECT_EQ(charge["subsegments"][std::size_t{0}]["name"].string(), "parse");
}

TEST(XrayTest, TheOrderInWhichSpansEndedDoesNotMatter) {
  std::vector<std::uint64_t> ids{1, 2, 3, 4, 5};
  do {
    Trace trace;
    for (const std::uint64_t id : ids) {
      SpanView& span = trace.span("s" + std::to_string(id), id, id == 1 ? 0 : id / 2);
      span.start_ns = start_ns + static_cast<std::int64_t>(id);
      span.end_ns = span.start_ns + 1;
    }
    const auto documents = trace.documents();
    ASSERT_EQ(documents.size(), 1U);
    const Json two = documents[0]["subsegments"][std::size_t{0}];
    EXPECT_EQ(two["id"].string(), hex16(2));
    EXPECT_EQ(two["subsegments"][std::size_t{0}]["id"].string(), hex16(4)) << "by their beginning";
    EXPECT_EQ(two["subsegments"][1]["id"].string(), hex16(5));
    EXPECT_EQ(documents[0]["subsegments"][1]["id"].string(), hex16(3));
    ASSERT_FALSE(HasFailure());
  } while (std::next_permutation(ids.begin(), ids.end()));
}

TEST(XrayTest, AnEndBeforeItsBeginningIsTheBeginning) {
  Trace trace;
  SpanView& root = trace.span("root", 1, 0);
  root.end_ns = root.start_ns - 5'000'000'000;
  const Json segment = trace.documents().at(0);
  EXPECT_EQ(segment["end_time"].number(), segment["start_time"].number());
}

TEST(XrayTest, ASpanWithoutItsParentIsADocumentOfItsOwn) {
  Trace trace;
  trace.span("late", 5, 3);
  trace.span("below", 6, 5);
  Payload payload = testing::make_payload();
  trace.encode(payload);
  ASSERT_EQ(payload.items.size(), 1U);
  const auto seen = census(payload, 64'000);
  EXPECT_EQ(seen.size(), 2U);
  const Json document(payload.item(payload.items[0]));
  EXPECT_EQ(document["parent_id"].string(), hex16(3));
  EXPECT_EQ(document["name"].string(), "late");
}

// ---- Entries ----

TEST(XrayTest, OfSeveralEntriesWithOneKeyTheLastStands) {
  Trace trace;
  Packed& entries = trace.entries_of(trace.span("root", 1, 0));
  Trace::text(entries, "a-b", EntryClass::annotation, "first");
  Trace::text(entries, "a b", EntryClass::annotation, "second");
  Trace::text(entries, "a-b", EntryClass::metadata, "another class");
  Trace::text(entries, "tenant", EntryClass::annotation, "mine");
  trace.context.tenant = "theirs";
  const Json segment = trace.documents().at(0);
  EXPECT_EQ(segment["annotations"]["a_b"].string(), "second");
  EXPECT_EQ(segment["metadata"]["default"]["a-b"].string(), "another class");
  EXPECT_EQ(segment["annotations"]["tenant"].string(), "mine");
  EXPECT_EQ(segment["annotations"].size(), 3U) << "a_b, tenant, operation";
}

TEST(XrayTest, AnnotationsAreCutAndFiniteOrText) {
  Trace trace;
  Packed& entries = trace.entries_of(trace.span("root", 1, 0));
  Trace::text(entries, "long", EntryClass::annotation, std::string(999, 'x') + "\xc3\xbc");
  entries.entry(intern_name("nan"), EntryClass::annotation, ValueType::real).number(std::nan(""));
  entries.entry(intern_name("no"), EntryClass::annotation, ValueType::boolean)
      .number(std::uint64_t{0});
  entries.entry(intern_name("minus"), EntryClass::annotation, ValueType::integer)
      .number(std::int64_t{-5});
  const Json annotations = trace.documents().at(0)["annotations"];
  EXPECT_EQ(annotations["long"].string(), std::string(999, 'x'));
  EXPECT_EQ(annotations["nan"].string(), "NaN");
  EXPECT_FALSE(annotations["no"].boolean());
  EXPECT_EQ(annotations["minus"].number(), -5);
}

TEST(XrayTest, EntriesThatAreCutShortLeadNowhere) {
  Packed whole;
  Trace::text(whole, "text", EntryClass::annotation, "value");
  whole.entry(intern_name("n"), EntryClass::metadata, ValueType::integer).number(std::int64_t{1});
  for (std::size_t size = 0; size < whole.bytes().size(); ++size) {
    Packed part = whole;
    part.cut(size);
    Trace trace;
    SpanView& root = trace.span("root", 1, 0);
    root.entries = part.bytes();
    Payload payload = testing::make_payload();
    trace.encode(payload);
    EXPECT_EQ(census(payload, 64'000).size(), 1U) << size;
  }
}

TEST(XrayTest, AMissingEntryIsMarked) {
  Trace trace;
  trace.span("root", 1, 0, span_cut);
  EXPECT_TRUE(trace.documents().at(0)["metadata"]["spillway"]["cut"].boolean());
}

TEST(XrayTest, AResponseWithoutStatusAndAStatusWithoutMore) {
  Trace trace;
  Packed& entries = trace.entries_of(trace.span("root", 1, 0));
  entries.entry(intern_name("content_length"), EntryClass::http_response, ValueType::integer)
      .number(std::int64_t{5});
  trace.span("call", 2, 1).body.http_status = 204;
  const Json segment = trace.documents().at(0);
  EXPECT_EQ(segment["http"].text(), R"({"response":{"content_length":5}})");
  EXPECT_EQ(segment["subsegments"][std::size_t{0}]["http"].text(),
            R"({"response":{"status":204}})");
}

// ---- Names ----

TEST(XrayNameTest, OnlyWhatXrayTakesIsLeft) {
  EXPECT_EQ(legal_segment_name("orders"), "orders");
  EXPECT_EQ(legal_segment_name("a_b.c:d/e%f&g#h=i+j\\k-l@m n"), "a_b.c:d/e%f&g#h=i+j\\k-l@m n");
  EXPECT_EQ(legal_segment_name("?a;b*c(d)e!f$g~h^i<j>k\"l'm,n|o{p}q[r]s`t"),
            "abcdefghijklmnopqrst");
  EXPECT_EQ(legal_segment_name("Gr\xc3\xbc\xc3\x9f"
                               "e \xe4\xbd\xa0\xe5\xa5\xbd"),
            "Gr\xc3\xbc\xc3\x9f"
            "e \xe4\xbd\xa0\xe5\xa5\xbd");
  for (const char* const nothing : {"", "?!", "\x01\n", "\xff\x80", "\xf0\x9f\x98\x80"}) {
    EXPECT_EQ(legal_segment_name(nothing), "unnamed");
  }
}

TEST(XrayNameTest, BytesThatAreNotUtf8AndSymbolsAreLeftOut) {
  EXPECT_EQ(legal_segment_name("caf\xe9 au lait"), "caf au lait") << "Latin-1";
  EXPECT_EQ(legal_segment_name("cut \xe4\xbd"), "cut ");
  EXPECT_EQ(legal_segment_name("a\xc2\x85z"), "az") << "a C1 control";
  EXPECT_EQ(legal_segment_name("a\xe2\x80\xae\xe2\x86\x92z"), "az") << "a bidi control, an arrow";
  EXPECT_EQ(legal_segment_name("go \xf0\x9f\x9a\x80!"), "go ") << "an emoji";
  EXPECT_EQ(legal_segment_name("a\xef\xbf\xbdz"), "az") << "the replacement character";
}

TEST(XrayNameTest, TwoHundredCharactersNotBytes) {
  EXPECT_EQ(legal_segment_name(std::string(201, 'x')), std::string(200, 'x'));
  std::string umlauts;
  for (int i = 0; i < 200; ++i) umlauts += "\xc3\xbc";
  EXPECT_EQ(legal_segment_name(umlauts), umlauts);
  EXPECT_EQ(legal_segment_name(umlauts + "\xc3\xbc"), umlauts);
}

TEST(XrayNameTest, WithoutAServiceASegmentHasItsOwnName) {
  Trace trace;
  trace.service.clear();
  trace.span("GET /", 1, 0);
  const Json segment = trace.documents().at(0);
  EXPECT_EQ(segment["name"].string(), "GET /");
  EXPECT_FALSE(segment.has("annotations"));
}

// ---- Size ----

TEST(XraySizeTest, WhatDoesNotFitGoesInDocumentsOfItsOwnOnceEach) {
  // Every child is a third of a document: the segment keeps some, the others are taken out of it.
  // The root stands first, so that those come behind it.
  for (const bool root_first : {true, false}) {
    Trace trace;
    if (root_first) trace.span("root", 1, 0);
    for (std::uint64_t id = 2; id <= 11; ++id) trace.padded(id, 1, 20'000);
    if (!root_first) trace.span("root", 1, 0);
    Payload payload = testing::make_payload();
    EXPECT_EQ(trace.encode(payload).spans_too_large, 0U);
    const auto seen = census(payload, 64'000);
    EXPECT_EQ(seen.size(), 11U);
    for (const auto& [id, times] : seen) EXPECT_EQ(times, 1) << id;
    EXPECT_EQ(payload.records(), 11U);
  }
}

TEST(XraySizeTest, TheDocumentIsFilledToTheMeasuredByte) {
  // The largest padding with which root and child are one document, found by halving.
  const auto together = [](std::size_t padding) {
    Trace trace;
    trace.span("root", 1, 0);
    trace.padded(2, 1, padding);
    Payload payload = testing::make_payload();
    trace.encode(payload);
    census(payload, 64'000);
    const bool whole = payload.items.size() == 1 && payload.items[0].bytes > padding;
    return whole ? payload.items[0].bytes : 0U;
  };
  std::size_t low = 1000;
  std::size_t high = 63'900;
  ASSERT_NE(together(low), 0U);
  ASSERT_EQ(together(high), 0U);
  while (high - low > 1) {
    const std::size_t middle = (low + high) / 2;
    (together(middle) != 0 ? low : high) = middle;
  }
  EXPECT_GT(together(low), 63'700U);
}

TEST(XraySizeTest, ASpanThatIsTooMuchLosesItsMetadataThenItsEntries) {
  Trace trace;
  SpanView& root = trace.span("root", 1, 0);
  Packed& entries = trace.entries_of(root);
  Trace::text(entries, "kept", EntryClass::annotation, "yes");
  Trace::text(entries, "huge", EntryClass::metadata, std::string(70'000, 'x'));
  trace.padded(2, 1, 70'000);
  Payload payload = testing::make_payload();
  EXPECT_EQ(trace.encode(payload).spans_too_large, 0U);
  EXPECT_EQ(census(payload, 64'000).size(), 2U);
  const Json segment(payload.item(payload.items[0]));
  EXPECT_EQ(segment["annotations"]["kept"].string(), "yes");
  EXPECT_TRUE(segment["metadata"]["spillway"]["cut"].boolean());
  const Json child = segment["subsegments"][std::size_t{0}];
  EXPECT_FALSE(child.has("annotations"));
  EXPECT_TRUE(child["metadata"]["spillway"]["cut"].boolean());
}

TEST(XraySizeTest, ASpanThatNoDocumentHoldsIsCountedAndItsNeighboursGo) {
  Trace trace;
  trace.span("root", 1, 0);
  trace.span(std::string(200, 'n'), 2, 1);
  trace.span("below", 3, 2);
  Payload payload = testing::make_payload();
  constexpr std::size_t tiny = 430;  // Holds the root and a short name, but not the long one.
  EXPECT_EQ(trace.encode(payload, tiny).spans_too_large, 1U);
  const auto seen = census(payload, tiny);
  EXPECT_EQ(seen.size(), 2U);
  EXPECT_EQ(payload.records(), 2U);
}

TEST(XraySizeTest, AChainOfAnyLengthIsSplit) {
  Trace trace;
  const std::string name(200, 'n');
  trace.span("root", 1, 0);
  for (std::uint64_t id = 2; id <= 3000; ++id) trace.span(name, id, id - 1);
  Payload payload = testing::make_payload();
  trace.encode(payload);
  const auto seen = census(payload, 64'000);
  EXPECT_EQ(seen.size(), 3000U);
  for (const auto& [id, times] : seen) EXPECT_EQ(times, 1) << id;
}

TEST(XraySizeTest, AChainOfShortSpansStaysReadable) {
  Trace trace;
  trace.span("root", 1, 0);
  for (std::uint64_t id = 2; id <= 700; ++id) trace.span("s", id, id - 1);
  Payload payload = testing::make_payload();
  EXPECT_EQ(trace.encode(payload).spans_too_large, 0U);
  EXPECT_EQ(payload.items.size(), 7U) << "a hundred levels in each";
  const auto seen = census(payload, 64'000);  // Parses them: deeper ones no reader takes.
  EXPECT_EQ(seen.size(), 700U);
  for (const auto& [id, times] : seen) EXPECT_EQ(times, 1) << id;
}

TEST(XraySizeTest, ACycleOfParentsLosesNothing) {
  Trace trace;
  trace.span("root", 1, 0);
  trace.span("a", 2, 3);
  trace.span("b", 3, 2);
  trace.span("its own parent", 4, 4);
  trace.span("hangs on the cycle", 5, 3);
  Payload payload = testing::make_payload();
  trace.encode(payload);
  const auto seen = census(payload, 64'000);
  EXPECT_EQ(seen.size(), 5U);
  for (const auto& [id, times] : seen) EXPECT_EQ(times, 1) << id;
}

TEST(XraySizeTest, AnySpansAreInOneDocumentEach) {
  const std::uint64_t seed = testing::seed_or(64);
  SCOPED_TRACE(testing::seed_note(seed));
  std::mt19937_64 random(seed);
  for (int round = 0; round < 300; ++round) {
    SCOPED_TRACE("round " + std::to_string(round));
    Trace trace;
    const std::size_t bytes_max = round % 3 == 0 ? 64'000 : 2000 + random() % 4000;
    const std::size_t count = 1 + random() % 60;
    std::vector<std::uint64_t> ids(count);
    for (std::size_t i = 0; i < count; ++i) ids[i] = i + 1;
    std::shuffle(ids.begin(), ids.end(), random);
    for (const std::uint64_t id : ids) {
      // Mostly a parent with a smaller number; now and then one that is not there, or a cycle.
      const std::uint64_t parent = id == 1              ? 0
                                   : random() % 10 == 0 ? 1 + random() % (count + 5)
                                                        : 1 + random() % (id - 1);
      trace.padded(id, parent, random() % (random() % 4 == 0 ? bytes_max * 5 / 4 : bytes_max / 8));
    }
    Payload payload = testing::make_payload();
    const TraceEncoded result = trace.encode(payload, bytes_max);
    const auto seen = census(payload, bytes_max);
    EXPECT_EQ(result.spans_too_large, 0U);
    EXPECT_EQ(seen.size(), count);
    for (const auto& [id, times] : seen) EXPECT_EQ(times, 1) << id;
    EXPECT_EQ(payload.records(), count);
    if (HasFailure()) return;
  }
}

TEST(XrayTest, AnEntryOfATypeThatIsNoneOfOursIsLeftOut) {
  const auto odd = static_cast<ValueType>(9);
  Trace trace;
  Packed& of_root = trace.entries_of(trace.span("root", 1, 0));
  Trace::text(of_root, "before", EntryClass::annotation, "kept");
  of_root.entry(intern_name("odd"), EntryClass::annotation, odd).number(std::uint64_t{1});
  Trace::text(of_root, "after", EntryClass::annotation, "kept too");
  Packed& of_child = trace.entries_of(trace.span("child", 2, 1));
  of_child.entry(intern_name("odd"), EntryClass::annotation, odd).number(std::uint64_t{1});
  const Json segment = trace.documents().at(0);
  EXPECT_EQ(segment["annotations"]["before"].string(), "kept");
  EXPECT_FALSE(segment["annotations"].has("odd"));
  EXPECT_EQ(segment["annotations"]["after"].string(), "kept too");
  EXPECT_FALSE(segment["subsegments"][0].has("annotations"));
}

// ---- The request ----

// Entries may be missing (a full ring) or in any order: the document is JSON with each member once.
TEST(XrayTest, AnyEntriesMakeADocument) {
  const std::uint64_t seed = testing::seed_or(20261121);
  SCOPED_TRACE(testing::seed_note(seed));
  std::mt19937_64 random(seed);
  const char* const keys[] = {"id",   "path",  "line",        "label", "cause",
                              "type", "paths", "table_names", "a",     "b"};
  for (int round = 0; round < 2000; ++round) {
    Trace trace;
    SpanView& root = trace.span("root", 1, 0);
    SpanView& child = trace.span("child", 2, 1);
    for (SpanView* const span : {&root, &child}) {
      Packed& entries = trace.entries_of(*span);
      for (std::size_t left = random() % 12; left > 0; --left) {
        const auto entry_class = static_cast<EntryClass>(random() % 14);
        const std::uint32_t key = intern_name(keys[random() % std::size(keys)]);
        if (random() % 2 == 0) {
          entries.entry(key, entry_class, ValueType::integer).number(std::int64_t{7});
        } else {
          // Sometimes as long as a link's ids.
          entries.entry(key, entry_class, ValueType::string)
              .string(std::string(random() % 2 == 0 ? 24 : 3, 'x'));
        }
      }
    }
    const auto documents = trace.documents();
    ASSERT_EQ(documents.size(), 1U);
    const std::string text = documents[0].text();
    EXPECT_EQ(documents[0]["subsegments"].size(), 1U) << text;
    for (const char* const key : {"cause", "links", "sql", "precursor_ids", "metadata", "aws"}) {
      // At most once in each of the two spans.
      const std::string member = std::string(",\"") + key + "\":";
      std::size_t count = 0;
      for (std::size_t at = text.find(member); at != std::string::npos;
           at = text.find(member, at + 1)) {
        ++count;
      }
      EXPECT_LE(count, key == std::string_view("cause") ? 6U : 2U) << key << " in " << text;
    }
  }
}

TEST(XrayTest, WhatBelongsToNothingIsLeftOut) {
  Trace trace;
  SpanView& root = trace.span("root", 1, 0);
  Packed& entries = trace.entries_of(root);
  Trace::text(entries, "path", EntryClass::frame, "lost.cpp");
  Trace::text(entries, "type", EntryClass::exception, "lost");
  Trace::text(entries, "key", EntryClass::link_attribute, "lost");
  entries.entry(intern_name("id"), EntryClass::exception, ValueType::unsigned_integer)
      .number(std::uint64_t{9});
  entries.entry(intern_name("line"), EntryClass::frame, ValueType::integer).number(std::int64_t{1});
  const auto documents = trace.documents();
  EXPECT_EQ(documents.at(0)["cause"].text(), R"({"exceptions":[{"id":"0000000000000009"}]})");
  EXPECT_FALSE(documents.at(0).has("links"));
}

TEST(XrayTest, ARequestCarriesDocumentsAsText) {
  Trace trace;
  trace.span("ro\\ot", 1, 0);
  trace.span("elsewhere", 3, 2);
  Payload payload = testing::make_payload();
  trace.encode(payload);
  ByteBuffer out;
  append_put_trace_segments(payload, out);
  const Json body(out.view());
  const auto items = testing::items_of(payload);
  ASSERT_EQ(body["TraceSegmentDocuments"].size(), 2U);
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(body["TraceSegmentDocuments"][i].string(), items[i]);
    EXPECT_EQ(items[i].find('\n'), std::string::npos) << "the daemon takes a line for its header";
  }
}

}  // namespace
}  // namespace spillway::detail
