// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <spillway/transport/stream_sink.hpp>

namespace spillway::transport {

StreamSink::StreamSink(StreamSink&& other) noexcept
    : path_(std::move(other.path_)),
      descriptor_(std::exchange(other.descriptor_, -1)),
      may_block_(other.may_block_),
      error_(std::move(other.error_)) {}

StreamSink::~StreamSink() {
  if (!path_.empty() && descriptor_ >= 0) close(descriptor_);
}

StreamSink StreamSink::standard_output() {
  StreamSink sink;
  sink.use(STDOUT_FILENO);
  return sink;
}

StreamSink StreamSink::file(const std::string& path) {
  StreamSink sink;
  sink.path_ = path;
  return sink;
}

void StreamSink::use(int descriptor) {
  descriptor_ = descriptor;
  struct stat info {};
  may_block_ = fstat(descriptor, &info) != 0 || !S_ISREG(info.st_mode);
}

// Remembers why, and closes what is ours, so that the next write opens it again.
void StreamSink::fail(std::string_view what) {
  error_ = std::string(what) + (path_.empty() ? std::string("standard output") : path_) + ": " +
           std::strerror(errno);
  if (!path_.empty() && descriptor_ >= 0) close(std::exchange(descriptor_, -1));
}

WriteResult StreamSink::write(std::string_view& text, std::chrono::milliseconds wait) {
  if (descriptor_ < 0) {
    const int opened = open(path_.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);
    if (opened < 0) {
      fail("cannot open ");
      return WriteResult::failed;
    }
    use(opened);
  }
  while (!text.empty()) {
    std::size_t bytes = text.size();
    if (may_block_) {
      pollfd ready{descriptor_, POLLOUT, 0};
      const int count = poll(&ready, 1, static_cast<int>(wait.count()));
      if (count < 0 && errno != EINTR) break;
      if (count <= 0) return WriteResult::busy;
      // A pipe that is writable takes PIPE_BUF bytes without blocking (POSIX, write).
      bytes = std::min<std::size_t>(bytes, PIPE_BUF);
    }
    const ssize_t written = ::write(descriptor_, text.data(), bytes);
    if (written > 0) {
      text.remove_prefix(static_cast<std::size_t>(written));
    } else if (written < 0 && errno == EAGAIN) {
      return WriteResult::busy;
    } else if (written == 0 || errno != EINTR) {
      break;
    }
  }
  if (text.empty()) return WriteResult::written;
  fail("cannot write to ");
  return WriteResult::failed;
}

}  // namespace spillway::transport
