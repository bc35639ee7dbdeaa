// SPDX-License-Identifier: Apache-2.0
//
// Requests signed by one side and verified by the other; every byte changed on the way. The text that
// is signed is held against the example of RFC 9421.
#include <array>
#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <support/engine_fixture.hpp>

#include <spillway/middleware/chain.hpp>
#include <spillway/middleware/signing/http_signature.hpp>
#include <spillway/middleware/signing/verifier_step.hpp>

namespace spillway::middleware {
namespace {

using namespace std::chrono_literals;

const WallTime noon = WallTime(1'795'262'400s);  // 2026-11-21T12:00:00Z
const SteadyTime start = SteadyTime(1000s);

SigningKey key(std::string id, char fill = 'k') {
  return {.id = std::move(id), .secret = std::string(signing_secret_bytes_min, fill)};
}
std::shared_ptr<SigningKeys> keys(std::vector<SigningKey> list = {key("orders-1")}) {
  return std::make_shared<SigningKeys>(std::move(list));
}

/// A request as it arrives: what a test changes of it.
struct Arrived {
  explicit Arrived(const transport::HttpRequest& sent)
      : method(sent.method), path(sent.path), query(sent.query), body(sent.body) {
    for (const auto& header : sent.headers) headers.emplace_back(header.name, header.value);
  }
  std::string& value(std::string_view name) {
    for (auto& [one, text] : headers) {
      if (one == name) return text;
    }
    ADD_FAILURE() << "no header " << name;
    return headers.front().second;
  }
  Verified verify(SignatureVerifier& verifier, WallTime wall = noon, SteadyTime steady = start) {
    std::vector<HeaderField> fields;
    for (const auto& [name, text] : headers) fields.push_back({name, text});
    const std::span<const HeaderField> list(fields);
    Verified result =
        verifier.verify({.method = method,
                         .path = path,
                         .query = query,
                         .host = host,
                         .headers = headers_of(list),
                         .body = body,
                         .body_bytes = body_bytes.value_or(static_cast<std::int64_t>(body.size())),
                         .body_hidden = body_hidden},
                        wall, steady);
    key_id = result.key_id;
    result.key_id = key_id;
    return result;
  }

  std::string method;
  std::string path;
  std::string query;
  std::string host = "orders.internal:8080";
  std::string body;
  std::optional<std::int64_t> body_bytes;
  bool body_hidden = false;
  std::vector<std::pair<std::string, std::string>> headers;
  std::string key_id;
};

class SigningTest : public ::testing::Test {
 protected:
  static transport::HttpRequest request() {
    transport::HttpRequest request;
    request.method = "POST";
    request.origin = "http://orders.internal:8080";
    request.path = "/orders/17";
    request.query = "expand=items";
    request.headers = {
        {"Content-Type", "application/json"}, {"X-Tenant-ID", "acme"}, {"Accept", "*/*"}};
    request.body = R"({"total":17})";
    return request;
  }
  Arrived signed_at(WallTime when, transport::HttpRequest sent = request()) const {
    EXPECT_EQ(signer.sign(sent, when), "");
    return Arrived(sent);
  }
  Arrived signed_now() const { return signed_at(noon); }

  const std::shared_ptr<SigningKeys> shared = keys();
  const RequestSigner signer{shared};
  SignatureVerifier verifier{shared};
};

// RFC 9421, B.2.5: the only example with HMAC.
TEST(HttpSignatureTest, TheTextThatIsSignedIsThatOfTheStandard) {
  const std::array<HeaderField, 2> fields{
      {{"Date", "Tue, 20 Apr 2021 02:07:55 GMT"}, {"Content-Type", "application/json"}}};
  const std::span<const HeaderField> list(fields);
  const RequestView view{.method = "POST",
                         .path = "/foo",
                         .query = "param=Value&Pet=dog",
                         .scheme = "https",
                         .host = "example.com",
                         .headers = headers_of(list)};
  const auto member = find_member(
      R"(sig-b25=("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret")",
      "sig-b25");
  ASSERT_TRUE(member);
  const auto input = parse_signature_input(*member);
  ASSERT_TRUE(input);
  EXPECT_EQ(input->created, 1618884473);
  EXPECT_EQ(input->key_id, "test-shared-secret");
  spillway::detail::ByteBuffer base;
  ASSERT_TRUE(append_signature_base(base, view, *input));
  EXPECT_EQ(base.view(),
            "\"date\": Tue, 20 Apr 2021 02:07:55 GMT\n"
            "\"@authority\": example.com\n"
            "\"content-type\": application/json\n"
            "\"@signature-params\": (\"date\" \"@authority\" \"content-type\")"
            ";created=1618884473;keyid=\"test-shared-secret\"");
  // The key in hexadecimal: uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ==
  constexpr std::array<std::uint8_t, 64> secret{
      0xbb, 0x3b, 0xc9, 0x7c, 0x1e, 0x2e, 0xdc, 0xdd, 0x09, 0xcb, 0x84, 0xfb, 0x35,
      0x9e, 0xf9, 0x30, 0x35, 0x5c, 0xaf, 0xcc, 0xd2, 0x4c, 0x89, 0xde, 0x74, 0x9b,
      0x64, 0x81, 0xcb, 0xb8, 0xe9, 0x85, 0xb8, 0x5c, 0x1c, 0xb3, 0x34, 0x98, 0xf1,
      0x05, 0xdb, 0x63, 0x52, 0x47, 0x49, 0x3c, 0x1b, 0x5b, 0x98, 0x78, 0x48, 0x0e,
      0x2e, 0xa9, 0x72, 0x5f, 0x23, 0xb1, 0xab, 0x23, 0x95, 0x33, 0x2d, 0x0d};
  EXPECT_EQ(Base64Digest(transport::hmac_sha256(secret, base.view())).view(),
            "pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=");
}

TEST(HttpSignatureTest, WhatIsNotOursIsNotRead) {
  const std::string good = R"(("@method");created=1;keyid="k")";
  EXPECT_TRUE(parse_signature_input(good));
  EXPECT_TRUE(parse_signature_input(R"(();created=1;keyid="k")"));
  for (const std::string_view text :
       {"", "(", "()", R"(("@method");created=1)", R"(("@method");keyid="k")",
        R"(("@method";req);created=1;keyid="k")", R"(("@method"  "@path");created=1;keyid="k")",
        R"(("@method" "@method");created=1;keyid="k")", R"(("Date");created=1;keyid="k")",
        R"(("@method");created=1;created=1;keyid="k")", R"(("@method");created=x;keyid="k")",
        R"(("@method");created=99999999999999999999;keyid="k")",
        R"(("@method");created=1;keyid="k";alg="rsa-v1_5-sha256")",
        R"(("@method");created=1;keyid="k";tag="x")", R"(("@method");created=1;keyid="k\"")",
        R"(("@method");created=1;keyid=k)", R"(("@method");created=1;keyid="k" )"})
    EXPECT_FALSE(parse_signature_input(text)) << text;
  std::string many = "(\"a\"";
  for (std::size_t i = 0; i < signature_components_max; ++i)
    many += " \"b" + std::to_string(i) + "\"";
  EXPECT_FALSE(parse_signature_input(many + ");created=1;keyid=\"k\""));
}

TEST(HttpSignatureTest, AMemberOfADictionaryIsFoundByItsLabel) {
  EXPECT_EQ(find_member(R"(a=("x,y=1"), b=2)", "b"), "2");
  EXPECT_EQ(find_member(R"(a=("b=7, b=8"), b=2)", "b"), "2");
  EXPECT_FALSE(find_member("a=1", "b"));
  EXPECT_FALSE(find_member("b=1, b=2", "b")) << "twice";
  EXPECT_FALSE(find_member("bb=1", "b"));
  EXPECT_FALSE(find_member("", "b"));
}

TEST_F(SigningTest, WhatIsSignedIsTaken) {
  Arrived arrived = signed_now();
  const Verified verified = arrived.verify(verifier);
  EXPECT_EQ(to_string(verified.refusal), "none");
  EXPECT_EQ(verified.key_id, "orders-1");
  EXPECT_NE(arrived.value("Signature-Input").find("\"x-tenant-id\""), std::string::npos);
  EXPECT_EQ(arrived.value("Signature-Input").find("accept"), std::string::npos);
}

TEST_F(SigningTest, WithoutBodyQueryOrProtectedHeadersToo) {
  transport::HttpRequest plain;
  plain.method = "GET";
  plain.origin = "http://orders.internal:8080";
  plain.path = "/";
  EXPECT_TRUE(signed_at(noon, plain).verify(verifier));
}

// Faults, invariant 20: any one-byte change of method, path, query, signed header, body, time or nonce.
TEST_F(SigningTest, AnyChangedByteIsRefused) {
  const Arrived sent = signed_now();
  int changes = 0;
  const auto each_byte = [&](auto&& text_of) {
    for (std::size_t i = 0;; ++i) {
      for (const int bit : {1, 2, 4, 16, 64}) {
        Arrived changed = sent;
        std::string& text = text_of(changed);
        if (i >= text.size()) return;
        text[i] = static_cast<char>(text[i] ^ bit);
        ++changes;
        EXPECT_FALSE(changed.verify(verifier)) << text << " at " << i;
      }
    }
  };
  each_byte([](Arrived& a) -> std::string& { return a.method; });
  each_byte([](Arrived& a) -> std::string& { return a.path; });
  each_byte([](Arrived& a) -> std::string& { return a.query; });
  each_byte([](Arrived& a) -> std::string& { return a.host; });
  each_byte([](Arrived& a) -> std::string& { return a.body; });
  for (const std::string_view name :
       {"Content-Type", "X-Tenant-ID", "Content-Digest", "Signature-Input", "Signature"})
    each_byte([&](Arrived& a) -> std::string& { return a.value(name); });
  EXPECT_GT(changes, 1000);
  Arrived unchanged = sent;
  EXPECT_TRUE(unchanged.verify(verifier)) << "none of them counted as its first use";
}

TEST_F(SigningTest, WhatIsCutOffOrAddedIsRefused) {
  const auto with = [&](auto&& change) {
    Arrived changed = signed_now();
    change(changed);
    return std::string(to_string(changed.verify(verifier).refusal));
  };
  EXPECT_EQ(with([](Arrived& a) { a.body.clear(); }), "wrong_digest");
  EXPECT_EQ(with([](Arrived& a) { a.body += ' '; }), "wrong_digest");
  EXPECT_EQ(with([](Arrived& a) { a.query.clear(); }), "wrong_signature");
  EXPECT_EQ(with([](Arrived& a) { a.path += '/'; }), "wrong_signature");
  EXPECT_EQ(with([](Arrived& a) { a.value("Signature").erase(15, 1); }), "malformed");
  EXPECT_EQ(with([](Arrived& a) {
              std::erase_if(a.headers, [](auto& h) { return h.first == "Signature"; });
            }),
            "missing");
  EXPECT_EQ(with([](Arrived& a) {
              std::erase_if(a.headers, [](auto& h) { return h.first == "X-Tenant-ID"; });
            }),
            "not_covered");
  EXPECT_EQ(with([](Arrived& a) { a.headers.emplace_back("X-User-ID", "root"); }), "not_covered")
      << "a protected header that was not signed";
  EXPECT_EQ(with([](Arrived& a) { a.headers.emplace_back("x-tenant-id", "evil"); }), "not_covered")
      << "which of the two is meant?";
  EXPECT_EQ(with([](Arrived& a) { a.headers.emplace_back("Signature", a.value("Signature")); }),
            "malformed");
  EXPECT_EQ(with([](Arrived& a) { a.headers.emplace_back("Accept-Language", "de"); }), "none")
      << "what is not protected may be added on the way";
}

TEST_F(SigningTest, ASignatureThatCoversTooLittleIsRefused) {
  for (const std::string_view name : covered_always) {
    Arrived changed = signed_now();
    std::string& input = changed.value("Signature-Input");
    const std::string quoted = "\"" + std::string(name) + "\"";
    const auto at = input.find(quoted);
    ASSERT_NE(at, std::string::npos);
    input.erase(at, quoted.size() + 1);
    EXPECT_EQ(to_string(changed.verify(verifier).refusal), "not_covered") << name;
  }
}

TEST_F(SigningTest, TheTimeWindowHasTwoEnds) {
  const auto taken = [&](std::chrono::seconds ago) {
    return std::string(to_string(signed_at(noon - ago).verify(verifier).refusal));
  };
  EXPECT_EQ(taken(60s), "none");
  EXPECT_EQ(taken(61s), "expired");
  EXPECT_EQ(taken(-30s), "none");
  EXPECT_EQ(taken(-31s), "from_the_future");
  EXPECT_EQ(taken(24h * 365), "expired");
}

TEST_F(SigningTest, ARequestIsTakenOnceAsLongAsItsSignatureIsYoungEnough) {
  Arrived arrived = signed_at(noon + 30s);  // The signer's clock is ahead.
  EXPECT_TRUE(arrived.verify(verifier, noon, start));
  for (const auto later : {0s, 1s, 45s, 89s, 90s})
    EXPECT_EQ(to_string(arrived.verify(verifier, noon + later, start + later).refusal), "replayed")
        << later.count();
  EXPECT_EQ(to_string(arrived.verify(verifier, noon + 91s, start + 91s).refusal), "expired");
}

TEST_F(SigningTest, ARaceOfReplaysHasOneWinner) {
  for (int round = 0; round < 50; ++round) {
    const Arrived sent = signed_now();
    std::atomic<int> taken{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&] {
        Arrived mine = sent;
        if (mine.verify(verifier)) ++taken;
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(taken, 1);
  }
}

TEST_F(SigningTest, AFullReplayCacheRefusesAndForgetsInTime) {
  SignatureVerifier small(shared, {.replay_entries = 1});
  int taken = 0;
  std::string_view last;
  for (int i = 0; i < 2000 && last != "replay_cache_full"; ++i) {
    const Verified verified = signed_now().verify(small);
    taken += verified ? 1 : 0;
    last = to_string(verified.refusal);
  }
  EXPECT_EQ(last, "replay_cache_full");
  EXPECT_GT(taken, 0);
  EXPECT_TRUE(signed_at(noon + 200s).verify(small, noon + 200s, start + 200s));
}

TEST(ReplayCacheTest, HoldsAsManyAsItSays) {
  ReplayCache cache(5000, 100s);
  for (int i = 0; i < 5000; ++i)
    EXPECT_EQ(cache.remember("k", std::to_string(i), start), ReplayCache::Verdict::fresh) << i;
  for (int i = 0; i < 5000; ++i)
    EXPECT_EQ(cache.remember("k", std::to_string(i), start + 99s), ReplayCache::Verdict::seen);
  EXPECT_EQ(cache.remember("other", "1", start), ReplayCache::Verdict::fresh);
  EXPECT_EQ(cache.remember("k", "1", start + 201s), ReplayCache::Verdict::fresh)
      << "two memories on";
  EXPECT_EQ(cache.remember("k", "1", start), ReplayCache::Verdict::seen)
      << "a reading of the clock that comes late";
  EXPECT_EQ(cache.remember("k", std::string(nonce_chars_max + 1, 'n'), start),
            ReplayCache::Verdict::full);
}

TEST_F(SigningTest, KeysRotateWithoutARefusal) {
  Arrived with_old = signed_now();
  SigningKey next = key("orders-2", 'n');
  next.from = noon + 60s;
  shared->replace({key("orders-1"), next});
  EXPECT_EQ(signed_now().verify(verifier).key_id, "orders-1")
      << "the next one is not yet to sign with";
  EXPECT_TRUE(with_old.verify(verifier));
  Arrived with_new = signed_at(noon + 60s);
  EXPECT_EQ(with_new.verify(verifier, noon + 59s).key_id, "orders-2") << "but verifies already";
  Arrived late = signed_at(noon + 59s);
  shared->replace({key("orders-2", 'n')});
  EXPECT_EQ(to_string(late.verify(verifier, noon + 61s).refusal), "unknown_key");
}

TEST_F(SigningTest, AKeyThatHasEndedNeitherSignsNorVerifies) {
  SigningKey ended = key("orders-1");
  ended.until = noon;
  Arrived arrived = signed_at(noon - 1s);
  shared->replace({ended});
  EXPECT_EQ(to_string(arrived.verify(verifier).refusal), "unknown_key");
  transport::HttpRequest sent = request();
  EXPECT_EQ(signer.sign(sent, noon), "no signing key is valid now");
}

TEST_F(SigningTest, AnotherSecretOfTheSameIdIsAWrongSignature) {
  Arrived arrived = signed_now();
  shared->replace({key("orders-1", 'x')});
  EXPECT_EQ(to_string(arrived.verify(verifier).refusal), "wrong_signature");
}

TEST_F(SigningTest, TheBodyIsBoundedAndMustBeThereAsAWhole) {
  SignatureVerifier small(shared, {.body_bytes_max = 11});
  EXPECT_EQ(to_string(signed_now().verify(small).refusal), "body_too_large");
  Arrived announced = signed_now();
  announced.body_bytes = 1LL << 40;
  EXPECT_EQ(to_string(announced.verify(verifier).refusal), "body_too_large");
  Arrived partly = signed_now();
  partly.body_bytes = 13;
  EXPECT_EQ(to_string(partly.verify(verifier).refusal), "body_not_read");
  // A body that comes behind the header of a request that was signed without one.
  transport::HttpRequest empty = request();
  empty.body.clear();
  Arrived unknown = signed_at(noon, empty);
  unknown.body_bytes = -1;
  unknown.headers.emplace_back("Transfer-Encoding", "chunked");
  EXPECT_EQ(to_string(unknown.verify(verifier).refusal), "body_not_read");
  unknown.headers.back() = {"Content-Length", "5"};
  EXPECT_EQ(to_string(unknown.verify(verifier).refusal), "body_not_read");
  unknown.headers.pop_back();
  // Where no step ever sees a body, an empty view is no empty body.
  unknown.body_hidden = true;
  EXPECT_EQ(to_string(unknown.verify(verifier).refusal), "body_hidden");
  unknown.body_hidden = false;
  EXPECT_TRUE(unknown.verify(verifier));
}

TEST_F(SigningTest, TheHostIsComparedAsHostsAre) {
  transport::HttpRequest to_default_port = request();
  to_default_port.origin = "http://Orders.Internal";
  for (const std::string_view host : {"orders.internal", "ORDERS.internal:80"}) {
    Arrived arrived = signed_at(noon, to_default_port);
    arrived.host = host;
    EXPECT_TRUE(arrived.verify(verifier)) << host;
  }
  Arrived elsewhere = signed_at(noon, to_default_port);
  elsewhere.host = "orders.internal:81";
  EXPECT_FALSE(elsewhere.verify(verifier));
}

TEST_F(SigningTest, SigningAgainReplacesTheFirstSignature) {
  transport::HttpRequest sent = request();
  signer.sign(sent, noon);
  const std::size_t headers = sent.headers.size();
  sent.body = "other";
  signer.sign(sent, noon + 1s);
  EXPECT_EQ(sent.headers.size(), headers);
  EXPECT_TRUE(Arrived(sent).verify(verifier));
}

TEST_F(SigningTest, WhatCannotBeSignedSaysWhy) {
  transport::HttpRequest twice = request();
  twice.headers.push_back({"x-tenant-id", "other"});
  EXPECT_NE(signer.sign(twice, noon).find("more than once"), std::string::npos);
  transport::HttpRequest nowhere = request();
  nowhere.origin = "orders";
  EXPECT_NE(signer.sign(nowhere, noon).find("orders"), std::string::npos);
}

TEST(SigningKeysTest, WhatCannotWorkIsNamedWithoutASecret) {
  SigningKey weak{.id = "a\"b", .secret = "canary"};
  SigningKey never = key("c");
  never.from = never.until = noon;
  try {
    const SigningKeys made({weak, key("b"), key("b"), never});
    FAIL();
  } catch (const std::invalid_argument& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("key 1: the id"), std::string::npos) << text;
    EXPECT_NE(text.find("key 1: the secret is shorter"), std::string::npos) << text;
    EXPECT_NE(text.find("key 3: its id is there twice"), std::string::npos) << text;
    EXPECT_NE(text.find("key 4: it is never valid"), std::string::npos) << text;
    EXPECT_EQ(text.find("canary"), std::string::npos);
  }
  EXPECT_THROW(SigningKeys({}), std::invalid_argument);
  EXPECT_THROW(SignatureVerifier(keys(), {.age_max = 0s}), std::invalid_argument);
}

// ---- In a chain ----

class SignatureStepTest : public SigningTest {
 protected:
  struct Answer {
    int status;
    std::string body;
    std::string decision;
  };
  Answer ask(SignatureStep& step, const Arrived& arrived) const {
    const Chain chain(routes, step);
    std::vector<HeaderField> fields;
    for (const auto& [name, text] : arrived.headers) fields.push_back({name, text});
    const std::span<const HeaderField> list(fields);
    auto exchange = chain.begin({.method = arrived.method,
                                 .path = arrived.path,
                                 .query = arrived.query,
                                 .host = arrived.host,
                                 .headers = headers_of(list),
                                 .body = arrived.body,
                                 .body_bytes = static_cast<std::int64_t>(arrived.body.size()),
                                 .body_hidden = arrived.body_hidden},
                                start);
    const Answer answer{exchange.reply().status, std::string(exchange.reply().body),
                        std::string(exchange.decision)};
    exchange.finish({.status = answer.status});
    return answer;
  }

