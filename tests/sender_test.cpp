// SPDX-License-Identifier: Apache-2.0
//
// The sender with exporters of the test's own.
#include <algorithm>
#include <array>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <support/memory_disk.hpp>

#include <spillway/engine/sender.hpp>
#include <spillway/engine/testing.hpp>

namespace spillway::detail {
namespace {

using namespace std::chrono_literals;

// Every attempt throws while `failures` lasts.
class StarvedExporter final : public Exporter {
 public:
  StarvedExporter(bool http, int& failures)
      : Exporter("starved", Signal::logs, {}), http_(http), failures_(failures) {}
  bool uses_http() const noexcept override { return http_; }
  std::variant<transport::HttpRequest, Outcome> request(Payload& /*payload*/,
                                                        WallTime /*now*/) override {
    starve();
    return transport::HttpRequest{};
  }
  Outcome judge(const Payload& payload, const transport::HttpResponse& /*response*/,
                WallTime /*now*/) override {
    starve();
    return delivered(payload);
  }
  Outcome write(const Payload& payload, std::chrono::milliseconds /*wait*/) override {
    starve();
    return delivered(payload);
  }

 private:
  void starve() {
    if (failures_ > 0 && failures_-- > 0) throw std::bad_alloc();
  }
  static Outcome delivered(const Payload& payload) {
    Outcome outcome;
    outcome.delivered = payload.records();
    return outcome;
  }
  const bool http_;
  int& failures_;
};

class SenderTest : public ::testing::Test {
 protected:
  static constexpr int attempts_max = 4;

  Sender make_sender(bool http_destination, std::unique_ptr<transport::HttpTransport> http =
                                                std::make_unique<transport::MemoryTransport>()) {
    std::array<std::unique_ptr<Exporter>, signal_count> exporters;
    exporters[static_cast<std::size_t>(Signal::logs)] =
        std::make_unique<StarvedExporter>(http_destination, failures);
    return Sender({clock, std::move(http), std::move(exporters), outbox, ledger, 1s, attempts_max,
                   [] { return 0.5; }, [](std::string_view) {}});
  }
  // A payload of three records.
  void send() {
    auto payload = outbox.take_empty();
    payload->signal = Signal::logs;
    payload->bytes.append("three");
    payload->end_item(0, 3, 0, 0);
    ledger.of(Signal::logs).sealed += 3;
    ASSERT_TRUE(outbox.send(payload));
  }
  void run(Sender& sender) {
    for (int i = 0; i < 20; ++i) {
      sender.run_once(0ms);
      clock->advance(30s);
    }
  }

  int failures = 0;
  std::shared_ptr<testing::ManualClock> clock = std::make_shared<testing::ManualClock>();
  Ledger ledger;
  Outbox outbox{1 << 20};
};

class StarvedSenderTest : public SenderTest, public ::testing::WithParamInterface<bool> {};

TEST_P(StarvedSenderTest, APayloadGoesOutWhenThereIsMemoryAgain) {
  failures = attempts_max - 1;
  Sender sender = make_sender(GetParam());
  send();
  run(sender);
  EXPECT_EQ(failures, 0);
  EXPECT_EQ(ledger.of(Signal::logs).delivered, 3U);
  EXPECT_TRUE(sender.settled(outbox.last_sequences()));
}

TEST_P(StarvedSenderTest, WithoutMemoryForLongItIsDroppedAndCounted) {
  failures = attempts_max;
  Sender sender = make_sender(GetParam());
  send();
  run(sender);
  send();
  run(sender);
  const SignalLedger& logs = ledger.of(Signal::logs);
  EXPECT_EQ(logs.dropped_in_queue[static_cast<std::size_t>(DropCause::no_memory)], 3U);
  EXPECT_EQ(logs.delivered, 3U) << "the next one";
  EXPECT_TRUE(sender.settled(outbox.last_sequences()));
}

// Remembers how long it was to wait for answers.
class WaitingTransport final : public transport::HttpTransport {
 public:
  explicit WaitingTransport(std::vector<std::chrono::milliseconds>& waits) : waits_(waits) {}
  void start(std::uint64_t /*id*/, transport::HttpRequest /*request*/,
             std::chrono::milliseconds /*timeout*/) override {}
  std::vector<transport::HttpCompletion> poll(std::chrono::milliseconds wait) override {
    waits_.push_back(wait);
    return {};
  }
  void wake() noexcept override {}
  void cancel_all() noexcept override {}

