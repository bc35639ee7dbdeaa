// SPDX-License-Identifier: Apache-2.0
//
// What is taken out of texts, and what is left alone. The default policy unless said otherwise; that
// records of every kind go through it is in engine_logs_test and engine_traces_test.
#include <random>
#include <string>

#include <gtest/gtest.h>

#include <spillway/encoders/characters.hpp>
#include <spillway/encoders/redaction.hpp>
#include <spillway/engine/config.hpp>

namespace spillway::detail {
namespace {

RedactionPolicy default_policy() {
  const Config config;
  return parse_redaction_policy(config.redact.get(), config.redact_keys.get()).value();
}

std::string redacted(std::string_view text) {
  Redactor redactor(default_policy());
  return std::string(redactor.text(text));
}

struct Example {
  std::string text;
  std::string expected;
};
void expect_all(const std::vector<Example>& examples) {
  for (const Example& example : examples) EXPECT_EQ(redacted(example.text), example.expected);
}

TEST(RedactionTest, CardNumbersAnywhereInAString) {
  for (const std::string card :
       {"4111111111111111", "4222222222222", "5555555555554444", "2223003122003222",
        "378282246310005", "6011111111111117", "30569309025904", "3530111333300000",
        "6304000000000000", "4111 1111 1111 1111", "4111-1111-1111-1111", "4111.1111.1111.1111",
        "4111+1111+1111+1111", "4111%201111%201111%201111", "3782 822463 10005"}) {
    expect_all({{card, "[redacted]"},
                {"paid with " + card + ", thanks", "paid with [redacted], thanks"},
                {"x" + card + "y", "x[redacted]y"},
                {"2 " + card, "2 [redacted]"},
                {"until 12/29 " + card + " 12/29", "until 12/29 [redacted] 12/29"},
                {card + "\n" + card, "[redacted]\n[redacted]"}});
  }
  // At every place against the blocks of sixteen characters that a text is looked at in.
  for (std::size_t before = 0; before < 40; ++before) {
    expect_all(
        {{std::string(before, '_') + "4111111111111111", std::string(before, '_') + "[redacted]"},
         {std::string(before, '_') + "4222222222222" + std::string(40 - before, '_'),
          std::string(before, '_') + "[redacted]" + std::string(40 - before, '_')}});
  }
}

TEST(RedactionTest, NumbersThatAreNoCardsStay) {
  for (const std::string text :
       {"4111111111111112", "41111111111111111111", "411111111111", "1795222800123456789",
        "0000000000000000", "4111  1111  1111  1111", "0.4111111111111111", "192.168.100.200:8080",
        "550e8400-e29b-41d4-a716-446655440000", "2026-11-21T01:02:03.123456789Z",
        "1-6b00e354-0f1e2d3c4b5a69788796a5b4", "+49 30 1234567", "4111", ""}) {
    EXPECT_EQ(redacted(text), text);
  }
}

TEST(RedactionTest, EmailAddresses) {
  expect_all({{"jane.doe+tag@shop.example.com", "[redacted]"},
              {"from jane@shop.com.", "from [redacted]."},
              {"<jane@shop.com>,<joe@shop.com>", "<[redacted]>,<[redacted]>"},
              {"q=jane%40shop.com&x=1", "q=[redacted]&x=1"},
              {"m\xc3\xbcller@b\xc3\xbc"
               "ro.de",
               "[redacted]"},
              {"user@localhost", "user@localhost"},
              {"@handle", "@handle"},
              {"a @ b.com", "a @ b.com"},
              {"price@10.20", "price@10.20"},
              {"x@y.c", "x@y.c"},
              {"@@@", "@@@"}});
}

TEST(RedactionTest, BearerTokensAndWebTokens) {
  expect_all({{"Bearer abc.def-123", "Bearer [redacted]"},
              {"got BEARER  x== twice", "got BEARER  [redacted] twice"},
              {"h=bearer%20abc&x=1", "h=bearer%20[redacted]&x=1"},
              {"forbearer abc", "forbearer abc"},
              {"Bearer", "Bearer"},
              {"Bearer ", "Bearer "},
              {"t eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.sig_-x end", "t [redacted] end"},
              {"eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0.", "[redacted]"},
              {"eyJhbGci.eyJ", "eyJhbGci.eyJ"},
              {"keyJar", "keyJar"}});
  for (std::size_t before = 0; before < 40; ++before) {
    const std::string blank(before, ' ');
    expect_all({{blank + "Bearer abc", blank + "Bearer [redacted]"},
                {blank + "eyJ.eyJ.x", blank + "[redacted]"}});
  }
}

TEST(CharactersTest, BitsAreTheSameOnEveryProcessor) {
  std::mt19937 random(20261121);
  for (int i = 0; i < 10'000; ++i) {
    char text[16];
    for (char& c : text) c = static_cast<char>(random() % 4);
    const std::size_t bytes = random() % 17;
    const Characters characters = load(text, bytes);
    std::uint32_t expected = 0;
    for (std::size_t at = 0; at < 16; ++at) {
      const char here = at < bytes ? text[at] : '\0';
      if (here == 1) expected |= 1U << at;
    }
    ASSERT_EQ(bits_of(characters == all(1)), expected);
    ASSERT_EQ(bits_of_portable(characters == all(1)), expected);
  }
}

TEST(RedactionTest, UsersAndPasswordsOfUrls) {
  expect_all(
      {{"https://jane:hunter2@shop.com/x", "https://[redacted]@shop.com/x"},
       {"postgres://u:p@ss@db:5432/shop", "postgres://[redacted]@db:5432/shop"},
       {"https://token@host", "https://[redacted]@host"},
       {"https://u:@@@host/@x", "https://[redacted]@host/@x"},
       {"https://a:b@h1/x@y https://c:d@e@h2", "https://[redacted]@h1/x@y https://[redacted]@h2"},
       {"https://@host", "https://@host"},
       {"https://host/@path", "https://host/@path"},
       {"https://host?x=@", "https://host?x=@"},
       {"see https://host and @x", "see https://host and @x"}});
}

TEST(RedactionTest, ValuesBehindKeysInUrlsFormsAndHeaders) {
  expect_all(
      {{"/login?user=u1&password=hunter2&x=1", "/login?user=u1&password=[redacted]&x=1"},
       {"access_token=abc", "access_token=[redacted]"},
       {"X-Amz-Security-Token=abc&X-Amz-Signature=0f",
        "X-Amz-Security-Token=[redacted]&X-Amz-Signature=[redacted]"},
       {"user[password]=x", "user[password]=[redacted]"},
       {"user%5Bpassword%5D=x;y=2", "user%5Bpassword%5D=[redacted];y=2"},
       {"pin = 1234, next", "pin = [redacted], next"},
       {"authorization=Basic abc rest", "authorization=[redacted] rest"},
       {"Authorization: Basic dTpw, more\r\nHost: x", "Authorization: [redacted]\r\nHost: x"},
       {"Host: x\nCookie: a=1; b=2\nAccept: y", "Host: x\nCookie: [redacted]\nAccept: y"},
       {"wrong password: hunter2 given", "wrong password: [redacted] given"},
       {"password=", "password="},
       {"spin=1&pinned=2&token_count=3", "spin=1&pinned=2&token_count=3"},
       {"=x", "=x"},
       {":", ":"}});
}

TEST(RedactionTest, ValuesBehindKeysInJson) {
  expect_all({{R"({"user":"u1","password":"hunter2","n":1})",
               R"({"user":"u1","password":"[redacted]","n":1})"},
              {R"({"a":{"b":[{"apiKey" : "k"}]},"pin":1234,"x":null})",
               R"({"a":{"b":[{"apiKey" : "[redacted]"}]},"pin":[redacted],"x":null})"},
              {R"({"password":"a\"b\\","x":"y"})", R"({"password":"[redacted]","x":"y"})"},
              {R"({"credentials":{"id":"}","list":[1,{"k":"]"}]},"x":1})",
               R"({"credentials":[redacted],"x":1})"},
              {R"({"body":"{\"password\":\"hunter2\",\"x\":1}"})",
               R"({"body":"{\"password\":\"[redacted]\",\"x\":1}"})"},
              {R"({"password":"cut)", R"({"password":"[redacted])"},
              {R"({"password":{"cut":1)", R"({"password":[redacted])"},
              {R"({'secret': 'x', 'y': 'z'})", R"({'secret': '[redacted]', 'y': 'z'})"}});
}

