// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cassert>
#include <new>
#include <variant>

#include <spillway/engine/sender.hpp>
#include <spillway/transport/retry.hpp>

namespace spillway::detail {

using std::chrono::milliseconds;
using transport::Failure;

namespace {

// Pieces that one payload may be cut into while looking for the records that are to blame: a few
// bad ones in a thousand are found with some ten requests each; where most are bad, the rest is
// given up.
constexpr int splits_max = 64;
// Refusals in a row before a payload is dropped as unauthorised: the credentials were read anew in
// between.
constexpr int refusals_max = 3;
// Receive no more than so many payloads at once, so that a flood does not keep answers waiting.
constexpr int receive_max = 64;

// What waits for credentials that are being fetched looks again so soon.
constexpr milliseconds wait_again{10};

// What an exporter makes of a payload. Without memory for it, it has its retries as any other failed
// attempt: the host may find some meanwhile.
template <class Attempt>
auto unless_out_of_memory(Attempt&& attempt) -> decltype(attempt()) try {
  return attempt();
} catch (const std::bad_alloc&) {
  Outcome outcome;
  outcome.next = Outcome::Next::retry;
  outcome.failure = Failure::transient;
  outcome.cause = DropCause::no_memory;
  return outcome;
}

}  // namespace

Sender::Sender(Parts parts) : parts_(std::move(parts)) { heartbeat_.beat(parts_.clock->steady()); }
Sender::~Sender() = default;

void Sender::receive() {
  for (int i = 0; i < receive_max; ++i) {
    std::unique_ptr<Payload> payload = parts_.outbox.receive();
    if (payload == nullptr) return;
    Job job;
    job.unaccounted = payload->records();
    job.splits_left = splits_max;
    job.since = parts_.clock->steady();
    unsettled_.push_back(1);
    lanes_[static_cast<std::size_t>(payload->signal)].waiting.push_back(std::move(job));
    lanes_[static_cast<std::size_t>(payload->signal)].waiting.back().payload = std::move(payload);
  }
}

void Sender::run_once(milliseconds wait) {
  receive();
  SteadyTime now = parts_.clock->steady();
  const std::uint64_t settled_before = first_unsettled_;
  const SteadyTime due = start_due(now, wait);
  // What went to a local destination is settled by now, and somebody may wait to hear of it.
  if (first_unsettled_ != settled_before) wait = milliseconds(0);
  const auto until_due = std::chrono::ceil<milliseconds>(due - parts_.clock->steady());
  wait = std::clamp(until_due, milliseconds(0), wait);
  for (transport::HttpCompletion& completion : parts_.http->poll(wait)) {
    const auto found = flights_.find(completion.id);
    if (found == flights_.end()) continue;
    Flight flight = std::move(found->second);
    flights_.erase(found);
    --lanes_[flight.lane].in_flight;
    now = parts_.clock->steady();
    Exporter& exporter = *parts_.exporters[flight.lane];
    const Outcome outcome = unless_out_of_memory([&] {
      return exporter.judge(*flight.job.payload, completion.response, parts_.clock->wall());
    });
    if (completion.response.outcome != transport::HttpOutcome::answered) {
      of(flight.lane).delivery.failures.fetch_add(1, std::memory_order_relaxed);
    }
    settle(flight.lane, std::move(flight.job), outcome, now);
  }
  observe(parts_.clock->steady());
}

// For health: how long the oldest record of each destination waits.
void Sender::observe(SteadyTime now) noexcept {
  heartbeat_.beat(now);
  std::array<SteadyTime, signal_count> oldest;
  oldest.fill(SteadyTime::max());
  for (std::size_t i = 0; i < lanes_.size(); ++i) {
    if (!lanes_[i].waiting.empty()) oldest[i] = lanes_[i].waiting.front().since;
  }
  for (const auto& [id, flight] : flights_) {
    oldest[flight.lane] = std::min(oldest[flight.lane], flight.job.since);
  }
  for (std::size_t i = 0; i < lanes_.size(); ++i) {
    of(i).health.observe(now,
                         oldest[i] == SteadyTime::max() ? std::nullopt : std::optional(oldest[i]),
                         of(i).lost());
  }
}

SteadyTime Sender::start_due(SteadyTime now, milliseconds wait) {
  SteadyTime due = SteadyTime::max();
  for (std::size_t i = 0; i < lanes_.size(); ++i) {
    Lane& lane = lanes_[i];
    // Only the first is looked at: what was refused goes before what came later.
    while (!lane.waiting.empty() && lane.in_flight < parts_.exporters[i]->in_flight_max()) {
      if (lane.waiting.front().not_before > now) {
        due = std::min(due, lane.waiting.front().not_before);
        break;
      }
      Job job = std::move(lane.waiting.front());
      lane.waiting.pop_front();
      attempt(i, std::move(job), now, wait);
    }
  }
  return due;
}

void Sender::attempt(std::size_t lane, Job job, SteadyTime now, milliseconds wait) {
  Exporter& exporter = *parts_.exporters[lane];
  ++job.attempts;
  if (!exporter.uses_http()) {
    const Outcome outcome = unless_out_of_memory(
        [&] { return exporter.write(*job.payload, std::min(wait, milliseconds(50))); });
    if (outcome.next == Outcome::Next::again) --job.attempts;  // Goes on where it stopped.
    return settle(lane, std::move(job), outcome, now);
  }
  using Made = std::variant<transport::HttpRequest, Outcome>;
  Made made = unless_out_of_memory(
      [&]() -> Made { return exporter.request(*job.payload, parts_.clock->wall()); });
  if (const Outcome* const refused = std::get_if<Outcome>(&made)) {
    return settle(lane, std::move(job), *refused, now);
  }
  auto& request = std::get<transport::HttpRequest>(made);
  DeliveryLedger& delivery = of(lane).delivery;
  delivery.requests.fetch_add(1, std::memory_order_relaxed);
  if (job.attempts > 1) delivery.retries.fetch_add(1, std::memory_order_relaxed);
  delivery.bytes.fetch_add(request.body.size(), std::memory_order_relaxed);
  ++lanes_[lane].in_flight;
  const std::uint64_t id = next_flight_++;
  flights_.emplace(id, Flight{lane, std::move(job)});
  parts_.http->start(id, std::move(request), parts_.request_timeout);
}

void Sender::settle(std::size_t lane, Job job, const Outcome& outcome, SteadyTime now) {
  account(job, outcome.delivered, outcome.dropped, outcome.cause);
  report(outcome.message);
  if (outcome.failure == Failure::throttled)
    of(lane).delivery.throttles.fetch_add(1, std::memory_order_relaxed);
  if (outcome.delivered != 0) of(lane).health.succeeded(now, of(lane).lost());
  if (outcome.failure != Failure::none) of(lane).health.failed(now, outcome.message);
  switch (outcome.next) {
    case Outcome::Next::finished:
      return finish(std::move(job));
    case Outcome::Next::again:
      if (parts_.exporters[lane]->uses_http()) {
        --job.attempts;
      } else {
        job.not_before = now + milliseconds(1);
      }
      lanes_[lane].waiting.push_front(std::move(job));
      return;
    case Outcome::Next::wait:
      --job.attempts;
      job.not_before = now + wait_again;
      lanes_[lane].waiting.push_front(std::move(job));
      return;
    case Outcome::Next::retry:
      if (outcome.sign_again && !job.signed_again) {
        job.signed_again = true;
        --job.attempts;
        lanes_[lane].waiting.push_front(std::move(job));
        return;
      }
      return retry(lane, std::move(job), outcome, now);
    case Outcome::Next::split:
      return split(lane, std::move(job), outcome);
  }
}

void Sender::retry(std::size_t lane, Job job, const Outcome& outcome, SteadyTime now) {
  job.refusals = outcome.failure == Failure::credentials ? job.refusals + 1 : 0;
  if (job.attempts >= parts_.attempts_max || job.refusals >= refusals_max) {
    account(job, 0, job.unaccounted, outcome.cause);
    return finish(std::move(job));
  }
  if (outcome.uncertain) {
    of(lane).delivery.uncertain_records.fetch_add(job.unaccounted, std::memory_order_relaxed);
  }
  job.not_before = now + transport::backoff(outcome.failure, job.attempts, parts_.draw(),
                                            outcome.asked, outcome.asked_excess_max);
  lanes_[lane].waiting.push_front(std::move(job));
}

void Sender::split(std::size_t lane, Job job, const Outcome& outcome) {
  const std::size_t items = job.payload->items.size();
  if (items <= 1 || job.splits_left == 0) {
    account(job, 0, job.unaccounted, outcome.cause);
    return finish(std::move(job));
  }
  // The second half, copied; the first keeps the payload, and with it the bytes of the budget.
  auto half = std::make_unique<Payload>(job.payload->items.get_allocator().resource());
  half->signal = job.payload->signal;
  half->sequence = job.payload->sequence;
  for (std::size_t i = items / 2; i < items; ++i) {
    const PayloadItem& item = job.payload->items[i];
    const std::size_t offset = half->bytes.size();
    half->bytes.append(job.payload->item(item));
    half->end_item(offset, item.records, item.time_ms, item.id);
  }
  job.payload->items.resize(items / 2, PayloadItem{});
  Job second;
  second.since = job.since;
  second.unaccounted = half->records();
  second.splits_left = (job.splits_left - 1) / 2;
  second.payload = std::move(half);
  job.unaccounted -= second.unaccounted;
  job.splits_left = (job.splits_left - 1) - second.splits_left;
  job.attempts = 0;
  ++unsettled_[job.payload->sequence - first_unsettled_];
  lanes_[lane].waiting.push_front(std::move(second));
  lanes_[lane].waiting.push_front(std::move(job));
}

void Sender::account(Job& job, std::uint64_t delivered, std::uint64_t dropped, DropCause cause) {
  const Signal signal = job.payload->signal;
  delivered = std::min(delivered, job.unaccounted);
  dropped = std::min(dropped, job.unaccounted - delivered);
  job.unaccounted -= delivered + dropped;
  parts_.ledger.of(signal).delivered.fetch_add(delivered, std::memory_order_relaxed);
  if (dropped != 0) parts_.ledger.drop_in_queue(signal, cause, dropped);
}

void Sender::finish(Job job) {
  assert(job.unaccounted == 0);
  const std::uint64_t sequence = job.payload->sequence;
  parts_.outbox.give_back(std::move(job.payload));
  --unsettled_[sequence - first_unsettled_];
  while (!unsettled_.empty() && unsettled_.front() == 0) {
    unsettled_.pop_front();
    settled_.store(first_unsettled_++, std::memory_order_release);
  }
}

void Sender::abandon(DropCause cause) {
  parts_.http->cancel_all();
  const auto drop = [&](Job& job) {
    account(job, 0, job.unaccounted, cause);
    finish(std::move(job));
  };
  for (auto& [id, flight] : flights_) drop(flight.job);
  flights_.clear();
  for (Lane& lane : lanes_) {
    lane.in_flight = 0;
    while (!lane.waiting.empty()) {
      Job job = std::move(lane.waiting.front());
      lane.waiting.pop_front();
      drop(job);
    }
  }
  for (receive();
       std::any_of(lanes_.begin(), lanes_.end(), [](const Lane& l) { return !l.waiting.empty(); });
       receive()) {
    for (Lane& lane : lanes_) {
      while (!lane.waiting.empty()) {
        Job job = std::move(lane.waiting.front());
        lane.waiting.pop_front();
        drop(job);
      }
    }
  }
}

void Sender::report(std::string_view message) {
  if (!message.empty()) parts_.diagnostic(message);
}

}  // namespace spillway::detail