 private:
  std::vector<std::chrono::milliseconds>& waits_;
};

TEST_F(SenderTest, AfterALocalDeliveryItDoesNotWaitBeforeItSaysSo) {
  std::vector<std::chrono::milliseconds> waits;
  Sender sender = make_sender(false, std::make_unique<WaitingTransport>(waits));
  sender.run_once(500ms);
  send();
  sender.run_once(500ms);
  EXPECT_TRUE(sender.settled(outbox.last_sequences()));
  sender.run_once(500ms);
  EXPECT_EQ(waits, (std::vector<std::chrono::milliseconds>{500ms, 0ms, 500ms}));
}

// ---- Outages, pace, order ----

// One item a line of the body; the status of the answer says what became of it.
class LinesExporter final : public Exporter {
 public:
  explicit LinesExporter(Signal signal, int in_flight_max = 1)
      : Exporter("lines", signal, {}), in_flight_max_(in_flight_max) {}
  int in_flight_max() const noexcept override { return in_flight_max_; }
  bool uses_http() const noexcept override { return true; }
  std::variant<transport::HttpRequest, Outcome> request(Payload& payload,
                                                        WallTime /*now*/) override {
    transport::HttpRequest request;
    request.path = signal() == Signal::logs ? "/logs" : "/spans";
    for (const PayloadItem& item : payload.items) {
      request.body.append(payload.item(item)).append("\n");
    }
    return request;
  }
  Outcome judge(const Payload& payload, const transport::HttpResponse& response,
                WallTime /*now*/) override {
    Outcome outcome;
    if (response.outcome == transport::HttpOutcome::answered && response.status == 200) {
      outcome.delivered = payload.records();
      return outcome;
    }
    outcome.next = Outcome::Next::retry;
    outcome.failure = response.status == 429   ? transport::Failure::throttled
                      : response.status == 403 ? transport::Failure::credentials
                                               : transport::Failure::transient;
    outcome.cause = response.status == 403 ? DropCause::unauthorised : DropCause::retries_exhausted;
    return outcome;
  }

 private:
  const int in_flight_max_;
};

class PaceTest : public ::testing::Test {
 protected:
  static transport::HttpResponse answer(int status) {
    return transport::MemoryTransport::answered(status);
  }
  static transport::HttpResponse nothing() {
    return transport::MemoryTransport::failed(transport::HttpOutcome::not_connected);
  }

  void SetUp() override {
    auto memory = std::make_unique<transport::MemoryTransport>();
    http = memory.get();
    std::array<std::unique_ptr<Exporter>, signal_count> exporters;
    exporters[static_cast<std::size_t>(Signal::logs)] =
        std::make_unique<LinesExporter>(Signal::logs);
    exporters[static_cast<std::size_t>(Signal::spans)] =
        std::make_unique<LinesExporter>(Signal::spans, 4);
    sender.emplace(Sender::Parts{clock, std::move(memory), std::move(exporters), outbox, ledger, 1s,
                                 0, [] { return 0.5; }, [](std::string_view) {}});
  }
  void send(Signal signal, const std::vector<std::string>& lines) {
    auto payload = outbox.take_empty();
    payload->signal = signal;
    for (const std::string& line : lines) {
      const std::size_t offset = payload->bytes.size();
      payload->bytes.append(line);
      payload->end_item(offset, 1, 0, 0);
    }
    ledger.of(signal).sealed += lines.size();
    ASSERT_TRUE(outbox.send(payload));
  }
  void run(std::chrono::milliseconds time, std::chrono::milliseconds step = 10ms) {
    for (auto at = 0ms; at < time; at += step) {
      sender->run_once(0ms);
      sender->run_once(0ms);
      clock->advance(step);
    }
  }
  std::uint64_t delivered(Signal signal) { return ledger.of(signal).delivered.load(); }
  std::uint64_t dropped(Signal signal, DropCause cause) {
    return ledger.of(signal).dropped_in_queue[static_cast<std::size_t>(cause)].load();
  }
  std::size_t requests_to(std::string_view path) {
    return static_cast<std::size_t>(
        std::count_if(http->requests().begin(), http->requests().end(),
                      [&](const transport::HttpRequest& one) { return one.path == path; }));
  }

