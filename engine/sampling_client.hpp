// SPDX-License-Identifier: Apache-2.0
//
// Keeps a Sampler's central rules up to date: fetches them (GetSamplingRules), tells X-Ray each ten
// seconds what the rules came to, and takes the quotas, rates and boosts that it answers with
// (GetSamplingTargets). Source: X-Ray developer guide, "Using sampling rules with the X-Ray API";
// sampling/* of the X-Ray Python SDK.
//
// A thread of its own, or a test that steps it; nobody else calls the Sampler's part for one thread.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_map>
#include <vector>

#include <spillway/engine/clock.hpp>
#include <spillway/engine/sampling.hpp>
#include <spillway/engine/sampling_rules.hpp>
#include <spillway/transport/aws_client.hpp>
#include <spillway/transport/blocking_http.hpp>

namespace spillway::detail {

class SamplingClient {
 public:
  // The X-Ray SDKs' pace.
  static constexpr std::chrono::seconds rules_interval{300};
  static constexpr std::chrono::seconds rules_jitter_max{5};
  static constexpr std::chrono::seconds targets_interval{10};
  static constexpr std::chrono::milliseconds targets_jitter_max{100};
  /// Rules that could not be renewed for so long hold no more.
  static constexpr std::chrono::seconds rules_age_max{3600};
  /// After a first failure; doubled up to rules_interval. Ours: a daemon beside us may start later.
  static constexpr std::chrono::seconds rules_retry{10};
  /// Of one call, with its retries.
  static constexpr std::chrono::milliseconds call_timeout{2000};
  static constexpr std::size_t statistics_per_call_max = 25;  // GetSamplingTargets
  static constexpr int rules_pages_max = 100;                 // Ours.

  struct Parts {
    Sampler& sampler;
    std::shared_ptr<const Clock> clock;
    std::string service_name;
    /// "http://127.0.0.1:2000": the X-Ray daemon's, which signs what it passes on. Empty: X-Ray itself.
    std::string proxy_origin{};
    std::string region{};
    std::string endpoint{};
    std::shared_ptr<transport::CredentialsChain> credentials{};
    std::unique_ptr<transport::HttpTransport> http{};    ///< null: libcurl
    std::function<double()> random{};                    ///< numbers in [0, 1), for jitter
    std::function<void(std::string_view)> diagnostic{};  ///< called on this object's thread
  };
  /// Touches no network.
  explicit SamplingClient(Parts parts);
  ~SamplingClient();

  /// Does what is due and returns when it wants to be called again.
  SteadyTime run_once();

  /// Calls run_once() on a thread of its own from now on. Throws std::system_error without one.
  void start();
  /// Ends the thread. False: it was still waiting when `wait` was over, and uses this object.
  bool stop(std::chrono::milliseconds wait);

 private:
  struct Answer {
    bool ok;
    std::string text;  // the body, or why there is none
  };
  struct Report {  // of one rule, on its way
    RuleState* state;
    SamplingCounts counts;
    bool boosts;
  };
  struct Target {  // what stays between reports of a rule
    std::chrono::seconds interval = targets_interval;
    SteadyTime next_report{};
    std::uint32_t quota = 0;
    std::uint32_t quota_last_second = 0;
  };

  Answer call(std::string_view path, std::string body);
  void fetch_rules(SteadyTime now);
  bool fetch_pages(std::vector<SamplingRule>& rules);
  void exchange_targets(SteadyTime now);
  void exchange(std::span<const Report> reports, SteadyTime now);
  std::string statistics_of(std::span<const Report> reports) const;
  void apply(const SamplingTarget& target, SteadyTime now);
  void say(std::string_view message);
  double wall_seconds() const;
  void run();

  Parts parts_;
  std::optional<transport::AwsClient> signed_;
  std::optional<transport::BlockingHttp> proxied_;
  const std::string client_id_;
  SteadyTime next_rules_;
  SteadyTime next_targets_;
  std::chrono::seconds retry_ = rules_retry;
  std::optional<SteadyTime> rules_fetched_;
  double rules_fetched_wall_ = 0;
  std::unordered_map<std::string, Target> targets_;  // by rule name

  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;
  bool ended_ = false;
  std::thread thread_;
};

}  // namespace spillway::detail
