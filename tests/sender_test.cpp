// SPDX-License-Identifier: Apache-2.0
//
// The sender with exporters that run out of memory.
#include <memory>
#include <new>
#include <utility>

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
  Outcome judge(const Payload& payload, const transport::HttpResponse& /*response*/) override {
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

class SenderTest : public ::testing::TestWithParam<bool> {
 protected:
  static constexpr int attempts_max = 4;

  Sender make_sender() {
    auto http = std::make_unique<transport::MemoryTransport>();
    std::array<std::unique_ptr<Exporter>, signal_count> exporters;
    exporters[static_cast<std::size_t>(Signal::logs)] =
        std::make_unique<StarvedExporter>(GetParam(), failures);
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

TEST_P(SenderTest, APayloadGoesOutWhenThereIsMemoryAgain) {
  failures = attempts_max - 1;
  Sender sender = make_sender();
  send();
  run(sender);
  EXPECT_EQ(failures, 0);
  EXPECT_EQ(ledger.of(Signal::logs).delivered, 3U);
  EXPECT_TRUE(sender.settled(outbox.last_sequence()));
}

TEST_P(SenderTest, WithoutMemoryForLongItIsDroppedAndCounted) {
  failures = attempts_max;
  Sender sender = make_sender();
  send();
  run(sender);
  send();
  run(sender);
  const SignalLedger& logs = ledger.of(Signal::logs);
  EXPECT_EQ(logs.dropped_in_queue[static_cast<std::size_t>(DropCause::no_memory)], 3U);
  EXPECT_EQ(logs.delivered, 3U) << "the next one";
  EXPECT_TRUE(sender.settled(outbox.last_sequence()));
}

INSTANTIATE_TEST_SUITE_P(Destinations, SenderTest, ::testing::Values(false, true),
                         [](const auto& kind) { return kind.param ? "Http" : "Local"; });

}  // namespace
}  // namespace spillway::detail
