// SPDX-License-Identifier: Apache-2.0
//
// The sender with exporters of the test's own.
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

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
  EXPECT_TRUE(sender.settled(outbox.last_sequence()));
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
  EXPECT_TRUE(sender.settled(outbox.last_sequence()));
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
  EXPECT_TRUE(sender.settled(outbox.last_sequence()));
  sender.run_once(500ms);
  EXPECT_EQ(waits, (std::vector<std::chrono::milliseconds>{500ms, 0ms, 500ms}));
}

INSTANTIATE_TEST_SUITE_P(Destinations, StarvedSenderTest, ::testing::Values(false, true),
                         [](const auto& kind) { return kind.param ? "Http" : "Local"; });

}  // namespace
}  // namespace spillway::detail
