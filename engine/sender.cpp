// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cassert>
#include <new>
#include <utility>
#include <variant>

#include <spillway/engine/sender.hpp>

namespace spillway::detail {

using std::chrono::milliseconds;
using transport::Failure;

namespace {

// Pieces that one payload may be cut into while looking for the records that are to blame: a few
// bad ones in a thousand are found with some ten requests each; where most are bad, the rest is
// given up.
constexpr int splits_max = 64;
// Where attempts are limited: refusals in a row before a payload is dropped as unauthorised. The
// credentials were read anew in between.
constexpr int refusals_max = 3;
// After so many failing answers to the first payload another one has a try: what is said of that one
// tells whose fault they are. Until then the order is kept, and always when nobody answers.
constexpr int failures_aside = 8;
// Failures of a payload while others were taken, before it is split, and before a single record that
// cannot be split is given up.
constexpr int suspect_failures = 2;
constexpr int poison_failures_max = 8;
// So far behind the first is looked for one that may go before it, and so many are loaded for it.
constexpr std::ptrdiff_t aside_depth = 64;
constexpr std::ptrdiff_t aside_loaded_max = 8;
// Receive no more than so many payloads at once, so that a flood does not keep answers waiting.
constexpr int receive_max = 64;

// Attempts that fail in a row before a destination is down, and its payloads go to the spool.
constexpr int failures_down = 2;
// Payloads that go to the spool in a round: each is a write that the disk has to confirm.
constexpr int store_max = 16;
// Of the memory budget: when more waits, payloads go to the spool though their destination is up.
constexpr double memory_near = 0.75;

// Payloads of a destination that wait beside its queue while that has no memory to grow: more than may
// be under way.
constexpr std::size_t unplaced_max = 32;

// What waits for credentials that are being fetched looks again so soon.
constexpr milliseconds wait_again{10};

Outcome out_of_memory() {
  Outcome outcome;
  outcome.next = Outcome::Next::retry;
  outcome.failure = Failure::transient;
  outcome.cause = DropCause::no_memory;
  return outcome;
}

// What an exporter makes of a payload. Without memory for it, it has its retries as any other failed
// attempt: the host may find some meanwhile.
template <class Attempt>
auto unless_out_of_memory(Attempt&& attempt) -> decltype(attempt()) try {
  return attempt();
} catch (const std::bad_alloc&) {
  return out_of_memory();
}

/// Leaves the items with these numbers, which rise.
void keep_items(Payload& payload, std::span<const std::size_t> numbers) {
  std::size_t kept = 0;
  for (const std::size_t number : numbers) payload.items[kept++] = payload.items[number];
  payload.items.resize(kept, PayloadItem{});
}

}  // namespace

Sender::Sender(Parts parts) : parts_(std::move(parts)) {
  for (Lane& lane : lanes_) lane.unplaced.reserve(unplaced_max);
  heartbeat_.beat(parts_.clock->steady());
}
Sender::~Sender() = default;

void Sender::receive() {
  for (int i = 0; i < receive_max; ++i) {
    if (received_ == nullptr) received_ = parts_.outbox.receive();
    if (received_ == nullptr) return;
    // Room for it first: what throws leaves it where it is, for the next round.
    Lane& lane = lanes_[static_cast<std::size_t>(received_->signal)];
    std::deque<Job>& waiting = lane.waiting;
    waiting.emplace_back();
    try {
      lane.unsettled.push_back(1);
    } catch (const std::bad_alloc&) {
      waiting.pop_back();
      throw;
    }
    Job& job = waiting.back();
    job.unaccounted = received_->records();
    job.splits_left = splits_max;
    job.since = parts_.clock->steady();
    job.payload = std::move(received_);
  }
}

void Sender::run_once(milliseconds wait) {
  receive();
  SteadyTime now = parts_.clock->steady();
  const std::uint64_t settled_before = settlements_;
  SteadyTime due = SteadyTime::max();
  if (parts_.spool != nullptr) {
    due = parts_.spool->tend();
    if (store_waiting()) due = now;
  }
  due = std::min(due, start_due(now, wait));
  // What went to a local destination is settled by now, and somebody may wait to hear of it.
  if (settlements_ != settled_before) wait = milliseconds(0);
  const auto until_due = std::chrono::ceil<milliseconds>(due - parts_.clock->steady());
  wait = std::clamp(until_due, milliseconds(0), wait);
  if (completions_.empty()) {
    completions_ = parts_.http->poll(wait);
    std::reverse(completions_.begin(), completions_.end());
  }
  while (!completions_.empty()) {
    const transport::HttpCompletion completion = std::move(completions_.back());
    completions_.pop_back();
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
    } else if (outcome.failure == Failure::transient && !outcome.of_preparation) {
      ++flight.job.failing_answers;
    }
    settle(flight.lane, std::move(flight.job), outcome, flight.pace, now);
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
    place_unplaced(i);
    while (parts_.exporters[i] != nullptr) {
      // One request at a time asks a destination in trouble whether it is back.
      if (lane.in_flight >= (lane.failures > 0 ? 1 : parts_.exporters[i]->in_flight_max())) break;
      if (uses_spool(i)) load_next(i);
      if (lane.waiting.empty()) break;
      const auto next = next_in(i, now);
      if (next->stored != nullptr && next->stored->busy) break;
      if (next->stored == nullptr && uses_spool(i) &&
          !parts_.spool->empty(static_cast<Signal>(i))) {
        break;  // Behind those that the disk does not give now.
      }
      const SteadyTime ready = std::max(lane.not_before, next->not_before);
      if (ready > now) {
        due = std::min(due, ready);
        break;
      }
      if (next != lane.waiting.begin()) lane.waiting.front().failing_answers = 0;
      Job job = std::move(*next);
      lane.waiting.erase(next);
      attempt(i, std::move(job), now, wait);
    }
  }
  return due;
}

