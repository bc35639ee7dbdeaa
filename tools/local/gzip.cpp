// SPDX-License-Identifier: Apache-2.0
#include "local/gzip.hpp"

#include <algorithm>
#include <new>

#include <zlib.h>

namespace spillway::local {
namespace {

// zlib's codes for the gzip wrapper: 16 more than the window's size.
constexpr int gzip_window_bits = 16 + MAX_WBITS;
constexpr std::size_t step_bytes = 256U << 10;

Bytef* bytes_of(std::string_view text) {
  return reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
}

}  // namespace

InflateResult gunzip(std::string_view input, std::size_t bytes_max, std::string& output) {
  output.clear();
  z_stream stream{};
  if (inflateInit2(&stream, gzip_window_bits) != Z_OK) throw std::bad_alloc();
  stream.next_in = bytes_of(input);
  stream.avail_in = static_cast<uInt>(input.size());

  int code = Z_OK;
  while (code == Z_OK) {
    // One byte of room past the limit tells "exactly full" from "more to come".
    const std::size_t filled = output.size();
    const std::size_t room = std::min(step_bytes, bytes_max + 1 - filled);
    output.resize(filled + room);
    stream.next_out = bytes_of(output) + filled;
    stream.avail_out = static_cast<uInt>(room);
    code = inflate(&stream, Z_NO_FLUSH);
    output.resize(filled + room - stream.avail_out);
    if (output.size() > bytes_max) break;
    if (code == Z_OK && stream.avail_in == 0 && stream.avail_out != 0) break;
  }
  const bool whole = code == Z_STREAM_END && stream.avail_in == 0;
  inflateEnd(&stream);
  if (output.size() > bytes_max) return InflateResult::too_large;
  return whole ? InflateResult::ok : InflateResult::broken;
}

}  // namespace spillway::local
