// SPDX-License-Identifier: Apache-2.0
#include <string>

#include <gtest/gtest.h>

#include <spillway/transport/url.hpp>

namespace spillway::transport {
namespace {

TEST(UrlTest, ItsParts) {
  const auto url = parse_url("HTTPS://Logs.EU-west-1.amazonaws.com:8443/Base/Path?a=b&c");
  ASSERT_TRUE(url);
  EXPECT_EQ(url->scheme, "https");
  EXPECT_EQ(url->host, "logs.eu-west-1.amazonaws.com");
  EXPECT_EQ(url->port, 8443);
  EXPECT_EQ(url->path, "/Base/Path");
  EXPECT_EQ(url->query, "a=b&c");
  EXPECT_EQ(url->origin(), "https://logs.eu-west-1.amazonaws.com:8443");
  EXPECT_EQ(url->host_header(), "logs.eu-west-1.amazonaws.com:8443");
}

TEST(UrlTest, WhatIsLeftOutIsTheUsual) {
  const auto https = parse_url("https://host");
  ASSERT_TRUE(https);
  EXPECT_EQ(https->port, 443);
  EXPECT_EQ(https->path, "/");
  EXPECT_EQ(https->query, "");
  EXPECT_EQ(https->origin(), "https://host");
  EXPECT_EQ(parse_url("http://host")->port, 80);
  EXPECT_EQ(parse_url("https://host:443/")->host_header(), "host");
  EXPECT_EQ(parse_url("http://host:443/")->host_header(), "host:443");
  EXPECT_EQ(parse_url("http://host?q")->path, "/");
  EXPECT_EQ(parse_url("http://host?q")->query, "q");
  EXPECT_EQ(parse_url("http://host/?")->query, "");
  EXPECT_EQ(parse_url("http://host/a?b/c?d")->query, "b/c?d");
}

TEST(UrlTest, AddressesInBrackets) {
  const auto url = parse_url("http://[::1]:4566/x");
  ASSERT_TRUE(url);
  EXPECT_EQ(url->host, "[::1]");
  EXPECT_EQ(url->port, 4566);
  EXPECT_EQ(url->origin(), "http://[::1]:4566");
  EXPECT_EQ(parse_url("http://[FE80::1]")->host, "[fe80::1]");
  EXPECT_EQ(parse_url("http://[::ffff:10.0.0.1]")->port, 80);
}

TEST(UrlTest, WhatIsNoUrlForARequestIsRefused) {
  for (const char* const text : {"",
                                 "host",
                                 "//host",
                                 "http:/host",
                                 "http://",
                                 "http:///path",
                                 "ftp://host",
                                 "file:///etc",
                                 "http://user@host",
                                 "http://user:password@host",
                                 "http://host#fragment",
                                 "http://host/#",
                                 "http://host:0",
                                 "http://host:65536",
                                 "http://host:",
                                 "http://host:x",
                                 "http://host:-1",
                                 "http://host:80:80",
                                 "http://ho st",
                                 "http://host/a b",
                                 "http://host/\n",
                                 "http://host\r",
                                 "http://host/\x7f",
                                 "http://[::1",
                                 "http://::1",
                                 "http://[]",
                                 "http://[::1]x",
                                 "http://[g::1]",
                                 "http://h\xc3\xb6st",
                                 "http://host\\@other",
                                 " http://host",
                                 "http://127.0.0.1%2eevil"}) {
    EXPECT_FALSE(parse_url(text)) << text;
  }
  EXPECT_FALSE(parse_url(std::string("http://host/\0", 13)));
}

TEST(PercentEncodeTest, OnlyTheUnreservedStay) {
  EXPECT_EQ(percent_encode("azAZ09-._~"), "azAZ09-._~");
  EXPECT_EQ(percent_encode(" !*'()+/%"), "%20%21%2A%27%28%29%2B%2F%25");
  EXPECT_EQ(percent_encode("a/b c", true), "a/b%20c");
  EXPECT_EQ(percent_encode("\xe1\x88\xb4"), "%E1%88%B4");
  EXPECT_EQ(percent_encode(std::string_view("\0", 1)), "%00");
  EXPECT_EQ(percent_encode(""), "");
}

TEST(PercentDecodeTest, GivesTheBytesBack) {
  EXPECT_EQ(percent_decode("a%20b%2c%E1%88%B4+"), "a b,\xe1\x88\xb4+");
  EXPECT_EQ(percent_decode("%00"), std::string(1, '\0'));
  EXPECT_EQ(percent_decode(""), "");
  for (const std::string_view text : {"%", "%2", "a%2", "%zz", "%2g", "%-1", "% 1", "%%20"}) {
    EXPECT_FALSE(percent_decode(text)) << text;
  }
}

}  // namespace
}  // namespace spillway::transport
