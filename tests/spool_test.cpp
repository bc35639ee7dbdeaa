// SPDX-License-Identifier: Apache-2.0
//
// The spool on a disk that fails, crashes and loses its power at every call in turn. An oracle outside
// of it knows which payloads have to be there afterwards and which may be.
#include <cerrno>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <support/memory_disk.hpp>
#include <support/seed.hpp>

#include <spillway/engine/spool.hpp>
#include <spillway/engine/testing.hpp>

namespace spillway::detail {
namespace {

using namespace std::chrono_literals;
using testing::MemoryDisk;

constexpr std::size_t cause(DropCause which) { return static_cast<std::size_t>(which); }

/// A payload whose items prove themselves: "<name>/<index>", each `records` records.
std::unique_ptr<Payload> make_payload(const std::string& name, int items,
                                      Signal signal = Signal::logs, std::uint64_t records = 10) {
  auto payload = std::make_unique<Payload>(std::pmr::get_default_resource());
  payload->signal = signal;
  for (int i = 0; i < items; ++i) {
    const std::size_t offset = payload->bytes.size();
    payload->bytes.append(name + "/" + std::to_string(i));
    payload->end_item(offset, records, 1000 + i, static_cast<std::uint64_t>(i));
  }
  return payload;
}

std::vector<std::string> items_of(const Payload& payload) {
  std::vector<std::string> items;
  for (const PayloadItem& item : payload.items) items.emplace_back(payload.item(item));
  return items;
}

/// What one process has: a spool, its ledger and its clock.
struct Process {
  explicit Process(std::shared_ptr<transport::Disk> disk, std::uint64_t bytes_max = 1 << 20,
                   std::chrono::milliseconds age_max = 1h)
      : spool({std::move(disk),
               clock,
               ledger,
               "/spool",
               "orders",
               {"put-metric-data", "put-log-events", ""},
               bytes_max,
               age_max,
               [this](std::string_view text) { diagnostics.emplace_back(text); }}) {
    spool.tend();
  }
  std::uint64_t dropped(DropCause which, Signal signal = Signal::logs) {
    return ledger.of(signal).dropped_in_queue[cause(which)];
  }
  std::uint64_t held(Signal signal = Signal::logs) { return ledger.of(signal).spooled; }
  /// Takes and removes everything there is.
  std::vector<std::string> drain(Signal signal = Signal::logs) {
    std::vector<std::string> all;
    while (auto loaded = spool.take(signal)) {
      for (std::string& item : items_of(*loaded->payload)) all.push_back(std::move(item));
      ledger.of(signal).spooled -= loaded->payload->records();
      spool.remove(loaded->entry);
    }
    return all;
  }