// The first, what was refused before what came later; but what is suspected to be at fault itself, or
// has failed some times, lets another one go first. The parts of one file stay in their order.
std::deque<Sender::Job>::iterator Sender::next_in(std::size_t lane, SteadyTime now) {
  std::deque<Job>& waiting = lanes_[lane].waiting;
  const Job& first = waiting.front();
  const bool suspect = first.fails_while_ok > 0 && first.not_before > now;
  const bool failed = first.failing_answers >= failures_aside;
  // A local destination goes on with the payload that it has begun.
  if (!parts_.exporters[lane]->uses_http() || (!suspect && !failed)) return waiting.begin();
  const auto may_go = [&](std::deque<Job>::iterator job) {
    return job->not_before <= now &&
           (job->stored == nullptr || std::none_of(waiting.begin(), job, [&](const Job& before) {
              return before.stored == job->stored;
            }));
  };
  const auto end =
      waiting.begin() + std::min(static_cast<std::ptrdiff_t>(waiting.size()), aside_depth);
  for (auto job = waiting.begin() + 1; job != end; ++job) {
    if (job->stored == nullptr && first.stored != nullptr) break;
    if (may_go(job)) return job;
  }
  if (first.stored == nullptr) return waiting.begin();
  const auto loaded =
      std::find_if(waiting.begin(), waiting.end(), [](const Job& job) { return !job.stored; }) -
      waiting.begin();
  if (loaded < aside_loaded_max && load(lane)) return waiting.begin() + loaded;
  // Nothing else on disk: what is in memory.
  const auto in_memory = waiting.begin() + loaded;
  return in_memory != waiting.end() && may_go(in_memory) ? in_memory : waiting.begin();
}

void Sender::attempt(std::size_t lane, Job job, SteadyTime now, milliseconds wait) {
  Exporter& exporter = *parts_.exporters[lane];
  const std::uint64_t pace = lanes_[lane].pace;
  ++job.attempts;
  if (!exporter.uses_http()) {
    const Outcome outcome = unless_out_of_memory(
        [&] { return exporter.write(*job.payload, std::min(wait, milliseconds(50))); });
    if (outcome.next == Outcome::Next::again) --job.attempts;  // Goes on where it stopped.
    return settle(lane, std::move(job), outcome, pace, now);
  }
  using Made = std::variant<transport::HttpRequest, Outcome>;
  Made made = unless_out_of_memory(
      [&]() -> Made { return exporter.request(*job.payload, parts_.clock->wall()); });
  if (const Outcome* const refused = std::get_if<Outcome>(&made)) {
    return settle(lane, std::move(job), *refused, pace, now);
  }
  auto& request = std::get<transport::HttpRequest>(made);
  DeliveryLedger& delivery = of(lane).delivery;
  const std::uint64_t id = next_flight_++;
  const bool is_retry = job.attempts > 1;
  const std::size_t body_bytes = request.body.size();
  auto flight = flights_.end();
  try {
    flight = flights_.try_emplace(id).first;
    flight->second.lane = lane;
    flight->second.pace = pace;
    flight->second.job = std::move(job);
    parts_.http->start(id, std::move(request), parts_.request_timeout);
  } catch (const std::bad_alloc&) {
    if (flight != flights_.end()) {
      job = std::move(flight->second.job);
      flights_.erase(flight);
    }
    return settle(lane, std::move(job), out_of_memory(), pace, now);
  }
  if (flight->second.job.stored != nullptr) flight->second.job.stored->busy = true;
  ++lanes_[lane].in_flight;
  delivery.requests.fetch_add(1, std::memory_order_relaxed);
  if (is_retry) delivery.retries.fetch_add(1, std::memory_order_relaxed);
  delivery.bytes.fetch_add(body_bytes, std::memory_order_relaxed);
}

