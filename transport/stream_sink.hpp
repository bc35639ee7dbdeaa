// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace spillway::transport {

enum class WriteResult : std::uint8_t { written, busy, failed };

/// Whether colours are wanted there: it is a terminal that knows them, and NO_COLOR
/// (https://no-color.org) is not set to anything.
bool shows_colours(int descriptor) noexcept;

/// A file descriptor that takes lines: stdout, a file, a pipe. One thread. A pipe that nobody reads
/// makes it `busy`, never blocks it: only what the kernel says it has room for is written, and
/// standard output and error never with O_NONBLOCK, which would change it for everybody who shares
/// it. A write raises no signal: a pipe without a reader is `failed`.
class StreamSink {
 public:
  /// Standard output, which is not closed.
  static StreamSink standard_output();
  /// The same for standard error.
  static StreamSink standard_error();
  /// A file, created 0640 when missing, opened for appending at the first write and again after a
  /// failure.
  static StreamSink file(const std::string& path);

  StreamSink(StreamSink&& other) noexcept;
  StreamSink& operator=(StreamSink&&) = delete;
  ~StreamSink();

  /// Writes as much of `text` as goes within `wait` and removes it from `text`. `written`: all of
  /// it.
  WriteResult write(std::string_view& text, std::chrono::milliseconds wait);
  const std::string& error() const noexcept { return error_; }

 private:
  StreamSink() = default;
  void use(int descriptor);
  void fail(std::string_view what);
  std::string path_;  ///< empty: not ours to open or close
  int descriptor_ = -1;
  bool may_block_ = true;
  std::string error_;
};

}  // namespace spillway::transport