  std::shared_ptr<testing::ManualClock> clock = std::make_shared<testing::ManualClock>();
  Ledger ledger;
  std::vector<std::string> diagnostics;
  Spool spool;
};

class SpoolTest : public ::testing::Test {
 protected:
  std::shared_ptr<MemoryDisk> disk = std::make_shared<MemoryDisk>();
};

TEST_F(SpoolTest, PayloadsComeBackAsTheyWereInTheirOrder) {
  Process process(disk);
  ASSERT_TRUE(process.spool.put(*make_payload("a", 2)));
  ASSERT_TRUE(process.spool.put(*make_payload("b", 1)));
  ASSERT_TRUE(process.spool.put(*make_payload("m", 1, Signal::metrics)));
  EXPECT_EQ(process.held(), 30U);
  const auto first = process.spool.take(Signal::logs);
  ASSERT_TRUE(first);
  const Payload& payload = *first->payload;
  ASSERT_EQ(items_of(payload), (std::vector<std::string>{"a/0", "a/1"}));
  EXPECT_EQ(payload.signal, Signal::logs);
  EXPECT_EQ(payload.items[1].records, 10U);
  EXPECT_EQ(payload.items[1].time_ms, 1001);
  EXPECT_EQ(payload.items[1].id, 1U);
  process.spool.remove(first->entry);
  EXPECT_EQ(process.drain(), std::vector<std::string>{"b/0"});
  EXPECT_EQ(process.drain(Signal::metrics), std::vector<std::string>{"m/0"});
  EXPECT_TRUE(disk->files().empty());
}

TEST_F(SpoolTest, ASignalThatGoesNowhereIsNotStored) {
  Process process(disk);
  EXPECT_FALSE(process.spool.put(*make_payload("s", 1, Signal::spans)));
}

TEST_F(SpoolTest, TheNextProcessAccountsForWhatItFinds) {
  {
    Process process(disk);
    ASSERT_TRUE(process.spool.put(*make_payload("a", 3)));
    ASSERT_TRUE(process.spool.put(*make_payload("b", 1)));
  }
  Process next(disk);
  const SignalLedger& logs = next.ledger.of(Signal::logs);
  EXPECT_EQ(logs.recovered, 40U);
  EXPECT_EQ(logs.taken(), 40U);
  EXPECT_EQ(logs.sealed, 40U);
  EXPECT_EQ(next.held(), 40U);
  EXPECT_EQ(next.drain(), (std::vector<std::string>{"a/0", "a/1", "a/2", "b/0"}));
}

// Then it takes no longer for a gigabyte than for a kilobyte: bench/spool.cpp measures it.
TEST_F(SpoolTest, OpeningABacklogReadsNamesOnly) {
  {
    Process process(disk);
    for (int i = 0; i < 1000; ++i) ASSERT_TRUE(process.spool.put(*make_payload("a", 1)));
  }
  const std::uint64_t before = disk->calls();
  Process next(disk);
  EXPECT_EQ(next.held(), 10'000U);
  EXPECT_LT(disk->calls() - before, 10U);
}

TEST_F(SpoolTest, TwoEnginesHaveABoxEachAndOneTakesOverFromTheOther) {
  Process first(disk);
  auto second = std::make_unique<Process>(disk);
  ASSERT_TRUE(first.spool.put(*make_payload("first", 1)));
  ASSERT_TRUE(second->spool.put(*make_payload("second", 1)));
  EXPECT_EQ(disk->files().size(), 2U);
  first.clock->advance(61s);
  first.spool.tend();
  EXPECT_EQ(first.held(), 10U) << "the other one lives";
  second.reset();
  first.clock->advance(61s);
  first.spool.tend();
  EXPECT_EQ(first.held(), 20U);
  EXPECT_EQ(first.ledger.of(Signal::logs).recovered, 10U);
  EXPECT_EQ(first.drain().size(), 2U);
  first.clock->advance(1s);
  first.spool.tend();
  first.clock->advance(61s);
  first.spool.tend();
  // Its box is free again.
  Process third(disk);
  ASSERT_TRUE(third.spool.put(*make_payload("third", 1)));
  EXPECT_EQ(disk->files()[0].first.rfind("/spool/orders.1/", 0), 0U) << disk->files()[0].first;
}

TEST_F(SpoolTest, AnotherServicesPayloadsAreNotTouched) {
  {
    Process process(disk);
    ASSERT_TRUE(process.spool.put(*make_payload("a", 1)));
  }
  Ledger ledger;
  auto clock = std::make_shared<testing::ManualClock>();
  Spool other({disk,
               clock,
               ledger,
               "/spool",
               "orders.0",
               {"", "put-log-events", ""},
               1 << 20,
               1h,
               [](std::string_view) {}});
  other.tend();
  EXPECT_EQ(ledger.of(Signal::logs).recovered, 0U);
  EXPECT_TRUE(other.empty(Signal::logs));
}

TEST_F(SpoolTest, PayloadsOfAnotherDestinationStayUntilTheyAreTooOld) {
  {
    Process process(disk);
    ASSERT_TRUE(process.spool.put(*make_payload("a", 1)));
  }
  const auto open = [&](std::chrono::milliseconds age, std::vector<std::string>& diagnostics) {
    Ledger ledger;
    auto clock = std::make_shared<testing::ManualClock>();
    clock->advance(10min);
    Spool other({disk,
                 clock,
                 ledger,
                 "/spool",
                 "orders",
                 {"", "otlp", ""},
                 1 << 20,
                 age,
                 [&](std::string_view text) { diagnostics.emplace_back(text); }});
    other.tend();
    const std::uint64_t expired =
        ledger.of(Signal::logs).dropped_in_queue[cause(DropCause::expired)];
    EXPECT_EQ(ledger.of(Signal::logs).recovered, expired);
    return expired;
  };
  std::vector<std::string> diagnostics;
  EXPECT_EQ(open(1h, diagnostics), 0U);
  EXPECT_EQ(disk->files().size(), 1U);
  ASSERT_EQ(diagnostics.size(), 1U);
  EXPECT_NE(diagnostics[0].find("1 payloads are for destinations that are not configured"),
            std::string::npos);
  EXPECT_EQ(open(5min, diagnostics), 10U);
  EXPECT_TRUE(disk->files().empty());
}

TEST_F(SpoolTest, PayloadsOfAnotherDestinationAreWithinTheBounds) {
  {
    Process process(disk);
    ASSERT_TRUE(process.spool.put(*make_payload("a", 1)));
    process.clock->advance(1s);
    ASSERT_TRUE(process.spool.put(*make_payload("b", 1)));
  }
  Ledger ledger;
  auto clock = std::make_shared<testing::ManualClock>();
  clock->advance(1s);
  Spool other(
      {disk, clock, ledger, "/spool", "orders", {"", "otlp", ""}, 250, 1h, [](std::string_view) {
       }});
  other.tend();
  const SignalLedger& logs = ledger.of(Signal::logs);
  EXPECT_EQ(logs.recovered, 0U);
  ASSERT_TRUE(other.put(*make_payload("c", 1)));
  EXPECT_EQ(logs.dropped_in_queue[cause(DropCause::spool_full)], 10U) << "the oldest made room";
  EXPECT_EQ(disk->files().size(), 2U);
  clock->advance(1h - 1s);
  other.tend();
  EXPECT_EQ(logs.dropped_in_queue[cause(DropCause::expired)], 0U);
  clock->advance(1s);
  other.tend();
  EXPECT_EQ(logs.dropped_in_queue[cause(DropCause::expired)], 20U) << "without a new start";
  EXPECT_EQ(logs.recovered, 20U);
  EXPECT_EQ(logs.spooled, 0U);
  EXPECT_TRUE(disk->files().empty());
}

TEST_F(SpoolTest, WhatCannotBeDeletedIsNotSentAgain) {
  Process process(disk);
  {
    Process gone(disk);
    ASSERT_TRUE(gone.spool.put(*make_payload("a", 1)));
  }
  process.clock->advance(61s);
  process.spool.tend();
  disk->set_undeletable(EROFS);
  EXPECT_EQ(process.drain(), std::vector<std::string>{"a/0"});
  for (int minutes = 0; minutes < 3; ++minutes) {
    process.clock->advance(61s);
    process.spool.tend();
    EXPECT_EQ(process.drain(), std::vector<std::string>{});
  }
  EXPECT_EQ(process.ledger.of(Signal::logs).recovered, 10U);
  disk->set_undeletable(0);
  process.clock->advance(61s);
  process.spool.tend();
  EXPECT_TRUE(disk->files().empty());
}

TEST_F(SpoolTest, TheOldestMakeRoom) {
  Process process(disk, 600);
  for (const char* const name : {"a", "b", "c", "d", "e", "f"}) {
    process.clock->advance(1ms);
    ASSERT_TRUE(process.spool.put(*make_payload(name, 1)));
  }
  // 72 + 32 + 3 bytes each.
  EXPECT_EQ(process.dropped(DropCause::spool_full), 10U);
  EXPECT_EQ(process.held(), 50U);
  EXPECT_EQ(process.drain(), (std::vector<std::string>{"b/0", "c/0", "d/0", "e/0", "f/0"}));
  EXPECT_FALSE(process.spool.put(*make_payload(std::string(1000, 'x'), 1)))
      << "larger than all of it";
}

TEST_F(SpoolTest, WhatIsUnderWayDoesNotMakeRoom) {
  Process process(disk, 250);
  ASSERT_TRUE(process.spool.put(*make_payload("a", 1)));
  ASSERT_TRUE(process.spool.put(*make_payload("b", 1)));
  const auto a = process.spool.take(Signal::logs);
  const auto b = process.spool.take(Signal::logs);
  EXPECT_FALSE(process.spool.put(*make_payload("c", 1)));
  process.spool.remove(a->entry);
  EXPECT_TRUE(process.spool.put(*make_payload("c", 1)));
  EXPECT_EQ(process.dropped(DropCause::spool_full), 0U);
}

TEST_F(SpoolTest, TheOldExpire) {
  Process process(disk, 1 << 20, 60s);
  ASSERT_TRUE(process.spool.put(*make_payload("a", 1)));
  process.clock->advance(30s);
  ASSERT_TRUE(process.spool.put(*make_payload("b", 1)));
  process.clock->advance(30s);
  process.spool.tend();
  EXPECT_EQ(process.dropped(DropCause::expired), 10U);
  EXPECT_EQ(process.drain(), std::vector<std::string>{"b/0"});
}

TEST_F(SpoolTest, AgeGoesOnInTheNextProcess) {
  {
    Process process(disk, 1 << 20, 60s);
    ASSERT_TRUE(process.spool.put(*make_payload("a", 1)));
  }
  Process next(disk, 1 << 20, 60s);
  next.clock->advance(59s);
  next.spool.tend();
  EXPECT_EQ(next.held(), 10U);
  next.clock->advance(1s);
  next.spool.tend();
  EXPECT_EQ(next.dropped(DropCause::expired), 10U);
}

TEST_F(SpoolTest, AStepOfTheWallClockMakesNothingOlder) {
  Process process(disk, 1 << 20, 60s);
  ASSERT_TRUE(process.spool.put(*make_payload("a", 1)));
  process.clock->step_wall(30 * 24h);
  process.spool.tend();
  EXPECT_EQ(process.held(), 10U);
  process.clock->step_wall(-60 * 24h);
  ASSERT_TRUE(process.spool.put(*make_payload("b", 1)));
  process.spool.tend();
  EXPECT_EQ(process.drain(), (std::vector<std::string>{"a/0", "b/0"}));
}

TEST_F(SpoolTest, HowFarAPayloadIsOutlivesTheProcess) {
  {
    Process process(disk);
    ASSERT_TRUE(process.spool.put(*make_payload("a", 4)));
    auto loaded = process.spool.take(Signal::logs);
    process.spool.settled(loaded->entry, 3, 30);
  }
  Process next(disk);
  EXPECT_EQ(next.held(), 10U);
  EXPECT_EQ(next.drain(), std::vector<std::string>{"a/3"});
}

TEST_F(SpoolTest, AFullDiskMeansMemoryForASecondAtATime) {
  Process process(disk);
  ASSERT_TRUE(process.spool.put(*make_payload("a", 1)));
  disk->set_full(true);
  EXPECT_FALSE(process.spool.put(*make_payload("b", 1)));
  ASSERT_FALSE(process.diagnostics.empty());
  EXPECT_NE(process.diagnostics.back().find("No space left on device"), std::string::npos);
  const std::uint64_t calls = disk->calls();
  EXPECT_FALSE(process.spool.put(*make_payload("b", 1)));
  EXPECT_EQ(disk->calls(), calls) << "left alone";
  // Deleting needs no room.
  EXPECT_EQ(process.drain(), std::vector<std::string>{"a/0"});
  EXPECT_TRUE(disk->files().empty());
  disk->set_full(false);
  process.clock->advance(1s);
  process.spool.tend();
  EXPECT_TRUE(process.spool.put(*make_payload("b", 1)));
}

TEST_F(SpoolTest, ADiskThatIsBrokenAtTheStartIsTriedAgain) {
  disk->set_broken(EROFS);
  Process process(disk);
  EXPECT_FALSE(process.spool.put(*make_payload("a", 1)));
  disk->set_broken(0);
  process.clock->advance(1s);
  process.spool.tend();
  EXPECT_TRUE(process.spool.put(*make_payload("a", 1)));
}

TEST_F(SpoolTest, ADirectoryThatIsDeletedWhileInUseIsMadeAnew) {
  Process process(disk);
  ASSERT_TRUE(process.spool.put(*make_payload("a", 1)));
  disk->remove_everything();
  EXPECT_FALSE(process.spool.put(*make_payload("b", 1)));
  EXPECT_FALSE(process.spool.take(Signal::logs).has_value());
  EXPECT_EQ(process.dropped(DropCause::spool_damaged), 10U);
  process.clock->advance(1s);
  process.spool.tend();
  EXPECT_TRUE(process.spool.put(*make_payload("b", 1)));
  EXPECT_EQ(process.drain(), std::vector<std::string>{"b/0"});
}

// Every byte flipped, and every length cut: what is intact comes out, what is not is counted, and the
// start succeeds.
TEST_F(SpoolTest, DamageCostsWhatItHits) {
  const auto fill = [this] {
    disk = std::make_shared<MemoryDisk>();
    Process process(disk);
    ASSERT_TRUE(process.spool.put(*make_payload("abc", 3)));
    ASSERT_TRUE(process.spool.put(*make_payload("next", 1)));
  };
  fill();
  const std::string intact = *disk->files()[0].second;
  const std::size_t text_begins = sizeof(SpoolHeader) + 3 * sizeof(SpoolItem);
  ASSERT_EQ(intact.size(), text_begins + 3 * 5);
  const std::vector<std::string> texts{"abc/0", "abc/1", "abc/2"};
  const auto check = [&](const std::string& damaged, const std::vector<std::string>& expected) {
    fill();
    *disk->files()[0].second = damaged;
    Process process(disk);
    std::vector<std::string> all = expected;
    all.push_back("next/0");
    EXPECT_EQ(process.drain(), all);
    EXPECT_EQ(process.dropped(DropCause::spool_damaged), 30U - 10U * expected.size());
    EXPECT_EQ(process.held(), 0U);
  };
  for (std::size_t at = 0; at < intact.size(); ++at) {
    SCOPED_TRACE("byte " + std::to_string(at));
    std::string flipped = intact;
    flipped[at] = static_cast<char>(flipped[at] ^ 0x20);
    std::vector<std::string> expected;
    if (at >= text_begins) {
      expected = texts;
      expected.erase(expected.begin() + static_cast<std::ptrdiff_t>((at - text_begins) / 5));
    }
    check(flipped, expected);
  }
  for (std::size_t length = 0; length < intact.size(); ++length) {
    SCOPED_TRACE("cut at " + std::to_string(length));
    std::vector<std::string> expected = texts;
    const std::size_t whole = length < text_begins ? 0 : (length - text_begins) / 5;
    expected.resize(whole);
    check(intact.substr(0, length), expected);
  }
}

TEST_F(SpoolTest, DamagedFilesAreSetAsideAndBoundedInNumber) {
  {
    Process process(disk);
    for (std::size_t i = 0; i < Spool::bad_files_max + 3; ++i) {
      ASSERT_TRUE(process.spool.put(*make_payload("a", 1)));
    }
  }
  for (const auto& [path, bytes] : disk->files()) bytes->front() = '?';
  Process process(disk);
  EXPECT_TRUE(process.drain().empty());
  EXPECT_EQ(process.dropped(DropCause::spool_damaged), 10U * (Spool::bad_files_max + 3));
  EXPECT_EQ(disk->files().size(), Spool::bad_files_max);
  for (const auto& [path, bytes] : disk->files()) {
    EXPECT_NE(path.find("/bad-"), std::string::npos) << path;
  }
}

TEST_F(SpoolTest, WhatWasSetAsideGoesWhenItIsTooOld) {
  {
    Process process(disk);
    ASSERT_TRUE(process.spool.put(*make_payload("a", 1)));
    disk->files().front().second->front() = '?';
    EXPECT_TRUE(process.drain().empty());
  }
  { const Process process(disk, 1 << 20, 1h); }
  EXPECT_EQ(disk->files().size(), 1U);
  { const Process process(disk, 1 << 20, 0ms); }
  EXPECT_TRUE(disk->files().empty());
}

TEST_F(SpoolTest, ADirectoryThatOthersMayChangeIsNamedAsTheReason) {
  disk->set_broken(EPERM);
  Process process(disk);
  ASSERT_EQ(process.diagnostics.size(), 1U);
  EXPECT_NE(process.diagnostics[0].find("a directory of this user's"), std::string::npos);
  EXPECT_FALSE(process.spool.put(*make_payload("a", 1)));
}

TEST_F(SpoolTest, NamesThatAreNoneOfOursAreLeftAlone) {
  {
    Process process(disk);
    ASSERT_TRUE(process.spool.put(*make_payload("a", 1)));
  }
  const auto handle = disk->open_directory(transport::Disk::no_parent, "/spool/orders.0");
  const std::string good = disk->files()[0].first.substr(sizeof("/spool/orders.0"));
  std::string upper = good;
  upper[15] = 'A';
  std::size_t strange = 0;
  for (const std::string& name :
       {std::string("README"), upper, good.substr(1), good + "-more", "x" + good,
        good.substr(0, good.size() - sizeof("put-log-events")), std::string(200, 'f')}) {
    ASSERT_GE(disk->create(handle, name), 0);
    ++strange;
  }
  disk->restart(false);
  Process process(disk);
  EXPECT_EQ(process.drain(), std::vector<std::string>{"a/0"});
  EXPECT_EQ(disk->files().size(), strange);
}

// ---- Every call ----

// A process with something of everything. What it knows of its payloads goes to the oracle.
struct Script {
  std::set<std::string> kept;       // acknowledged by the spool, and not asked to go
  std::set<std::string> uncertain;  // in the call during which the disk stopped

  void run(const std::shared_ptr<MemoryDisk>& disk) {
    Process process(disk);
    Spool& spool = process.spool;
    const auto put = [&](const std::string& name, int items) {
      if (disk->crashed()) return;
      const auto payload = make_payload(name, items);
      const bool stored = spool.put(*payload);
      for (std::string& item : items_of(*payload)) {
        if (disk->crashed()) {
          uncertain.insert(std::move(item));
        } else if (stored) {
          kept.insert(std::move(item));
        }
      }
    };
    const auto gone = [&](const std::vector<std::string>& items) {
      for (const std::string& item : items) {
        kept.erase(item);
        if (disk->crashed()) uncertain.insert(item);
      }
    };
    put("a", 2);
    put("b", 3);
    put("c", 1);
    for (int round = 0; round < 2 && !disk->crashed(); ++round) {
      auto loaded = spool.take(Signal::logs);
      if (!loaded || disk->crashed()) continue;
      const std::vector<std::string> items = items_of(*loaded->payload);
      if (round == 1 && items.size() > 1) {
        spool.settled(loaded->entry, 1, 10);
        gone({items[0]});
        if (!disk->crashed()) put("d", 1);
        if (disk->crashed()) break;
        spool.remove(loaded->entry);
        gone({items.begin() + 1, items.end()});
      } else {
        spool.remove(loaded->entry);
        gone(items);
      }
    }
    put("e", 2);
    for (int i = 0; i < 3 && !disk->crashed(); ++i) {
      process.clock->advance(1s);
      spool.tend();
    }
  }
};

std::uint64_t calls_of_script() {
  auto disk = std::make_shared<MemoryDisk>();
  Script().run(disk);
  return disk->calls();
}

std::vector<std::string> found_after(const std::shared_ptr<MemoryDisk>& disk, bool power_was_lost,
                                     std::uint64_t& damaged) {
  disk->restart(power_was_lost);
  Process next(disk);
  std::vector<std::string> found = next.drain();
  damaged = next.dropped(DropCause::spool_damaged);
  EXPECT_EQ(next.held(), 0U);
  EXPECT_EQ(next.ledger.of(Signal::logs).recovered, 10U * found.size() + damaged)
      << "every record of it is accounted";
  return found;
}

TEST(SpoolFaultTest, ACrashAtAnyCallLosesNothingAndRepeatsOnlyWhatWasUnderWay) {
  const std::uint64_t calls = calls_of_script();
  ASSERT_GT(calls, 40U);
  for (std::uint64_t call = 1; call <= calls; ++call) {
    SCOPED_TRACE("call " + std::to_string(call));
    auto disk = std::make_shared<MemoryDisk>();
    disk->set_fault(call, MemoryDisk::Fault::crash);
    Script script;
    script.run(disk);
    std::uint64_t damaged = 0;
    const std::vector<std::string> found = found_after(disk, false, damaged);
    const std::set<std::string> distinct(found.begin(), found.end());
    EXPECT_EQ(distinct.size(), found.size()) << "nothing twice";
    EXPECT_TRUE(std::is_sorted(found.begin(), found.end())) << "in order";
    for (const std::string& item : script.kept) EXPECT_TRUE(distinct.contains(item)) << item;
    for (const std::string& item : found) {
      EXPECT_TRUE(script.kept.contains(item) || script.uncertain.contains(item)) << item;
    }
  }
}

TEST(SpoolFaultTest, ALossOfPowerAtAnyCallLosesNothingThatWasAcknowledged) {
  const std::uint64_t calls = calls_of_script();
  for (std::uint64_t call = 1; call <= calls; ++call) {
    SCOPED_TRACE("call " + std::to_string(call));
    auto disk = std::make_shared<MemoryDisk>();
    disk->set_fault(call, MemoryDisk::Fault::crash);
    Script script;
    script.run(disk);
    std::uint64_t damaged = 0;
    const std::vector<std::string> found = found_after(disk, true, damaged);
    const std::set<std::string> distinct(found.begin(), found.end());
    EXPECT_EQ(distinct.size(), found.size()) << "nothing twice";
    for (const std::string& item : script.kept) EXPECT_TRUE(distinct.contains(item)) << item;
  }
}

TEST(SpoolFaultTest, AFailureOfAnyCallIsSurvivedAndLeavesNothingBehind) {
  const std::uint64_t calls = calls_of_script();
  for (const int error : {ENOSPC, EIO, EDQUOT, EMFILE, EACCES}) {
    for (std::uint64_t call = 1; call <= calls; ++call) {
      SCOPED_TRACE("call " + std::to_string(call) + ", errno " + std::to_string(error));
      auto disk = std::make_shared<MemoryDisk>();
      disk->set_fault(call, MemoryDisk::Fault::fail, error);
      Script script;
      script.run(disk);
      std::uint64_t damaged = 0;
      const std::vector<std::string> found = found_after(disk, false, damaged);
      std::set<std::string> distinct(found.begin(), found.end());
      EXPECT_EQ(distinct.size(), found.size()) << "nothing twice";
      for (const std::string& item : found) {
        // A step within a payload that could not be written down may be repeated.
        EXPECT_TRUE(script.kept.contains(item)) << item;
      }
    }
  }
}

}  // namespace
}  // namespace spillway::detail
