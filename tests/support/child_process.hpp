// SPDX-License-Identifier: Apache-2.0
//
// Forked children of a test. One that hangs is ended by an alarm.
#pragma once

#include <cerrno>
#include <csignal>

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

namespace spillway::testing {

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
    _exit(body());
  }
  const int status = wait_for_child(child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

[[noreturn]] inline void kill_self() {
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
