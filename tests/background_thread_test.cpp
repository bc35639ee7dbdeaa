// SPDX-License-Identifier: Apache-2.0
//
// Threads of ours, also when the system gives none: this file stands in front of pthread_create.
#include <atomic>
#include <cerrno>
#include <system_error>

#include <dlfcn.h>
#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>

#include <spillway/engine/engine.hpp>
#include <spillway/transport/background_thread.hpp>

namespace {
std::atomic<int> threads_left{1'000'000};
}  // namespace

extern "C" int pthread_create(pthread_t* thread, const pthread_attr_t* attributes,
                              void* (*body)(void*), void* argument) {
  static const auto real =
      reinterpret_cast<decltype(&pthread_create)>(dlsym(RTLD_NEXT, "pthread_create"));
  if (threads_left.fetch_sub(1) <= 0) return EAGAIN;
  return real(thread, attributes, body, argument);
}

namespace spillway {
namespace {

bool is_blocked(int signal) {
  sigset_t now;
  pthread_sigmask(SIG_SETMASK, nullptr, &now);
  return sigismember(&now, signal) == 1;
}

class BackgroundThreadTest : public ::testing::Test {
 protected:
  ~BackgroundThreadTest() override { threads_left = 1'000'000; }
};

TEST_F(BackgroundThreadTest, ItLeavesSignalsToTheHost) {
  bool blocked = false;
  transport::start_thread("test", [&] { blocked = is_blocked(SIGTERM); }).join();
  EXPECT_TRUE(blocked);
  EXPECT_FALSE(is_blocked(SIGTERM));
}

TEST_F(BackgroundThreadTest, WithoutAThreadTheCallersSignalsAreAsBefore) {
  threads_left = 0;
  EXPECT_THROW(transport::start_thread("test", [] {}), std::system_error);
  EXPECT_FALSE(is_blocked(SIGTERM));
}

TEST_F(BackgroundThreadTest, AnEngineWithoutItsThreadsThrows) {
  for (const int threads : {0, 1}) {
    threads_left = threads;
    EXPECT_THROW(Engine{}, std::system_error) << threads;
    EXPECT_FALSE(is_blocked(SIGTERM));
  }
}

}  // namespace
}  // namespace spillway
