// SPDX-License-Identifier: Apache-2.0
//
// One process of those that share a limit, for tests/integration/test_dynamodb_limits.py:
//
//   integration_limiter TABLE ALGORITHM PERMITS WINDOW_MS LEASE THREADS DENIALS LOG [create]
//
// Says "ready", waits for a line on standard input, then each of THREADS asks for the key "shared"
// until it was denied DENIALS times (0: until it is killed). Each admission is a byte in LOG, written
// before the next question, so that it is there when the process is killed. Prints its account as
// JSON.
#include <atomic>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <exception>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

#include <spillway/middleware/rate_limit/dynamodb_store.hpp>

namespace {

namespace middleware = spillway::middleware;
using Outcome = middleware::RateDecision::Outcome;

std::int64_t number(std::string_view text) {
  std::int64_t value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

middleware::RateAlgorithm algorithm_of(std::string_view text) {
  for (const auto one :
       {middleware::RateAlgorithm::token_bucket, middleware::RateAlgorithm::sliding_window}) {
    if (to_string(one) == text) return one;
  }
  return middleware::RateAlgorithm::fixed_window;
}

int run(const std::vector<std::string_view>& arguments) {
  const middleware::RateLimit limit{.permits = number(arguments[2]),
                                    .window = std::chrono::milliseconds(number(arguments[3])),
                                    .algorithm = algorithm_of(arguments[1])};
  middleware::DynamoDbRateStore store({.table = std::string(arguments[0]),
                                       .lease_permits_max = number(arguments[4]),
                                       .lease_time = std::chrono::seconds(2),
                                       .wait = std::chrono::seconds(10),
                                       .request_timeout = std::chrono::seconds(20)});
  if (arguments.size() > 8) {
    if (const auto error = store.create_table()) {
      std::fprintf(stderr, "%s\n", error->c_str());
      return 1;
    }
  }
  const int log =
      open(std::string(arguments[7]).c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  const spillway::detail::RateRule rule(limit);
  middleware::RateKey key("limit");
  key.add("tenant", "shared");
  std::puts("ready");
  std::fflush(stdout);
  if (std::getchar() == EOF) return 1;

  const std::int64_t denials_wanted = number(arguments[6]);
  std::atomic<std::int64_t> counts[4]{};
  std::vector<std::thread> threads;
  for (std::int64_t t = 0; t < number(arguments[5]); ++t) {
    threads.emplace_back([&] {
      for (std::int64_t denied = 0; denied < denials_wanted || denials_wanted == 0;) {
        const auto decision = store.take(key, rule, 1, std::chrono::steady_clock::now());
        ++counts[static_cast<std::size_t>(decision.outcome)];
        if (decision.outcome == Outcome::admitted) {
          if (write(log, "x", 1) != 1) std::abort();
        } else {
          if (decision.outcome == Outcome::denied) ++denied;
          std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const bool closed = store.close(std::chrono::seconds(5));
  const auto stats = store.stats();
  std::printf(
      "{\"admitted\":%lld,\"denied\":%lld,\"unavailable\":%lld,\"closed\":%s,\"writes\":%llu,"
      "\"taken\":%llu,\"returned\":%llu,\"lost\":%llu,\"failures\":%llu}\n",
      static_cast<long long>(counts[0]), static_cast<long long>(counts[1]),
      static_cast<long long>(counts[3]), closed ? "true" : "false",
      static_cast<unsigned long long>(stats.writes),
      static_cast<unsigned long long>(stats.permits_taken),
      static_cast<unsigned long long>(stats.permits_returned),
      static_cast<unsigned long long>(stats.permits_lost),
      static_cast<unsigned long long>(stats.failures));
  if (!stats.last_error.empty()) std::fprintf(stderr, "%s\n", stats.last_error.c_str());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string_view> arguments(argv + 1, argv + argc);
  if (arguments.size() < 8) {
    std::fputs("see the head of limiter.cpp\n", stderr);
    return 2;
  }
  try {
    return run(arguments);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