TEST(RedactionTest, KeysAreComparedWithoutCaseAndPunctuation) {
  const Redactor redactor(
      parse_redaction_policy("none", "api_key, *token, pass*, *secret*").value());
  for (const std::string key :
       {"api_key", "Api-Key", "APIKEY", "headers.api_key", "api_key.value", "a[apiKey]", "token",
        "accessToken", "x.token.y", "passphrase", "my_secret_thing", "SECRET"}) {
    EXPECT_TRUE(redactor.is_secret(key)) << key;
  }
  for (const std::string key : {"api_keys", "my_api_key", "token_count", "compass", "", ".."}) {
    EXPECT_FALSE(redactor.is_secret(key)) << key;
  }
  EXPECT_TRUE(redactor.is_secret(std::string(5000, 'x') + ".token"));
}

TEST(RedactionTest, WhatIsSaidToBeHarmlessIs) {
  Redactor redactor(
      parse_redaction_policy("none", "*token, !*next_token, !page.token, !x*").value());
  for (const std::string key :
       {"next_token", "NextToken", "query.next_token", "pageToken", "xToken"}) {
    EXPECT_FALSE(redactor.is_secret(key)) << key;
  }
  for (const std::string key : {"token", "access_token", "next_token_token", "my_page_token"}) {
    EXPECT_TRUE(redactor.is_secret(key)) << key;
  }
  EXPECT_EQ(redactor.text("next_token=abc&token=def"), "next_token=abc&token=[redacted]");
  EXPECT_FALSE(parse_redaction_policy("", "!").has_value());
  Redactor usual(parse_redaction_policy("none", Config().redact_keys.get()).value());
  for (const std::string key :
       {"NextToken", "nextPageToken", "ContinuationToken", "nextSequenceToken", "ClientToken"}) {
    EXPECT_FALSE(usual.is_secret(key)) << key;
  }
  EXPECT_TRUE(usual.is_secret("session_token"));
}

