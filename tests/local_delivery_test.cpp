// SPDX-License-Identifier: Apache-2.0
//
// The engine against the local receiver, with all three signals, under each fault that the receiver
// can produce: what the ledger says was delivered is what the receiver holds, nothing else is there,
// and it is there twice only where an answer was lost. No sockets but the daemon's, and time moves
// when the test says so.
#include <array>
#include <map>
#include <string>

#include <arpa/inet.h>
#include <support/engine_fixture.hpp>
#include <support/local_gateway.hpp>
#include <sys/socket.h>
#include <unistd.h>

#include "local/receiver.hpp"

namespace spillway::local {
namespace {

using namespace std::chrono_literals;
using spillway::testing::is_settled;
using spillway::testing::Json;
using spillway::testing::ScopedVariable;
using transport::HttpOutcome;
using transport::HttpResponse;

constexpr int rounds = 12;
constexpr int events_per_round = 20;
constexpr int traces_per_round = 5;

class LocalDeliveryTest : public LocalGatewayTest {
 protected:
  LocalDeliveryTest() { start({}); }

  static Config config() {
    Config config = spillway::testing::aws_config();
    config.cloudwatch_endpoint = "http://127.0.0.1:4566";
    config.logs_endpoint = "http://127.0.0.1:4566";
    config.xray_endpoint = "http://127.0.0.1:4566";
    config.metric_interval = 1s;
    config.attempts_max = 20;  // Faults by probability are to pass.
    config.on_diagnostic = [](std::string_view) {};
    return config;
  }
  void start(const std::function<void(Config&)>& change) {
    Config settings = config();
    if (change) change(settings);
    test_ = std::make_unique<spillway::testing::TestEngine>(settings);
    test_->http.set_answer([this](const transport::HttpRequest& request) { return ask(request); });
    latency_ = test_->engine.histogram("Latency", Unit::milliseconds);
  }
  void add_fault(std::string_view spec) {
    FaultResult fault = parse_fault(spec);
    ASSERT_TRUE(std::holds_alternative<Fault>(fault)) << std::get<FaultError>(fault).message;
    faults_.add(std::get<Fault>(fault));
  }

  // So that a fault is not spent on a request that is refused for want of a stream.
  void make_stream() {
    store_.logs.create_group("/shop/orders", now_ms());
    store_.logs.create_stream(*store_.logs.find_group("/shop/orders"), "pod-1", now_ms());
  }

  // The receiver's answer, as a client on a network would see it.
  HttpResponse ask(transport::HttpRequest request) {
    now_ = test_->clock.wall();
    // Signers set it; else the transport does.
    if (transport::find_header(request.headers, "host").empty()) {
      request.headers.push_back({"Host", "127.0.0.1:4566"});
    }
    if (const auto refusal = gateway_.screen(request, request.body.size())) return seen(*refusal);
    const Gateway::Outcome outcome = gateway_.handle(request, workspace_);
    if (outcome.delay > config().request_timeout.get()) {
      return transport::MemoryTransport::failed(HttpOutcome::lost);
    }
    return seen(outcome.reply);
  }
  static HttpResponse seen(const Reply& reply) {
    if (reply.hang_up) return transport::MemoryTransport::failed(HttpOutcome::lost);
    auto headers = reply.headers;
    headers.push_back({"Content-Type", reply.content_type});
    return transport::MemoryTransport::answered(reply.status, reply.body, headers);
  }

  void record_round() {
    for (int i = 0; i < events_per_round; ++i) {
      latency_.record(recorded_);
      SPILLWAY_INFO(test_->engine, "event", {"n", recorded_});
      ++recorded_;
      test_->clock.advance(1ms);
    }
    for (int i = 0; i < traces_per_round; ++i) {
      const Span root = test_->engine.span("root");
      const Span child = test_->engine.span("child");
    }
  }
  // Records for a while, then waits out every back-off. Virtual time: it costs none.
  void run() {
    for (int round = 0; round < rounds; ++round) {
      record_round();
      test_->advance(700ms);
    }
    test_->engine.flush(1s);
    for (int i = 0; i < 400 && !settled(); ++i) test_->advance(1s);
  }
  bool settled() const {
    const Stats stats = test_->engine.stats();
    return stats.metrics.held() + stats.logs.held() + stats.spans.held() == 0;
  }

