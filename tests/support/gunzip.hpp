// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <string>
#include <string_view>

#include <gtest/gtest.h>
#include <zlib.h>

#include <spillway/transport/http.hpp>

namespace spillway::testing {

/// The inflated bytes of a gzip member; a test failure when they are none.
inline std::string gunzip(std::string_view bytes) {
  z_stream stream{};
  EXPECT_EQ(inflateInit2(&stream, 15 + 16), Z_OK);
  stream.next_in =
      const_cast<Bytef*>(reinterpret_cast<const Bytef*>(bytes.data()));  // NOLINT: zlib's type
  stream.avail_in = static_cast<uInt>(bytes.size());
  std::string result;
  std::array<char, 65536> piece{};
  int status = Z_OK;
  while (status == Z_OK) {
    stream.next_out = reinterpret_cast<Bytef*>(piece.data());
    stream.avail_out = static_cast<uInt>(piece.size());
    status = inflate(&stream, Z_NO_FLUSH);
    result.append(piece.data(), piece.size() - stream.avail_out);
  }
  EXPECT_EQ(status, Z_STREAM_END);
  inflateEnd(&stream);
  return result;
}

/// A request's body as the receiver reads it.
inline std::string body_of(const transport::HttpRequest& request) {
  return transport::find_header(request.headers, "Content-Encoding") == "gzip"
             ? gunzip(request.body)
             : request.body;
}

}  // namespace spillway::testing