TEST(RedactionTest, APolicyCanBeLessOrNothing) {
  const std::string text = "4111111111111111 jane@shop.com Bearer abc https://u:p@h password=x";
  const auto with = [&](std::string_view kinds, std::string_view keys) {
    Redactor redactor(parse_redaction_policy(kinds, keys).value());
    return std::string(redactor.text(text));
  };
  EXPECT_EQ(with("none", ""), text);
  EXPECT_EQ(with("", ""), text);
  EXPECT_EQ(with("cards", ""), "[redacted] jane@shop.com Bearer abc https://u:p@h password=x");
  EXPECT_EQ(with("emails", ""), "4111111111111111 [redacted] Bearer abc https://u:p@h password=x");
  EXPECT_EQ(with("tokens", ""),
            "4111111111111111 jane@shop.com Bearer [redacted] https://[redacted]@h password=x");
  EXPECT_EQ(with("none", "password"),
            "4111111111111111 jane@shop.com Bearer abc https://u:p@h password=[redacted]");
  EXPECT_FALSE(parse_redaction_policy("cards,phones", ""));
  EXPECT_FALSE(parse_redaction_policy("cards,none", ""));
  EXPECT_FALSE(parse_redaction_policy("", "a,,b"));
  EXPECT_FALSE(parse_redaction_policy("", "*"));
}

TEST(RedactionTest, ATextWithoutSecretsIsNotCopied) {
  Redactor redactor(default_policy());
  const std::string clean = "https://shop.example/v1/orders?page=3 took 12:30 min";
  EXPECT_EQ(redactor.text(clean).data(), clean.data());
  const std::string once(redactor.text("a@b.com=4111111111111111 password=\"x\" Bearer y"));
  EXPECT_EQ(redactor.text(once), once) << "a second time there is nothing left to find";
}

// Steps per character have a bound, so these take as long as any other text of their length; were one
// of them quadratic, the test would not end.
TEST(RedactionTest, TextsMadeToBeSlow) {
  constexpr std::size_t bytes = 1U << 18;
  const auto repeated = [](std::string_view what) {
    std::string text;
    while (text.size() < bytes) text += what;
    return text;
  };
  for (const std::string_view what : {"@",
                                      "a@",
                                      "a@b.",
                                      "1",
                                      "1 ",
                                      "1%20",
                                      "4111 ",
                                      "=",
                                      "a=",
                                      "eyJ",
                                      "eyJ.",
                                      "eyJa.b",
                                      "bearer ",
                                      "bearer",
                                      "://",
                                      "https://a:",
                                      "password",
                                      "password=",
                                      "password={",
                                      "\"password\":\"\\\"",
                                      "password=[\"",
                                      "%40",
                                      "a%40",
                                      ".",
                                      "a.b@c.",
                                      "\\\"password\\\":",
                                      "token: ",
                                      "b",
                                      "[",
                                      "{"}) {
    const std::string text = repeated(what);
    EXPECT_LE(redacted(text).size(), 2 * text.size() + 16);
  }
}

// Whatever stands around it, a secret is found; the seed is printed when one is not.
TEST(RedactionTest, SecretsAmongAnything) {
  std::mt19937 random(20261121);
  const std::string others = "abcXYZ {}[]\"'\\:;,=&?/#%@.-_\n\t<>\xc3\xbc";
  for (int round = 0; round < 5'000; ++round) {
    std::string text;
    const auto noise = [&] {
      for (auto n = random() % 12; n > 0; --n) text += others[random() % others.size()];
    };
    noise();
    text += " 4111111111111111 ";
    noise();
    text += " canary@shop.com ";
    noise();
    const std::string result = redacted(text);
    EXPECT_EQ(result.find("4111111111111111"), std::string::npos) << round << ": " << text;
    EXPECT_EQ(result.find("canary"), std::string::npos) << round << ": " << text;
  }
}

}  // namespace
}  // namespace spillway::detail