  // What the receiver holds, with how often.
  struct Held {
    std::map<int, int> logs;
    std::map<std::string, int> spans;
    double samples = 0;

    template <class Map>
    static std::uint64_t repeats(const Map& map) {
      std::uint64_t count = 0;
      for (const auto& [key, times] : map) count += static_cast<std::uint64_t>(times - 1);
      return count;
    }
    std::uint64_t repeats() const { return repeats(logs) + repeats(spans); }
  };
  Held held() const {
    Held all;
    for (const LogEvent& event : store_.logs.events(log_group_, log_stream_, 0, 1'000'000)) {
      const Json record(event.message);
      const bool otlp = record.has("attributes");
      ++all.logs[static_cast<int>((otlp ? record["attributes"] : record)["n"].number())];
    }
    for (const Segment& segment : store_.traces.segments({})) ++all.spans[segment.id];
    for (const MetricStatistics& series : store_.metrics.find({}, {}))
      all.samples += series.sample_count;
    return all;
  }

  const spillway::testing::AwsEnvironment environment_;
  const ScopedVariable id_{"AWS_ACCESS_KEY_ID", "AKIDLOCAL"};
  const ScopedVariable secret_{"AWS_SECRET_ACCESS_KEY", "a-secret-canary"};
  std::unique_ptr<spillway::testing::TestEngine> test_;
  Histogram latency_;
  int recorded_ = 0;
  std::string log_group_ = "/shop/orders";
  std::string log_stream_ = "pod-1";
};

constexpr std::uint64_t all_events = rounds * events_per_round;
constexpr std::uint64_t all_spans = 2ULL * rounds * traces_per_round;

TEST_F(LocalDeliveryTest, WithoutFaultsEverythingIsThereOnceAndInOrder) {
  run();
  const Stats stats = test_->engine.stats();
  EXPECT_EQ(stats.metrics.delivered, all_events);
  EXPECT_EQ(stats.logs.delivered, all_events);
  EXPECT_EQ(stats.spans.delivered, all_spans);
  const Held all = held();
  EXPECT_EQ(all.samples, static_cast<double>(all_events));
  EXPECT_EQ(all.logs.size(), all_events);
  EXPECT_EQ(all.spans.size(), all_spans);
  EXPECT_EQ(all.repeats(), 0U);
  int n = 0;
  for (const LogEvent& event : store_.logs.events("/shop/orders", "pod-1", 0, 1'000'000)) {
    EXPECT_EQ(Json(event.message)["n"].number(), n++);
  }
  EXPECT_TRUE(store_.statistics.partial_rejects.empty());
}

// ---- Faults that pass ----

class PassingFault : public LocalDeliveryTest, public ::testing::WithParamInterface<const char*> {};

TEST_P(PassingFault, DeliversEverythingOnce) {
  add_fault(GetParam());
  run();
  const Stats stats = test_->engine.stats();
  EXPECT_GT(faults_.reports().front().fired, 0U) << "the fault did not strike";
  EXPECT_EQ(stats.metrics.delivered, all_events);
  EXPECT_EQ(stats.logs.delivered, all_events);
  EXPECT_EQ(stats.spans.delivered, all_spans);
  EXPECT_TRUE(is_settled(stats.metrics));
  EXPECT_TRUE(is_settled(stats.logs));
  EXPECT_TRUE(is_settled(stats.spans));
  const Held all = held();
  EXPECT_EQ(all.samples, static_cast<double>(all_events));
  EXPECT_EQ(all.logs.size(), all_events);
  EXPECT_EQ(all.spans.size(), all_spans);
  EXPECT_EQ(all.repeats(), 0U);
}

INSTANTIATE_TEST_SUITE_P(
    Faults, PassingFault,
    ::testing::Values(
        "throttle:count=3", "throttle:count=5,retry_after_ms=200",
        "throttle:service=logs,count=4,retry_after=2", "throttle:count=3,retry_after_ms=garbage",
        "throttle:count=3,retry_after_ms=-1", "throttle:probability=0.3,seed=1",
        "throttle:probability=0.3,seed=2", "error_500:count=3",
        "error_500:service=monitoring,count=5", "error_500:operation=CreateLogGroup,count=2",
        "error_500:operation=CreateLogStream,count=3", "error_500:probability=0.3,seed=3",
        "error_503:count=3,retry_after_ms=50", "error_503:probability=0.3,seed=4", "refuse:count=3",
        "refuse:service=xray,count=4", "refuse:probability=0.3,seed=5", "delay:ms=200",
        "delay:ms=4999", "expired_token:count=1", "expired_token:service=logs,count=1",
        "skew:seconds=120"));

// ---- Lost answers ----

class LostAnswer : public LocalDeliveryTest, public ::testing::WithParamInterface<const char*> {};

TEST_P(LostAnswer, DeliversEverythingAndRepeatsAreCounted) {
  make_stream();
  add_fault(GetParam());
  run();
  const Stats stats = test_->engine.stats();
  EXPECT_EQ(stats.logs.delivered, all_events);
  EXPECT_EQ(stats.spans.delivered, all_spans);
  EXPECT_EQ(stats.metrics.delivered, all_events);
  EXPECT_TRUE(settled());
  const Held all = held();
  EXPECT_EQ(all.logs.size(), all_events);
  EXPECT_EQ(all.spans.size(), all_spans);
  const double repeated_samples = all.samples - static_cast<double>(all_events);
  EXPECT_GE(repeated_samples, 0);
  // Every answer was lost behind a request that had been carried out: each uncertain record is there
  // once more, and no other is.
  EXPECT_GT(stats.delivery.uncertain_records, 0U);
  EXPECT_EQ(static_cast<double>(all.repeats()) + repeated_samples,
            static_cast<double>(stats.delivery.uncertain_records));
}

INSTANTIATE_TEST_SUITE_P(
    Faults, LostAnswer,
    ::testing::Values("lost_response:operation=PutLogEvents,count=2",
                      "lost_response:operation=PutMetricData,count=3",
                      "lost_response:service=xray,count=2",
                      "lost_response:operation=PutLogEvents,probability=0.5,seed=9",
                      "lost_response:service=xray,probability=0.4,seed=7",
                      "delay:ms=5001,operation=PutMetricData,count=2",
                      "delay:ms=60000,service=xray,count=2"));

TEST_F(LocalDeliveryTest, ALostAnswerToACreationDoesNoHarm) {
  add_fault("lost_response:operation=CreateLogGroup,count=1");
  add_fault("lost_response:operation=CreateLogStream,count=1");
  run();
  EXPECT_EQ(test_->engine.stats().logs.delivered, all_events);
  EXPECT_EQ(held().logs.size(), all_events);
  EXPECT_EQ(held().repeats(), 0U);
}

// ---- Parts that are refused ----

class PartialReject : public LocalDeliveryTest,
                      public ::testing::WithParamInterface<const char*> {};

TEST_P(PartialReject, CountsWhatIsRefusedAndTheRestIsThere) {
  make_stream();
  add_fault(GetParam());
  run();
  const Stats stats = test_->engine.stats();
  const Held all = held();
  EXPECT_EQ(all.logs.size(), stats.logs.delivered);
  EXPECT_EQ(all.spans.size(), stats.spans.delivered);
  EXPECT_EQ(all.samples, static_cast<double>(stats.metrics.delivered));
  EXPECT_EQ(all.repeats(), 0U);
  EXPECT_EQ(stats.logs.dropped_for(DropCause::expired), all_events - stats.logs.delivered);
  EXPECT_EQ(stats.spans.dropped_for(DropCause::rejected), all_spans - stats.spans.delivered);
  EXPECT_GT(stats.logs.dropped_total() + stats.spans.dropped_total(), 0U);
  EXPECT_TRUE(settled());
}

INSTANTIATE_TEST_SUITE_P(
    Faults, PartialReject,
    ::testing::Values("partial_reject:service=logs,reason=too_old,rejected=3,count=2",
                      "partial_reject:service=logs,reason=expired,rejected=1,count=3",
                      "partial_reject:service=logs,reason=too_new,rejected=4,count=2",
                      "partial_reject:service=logs,reason=too_new,rejected=100000,count=1",
                      "partial_reject:service=logs,reason=too_old,rejected=100000,count=1",
                      "partial_reject:service=xray,rejected=2,count=3",
                      "partial_reject:service=xray,rejected=100000,count=1",
                      "partial_reject:service=xray,rejected=1,probability=0.5,seed=8"));

// ---- Faults that stay ----

TEST_F(LocalDeliveryTest, AFailureThatStaysDropsAndDeliversNothing) {
  for (const char* const fault : {"throttle", "error_500", "error_503", "refuse"}) {
    SCOPED_TRACE(fault);
    faults_.clear();
    store_.clear();
    recorded_ = 0;
    start([](Config& config) { config.attempts_max = 3; });
    add_fault(fault);
    run();
    const Stats stats = test_->engine.stats();
    for (const SignalStats* const signal : {&stats.metrics, &stats.logs, &stats.spans}) {
      EXPECT_EQ(signal->delivered, 0U);
      EXPECT_EQ(signal->dropped_for(DropCause::retries_exhausted), signal->recorded);
      EXPECT_TRUE(is_settled(*signal));
    }
    EXPECT_EQ(held().samples, 0);
    EXPECT_TRUE(held().spans.empty());
    EXPECT_TRUE(store_.logs.groups().empty());
  }
}

TEST_F(LocalDeliveryTest, CredentialsThatStayExpiredAreUnauthorised) {
  add_fault("expired_token");
  run();
  const Stats stats = test_->engine.stats();
  for (const SignalStats* const signal : {&stats.metrics, &stats.logs, &stats.spans}) {
    EXPECT_EQ(signal->delivered, 0U);
    EXPECT_EQ(signal->dropped_for(DropCause::unauthorised), signal->recorded);
  }
  EXPECT_TRUE(held().spans.empty());
}

TEST_F(LocalDeliveryTest, AnotherSecretIsRefusedAndNothingIsStored) {
  const ScopedVariable wrong("AWS_SECRET_ACCESS_KEY", "not-the-secret");
  start({});
  run();
  const Stats stats = test_->engine.stats();
  for (const SignalStats* const signal : {&stats.metrics, &stats.logs, &stats.spans}) {
    EXPECT_EQ(signal->delivered, 0U);
    EXPECT_EQ(signal->dropped_for(DropCause::unauthorised), signal->recorded);
  }
  EXPECT_EQ(held().samples, 0);
}

// Answers lost until the engine gives up: it says that it does not know, and what it calls dropped
// may well be there.
TEST_F(LocalDeliveryTest, WhatWasGivenUpAfterLostAnswersIsUncertain) {
  start([](Config& config) { config.attempts_max = 3; });
  add_fault("lost_response:service=xray");
  run();
  const Stats stats = test_->engine.stats();
  EXPECT_EQ(stats.spans.dropped_for(DropCause::retries_exhausted), all_spans);
  EXPECT_EQ(stats.delivery.uncertain_records, 2 * all_spans) << "sent again twice";
  EXPECT_EQ(held().spans.size(), all_spans);
  EXPECT_EQ(stats.logs.delivered, all_events) << "the others are not touched";
}

// ---- OTLP: to a collector's port, and signed as to CloudWatch and X-Ray ----

class OtlpDelivery : public LocalDeliveryTest, public ::testing::WithParamInterface<bool> {
 protected:
  OtlpDelivery() {
    if (GetParam()) {
      make_stream();
    } else {
      log_group_ = "otlp";
      log_stream_ = "orders";
    }
    start([](Config& config) { use_otlp(config); });
  }
  static void use_otlp(Config& config) {
    config.metrics = MetricsTo::otlp;
    config.logs = LogsTo::otlp;
    config.traces = TracesTo::otlp;
    config.otlp_endpoint = "http://127.0.0.1:4566";
    config.otlp_sign = GetParam();
  }
  void expect_balanced() {
    const Stats stats = test_->engine.stats();
    EXPECT_TRUE(is_settled(stats.metrics));
    EXPECT_TRUE(is_settled(stats.logs));
    EXPECT_TRUE(is_settled(stats.spans));
    EXPECT_EQ(held().samples, static_cast<double>(stats.metrics.delivered));
    EXPECT_EQ(held().logs.size(), stats.logs.delivered);
    EXPECT_EQ(held().spans.size(), stats.spans.delivered);
    EXPECT_EQ(held().repeats(), 0U);
    EXPECT_EQ(store_.traces.counts().otlp_spans, stats.spans.delivered);
  }
};
INSTANTIATE_TEST_SUITE_P(Signed, OtlpDelivery, ::testing::Bool());

TEST_P(OtlpDelivery, EverythingIsThereOnce) {
  run();
  const Stats stats = test_->engine.stats();
  EXPECT_EQ(stats.metrics.delivered, all_events);
  EXPECT_EQ(stats.logs.delivered, all_events);
  EXPECT_EQ(stats.spans.delivered, all_spans);
  expect_balanced();
  EXPECT_TRUE(store_.statistics.errors.empty());
  EXPECT_TRUE(store_.statistics.partial_rejects.empty());
  int children = 0;
  for (const Segment& segment : store_.traces.segments({})) children += segment.is_subsegment;
  EXPECT_EQ(children, rounds * traces_per_round);
}

TEST_P(OtlpDelivery, FaultsThatPassCostNothing) {
  for (const char* const fault :
       {"throttle:count=3", "throttle:service=logs,count=2,retry_after=2", "error_503:count=3",
        "refuse:operation=ExportTraces,count=2", "delay:ms=200"}) {
    add_fault(fault);
  }
  run();
  for (const FaultReport& report : faults_.reports()) EXPECT_GT(report.fired, 0U);
  EXPECT_EQ(test_->engine.stats().spans.delivered, all_spans);
  EXPECT_EQ(test_->engine.stats().logs.delivered, all_events);
  expect_balanced();
}

TEST_P(OtlpDelivery, PartialSuccessesAreCountedOnBothSides) {
  add_fault("partial_reject:service=logs,rejected=3,count=2");
  add_fault("partial_reject:service=xray,rejected=2,count=3");
  run();
  const Stats stats = test_->engine.stats();
  EXPECT_EQ(stats.logs.dropped_for(DropCause::rejected), 6U);
  EXPECT_EQ(stats.spans.dropped_for(DropCause::rejected), 6U);
  expect_balanced();
}

// ---- The daemon's port ----

/// A daemon that never reads, with a socket buffer of the kernel's usual size.
class SilentDaemon {
 public:
  SilentDaemon() : socket_(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    EXPECT_EQ(bind(socket_, reinterpret_cast<const sockaddr*>(&address), size), 0);
    EXPECT_EQ(getsockname(socket_, reinterpret_cast<sockaddr*>(&address), &size), 0);
    port_ = ntohs(address.sin_port);
  }
  SilentDaemon(const SilentDaemon&) = delete;
  SilentDaemon& operator=(const SilentDaemon&) = delete;
  ~SilentDaemon() { close(socket_); }

  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }
  /// Reads what is there and returns how many datagrams it was.
  std::uint64_t drain() {
    std::uint64_t count = 0;
    std::array<char, 65'536> buffer{};
    while (recv(socket_, buffer.data(), buffer.size(), MSG_DONTWAIT) >= 0) ++count;
    return count;
  }

