// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include <spillway/encoders/json.hpp>
#include <spillway/encoders/redaction.hpp>
#include <spillway/engine/trace_header.hpp>
#include <spillway/middleware/resilience/key_table.hpp>
#include <spillway/middleware/resilience/settings.hpp>
#include <spillway/middleware/sns_alerts.hpp>
#include <spillway/transport/aws_client.hpp>
#include <spillway/transport/background_thread.hpp>
#include <spillway/transport/credential_sources.hpp>
#include <spillway/transport/url.hpp>

namespace spillway::middleware {
namespace {

using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using std::chrono::seconds;

// Publish, SNS's API reference, read 2026-08: a subject is ASCII text without control characters,
// begins with a letter, digit or punctuation mark, and has less than 100 characters.
constexpr std::size_t subject_chars_max = 99;

/// arn:aws:sns:eu-west-1:123456789012:errors
std::string_view region_of(std::string_view arn) noexcept {
  for (int part = 0; part < 3; ++part) {
    const auto colon = arn.find(':');
    if (colon == arn.npos) return {};
    arn.remove_prefix(colon + 1);
  }
  return arn.substr(0, arn.find(':'));
}

bool is_topic(std::string_view arn) noexcept {
  return arn.starts_with("arn:") && arn.find(":sns:") != arn.npos &&
         std::count(arn.begin(), arn.end(), ':') == 5 && !arn.ends_with(':') &&
         transport::is_region(region_of(arn));
}

std::string subject_of(std::string text) {
  for (char& c : text) {
    if (c < ' ' || c > '~') c = '?';
  }
  if (text.size() > subject_chars_max) text.resize(subject_chars_max);
  return text;
}

/// As HTML forms are sent: a space is a plus sign.
std::string form_encode(std::string_view text) {
  const std::string encoded = transport::percent_encode(text);
  std::string form;
  for (std::size_t i = 0; i < encoded.size(); ++i) {
    const bool space = encoded.compare(i, 3, "%20") == 0;
    form += space ? '+' : encoded[i];
    if (space) i += 2;
  }
  return form;
}

std::int64_t ns_of(SteadyTime time) noexcept {
  return nanoseconds(time.time_since_epoch()).count();
}

/// One alert on its way. Texts are cut where the exchange cut them.
struct Alert {
  std::uint64_t fingerprint = 0;
  std::uint64_t times = 0;       // since the last alert of this kind
  std::uint64_t suppressed = 0;  // alerts of other kinds, since the last that was not
  int status = 0;
  std::string route;
  std::string exception_type;
  std::string exception_message;
  std::string request_id;
  std::string tenant;
  std::string trace_id;
};

}  // namespace

struct SnsAlerts::Kind {
  // Whose error has not come for a KeyTable's idle time.
  bool try_recycle(std::int64_t /*now_ns*/) noexcept {
    times.store(0, std::memory_order_relaxed);
    due_ns.store(never, std::memory_order_relaxed);
    return true;
  }
  static constexpr std::int64_t never = std::numeric_limits<std::int64_t>::min();
  std::atomic<std::uint64_t> times{0};
  std::atomic<std::int64_t> due_ns{never};
};

struct SnsAlerts::Kinds {
  explicit Kinds(const SnsAlertsOptions& options)
      : table({.keys_max = options.kinds_max, .idle_after = options.repeat_after * 2}) {}
  KeyTable<Kind> table;
};

/// The queue, the thread behind it, and what it sends with.
class SnsAlerts::Sender {
 public:
  Sender(Engine& engine, const SnsAlertsOptions& options, SnsAlertsRuntime runtime)
      : engine_(engine),
        options_(options),
        redactor_(*spillway::detail::parse_redaction_policy(options.redact, options.redact_keys)),
        client_({.service = transport::sns,
                 .region = options.region,
                 .endpoint = options.endpoint,
                 .credentials = transport::default_credentials_chain(),
                 .http = std::move(runtime.http)}) {
    const auto outcome = [&](const char* name) {
      return engine.counter("Alerts", Unit::count, {{"Outcome", name}});
    };
    sent_ = outcome("sent");
    failed_ = outcome("failed");
    suppressed_ = outcome("suppressed");
    dropped_ = outcome("dropped");
    if (runtime.thread) thread_ = transport::start_thread("spillway-alerts", [this] { run(); });
  }
  ~Sender() {
    {
      std::unique_lock lock(mutex_);
      closing_ = true;
      changed_.notify_all();
      if (thread_.joinable())
        changed_.wait_for(lock, options_.close_timeout, [this] { return ended_; });
      if (!ended_) client_.stop();
    }
    if (thread_.joinable()) thread_.join();
    dropped_.add(queue_.size());
  }

  bool is_inherited() const noexcept { return home_.is_another(); }