void Sender::settle(std::size_t lane, Job job, const Outcome& outcome, std::uint64_t pace,
                    SteadyTime now) {
  using Next = Outcome::Next;
  if (job.stored != nullptr) job.stored->busy = false;
  account(job, outcome.delivered, outcome.dropped, outcome.cause);
  report(outcome.message);
  if (outcome.failure == Failure::throttled)
    of(lane).delivery.throttles.fetch_add(1, std::memory_order_relaxed);
  if (outcome.delivered != 0) of(lane).health.succeeded(now, of(lane).lost());
  if (outcome.failure != Failure::none) {
    try {
      of(lane).health.failed(now, outcome.message);
    } catch (const std::bad_alloc&) {  // Health goes by the next one.
    }
  }
  Lane& destination = lanes_[lane];
  if (outcome.next == Next::finished || outcome.next == Next::split) {
    // It answers. What it says of this payload does not slow the others down.
    destination.quota.succeeded(std::exchange(destination.paid, 0));
    destination.failures = 0;
    ++destination.successes;
  }
  switch (outcome.next) {
    case Next::finished:
      return finish(std::move(job));
    case Next::again:
      if (parts_.exporters[lane]->uses_http()) {
        --job.attempts;
      } else {
        job.not_before = now + milliseconds(1);
      }
      return put_back(lane, std::move(job));
    case Next::wait:
      --job.attempts;
      job.not_before = now + wait_again;
      return put_back(lane, std::move(job));
    case Next::retry:
      if (outcome.sign_again && !job.signed_again) {
        job.signed_again = true;
        --job.attempts;
        return put_back(lane, std::move(job));
      }
      if (!outcome.left.empty()) keep_items(*job.payload, outcome.left);
      if (pace == destination.pace) slow_down(destination, outcome, now);
      if (outcome.of_preparation) --job.attempts;
      return retry(lane, std::move(job), outcome, now);
    case Next::split:
      return split(lane, std::move(job), outcome);
  }
}

void Sender::slow_down(Lane& lane, const Outcome& outcome, SteadyTime now) {
  ++lane.pace;
  ++lane.failures;
  milliseconds wait = transport::backoff(outcome.failure, lane.failures, parts_.draw(),
                                         outcome.asked, outcome.asked_excess_max);
  lane.paid = 0;
  if (lane.quota.take(outcome.failure)) {
    lane.paid = transport::RetryQuota::cost(outcome.failure);
  } else {
    // Used up: as slow as after throttling, and without luck.
    wait = std::max(wait, transport::backoff(Failure::throttled, lane.failures, 1, {}));
  }
  lane.not_before = now + wait;
}

void Sender::retry(std::size_t lane, Job job, const Outcome& outcome, SteadyTime now) {
  job.refusals = outcome.failure == Failure::credentials ? job.refusals + 1 : 0;
  // What is on disk is tried until it is delivered or too old.
  const bool spent = parts_.attempts_max > 0 && !job.payload->recovered &&
                     (job.attempts >= parts_.attempts_max || job.refusals >= refusals_max);
  const bool may_wait_for_disk = spent || (is_down(lane) && !is_ending());
  if (job.stored == nullptr && may_wait_for_disk && !store_and_keep(lane, job) && spent) {
    // What is left of a request that was taken has failed for itself, not for its cause.
    account(job, 0, job.unaccounted,
            outcome.left.empty() ? outcome.cause : DropCause::retries_exhausted);
    return finish(std::move(job));
  }
  if (job.stored != nullptr && job.stored->entry.expires <= now) {
    account(job, 0, job.unaccounted, DropCause::expired);
    return finish(std::move(job));
  }
  if (outcome.uncertain) {
    of(lane).delivery.uncertain_records.fetch_add(job.unaccounted, std::memory_order_relaxed);
  }
  job.cause = outcome.failure == Failure::credentials ? DropCause::unauthorised
                                                      : DropCause::shutdown_deadline;
  // A throttled or refused request says nothing of what is in it.
  if (outcome.failure == Failure::transient && !outcome.of_preparation &&
      parts_.exporters[lane]->uses_http()) {
    const std::uint64_t successes = lanes_[lane].successes;
    if (job.attempts > 1 && successes != job.successes_seen) ++job.fails_while_ok;
    job.successes_seen = successes;
    const bool may_split = job.payload->items.size() > 1;
    if (job.fails_while_ok >= (may_split ? suspect_failures : poison_failures_max)) {
      job.fails_while_ok = 0;
      return split(lane, std::move(job), outcome);
    }
    // Its own wait, so that a bad one does not hold back those that are taken.
    if (job.fails_while_ok > 0) {
      job.not_before = now + transport::backoff(outcome.failure, job.attempts, parts_.draw(), {});
    }
  }
  put_back(lane, std::move(job));
}