 private:
  const int socket_;
  std::uint16_t port_ = 0;
};

TEST_F(LocalDeliveryTest, DatagramsArePacedByTheMillisecond) {
  SilentDaemon daemon;
  start([&](Config& config) {
    config.traces = TracesTo::xray_daemon;
    config.xray_daemon_address = daemon.address();
  });
  constexpr std::uint64_t traces = 1000;
  for (std::uint64_t i = 0; i < traces; ++i) const Span span = test_->engine.span("work");
  // Time stands still: what a full socket buffer would lose is kept back.
  EXPECT_FALSE(test_->engine.flush(1s));
  test_->settle();
  std::uint64_t arrived = daemon.drain();
  EXPECT_GT(arrived, 0U);
  EXPECT_LE(arrived, 64U);
  for (std::uint64_t ms = 0; ms < traces && !settled(); ++ms) {
    test_->advance(1ms);
    const std::uint64_t more = daemon.drain();
    EXPECT_LE(more, 64U);
    arrived += more;
  }
  EXPECT_EQ(arrived, traces);
  EXPECT_EQ(test_->engine.stats().spans.delivered, traces);
  EXPECT_TRUE(is_settled(test_->engine.stats().spans));
}

TEST_F(LocalDeliveryTest, SpansByDatagramsReachTheReceiver) {
  Receiver receiver;
  start([&](Config& config) {
    config.traces = TracesTo::xray_daemon;
    config.xray_daemon_address = receiver.daemon_address();
  });
  run();
  EXPECT_EQ(test_->engine.stats().spans.delivered, all_spans);
  ASSERT_TRUE(receiver.wait_for_datagrams(all_spans / 2));
  EXPECT_EQ(receiver.trace_counts().udp_documents, all_spans / 2);
  EXPECT_EQ(receiver.trace_counts().udp_segments, all_spans);
  EXPECT_TRUE(receiver.statistics().partial_rejects.empty());
}

}  // namespace
}  // namespace spillway::local