  /// Nothing: it will be sent. Else it is not, and may be offered again from then on. Any thread.
  std::optional<SteadyTime> offer(Alert alert, SteadyTime now) {
    const std::scoped_lock lock(mutex_);
    if (now - interval_began_ >= options_.interval || in_interval_ == 0) {
      interval_began_ = now;
      in_interval_ = 0;
    }
    if (in_interval_ == options_.alerts_max) {
      ++suppressed_count_;
      suppressed_.add(1U);
      return interval_began_ + options_.interval;
    }
    if (queue_.size() == options_.queue_max) {
      dropped_.add(1U);
      return interval_began_ + options_.interval;
    }
    alert.suppressed = suppressed_count_;
    queue_.push_back(std::move(alert));
    ++in_interval_;
    suppressed_count_ = 0;
    changed_.notify_all();
    return std::nullopt;
  }
  void drop() noexcept { dropped_.add(1U); }

  bool step() {
    std::unique_lock lock(mutex_);
    if (queue_.empty()) return false;
    const Alert alert = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    try {
      send(alert);
    } catch (const std::exception&) {  // No memory for it: for the next there may be.
      drop();
    }
    return true;
  }

 private:
  void run() {
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [this] { return closing_ || !queue_.empty(); });
      if (queue_.empty()) break;
      lock.unlock();
      step();
      lock.lock();
    }
    ended_ = true;
    changed_.notify_all();
  }

  void send(const Alert& alert) {
    transport::HttpRequest request;
    request.headers = {{"Content-Type", "application/x-www-form-urlencoded; charset=utf-8"}};
    request.body = body_of(alert);
    const transport::AwsReply reply = client_.call(std::move(request), options_.request_timeout);
    if (reply.ok()) {
      failing_ = false;
      return sent_.add(1U);
    }
    failed_.add(1U);
    if (!std::exchange(failing_, true)) {
      const std::string why = transport::describe(reply);
      SPILLWAY_WARN(engine_, "alerts cannot be sent",
                    {"topic", std::string_view(options_.topic_arn)},
                    {"reason", std::string_view(why)});
    }
  }

  /// SNS speaks AWS's query protocol only.
  std::string body_of(const Alert& alert) {
    std::string body = "Action=Publish&Version=2010-03-31";
    const auto add = [&](std::string_view name, std::string_view value) {
      body.append("&").append(name).append("=").append(form_encode(value));
    };
    const auto redacted = [&](std::string_view text) { return std::string(redactor_.text(text)); };
    spillway::detail::ByteBuffer hex;
    spillway::detail::append_hex16(hex, alert.fingerprint);
    const std::string fingerprint(hex.view());
    const std::string kind = std::to_string(alert.status) + " " + alert.route;

    std::string message;
    const auto line = [&](std::string_view name, std::string_view value) {
      if (!value.empty()) message.append(name).append(": ").append(value).append("\n");
    };
    line("Service", options_.service);
    line("Error", kind);
    line("Exception", alert.exception_type);
    line("Message", redacted(alert.exception_message));
    line("Times", std::to_string(alert.times) + (alert.times == 1 ? "" : " since the last alert"));
    line("Request", redacted(alert.request_id));
    line("Tenant", redacted(alert.tenant));
    line("Trace", alert.trace_id);
    line("Fingerprint", fingerprint);
    if (alert.suppressed > 0)
      line("Alerts kept back since the last", std::to_string(alert.suppressed));

    add("TopicArn", options_.topic_arn);
    add("Subject", subject_of(options_.service + ": " + kind));
    add("Message", message);
    add("MessageAttributes.entry.1.Name", "fingerprint");
    add("MessageAttributes.entry.1.Value.DataType", "String");
    add("MessageAttributes.entry.1.Value.StringValue", fingerprint);
    if (options_.topic_arn.ends_with(".fifo")) {
      add("MessageGroupId", fingerprint);
      // Each alert is one of its own: what is the same was told apart here.
      spillway::detail::ByteBuffer id;
      spillway::detail::append_hex16(id, spillway::detail::next_span_id());
      add("MessageDeduplicationId", id.view());
    }
    return body;
  }

  Engine& engine_;
  const SnsAlertsOptions options_;
  Counter sent_;
  Counter failed_;
  Counter suppressed_;
  Counter dropped_;

  std::mutex mutex_;  // of what follows, up to the thread's own
  std::condition_variable changed_;
  std::deque<Alert> queue_;
  SteadyTime interval_began_{};
  std::uint32_t in_interval_ = 0;
  std::uint64_t suppressed_count_ = 0;
  bool closing_ = false;
  bool ended_ = false;

  // The thread's, or step()'s.
  spillway::detail::Redactor redactor_;
  transport::AwsClient client_;
  bool failing_ = false;

  const transport::HomeProcess home_;
  std::thread thread_;
};