void Sender::put_back(std::size_t lane, Job job) noexcept {
  std::deque<Job>& waiting = lanes_[lane].waiting;
  const bool stored = job.stored != nullptr;
  auto place = waiting.begin();
  if (stored) {
    // The first, but behind those of the same file that come before it.
    for (auto other = place; other != waiting.end() && other->stored != nullptr; ++other) {
      if (other->stored == job.stored && other->stored_from < job.stored_from) place = other + 1;
    }
  } else {
    place = std::find_if(waiting.begin(), waiting.end(), [&](const Job& other) {
      return other.stored == nullptr && other.payload->sequence >= job.payload->sequence;
    });
  }
  try {
    *waiting.emplace(place) = std::move(job);
  } catch (const std::bad_alloc&) {
    std::vector<Job>& unplaced = lanes_[lane].unplaced;
    if (unplaced.size() < unplaced.capacity()) return unplaced.push_back(std::move(job));
    if (stored) return;  // It stays on disk, held.
    if (job.payload->recovered) {
      parts_.ledger.keep_recovered(job.payload->signal);
    }
    account(job, 0, job.unaccounted, DropCause::no_memory);
    finish(std::move(job));
  }
}

void Sender::place_unplaced(std::size_t lane) noexcept {
  std::vector<Job>& unplaced = lanes_[lane].unplaced;
  // Those for which there is still no memory go round, and keep their order.
  for (std::size_t left = unplaced.size(); left > 0; --left) {
    Job job = std::move(unplaced.front());
    unplaced.erase(unplaced.begin());
    put_back(lane, std::move(job));
  }
}

// Of all that is left of a destination, the first in the order of sealing. Takes no memory.
std::optional<Sender::Job> Sender::take_oldest(std::size_t lane) noexcept {
  Lane& from = lanes_[lane];
  Job* oldest = nullptr;
  const auto look_at = [&](Job& job) {
    const bool is_older = oldest == nullptr || job.payload->sequence < oldest->payload->sequence;
    if (is_older) oldest = &job;
    return is_older;
  };
  if (!from.waiting.empty()) look_at(from.waiting.front());
  auto unplaced = from.unplaced.end();
  for (auto job = from.unplaced.begin(); job != from.unplaced.end(); ++job) {
    if (look_at(*job)) unplaced = job;
  }
  auto flight = flights_.end();
  for (auto one = flights_.begin(); one != flights_.end(); ++one) {
    if (one->second.lane == lane && look_at(one->second.job)) flight = one;
  }
  if (oldest == nullptr) return std::nullopt;
  std::optional<Job> taken(std::move(*oldest));
  if (flight != flights_.end()) {
    flights_.erase(flight);
  } else if (unplaced != from.unplaced.end()) {
    from.unplaced.erase(unplaced);
  } else {
    from.waiting.pop_front();
  }
  return taken;
}

