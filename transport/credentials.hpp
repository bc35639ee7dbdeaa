// SPDX-License-Identifier: Apache-2.0
//
// AWS credentials and the chain that finds them. Asking the chain never waits for a network: what has
// to be fetched is fetched by a thread of its own, early enough that the old ones still serve.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <variant>
#include <vector>

#include <spillway/transport/blocking_http.hpp>
#include <spillway/transport/secret.hpp>

namespace spillway::transport {

/// A key pair. The secret parts stay out of core dumps and are wiped when it goes; it has no way to
/// print itself.
struct Credentials {
  std::string access_key_id;
  Secret secret_access_key;
  Secret session_token;                                               ///< empty for a long-term key
  std::optional<std::chrono::system_clock::time_point> expiration{};  ///< none: does not expire

  Credentials() = default;
  Credentials(std::string_view id, std::string_view secret, std::string_view token = {});
};

/// Why there are none: names the sources and what to do, never a value.
struct CredentialsError {
  std::string message;
  bool pending = false;  ///< they are being fetched: ask again soon
};
/// A source that nobody set up.
struct NotConfigured {
  std::string reason;  ///< "AWS_ACCESS_KEY_ID is not set"
};
using SourceResult = std::variant<NotConfigured, Credentials, CredentialsError>;
using CredentialsResult = std::variant<std::shared_ptr<const Credentials>, CredentialsError>;

/// One source of credentials. Asked by one thread at a time.
class CredentialsProvider {
 public:
  virtual ~CredentialsProvider() = default;
  /// `may_wait` false: an answer without network and without other programs, or `pending`. Not
  /// configured: the next source is asked. An error: it is configured and does not work; no other
  /// one is asked.
  virtual SourceResult get(bool may_wait) = 0;
  /// Whether its credentials stay in use past their expiration while it gives no newer ones: the
  /// instance metadata service keeps handing out old ones when it is in trouble, and they work.
  virtual bool outlives_expiration() const noexcept { return false; }
};

// When to refresh: botocore's credentials.py, read 2026-08.
inline constexpr std::chrono::minutes credentials_advisory_refresh{15};
inline constexpr std::chrono::minutes credentials_extension{15};
/// After a refresh that failed: so soon again, doubled with each failure up to the longest.
inline constexpr std::chrono::seconds credentials_retry_min{1};
inline constexpr std::chrono::seconds credentials_retry_max{30};
/// Credentials that a service refuses are fetched anew so often at most.
inline constexpr std::chrono::seconds credentials_forced_refresh_min{30};

/// Asks its sources in order and keeps the answer until it is to be refreshed: 15 minutes before it
/// expires, or after half of its life when that is less. The old one serves until it expires; one
/// refresh runs at a time. Any thread.
class CredentialsChain {
 public:
  using Time = std::chrono::system_clock::time_point;
  struct Options {
    /// False: what has to be fetched is fetched within get(), for tests and programs that may wait.
    bool background = true;
    /// Numbers in [0, 1); null: 0.5.
    std::function<double()> draw{};
  };
  /// `http`: what the sources wait on, so that the destructor can end it; null: nothing.
  CredentialsChain(std::vector<std::unique_ptr<CredentialsProvider>> sources, Options options,
                   std::shared_ptr<BlockingHttp> http = nullptr);
  CredentialsChain(const CredentialsChain&) = delete;
  CredentialsChain& operator=(const CredentialsChain&) = delete;
  /// Ends a fetch under way.
  ~CredentialsChain();

  /// Never waits, but with `background` off.
  CredentialsResult get(Time now);
  /// Waits for a fetch under way, at most `timeout`.
  CredentialsResult get_within(Time now, std::chrono::milliseconds timeout);
  /// A service says that `credentials` are expired or unknown. True: new ones are being fetched, or
  /// there are some already; signing again is worth it.
  bool refused(const Credentials& credentials, Time now);

 private:
  void refresh(Time now);
  SourceResult ask(bool may_wait);
  void settle(SourceResult result, Time now);
  bool usable(Time now) const noexcept;
  CredentialsResult answer(Time now);

  std::mutex mutex_;
  std::condition_variable fetched_;
  // While `fetching_` is set these belong to the fetching thread, else to who holds the mutex.
  const std::vector<std::unique_ptr<CredentialsProvider>> sources_;
  std::size_t asked_last_ = 0;
  // Under the mutex.
  const Options options_;
  const std::shared_ptr<BlockingHttp> http_;
  std::thread fetcher_;
  bool fetching_ = false;
  bool stopping_ = false;
  std::shared_ptr<const Credentials> current_;
  bool outlives_expiration_ = false;
  Time usable_until_ = Time::max();
  Time refresh_at_ = Time::min();
  Time last_try_ = Time::min();
  Time fetched_at_{};  // when a fetch last began; 1970: never
  int failures_ = 0;
  std::string error_;
};

}  // namespace spillway::transport