namespace {

SnsAlertsOptions completed(SnsAlertsOptions options) {
  constexpr seconds day{86'400};
  SettingsCheck check("SNS alerts");
  const bool topic = is_topic(options.topic_arn);
  check.require(topic, "topic_arn \"" + options.topic_arn +
                           "\" is not such as \"arn:aws:sns:eu-west-1:123456789012:errors\"");
  check.require(!options.service.empty() && options.service.front() != ' ', "service is empty")
      .within("status_min", options.status_min, 400, 599)
      .within("repeat_after", milliseconds(options.repeat_after), milliseconds(1'000),
              milliseconds(day))
      .within("interval", milliseconds(options.interval), milliseconds(1'000), milliseconds(day))
      .within("alerts_max", options.alerts_max, 1U, 10'000U)
      .within("kinds_max", options.kinds_max, std::size_t{1}, std::size_t{65'536})
      .within("queue_max", options.queue_max, std::size_t{1}, std::size_t{10'000})
      .within("request_timeout", options.request_timeout, milliseconds(100), milliseconds(60'000))
      .within("close_timeout", options.close_timeout, milliseconds(0), milliseconds(60'000))
      .require(
          spillway::detail::parse_redaction_policy(options.redact, options.redact_keys).has_value(),
          "redact or redact_keys cannot be read: see Config");
  if (options.region.empty() && topic) options.region = region_of(options.topic_arn);
  check.require(!topic || transport::is_region(options.region),
                "region \"" + options.region + "\" is none");
  if (!options.endpoint.empty()) {
    const auto url = transport::parse_url(options.endpoint);
    check.require(url.has_value(), "endpoint \"" + options.endpoint + "\" is no URL");
    check.require(!url || url->scheme != "http" || !transport::parse_aws_host(url->host),
                  "endpoint \"" + options.endpoint + "\": AWS is asked by https only");
  }
  check.done();
  return options;
}

}  // namespace

SnsAlerts::SnsAlerts(Engine& engine, const SnsAlertsOptions& options, SnsAlertsRuntime runtime)
    : status_min_(options.status_min),
      repeat_after_(options.repeat_after),
      kinds_(std::make_unique<Kinds>(completed(options))),
      sender_(std::make_unique<Sender>(engine, completed(options), std::move(runtime))) {}

SnsAlerts::~SnsAlerts() { transport::release_inherited(sender_); }

bool SnsAlerts::step() { return sender_->step(); }

void SnsAlerts::note(const Exchange& exchange, const ResponseFacts& facts) noexcept {
  const ExceptionFacts& exception = exchange.exception();
  const std::int64_t now = ns_of(exchange.ended);
  // The same in every process and run, so that people and filters can name it. FNV-1a.
  std::uint64_t fingerprint = 0xCBF29CE484222325U;
  const auto mix = [&](std::string_view text) {
    for (const char c : text)
      fingerprint = (fingerprint ^ static_cast<unsigned char>(c)) * 0x100000001B3U;
    fingerprint *= 0x100000001B3U;  // A zero byte: where the text ends counts.
  };
  mix(exchange.route.name);
  mix(exception.type);
  fingerprint = (fingerprint ^ static_cast<std::uint64_t>(facts.status)) * 0x100000001B3U;
  fingerprint += fingerprint == 0 ? 1 : 0;

  Kind& kind = kinds_->table.find(fingerprint, now);
  kind.times.fetch_add(1, std::memory_order_relaxed);
  std::int64_t due = kind.due_ns.load(std::memory_order_relaxed);
  if (now < due || !kind.due_ns.compare_exchange_strong(due, now + repeat_after_.count(),
                                                        std::memory_order_relaxed))
    return;
  const std::uint64_t times = kind.times.exchange(0, std::memory_order_relaxed);
  std::optional<SteadyTime> retry_at = exchange.ended + repeat_after_;
  try {
    Alert alert{.fingerprint = fingerprint,
                .times = times,
                .status = facts.status,
                .route = exchange.route.name,
                .exception_type = std::string(exception.type),
                .exception_message = std::string(exception.message),
                .request_id = std::string(exchange.request_id),
                .tenant = std::string(exchange.tenant),
                .trace_id = {}};
    if (exchange.context != nullptr && exchange.context->trace_id())
      alert.trace_id = to_string(exchange.context->trace_id());
    retry_at = sender_->offer(std::move(alert), exchange.ended);
  } catch (...) {  // Out of memory.
    sender_->drop();
  }
  if (!retry_at) return;
  kind.times.fetch_add(times, std::memory_order_relaxed);
  kind.due_ns.store(ns_of(*retry_at), std::memory_order_relaxed);
}

}  // namespace spillway::middleware
