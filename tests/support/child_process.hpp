// SPDX-License-Identifier: Apache-2.0
//
// Forked children of a test. One that hangs is ended by an alarm.
#pragma once

#include <cerrno>
#include <csignal>

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(SPILLWAY_COVERAGE)
extern "C" void __gcov_dump();  // NOLINT: libgcov's name
#endif

namespace spillway::testing {

/// Writes which branches this process has taken, where they are counted: a killed process does not, nor _exit().
inline void write_coverage() {
#if defined(SPILLWAY_COVERAGE)
  __gcov_dump();
#endif
}

/// Waits for the end of a child: its status as waitpid() gives it.
inline int wait_for_child(pid_t child) {
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return status;
}

/// What `body` returns in a child, from 0 to 255; -1 when the child did not come to its end.
template <class Body>
int exit_status_of_child(Body&& body) {
  const pid_t child = fork();
  if (child == 0) {
    alarm(60);
    const int status = body();
    write_coverage();
    _exit(status);
  }
  const int status = wait_for_child(child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

[[noreturn]] inline void kill_self() {
  write_coverage();
  kill(getpid(), SIGKILL);
  while (true) pause();
}

/// Runs `body` in a child, which has to kill itself there, with all that stands on its stack.
template <class Body>
void in_killed_child(Body&& body) {
  const pid_t child = fork();
  if (child == 0) {
    alarm(60);
    body();
    _exit(0);
  }
  const int status = wait_for_child(child);
  EXPECT_TRUE(WIFSIGNALED(status)) << "exit status " << WEXITSTATUS(status);
  EXPECT_EQ(WTERMSIG(status), SIGKILL);
}

}  // namespace spillway::testing
