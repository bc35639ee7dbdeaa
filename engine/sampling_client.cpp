// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>
#include <new>
#include <system_error>
#include <utility>

#include <openssl/rand.h>

#include <spillway/encoders/json.hpp>
#include <spillway/engine/sampling_client.hpp>
#include <spillway/transport/background_thread.hpp>

namespace spillway::detail {

using std::chrono::milliseconds;

namespace {

// 24 hexadecimal digits, one for the life of a client (SamplingStatisticsDocument.ClientID).
std::string new_client_id() {
  std::array<std::uint64_t, 2> random{};
  if (RAND_bytes(reinterpret_cast<unsigned char*>(random.data()), sizeof random) != 1) {
    random = {next_span_id(), next_span_id()};
  }
  ByteBuffer hex;
  append_hex16(hex, random[0]);
  append_hex16(hex, random[1]);
  return std::string(hex.view().substr(0, 24));
}

std::uint32_t whole_second(double seconds) {
  return static_cast<std::uint32_t>(
      std::clamp(std::floor(seconds), 0.0, static_cast<double>(RuleState::never - 1)));
}

void append_member(ByteBuffer& out, std::string_view name, std::uint64_t value) {
  out.append(",\"");
  out.append(name);
  out.append("\":");
  append_number(out, value);
}

}  // namespace

SamplingClient::SamplingClient(Parts parts)
    : parts_(std::move(parts)),
      client_id_(new_client_id()),
      next_rules_(parts_.clock->steady()),
      next_targets_(next_rules_ + targets_interval) {
  if (parts_.proxy_origin.empty()) {
    signed_.emplace(transport::AwsClient::Parts{
        .service = transport::xray,
        .region = parts_.region,
        .endpoint = parts_.endpoint,
        .credentials = parts_.credentials,
        .http = std::move(parts_.http),
        .now = [clock = parts_.clock] { return clock->wall(); },
        .draw = parts_.random,
    });
  } else {
    proxied_.emplace(std::move(parts_.http));
  }
}

SamplingClient::~SamplingClient() = default;

// ---- The thread ----

void SamplingClient::start() {
  thread_ = transport::start_thread("spillway-rules", [this] { run(); });
}

void SamplingClient::run() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    lock.unlock();
    SteadyTime next = parts_.clock->steady() + targets_interval;
    try {
      next = run_once();
    } catch (const std::bad_alloc&) {  // The next round may find memory.
    }
    lock.lock();
    changed_.wait_for(lock, next - parts_.clock->steady(), [this] { return stopping_; });
  }
  ended_ = true;
  changed_.notify_all();
}

bool SamplingClient::stop(milliseconds wait) {
  if (!thread_.joinable()) return true;
  {
    std::unique_lock lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
    if (signed_) signed_->stop();
    if (proxied_) proxied_->stop();
    if (!changed_.wait_for(lock, wait, [this] { return ended_; })) {
      thread_.detach();
      return false;
    }
  }
  thread_.join();
  return true;
}

// ---- Rounds ----

SteadyTime SamplingClient::run_once() {
  const SteadyTime now = parts_.clock->steady();
  if (now >= next_rules_) fetch_rules(now);
  if (rules_fetched_ && now - *rules_fetched_ > rules_age_max) {
    rules_fetched_.reset();
    parts_.sampler.drop_central_rules();
    say("sampling rules could not be renewed for an hour: the local ones hold now");
  }
  if (now >= next_targets_) {
    next_targets_ = now + targets_interval +
                    std::chrono::duration_cast<milliseconds>(targets_jitter_max * parts_.random());
    exchange_targets(now);
  }
  parts_.sampler.free_replaced_rules();
  return std::min(next_rules_, next_targets_);
}

SamplingClient::Answer SamplingClient::call(std::string_view path, std::string body) {
  transport::HttpRequest request;
  request.path = path;
  request.headers = {{"Content-Type", "application/json"}};
  request.body = std::move(body);
  transport::AwsReply reply;
  if (signed_) {
    reply = signed_->call(std::move(request), call_timeout);
  } else {
    request.origin = parts_.proxy_origin;
    reply.response = proxied_->send(std::move(request), call_timeout);
    if (reply.response.outcome == transport::HttpOutcome::answered) {
      if (reply.response.status / 100 == 2) {
        reply.failure = transport::Failure::none;
      } else {
        reply.error = transport::parse_aws_error(reply.response);
      }
    }
  }
  if (reply.ok()) return {true, std::move(reply.response.body)};
  return {false, describe(reply)};
}

void SamplingClient::say(std::string_view message) {
  if (parts_.diagnostic) parts_.diagnostic(message);
}

double SamplingClient::wall_seconds() const {
  return std::chrono::duration<double>(parts_.clock->wall().time_since_epoch()).count();
}

// ---- Rules ----

void SamplingClient::fetch_rules(SteadyTime now) {
  const double wall = wall_seconds();
  std::vector<SamplingRule> rules;
  if (!fetch_pages(rules)) {
    next_rules_ = now + retry_;
    retry_ = std::min(retry_ * 2, rules_interval);
    return;
  }
  retry_ = rules_retry;
  rules_fetched_ = now;
  rules_fetched_wall_ = wall;
  next_rules_ = now + rules_interval +
                std::chrono::duration_cast<milliseconds>(rules_jitter_max * parts_.random());
  if (const std::size_t left_out = parts_.sampler.set_central_rules(std::move(rules));
      left_out != 0) {
    say("more sampling rules than " + std::to_string(Sampler::rule_names_max) + ": " +
        std::to_string(left_out) + " are left out");
  }
}