void Sender::split(std::size_t lane, Job job, const Outcome& outcome) {
  const std::size_t items = job.payload->items.size();
  if (items <= 1 || job.splits_left == 0) {
    account(job, 0, job.unaccounted, outcome.cause);
    return finish(std::move(job));
  }
  // The second half, copied; the first keeps the payload, and with it the bytes of the budget.
  std::unique_ptr<Payload> half;
  try {
    half = std::make_unique<Payload>(job.payload->items.get_allocator().resource());
    half->signal = job.payload->signal;
    half->recovered = job.payload->recovered;
    half->sequence = job.payload->sequence;
    for (std::size_t i = items / 2; i < items; ++i) {
      const PayloadItem& item = job.payload->items[i];
      const std::size_t offset = half->bytes.size();
      half->bytes.append(job.payload->item(item));
      half->end_item(offset, item.records, item.time_ms, item.id);
    }
  } catch (const std::bad_alloc&) {  // As it is, once more.
    return put_back(lane, std::move(job));
  }
  job.payload->items.resize(items / 2, PayloadItem{});
  Job second;
  second.since = job.since;
  second.unaccounted = half->records();
  second.splits_left = (job.splits_left - 1) / 2;
  if (job.stored != nullptr) {
    second.stored_items = half->items.size();
    second.stored_records = second.unaccounted;
    job.stored_items -= second.stored_items;
    job.stored_records -= second.stored_records;
    second.stored_from = job.stored_from + job.stored_items;
  }
  second.payload = std::move(half);
  second.stored = job.stored;
  job.unaccounted -= second.unaccounted;
  job.splits_left = (job.splits_left - 1) - second.splits_left;
  job.attempts = job.failing_answers = 0;
  if (job.stored != nullptr) {
    ++job.stored->parts;
  } else {
    ++lanes_[lane].unsettled[job.payload->sequence - lanes_[lane].first_unsettled];
  }
  put_back(lane, std::move(second));
  put_back(lane, std::move(job));
}

void Sender::account(Job& job, std::uint64_t delivered, std::uint64_t dropped, DropCause cause) {
  const Signal signal = job.payload->signal;
  delivered = std::min(delivered, job.unaccounted);
  dropped = std::min(dropped, job.unaccounted - delivered);
  job.unaccounted -= delivered + dropped;
  SignalLedger& ledger = parts_.ledger.of(signal);
  if (job.stored != nullptr) {
    ledger.spooled.fetch_sub(delivered + dropped, std::memory_order_relaxed);
  }
  ledger.delivered.fetch_add(delivered, std::memory_order_relaxed);
  if (dropped != 0) parts_.ledger.drop_in_queue(signal, cause, dropped);
}

void Sender::finish(Job job) {
  assert(job.unaccounted == 0);
  const Signal signal = job.payload->signal;
  const std::uint64_t sequence = job.payload->sequence;
  if (job.stored != nullptr) finish_stored(job);
  const bool in_memory = job.stored == nullptr;
  parts_.outbox.give_back(std::move(job.payload));
  if (in_memory) finish_in_memory(signal, sequence);
}

void Sender::finish_in_memory(Signal signal, std::uint64_t sequence) {
  Lane& lane = lanes_[static_cast<std::size_t>(signal)];
  --lane.unsettled[sequence - lane.first_unsettled];
  const std::uint64_t before = lane.first_unsettled;
  while (!lane.unsettled.empty() && lane.unsettled.front() == 0) {
    lane.unsettled.pop_front();
    lane.settled.store(lane.first_unsettled++, std::memory_order_release);
  }
  if (lane.first_unsettled == before) return;
  settlements_ += lane.first_unsettled - before;
  if (parts_.on_settled) parts_.on_settled(signal, lane.first_unsettled - 1);
}

void Sender::abandon(SteadyTime until) {
  parts_.http->cancel_all();
  completions_.clear();
  if (parts_.spool != nullptr) parts_.spool->defer_sync();
  for (const auto& [id, flight] : flights_) {
    // Stored below, they are sent again by who comes next.
    if (uses_spool(flight.lane)) {
      of(flight.lane)
          .delivery.uncertain_records.fetch_add(flight.job.unaccounted, std::memory_order_relaxed);
    }
  }
  do {
    for (std::size_t i = 0; i < lanes_.size(); ++i) {
      lanes_[i].in_flight = 0;
      while (std::optional<Job> job = take_oldest(i)) {
        give_up(i, std::move(*job), parts_.clock->steady() < until);
      }
    }
    receive();
  } while (std::any_of(lanes_.begin(), lanes_.end(),
                       [](const Lane& lane) { return !lane.waiting.empty(); }));
  if (parts_.spool != nullptr) parts_.spool->sync_deferred(until);
}

// ---- The spool ----

bool Sender::uses_spool(std::size_t lane) const noexcept {
  return parts_.spool != nullptr && parts_.exporters[lane] != nullptr &&
         parts_.exporters[lane]->uses_http();
}

bool Sender::is_down(std::size_t lane) const noexcept {
  return lanes_[lane].failures >= failures_down;
}