  spillway::testing::AwsEnvironment environment;
  spillway::testing::TestEngine test{spillway::testing::aws_config()};
  const std::shared_ptr<spillway::testing::ManualClock> clock =
      std::make_shared<spillway::testing::ManualClock>(noon);
  const Routes routes{{"POST", "/orders/{id}"}, {"GET", "/public"}};
};

TEST_F(SignatureStepTest, DeniesByDefaultAndTellsTheClientNothing) {
  SignatureStep step(test.engine, routes, shared, {.clock = clock});
  EXPECT_EQ(ask(step, signed_now()).status, 0) << "the handler's";
  Arrived unsigned_one(request());
  const Answer missing = ask(step, unsigned_one);
  EXPECT_EQ(missing.status, 401);
  EXPECT_EQ(missing.decision, "signature: missing");
  EXPECT_EQ(missing.body.find("missing"), std::string::npos) << missing.body;
  Arrived nowhere(request());
  nowhere.path = "/nowhere";
  EXPECT_EQ(ask(step, nowhere).status, 401) << "no route, no way in";
  Arrived changed = signed_now();
  changed.body += ' ';
  EXPECT_EQ(ask(step, changed).status, 401);
}

TEST_F(SignatureStepTest, RoutesMayBeOpenAndKeysMayBeForSomeOnly) {
  SignatureStep step(test.engine, routes, shared,
                     {.needed = [](const Route& route) { return route.path_template != "/public"; },
                      .may_use = [](std::string_view id, const Route&) { return id == "orders-2"; },
                      .clock = clock});
  Arrived open(request());
  open.method = "GET";
  open.path = "/public";
  EXPECT_EQ(ask(step, open).status, 0);
  const Answer other = ask(step, signed_now());
  EXPECT_EQ(other.status, 403);
  EXPECT_EQ(other.decision, "signature: forbidden");
  shared->replace({key("orders-2", 'n')});
  EXPECT_EQ(ask(step, signed_now()).status, 0);
}

TEST_F(SignatureStepTest, WhatIsNotTheSignaturesFaultHasItsOwnStatus) {
  SignatureStep step(test.engine, routes, shared,
                     {.verifier = {.body_bytes_max = 5}, .clock = clock});
  EXPECT_EQ(ask(step, signed_now()).status, 413);
  Arrived hidden = signed_now();
  hidden.body_hidden = true;
  const Answer answer = ask(step, hidden);
  EXPECT_EQ(answer.status, 501);
  EXPECT_EQ(answer.decision, "signature: body_hidden");
}

}  // namespace
}  // namespace spillway::middleware