bool SamplingClient::fetch_pages(std::vector<SamplingRule>& rules) {
  std::string token;
  for (int page_number = 0; page_number < rules_pages_max; ++page_number) {
    ByteBuffer body;
    body.append(token.empty() ? "{" : "{\"NextToken\":");
    if (!token.empty()) append_json_string(body, token);
    body.append('}');
    const Answer answer = call("/GetSamplingRules", std::string(body.view()));
    if (!answer.ok) {
      say("sampling rules cannot be fetched: " + answer.text);
      return false;
    }
    auto page = parse_sampling_rules(answer.text);
    if (!page) {
      say("sampling rules cannot be fetched: the answer is none of GetSamplingRules");
      return false;
    }
    std::move(page->rules.begin(), page->rules.end(), std::back_inserter(rules));
    token = std::move(page->next_token);
    if (token.empty()) return true;
  }
  say("sampling rules cannot be fetched: they do not end");
  return false;
}

// ---- Statistics and targets ----

void SamplingClient::exchange_targets(SteadyTime now) {
  std::vector<Report> reports;
  parts_.sampler.for_each_central([&](const SamplingRule& rule, RuleState& state) {
    Target& target = targets_[rule.name];
    if (!state.has_requests() || now < target.next_report) return;
    target.next_report = now + target.interval;
    reports.push_back({&state, state.take_counts(), rule.boosts});
  });
  for (std::size_t at = 0; at < reports.size(); at += statistics_per_call_max) {
    exchange(std::span(reports).subspan(at, std::min(statistics_per_call_max, reports.size() - at)),
             now);
  }
}

void SamplingClient::exchange(std::span<const Report> reports, SteadyTime now) {
  const auto fail = [&](const std::string& why) {
    say("sampling targets cannot be fetched: " + why);
    for (const Report& report : reports) report.state->put_back(report.counts);
  };
  const Answer answer = call("/SamplingTargets", statistics_of(reports));
  if (!answer.ok) return fail(answer.text);
  const auto targets = parse_sampling_targets(answer.text);
  if (!targets) return fail("the answer is none of GetSamplingTargets");
  for (const SamplingTarget& target : targets->targets) apply(target, now);
  for (const UnprocessedStatistics& refused : targets->unprocessed) {
    say("X-Ray refused the statistics of sampling rule '" + refused.rule_name +
        "': " + refused.error_code + " " + refused.message);
    if (refused.error_code.starts_with('5')) {  // Its own failure: they go with the next ones.
      for (const Report& report : reports) {
        if (report.state->name == refused.rule_name) {
          report.state->put_back(report.counts.part(refused.of_boost));
        }
      }
    } else {  // It does not know the rule any more.
      next_rules_ = now;
    }
  }
  if (targets->last_rule_modification > rules_fetched_wall_) next_rules_ = now;
}

std::string SamplingClient::statistics_of(std::span<const Report> reports) const {
  const std::uint64_t second = whole_second(wall_seconds());
  ByteBuffer out;
  out.append("{\"SamplingStatisticsDocuments\":");
  char separator = '[';
  for (const Report& report : reports) {
    out.append(separator);
    separator = ',';
    out.append("{\"RuleName\":");
    append_json_string(out, report.state->name);
    out.append(",\"ClientID\":\"");
    out.append(client_id_);
    out.append('"');
    append_member(out, "Timestamp", second);
    append_member(out, "RequestCount", report.counts.requests);
    append_member(out, "SampledCount", report.counts.sampled);
    append_member(out, "BorrowCount", report.counts.borrowed);
    out.append('}');
  }
  out.append(']');
  separator = '[';
  for (const Report& report : reports) {
    if (!report.boosts) continue;
    out.append(separator == '[' ? ",\"SamplingBoostStatisticsDocuments\":[" : ",");
    separator = ',';
    out.append("{\"RuleName\":");
    append_json_string(out, report.state->name);
    out.append(",\"ServiceName\":");
    append_json_string(out, parts_.service_name);
    append_member(out, "Timestamp", second);
    append_member(out, "AnomalyCount", report.counts.failed);
    append_member(out, "TotalCount", report.counts.ended);
    append_member(out, "SampledAnomalyCount", report.counts.failed_sampled);
    out.append('}');
  }
  out.append(separator == '[' ? "}" : "]}");
  return std::string(out.view());
}

void SamplingClient::apply(const SamplingTarget& target, SteadyTime now) {
  RuleState* const state = parts_.sampler.find(target.rule_name);
  if (state == nullptr) return;
  if (target.fixed_rate) state->set_rate(*target.fixed_rate);
  Target& kept = targets_[target.rule_name];
  // What is absent stays as it was.
  if (target.reservoir_quota) kept.quota = *target.reservoir_quota;
  if (target.reservoir_quota_ttl) {
    kept.quota_last_second = whole_second(*target.reservoir_quota_ttl);
  }
  state->set_quota(kept.quota, kept.quota_last_second);
  if (target.interval_seconds) {
    kept.interval = std::max(std::chrono::seconds(*target.interval_seconds), targets_interval);
    kept.next_report = now + kept.interval;
  }
  if (target.boost_rate && target.boost_rate_ttl) {
    state->set_boost(*target.boost_rate, whole_second(*target.boost_rate_ttl));
  }
}

}  // namespace spillway::detail