  std::shared_ptr<testing::ManualClock> clock = std::make_shared<testing::ManualClock>();
  Ledger ledger;
  Outbox outbox{1 << 20};
  transport::MemoryTransport* http = nullptr;
  std::optional<Sender> sender;
};

TEST_F(PaceTest, AnOutageOfAMinuteLosesNothingAndEverythingGoesOutInOrder) {
  http->set_answer([](const auto&) { return nothing(); });
  for (int i = 0; i < 60; ++i) {
    send(Signal::logs, {std::to_string(i)});
    run(1s);
  }
  EXPECT_LE(http->requests().size(), 20U) << "no storm";
  http->forget_requests();
  http->set_answer([](const auto&) { return answer(200); });
  run(transport::backoff_max);
  EXPECT_EQ(delivered(Signal::logs), 60U) << "within the longest back-off";
  ASSERT_EQ(http->requests().size(), 60U);
  for (std::size_t i = 0; i < 60; ++i) {
    EXPECT_EQ(http->requests()[i].body, std::to_string(i) + "\n");
  }
  EXPECT_TRUE(sender->settled(outbox.last_sequences()));
  EXPECT_EQ(outbox.bytes(), 0U);
}

TEST_F(PaceTest, HoweverOftenNobodyAnsweredTheOrderIsKept) {
  for (int tries = 1; tries <= 20; ++tries) {
    int left = tries;
    http->set_answer([&](const auto&) { return left-- > 0 ? nothing() : answer(200); });
    for (int i = 0; i < 3; ++i) send(Signal::logs, {std::to_string(i)});
    run(10min, 1s);
    const auto& requests = http->requests();
    ASSERT_EQ(requests.size(), static_cast<std::size_t>(tries) + 3);
    for (std::size_t i = 0; i < 3; ++i) {
      EXPECT_EQ(requests[static_cast<std::size_t>(tries) + i].body, std::to_string(i) + "\n")
          << "after " << tries;
    }
    http->forget_requests();
  }
}

TEST_F(PaceTest, WhenTheQuotaIsUsedUpOneRequestAsksEachLongestBackOff) {
  http->set_answer([](const auto&) { return answer(503); });
  for (int i = 0; i < 10; ++i) send(Signal::spans, {std::to_string(i)});
  run(2h, 1s);
  http->forget_requests();
  run(1h, 1s);
  EXPECT_EQ(http->requests().size(), 180U) << "3600 s / 20 s";
  http->set_answer([](const auto&) { return answer(200); });
  run(transport::backoff_max + 3s, 1s);
  EXPECT_EQ(delivered(Signal::spans), 10U);
}

TEST_F(PaceTest, ADestinationInTroubleHasOneRequestUnderWay) {
  for (int i = 0; i < 8; ++i) send(Signal::spans, {std::to_string(i)});
  http->set_answer([](const auto&) { return answer(503); });
  http->hold();
  sender->run_once(0ms);
  EXPECT_EQ(http->requests().size(), 4U) << "as many as may be";
  http->release();
  sender->run_once(0ms);
  http->hold();
  clock->advance(25ms);  // Half of 50 ms: four failures of one moment are one.
  sender->run_once(0ms);
  EXPECT_EQ(http->requests().size(), 5U);
  http->set_answer([](const auto&) { return answer(200); });
  http->release();
  run(1s);
  EXPECT_EQ(delivered(Signal::spans), 8U);
}

TEST_F(PaceTest, ThrottlingSlowsOnlyItsDestination) {
  http->set_answer([](const transport::HttpRequest& request) {
    return answer(request.path == "/logs" ? 429 : 200);
  });
  for (int i = 0; i < 100; ++i) {
    send(Signal::logs, {"a"});
    send(Signal::spans, {"b"});
    run(100ms);
  }
  EXPECT_EQ(delivered(Signal::spans), 100U);
  EXPECT_EQ(delivered(Signal::logs), 0U);
  // 0.5 s, 1 s, 2 s, 4 s ... for all payloads of it together.
  EXPECT_EQ(requests_to("/logs"), 5U);
  EXPECT_EQ(ledger.of(Signal::logs).delivery.throttles, 5U);
}

TEST_F(PaceTest, APayloadThatBreaksTheServiceIsTakenApartAndTheOthersGoOut) {
  http->set_answer([](const transport::HttpRequest& request) {
    return answer(request.body.find("poison") == std::string::npos ? 200 : 503);
  });
  send(Signal::logs, {"0", "1", "poison", "3"});
  for (int i = 1; i < 40; ++i) {
    send(Signal::logs, {std::to_string(10 * i)});
    run(1s);
  }
  run(60s);
  EXPECT_EQ(delivered(Signal::logs), 3U + 39U);
  for (int i = 0; i < 20; ++i) {
    send(Signal::logs, {"more"});
    run(20s, 100ms);
  }
  EXPECT_EQ(delivered(Signal::logs), 3U + 39U + 20U);
  EXPECT_EQ(dropped(Signal::logs, DropCause::retries_exhausted), 1U) << "the one that is to blame";
  EXPECT_TRUE(sender->settled(outbox.last_sequences()));
}

TEST_F(PaceTest, InAnOutageNothingIsTakenForPoison) {
  http->set_answer([](const auto&) { return answer(500); });
  for (int i = 0; i < 5; ++i) send(Signal::logs, {std::to_string(i), "x"});
  run(1h, 100ms);
  http->forget_requests();
  http->set_answer([](const auto&) { return answer(200); });
  run(1min);
  ASSERT_EQ(http->requests().size(), 5U) << "none was split";
  EXPECT_EQ(delivered(Signal::logs), 10U);
}

TEST_F(PaceTest, ADestinationThatFailsThreeTimesOfFourLosesNothing) {
  // A sequence of its own, not by the payload.
  auto seed = std::make_shared<std::uint32_t>(7);
  http->set_answer([seed](const auto&) {
    *seed = *seed * 1664525U + 1013904223U;
    return answer((*seed >> 16) % 4 == 0 ? 200 : 503);
  });
  for (int i = 0; i < 200; ++i) send(Signal::logs, {std::to_string(i)});
  run(4h, 1s);
  EXPECT_EQ(delivered(Signal::logs) + dropped(Signal::logs, DropCause::retries_exhausted), 200U);
  EXPECT_EQ(delivered(Signal::logs), 200U);
}

// A round writes up to 16 payloads to disk, each of which may have to wait for it; the end does not wait for
// all of them.
TEST_F(PaceTest, ARoundStoresNoMoreOnceTheEndIsNear) {
  const auto disk = std::make_shared<testing::MemoryDisk>();
  const auto ignore = [](std::string_view) {};
  auto memory = std::make_unique<transport::MemoryTransport>();
  memory->set_answer([](const auto&) { return nothing(); });
  std::array<std::unique_ptr<Exporter>, signal_count> exporters;
  exporters[static_cast<std::size_t>(Signal::logs)] = std::make_unique<LinesExporter>(Signal::logs);
  sender.emplace(Sender::Parts{
      clock, std::move(memory), std::move(exporters), outbox, ledger, 1s, 0, [] { return 0.5; },
      ignore,
      std::make_unique<Spool>(Spool::Parts{
          disk, clock, ledger, "/spool", "orders", {"", "lines", ""}, 1 << 20, 1h, ignore})});
  disk->on_sync = [this] { sender->hurry(); };
  for (int i = 0; i < 10; ++i) send(Signal::logs, {std::to_string(i)});
  run(10s);
  EXPECT_LE(disk->files().size(), 2U) << "which were under way";
  sender->abandon();
  EXPECT_EQ(disk->files().size(), 10U);
  EXPECT_EQ(ledger.of(Signal::logs).spooled.load(), 10U);
}

TEST_F(PaceTest, AtTheEndWhatWasRefusedIsUnauthorisedAndTheRestIsLate) {
  http->set_answer([](const transport::HttpRequest& request) {
    return answer(request.path == "/logs" ? 403 : 503);
  });
  send(Signal::logs, {"a"});
  send(Signal::spans, {"b", "c"});
  run(10s);
  EXPECT_EQ(ledger.of(Signal::logs).lost(), 0U) << "held: somebody may repair the permission";
  sender->abandon();
  EXPECT_EQ(dropped(Signal::logs, DropCause::unauthorised), 1U);
  EXPECT_EQ(dropped(Signal::spans, DropCause::shutdown_deadline), 2U);
  EXPECT_EQ(outbox.bytes(), 0U);
}

INSTANTIATE_TEST_SUITE_P(Destinations, StarvedSenderTest, ::testing::Values(false, true),
                         [](const auto& kind) { return kind.param ? "Http" : "Local"; });

}  // namespace
}  // namespace spillway::detail
