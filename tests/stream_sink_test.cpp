// SPDX-License-Identifier: Apache-2.0
//
// Writing to what a process is given as standard output: files, pipes that nobody reads or that are
// closed, sockets. No signal, no waiting.
#include <array>
#include <csignal>
#include <string>
#include <utility>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <support/environment.hpp>
#include <support/temporary_file.hpp>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <spillway/transport/stream_sink.hpp>

namespace spillway::transport {
namespace {

using namespace std::chrono_literals;

/// A descriptor stands in for standard output during a scope. Assertions write there: make them
/// behind it.
class Redirected {
 public:
  explicit Redirected(int descriptor) : before_(fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3)) {
    dup2(descriptor, STDOUT_FILENO);
  }
  Redirected(const Redirected&) = delete;
  Redirected& operator=(const Redirected&) = delete;
  ~Redirected() {
    dup2(before_, STDOUT_FILENO);
    close(before_);
  }

 private:
  const int before_;
};

/// Two ends; each closed once.
class Ends {
 public:
  static Ends of_pipe() {
    Ends ends;
    EXPECT_EQ(pipe2(ends.at_.data(), O_CLOEXEC), 0);
    return ends;
  }
  static Ends of_socket() {
    Ends ends;
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.at_.data()), 0);
    return ends;
  }
  Ends(Ends&& other) noexcept : at_(std::exchange(other.at_, {-1, -1})) {}
  Ends& operator=(Ends&&) = delete;
  ~Ends() {
    close_reader();
    close_writer();
  }
  int reader() const { return at_[0]; }
  int writer() const { return at_[1]; }
  void close_reader() { close_one(at_[0]); }
  void close_writer() { close_one(at_[1]); }

  /// What there is to read now.
  std::string take() const {
    fcntl(reader(), F_SETFL, O_NONBLOCK);
    std::string text;
    std::array<char, 65536> piece{};
    for (ssize_t size = 0; (size = read(reader(), piece.data(), piece.size())) > 0;) {
      text.append(piece.data(), static_cast<std::size_t>(size));
    }
    return text;
  }

 private:
  Ends() = default;
  static void close_one(int& descriptor) {
    if (descriptor >= 0) close(std::exchange(descriptor, -1));
  }
  std::array<int, 2> at_{-1, -1};
};

/// Text in which every position is recognised.
std::string numbered(std::size_t bytes) {
  std::string text;
  for (std::size_t i = 0; text.size() < bytes; ++i) text += std::to_string(i) + ",";
  text.resize(bytes);
  return text;
}

struct Written {
  WriteResult result;
  std::size_t left;
};
Written write_to(int descriptor, std::string_view text) {
  const Redirected redirected(descriptor);
  StreamSink sink = StreamSink::standard_output();
  const WriteResult result = sink.write(text, 0ms);
  return {result, text.size()};
}

// ---- Pipes ----

