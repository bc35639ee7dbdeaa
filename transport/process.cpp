// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <spillway/transport/process.hpp>
#include <spillway/transport/secret.hpp>
#include <spillway/transport/text.hpp>

extern char** environ;  // NOLINT(readability-redundant-declaration): POSIX wants it declared

namespace spillway::transport {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

namespace {

// stopped() is asked so often.
constexpr milliseconds slice(20);
constexpr std::size_t complaint_chars_max = 200;

struct Pipe {
  int read_end = -1;
  int write_end = -1;
  Pipe() {
    std::array<int, 2> ends{};
    if (pipe2(ends.data(), O_CLOEXEC) != 0) return;
    // Clear of the three that the program's own take, for a host that has closed them.
    read_end = fcntl(ends[0], F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    write_end = fcntl(ends[1], F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    close(ends[0]);
    close(ends[1]);
    fcntl(read_end, F_SETFL, O_NONBLOCK);
  }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  ~Pipe() {
    close_end(read_end);
    close_end(write_end);
  }
  static void close_end(int& descriptor) noexcept {
    if (descriptor >= 0) close(std::exchange(descriptor, -1));
  }
};

// Starts the program in a process group of its own, with no signal blocked or ignored. An errno, or
// 0.
int spawn(const std::vector<std::string>& words, int output, int errors, pid_t& child) {
  std::vector<char*> arguments;
  for (const std::string& word : words) {
    arguments.push_back(const_cast<char*>(word.c_str()));  // NOLINT: execve's type
  }
  arguments.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, errors, STDERR_FILENO);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none;
  sigset_t all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setpgroup(&attributes, 0);
  posix_spawnattr_setflags(&attributes,
                           POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
  const int error =
      posix_spawnp(&child, arguments[0], &actions, &attributes, arguments.data(), environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  return error;
}

// Appends what is there. False at the end.
bool read_some(int descriptor, std::string& text) {
  std::array<char, 4096> piece{};
  const ssize_t size = read(descriptor, piece.data(), piece.size());
  if (size < 0) return errno == EAGAIN || errno == EINTR;
  text.append(piece.data(), static_cast<std::size_t>(size));
  return size > 0;
}

std::string complaint(std::string_view text) {
  std::string line(trim(text));
  line.resize(std::min(line.size(), complaint_chars_max));
  std::replace_if(
      line.begin(), line.end(), [](char c) { return static_cast<unsigned char>(c) < ' '; }, ' ');
  return line;
}

}  // namespace

std::optional<std::vector<std::string>> split_words(std::string_view command) {
  std::vector<std::string> words;
  bool in_word = false;
  char quote = '\0';
  for (std::size_t i = 0; i < command.size(); ++i) {
    const char c = command[i];
    const bool blank = c == ' ' || c == '\t' || c == '\n' || c == '\r';
    if (quote == '\0' && blank) {
      in_word = false;
      continue;
    }
    if (!in_word) words.emplace_back();
    in_word = true;
    if (quote != '\0' && c == quote) {
      quote = '\0';
    } else if (quote == '\0' && (c == '\'' || c == '"')) {
      quote = c;
    } else if (c == '\\' && quote != '\'') {
      if (i + 1 == command.size()) return std::nullopt;
      const char next = command[i + 1];
      // Within double quotes a backslash is one, but before what it keeps from its meaning.
      const bool escapes =
          quote == '\0' || next == '"' || next == '\\' || next == '$' || next == '`';
      words.back() += escapes ? next : c;
      if (escapes) ++i;
    } else {
      words.back() += c;
    }
  }
  if (quote != '\0') return std::nullopt;
  return words;
}

ProcessResult run_process(const std::vector<std::string>& words, milliseconds timeout,
                          const std::function<bool()>& stopped) {
  ProcessResult result;
  Pipe output;
  Pipe errors;
  if (words.empty() || output.write_end < 0 || errors.write_end < 0 || output.read_end < 0 ||
      errors.read_end < 0) {
    result.error = words.empty() ? "no program is named" : "no pipe: too many open files";
    return result;
  }
  pid_t child = -1;
  if (const int error = spawn(words, output.write_end, errors.write_end, child); error != 0) {
    result.error = "cannot start '" + words.front() + "': " + std::strerror(error);
    return result;
  }
  Pipe::close_end(output.write_end);
  Pipe::close_end(errors.write_end);

  const auto deadline = steady_clock::now() + timeout;
  std::string text;
  std::string said;
  std::string why;
  while (output.read_end >= 0 && why.empty()) {
    std::array<pollfd, 2> ends{{{output.read_end, POLLIN, 0}, {errors.read_end, POLLIN, 0}}};
    poll(ends.data(), ends.size(), static_cast<int>(slice.count()));
    if (ends[0].revents != 0 && !read_some(output.read_end, text)) Pipe::close_end(output.read_end);
    if (ends[1].revents != 0 && !read_some(errors.read_end, said)) Pipe::close_end(errors.read_end);
    said.resize(std::min(said.size(), process_output_bytes_max));
    if (text.size() > process_output_bytes_max) why = "prints too much";
    if (stopped()) why = "was stopped";
    if (steady_clock::now() >= deadline) why = "does not end in time";
  }
  // It may close its output and go on.
  int status = 0;
  pid_t ended = 0;
  while (why.empty() && (ended = waitpid(child, &status, WNOHANG)) == 0) {
    if (stopped()) why = "was stopped";
    if (steady_clock::now() >= deadline) why = "does not end in time";
    poll(nullptr, 0, 1);
  }
  if (ended == 0) {
    kill(-child, SIGKILL);
    waitpid(child, &status, 0);
  }
  if (errors.read_end >= 0) read_some(errors.read_end, said);
  // A host that reaps every child (SIGCHLD ignored) leaves no status: what was printed decides.
  const bool unknown = ended < 0;
  if (why.empty() && !unknown && WIFSIGNALED(status)) {
    why = "was ended by signal " + std::to_string(WTERMSIG(status));
  } else if (why.empty() && !unknown && WEXITSTATUS(status) != 0) {
    why = "ended with status " + std::to_string(WEXITSTATUS(status));
  }
  if (why.empty()) {
    result.succeeded = true;
    result.output = std::move(text);
    return result;
  }
  wipe(text);
  result.error = "'" + words.front() + "' " + why;
  if (const std::string words_said = complaint(said); !words_said.empty()) {
    result.error += ": " + words_said;
  }
  return result;
}

}  // namespace spillway::transport