// A file knows items, not parts of their records.
bool Sender::can_store(std::size_t lane, const Job& job) const noexcept {
  return uses_spool(lane) && job.stored == nullptr && job.unaccounted == job.payload->records();
}

// The payload behind the others on disk, and out of memory.
bool Sender::store(std::size_t lane, Job& job) noexcept {
  if (!can_store(lane, job)) return false;
  try {
    parts_.exporters[lane]->arrange(*job.payload);
    if (!parts_.spool->put(*job.payload)) return false;
  } catch (const std::bad_alloc&) {  // It goes on in memory.
    return false;
  }
  const std::uint64_t sequence = job.payload->sequence;
  parts_.outbox.give_back(std::move(job.payload));
  finish_in_memory(static_cast<Signal>(lane), sequence);
  return true;
}

// The payload on disk, and here too, where it goes on with its attempts.
bool Sender::store_and_keep(std::size_t lane, Job& job) noexcept {
  if (!can_store(lane, job)) return false;
  try {
    auto stored = std::make_shared<Stored>();
    parts_.exporters[lane]->arrange(*job.payload);
    auto entry = parts_.spool->put_taken(*job.payload);
    if (!entry) return false;
    stored->entry = std::move(*entry);
    job.stored = std::move(stored);
    job.stored_items = job.payload->items.size();
    job.stored_records = job.payload->records();
  } catch (const std::bad_alloc&) {  // It goes on in memory.
    return false;
  }
  parts_.outbox.release(std::exchange(job.payload->charged_bytes, 0), job.payload->signal);
  finish_in_memory(job.payload->signal, job.payload->sequence);
  return true;
}

bool Sender::store_waiting() {
  const bool near = static_cast<double>(parts_.outbox.bytes()) >
                    memory_near * static_cast<double>(parts_.outbox.bytes_max());
  int left = store_max;
  for (std::size_t i = 0; i < lanes_.size(); ++i) {
    if (!uses_spool(i) || (!near && !is_down(i))) continue;
    std::deque<Job>& waiting = lanes_[i].waiting;
    auto job = std::find_if(waiting.begin(), waiting.end(),
                            [](const Job& one) { return one.stored == nullptr; });
    while (job != waiting.end() && left > 0 && !is_ending() && store(i, *job)) {
      job = waiting.erase(job);
      --left;
    }
  }
  return left == 0;
}

void Sender::load_next(std::size_t lane) {
  const std::deque<Job>& waiting = lanes_[lane].waiting;
  if (waiting.empty() || waiting.front().stored == nullptr) load(lane);
}

bool Sender::load(std::size_t lane) {
  // Room for it first: what is taken is no longer the spool's to give.
  std::deque<Job>& waiting = lanes_[lane].waiting;
  Job made;
  made.stored = std::make_shared<Stored>();
  const auto job =
      waiting.insert(std::find_if(waiting.begin(), waiting.end(),
                                  [](const Job& other) { return other.stored == nullptr; }),
                     std::move(made));
  std::optional<Spool::Loaded> loaded;
  try {
    loaded = parts_.spool->take(static_cast<Signal>(lane));
  } catch (const std::bad_alloc&) {  // There is another time.
  }
  if (!loaded) {
    waiting.erase(job);
    return false;
  }
  job->stored->entry = std::move(loaded->entry);
  job->payload = std::move(loaded->payload);
  job->unaccounted = job->payload->records();
  job->stored_items = job->payload->items.size();
  job->stored_records = job->unaccounted;
  job->splits_left = splits_max;
  job->since = parts_.spool->stored_since(job->stored->entry);
  return true;
}

// All of the job is accounted: its part of the file is done.
void Sender::finish_stored(Job& job) {
  Stored& stored = *job.stored;
  if (--stored.parts == 0) return parts_.spool->remove(stored.entry);
  parts_.spool->settled(stored.entry, job.stored_items, job.stored_records);
}

void Sender::give_up(std::size_t lane, Job job, bool may_store) {
  if (job.stored != nullptr) return;  // It stays on disk, held.
  if (may_store && store(lane, job)) return;
  if (job.payload->recovered) {  // The same, in crash_dir.
    of(lane).spooled.fetch_add(job.unaccounted, std::memory_order_relaxed);
    return;
  }
  account(job, 0, job.unaccounted, job.cause);
  finish(std::move(job));
}

void Sender::report(std::string_view message) noexcept try {
  if (!message.empty()) parts_.diagnostic(message);
} catch (const std::bad_alloc&) {  // Nobody hears of it.
}

}  // namespace spillway::detail