TEST(StreamSinkTest, APipeTakesWhatThereIsRoomForAndTheRestGoesOnLater) {
  const Ends pipe = Ends::of_pipe();
  const std::string whole = numbered(300'000);
  std::string_view rest = whole;
  std::string received;
  int busy = 0;
  WriteResult result = WriteResult::busy;
  while (result == WriteResult::busy && busy < 100) {
    {
      const Redirected redirected(pipe.writer());
      StreamSink sink = StreamSink::standard_output();
      result = sink.write(rest, 0ms);
    }
    if (result == WriteResult::busy) ++busy;
    received += pipe.take();
  }
  EXPECT_EQ(result, WriteResult::written);
  EXPECT_GE(busy, 3);
  EXPECT_TRUE(received == whole);
}

TEST(StreamSinkTest, AFullPipeThatNobodyReadsIsBusyAtOnce) {
  const Ends pipe = Ends::of_pipe();
  const std::string text = numbered(1 << 20);
  const Written first = write_to(pipe.writer(), text);
  EXPECT_EQ(first.result, WriteResult::busy);
  const Written second = write_to(pipe.writer(), text);
  EXPECT_EQ(second.result, WriteResult::busy);
  EXPECT_EQ(second.left, text.size());
  EXPECT_EQ(fcntl(pipe.writer(), F_GETFL) & O_NONBLOCK, 0) << "others share it";
  EXPECT_EQ(pipe.take().size(), text.size() - first.left);
}

TEST(StreamSinkTest, APipeWithoutAReaderFailsWithoutASignal) {
  Ends pipe = Ends::of_pipe();
  pipe.close_reader();
  // The default action of SIGPIPE would end the test.
  ASSERT_EQ(signal(SIGPIPE, SIG_DFL), SIG_DFL);
  const Written written = write_to(pipe.writer(), "text");
  EXPECT_EQ(written.result, WriteResult::failed);
  EXPECT_EQ(written.left, 4U);
  sigset_t pending;
  sigpending(&pending);
  EXPECT_FALSE(sigismember(&pending, SIGPIPE)) << "none is left behind";
  sigset_t mask;
  pthread_sigmask(SIG_SETMASK, nullptr, &mask);
  EXPECT_FALSE(sigismember(&mask, SIGPIPE)) << "the thread's mask is as it was";
}

TEST(StreamSinkTest, ASignalThatWaitedBeforeStillWaits) {
  sigset_t pipe_signal;
  sigemptyset(&pipe_signal);
  sigaddset(&pipe_signal, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &pipe_signal, nullptr);
  raise(SIGPIPE);
  Ends pipe = Ends::of_pipe();
  pipe.close_reader();
  EXPECT_EQ(write_to(pipe.writer(), "text").result, WriteResult::failed);
  const timespec at_once{};
  EXPECT_EQ(sigtimedwait(&pipe_signal, nullptr, &at_once), SIGPIPE) << "it was the host's";
  pthread_sigmask(SIG_UNBLOCK, &pipe_signal, nullptr);
}

// ---- Sockets ----

TEST(StreamSinkTest, ASocketWithTheSmallestBufferTakesItInPieces) {
  const Ends ends = Ends::of_socket();
  const int smallest = 1;
  ASSERT_EQ(setsockopt(ends.writer(), SOL_SOCKET, SO_SNDBUF, &smallest, sizeof smallest), 0);
  const std::string whole = numbered(100'000);
  std::string_view rest = whole;
  std::string received;
  for (int i = 0; i < 1000 && !rest.empty(); ++i) {
    {
      const Redirected redirected(ends.writer());
      StreamSink::standard_output().write(rest, 0ms);
    }
    received += ends.take();
  }
  EXPECT_TRUE(received == whole);
}

TEST(StreamSinkTest, ASocketWithoutItsPeerFailsWithoutASignal) {
  Ends ends = Ends::of_socket();
  ends.close_reader();
  ASSERT_EQ(signal(SIGPIPE, SIG_DFL), SIG_DFL);
  EXPECT_EQ(write_to(ends.writer(), "text").result, WriteResult::failed);
}

// ---- Files ----

class StreamFileTest : public ::testing::Test {
 protected:
  static WriteResult write(StreamSink& sink, std::string_view text) {
    return sink.write(text, 0ms);
  }
  testing::TemporaryDirectory directory_;
  const std::string path_ = directory_.path("log");
};

TEST_F(StreamFileTest, LinesAreAppendedToWhatIsThere) {
  directory_.write("log", "before\n");
  {
    StreamSink sink = StreamSink::file(path_);
    EXPECT_EQ(write(sink, "one\n"), WriteResult::written);
    EXPECT_EQ(write(sink, ""), WriteResult::written);
    EXPECT_EQ(write(sink, "two\n"), WriteResult::written);
  }
  EXPECT_EQ(directory_.read("log"), "before\none\ntwo\n");
}

TEST_F(StreamFileTest, ANewFileIsNotForEverybody) {
  StreamSink sink = StreamSink::file(path_);
  EXPECT_EQ(write(sink, "x"), WriteResult::written);
  struct stat info {};
  ASSERT_EQ(stat(path_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0137U, 0U) << "at most 0640";
}

TEST_F(StreamFileTest, NothingIsOpenedBeforeTheFirstWrite) {
  { const StreamSink sink = StreamSink::file(path_); }
  EXPECT_FALSE(std::filesystem::exists(path_));
}

TEST_F(StreamFileTest, AfterAFailureItIsOpenedAnew) {
  const std::string path = directory_.path("later/log");
  StreamSink sink = StreamSink::file(path);
  EXPECT_EQ(write(sink, "x"), WriteResult::failed);
  EXPECT_NE(sink.error().find(path), std::string::npos);
  std::filesystem::create_directory(directory_.path("later"));
  EXPECT_EQ(write(sink, "y"), WriteResult::written);
  EXPECT_EQ(directory_.read("later/log"), "y");
}

TEST_F(StreamFileTest, AFullDiskFailsAndKeepsWhatWasNotWritten) {
  StreamSink sink = StreamSink::file("/dev/full");
  std::string_view text = "text";
  EXPECT_EQ(sink.write(text, 0ms), WriteResult::failed);
  EXPECT_EQ(text, "text");
  EXPECT_NE(sink.error().find("/dev/full"), std::string::npos);
}

TEST_F(StreamFileTest, AFileOfItsLargestSizeFailsWithoutASignal) {
  ASSERT_EQ(signal(SIGXFSZ, SIG_DFL), SIG_DFL);
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit limited = before;
  limited.rlim_cur = 3;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limited), 0);
  StreamSink sink = StreamSink::file(path_);
  std::string_view text = "text";
  const WriteResult result = sink.write(text, 0ms);
  setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_EQ(result, WriteResult::failed);
  EXPECT_EQ(text, "t");
}

TEST_F(StreamFileTest, ANamedPipeThatNobodyOpenedDoesNotMakeItWait) {
  ASSERT_EQ(mkfifo(path_.c_str(), 0600), 0);
  StreamSink sink = StreamSink::file(path_);
  EXPECT_EQ(write(sink, "x"), WriteResult::failed);
  const int reader = open(path_.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  EXPECT_EQ(write(sink, "y"), WriteResult::written);
  char byte = 0;
  EXPECT_EQ(read(reader, &byte, 1), 1);
  EXPECT_EQ(byte, 'y');
  const std::string much = numbered(1 << 20);
  EXPECT_EQ(write(sink, much), WriteResult::busy);
  close(reader);
}

TEST_F(StreamFileTest, AMovedSinkWritesOn) {
  StreamSink first = StreamSink::file(path_);
  EXPECT_EQ(write(first, "a"), WriteResult::written);
  StreamSink second = std::move(first);
  EXPECT_EQ(write(second, "b"), WriteResult::written);
  EXPECT_EQ(directory_.read("log"), "ab");
}

TEST(StreamSinkTest, ColoursAreForTerminalsOfPeopleWhoWantThem) {
  const int terminal = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
  ASSERT_GE(terminal, 0);
  ASSERT_EQ(unlockpt(terminal), 0);
  const int side_of_program = open(ptsname(terminal), O_RDWR | O_NOCTTY | O_CLOEXEC);
  ASSERT_GE(side_of_program, 0);
  const int no_terminal = open("/dev/null", O_WRONLY | O_CLOEXEC);
  const testing::ScopedVariable term("TERM", "xterm");
  const testing::ScopedVariable unset("NO_COLOR", nullptr);
  EXPECT_TRUE(shows_colours(side_of_program));
  EXPECT_FALSE(shows_colours(no_terminal));
  EXPECT_FALSE(shows_colours(-1));
  {
    const testing::ScopedVariable unwanted("NO_COLOR", "1");
    EXPECT_FALSE(shows_colours(side_of_program));
  }
  {
    const testing::ScopedVariable empty("NO_COLOR", "");
    EXPECT_TRUE(shows_colours(side_of_program));
  }
  const testing::ScopedVariable dumb("TERM", "dumb");
  EXPECT_FALSE(shows_colours(side_of_program));
  for (const int descriptor : {terminal, side_of_program, no_terminal}) close(descriptor);
}

}  // namespace
}  // namespace spillway::transport
