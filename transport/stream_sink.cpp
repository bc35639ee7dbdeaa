// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <spillway/transport/stream_sink.hpp>

namespace spillway::transport {
namespace {

/// Keeps the signals that a write can raise (no reader, file too large) from the thread, and takes
/// those back that were raised meanwhile: errno says the same.
class WithoutSignals {
 public:
  WithoutSignals() noexcept {
    sigemptyset(&ours_);
    sigset_t pending;
    sigpending(&pending);
    for (const int signal : {SIGPIPE, SIGXFSZ}) {
      if (sigismember(&pending, signal) == 0) sigaddset(&ours_, signal);
    }
    pthread_sigmask(SIG_BLOCK, &ours_, &before_);
  }
  WithoutSignals(const WithoutSignals&) = delete;
  WithoutSignals& operator=(const WithoutSignals&) = delete;
  ~WithoutSignals() {
    const int error = errno;
    const timespec at_once{};
    while (sigtimedwait(&ours_, nullptr, &at_once) > 0 || errno == EINTR) {
    }
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
    errno = error;
  }

 private:
  sigset_t ours_;
  sigset_t before_;
};

/// write() that says EAGAIN where it would wait, although the descriptor is not O_NONBLOCK, and takes
/// as much as there is room for. Where the kernel cannot promise that (pipes before 6.4, terminals) it
/// is what a pipe that is writable takes without blocking: PIPE_BUF bytes (POSIX, write).
ssize_t write_without_waiting(int descriptor, std::string_view text) noexcept {
  const iovec part{const_cast<char*>(text.data()), text.size()};  // NOLINT: writev's type
  const ssize_t written = pwritev2(descriptor, &part, 1, -1, RWF_NOWAIT);
  if (written >= 0 || (errno != EOPNOTSUPP && errno != ENOSYS)) return written;
  return ::write(descriptor, text.data(), std::min<std::size_t>(text.size(), PIPE_BUF));
}

}  // namespace

bool shows_colours(int descriptor) noexcept {
  const auto value_of = [](const char* variable) {
    const char* const value = std::getenv(variable);
    return std::string_view(value == nullptr ? "" : value);
  };
  return value_of("NO_COLOR").empty() && value_of("TERM") != "dumb" && isatty(descriptor) == 1;
}

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

StreamSink StreamSink::standard_error() {
  StreamSink sink;
  sink.use(STDERR_FILENO);
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
  const char* const standard = descriptor_ == STDERR_FILENO ? "standard error" : "standard output";
  error_ = std::string(what) + (path_.empty() ? std::string(standard) : path_) + ": " +
           std::strerror(errno);
  if (!path_.empty() && descriptor_ >= 0) close(std::exchange(descriptor_, -1));
}

WriteResult StreamSink::write(std::string_view& text, std::chrono::milliseconds wait) {
  if (descriptor_ < 0) {
    // Not blocking, for a named pipe that nobody reads; a file does not care.
    const int opened =
        open(path_.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0640);
    if (opened < 0) {
      fail("cannot open ");
      return WriteResult::failed;
    }
    use(opened);
  }
  const WithoutSignals guard;
  const auto deadline = std::chrono::steady_clock::now() + wait;
  while (!text.empty()) {
    ssize_t written = 0;
    if (may_block_) {
      const auto left =
          std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
      pollfd ready{descriptor_, POLLOUT, 0};
      const int count =
          poll(&ready, 1,
               static_cast<int>(std::clamp(left, std::chrono::milliseconds(0), wait).count()));
      if (count < 0 && errno != EINTR) break;
      if (count <= 0) return WriteResult::busy;
      written = write_without_waiting(descriptor_, text);
    } else {
      written = ::write(descriptor_, text.data(), text.size());
    }
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
