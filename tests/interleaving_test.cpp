// SPDX-License-Identifier: Apache-2.0
//
// The protocols of the ring and of the gate, proved for small cases: the library's own code runs
// through every interleaving and every weakly ordered read that C++ allows
// (support/weak_memory.hpp). And the proof is proved: with each memory order and each fence
// weakened, some case fails.
//
// SPILLWAY_WEAKEN=NAME weakens one in all cases, to see the case that fails: ring_commit, ...
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>
#include <support/weak_memory.hpp>

#include <spillway/buffers/gate.hpp>
#include <spillway/buffers/ring.hpp>

namespace spillway::detail {
namespace {

using testing::Fences;
using testing::Model;
using testing::WeakMemory;
using testing::WeakMemoryWithoutFences;

constexpr std::pair<const char*, Access> names[] = {
    {"ring_commit", Access::ring_commit},
    {"ring_skip", Access::ring_skip},
    {"ring_observe", Access::ring_observe},
    {"ring_release_step", Access::ring_release_step},
    {"ring_release_end", Access::ring_release_end},
    {"ring_reuse", Access::ring_reuse},
    {"gate_enter", Access::gate_enter},
    {"gate_load_bank", Access::gate_load_bank},
    {"gate_load_id", Access::gate_load_id},
    {"gate_leave", Access::gate_leave},
    {"gate_swap", Access::gate_swap},
    {"gate_close", Access::gate_close},
    {"gate_observe", Access::gate_observe},
    {"light_fence", Access::light_fence},
    {"full_fence", Access::full_fence},
    {"heavy_fence", Access::heavy_fence},
};

std::optional<Access> weakened_by_environment() {
  const char* const wanted = std::getenv("SPILLWAY_WEAKEN");
  if (wanted == nullptr) return std::nullopt;
  for (const auto& [name, access] : names) {
    if (std::string_view(name) == wanted) return access;
  }
  ADD_FAILURE() << "SPILLWAY_WEAKEN: there is no access \"" << wanted << '"';
  return std::nullopt;
}

// ---- The ring ----

/// A ring of the smallest size, and what went in and came out.
struct RingCase {
  explicit RingCase(Model& its_model) : model(its_model) {
    ring.attach(storage, BasicRing<>::capacity_min);
  }

  void push(std::uint32_t bytes) {
    const auto room = ring.reserve(bytes, true);
    if (!room) return;
    std::byte* const at = room.at;
    const RecordHeader header{RecordHeader::pack(bytes, RecordKind::log), pushed + 1, 0};
    WeakMemory::write(at, &header, sizeof header);
    const std::uint64_t mark = pushed + 1;
    WeakMemory::write(at + bytes - sizeof mark, &mark, sizeof mark);
    ring.commit(room);
    ++pushed;
  }
  void drain(std::uint64_t bytes_max = ~std::uint64_t{0}) {
    ring.drain(
        [&](const std::byte* record, const RecordHeader& header) {
          std::uint64_t mark = 0;
          WeakMemory::read(&mark, record + header.bytes() - sizeof mark, sizeof mark);
          ++drained;
          model.check(header.id == drained && mark == drained, "a record is not the one pushed");
        },
        bytes_max);
  }
  /// After the threads: nothing is missing.
  void finish() {
    drain();
    model.check(drained == pushed, "a record is missing");
    model.check(ring.is_consistent(), "the ring is not consistent");
  }

  // One memory for all runs: addresses repeat, and zeroing it each time would be most of the work.
  alignas(cache_line_bytes) static inline std::byte storage[BasicRing<>::capacity_min];
  Model& model;
  BasicRing<WeakMemory> ring;
  std::uint32_t pushed = 0;
  std::uint32_t drained = 0;
};

/// Records into a ring with room.
void publish(Model& model) {
  RingCase c(model);
  if (model.run({[&] {
                   for (int i = 0; i < 3; ++i) c.push(24);
                 },
                 [&] {
                   for (int i = 0; i < 3; ++i) c.drain();
                 }})) {
    c.finish();
  }
}

/// A record that does not fit into the rest of the lap.
void wrap(Model& model) {
  RingCase c(model);
  for (int i = 0; i < 3; ++i) c.push(1024);
  c.drain();
  if (model.run({[&] {
                   for (int i = 0; i < 2; ++i) c.push(600);
                 },
                 [&] {
                   for (int i = 0; i < 3; ++i) c.drain();
                 }})) {
    c.finish();
  }
}

/// A full ring: the producer writes where the flusher has just read. Large records are released one
/// by one, small ones at the end of a drain.
void reuse(Model& model, std::uint32_t bytes, int pushes) {
  RingCase c(model);
  for (std::uint32_t used = 0; used < BasicRing<>::capacity_min; used += bytes) c.push(bytes);
  if (model.run({[&] {
                   for (int i = 0; i < pushes; ++i) c.push(bytes);
                 },
                 [&] {
                   for (int i = 0; i < 2; ++i) c.drain(2 * bytes);
                 }})) {
    c.finish();
  }
}
void reuse_large(Model& model) { reuse(model, 1024, 2); }
void reuse_small(Model& model) { reuse(model, 128, 2); }

// ---- The gate ----

struct PlainBank {
  alignas(8) std::byte count[8]{};

  std::uint64_t get() const {
    std::uint64_t now = 0;
    WeakMemory::read(&now, count, sizeof now);
    return now;
  }
  void set(std::uint64_t value) { WeakMemory::write(count, &value, sizeof value); }
};

/// A producer that adds to the bank of its gate, and a flusher that takes banks as
/// LaneSet::take_cells() does.
template <class Memory>
struct GateCase {
  static constexpr std::uint64_t engine_id = 7;

  explicit GateCase(Model& its_model) : model(its_model) {
    gate.open(engine_id, &banks[0], model.fences == Fences::asymmetric);
  }

  void add() {
    const bool entered =
        model.fences == Fences::asymmetric ? gate.enter(engine_id) : gate.enter_portable(engine_id);
    if (!entered) return;
    PlainBank& bank = gate.bank();
    bank.set(bank.get() + 1);
    gate.leave();
    ++added;
  }
  void take() {
    if (!spare_is_dirty) {
      spare = gate.swap(spare);
      spare_is_dirty = true;
    }
    Memory::heavy_fence();
    if (!gate.is_idle()) return;
    taken += spare->get();
    spare->set(0);
    spare_is_dirty = false;
  }
  void close() {
    gate.close();
    Memory::heavy_fence();
    if (!gate.is_idle()) return;
    for (PlainBank& bank : banks) {
      taken += bank.get();
      bank.set(0);
    }
    spare_is_dirty = false;
  }
  void finish() {
    for (const PlainBank& bank : banks) taken += bank.get();
    model.check(taken == added, "a measurement was lost, or counted twice");
  }

  Model& model;
  BasicGate<PlainBank, Memory> gate;
  PlainBank banks[2];
  PlainBank* spare = &banks[1];
  bool spare_is_dirty = false;
  std::uint64_t added = 0;
  std::uint64_t taken = 0;
};

template <class Memory>
void take(Model& model) {
  GateCase<Memory> c(model);
  if (model.run({[&] {
                   for (int i = 0; i < 2; ++i) c.add();
                 },
                 [&] {
                   for (int i = 0; i < 2; ++i) c.take();
                 }})) {
    c.finish();
  }
}
template <class Memory>
void close(Model& model) {
  GateCase<Memory> c(model);
  if (model.run({[&] {
                   for (int i = 0; i < 2; ++i) c.add();
                 },
                 [&] { c.close(); }}))
    c.finish();
}

// ---- The cases ----

struct Case {
  const char* protocol;
  const char* name;
  Fences fences;
  void (*body)(Model&);
};
constexpr Case cases[] = {
    {"ring", "publish", Fences::none, &publish},
    {"ring", "wrap", Fences::none, &wrap},
    {"ring", "reuse_large", Fences::none, &reuse_large},
    {"ring", "reuse_small", Fences::none, &reuse_small},
    {"asymmetric", "close_asymmetric", Fences::asymmetric, &close<WeakMemory>},
    {"asymmetric", "take_asymmetric", Fences::asymmetric, &take<WeakMemory>},
    {"portable", "close_portable", Fences::portable, &close<WeakMemory>},
    {"portable", "take_portable", Fences::portable, &take<WeakMemory>},
    {"without_fences", "close_without_fences", Fences::none, &close<WeakMemoryWithoutFences>},
    {"without_fences", "take_without_fences", Fences::none, &take<WeakMemoryWithoutFences>},
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

class InterleavingTest : public ::testing::TestWithParam<Case> {};

TEST_P(InterleavingTest, HoldsInEveryRun) {
  Model model;
  model.weakened = weakened_by_environment();
  model.fences = GetParam().fences;
  EXPECT_EQ(model.explore(GetParam().body), "") << "in run " << model.runs();
  RecordProperty("runs", std::to_string(model.runs()));
  EXPECT_GT(model.runs(), 50U);
}

INSTANTIATE_TEST_SUITE_P(Cases, InterleavingTest, ::testing::ValuesIn(cases),
                         [](const auto& instance) { return std::string(instance.param.name); });

/// An order, and the protocol of which some case has to fail without it.
struct Weakening {
  const char* access;
  const char* protocol;
  Fences fences;
};
constexpr Weakening weakenings[] = {
    {"ring_commit", "ring", Fences::none},
    {"ring_skip", "ring", Fences::none},
    {"ring_observe", "ring", Fences::none},
    {"ring_release_step", "ring", Fences::none},
    {"ring_release_end", "ring", Fences::none},
    {"ring_reuse", "ring", Fences::none},
    {"gate_load_bank", "asymmetric", Fences::asymmetric},
    {"gate_leave", "asymmetric", Fences::asymmetric},
    {"gate_swap", "asymmetric", Fences::asymmetric},
    {"gate_observe", "asymmetric", Fences::asymmetric},
    {"light_fence", "asymmetric", Fences::asymmetric},
    {"heavy_fence", "asymmetric", Fences::asymmetric},
    {"gate_load_bank", "portable", Fences::portable},
    {"gate_leave", "portable", Fences::portable},
    {"gate_swap", "portable", Fences::portable},
    {"gate_observe", "portable", Fences::portable},
    {"full_fence", "portable", Fences::portable},
    {"heavy_fence", "portable", Fences::portable},
    {"gate_enter", "without_fences", Fences::none},
    {"gate_load_bank", "without_fences", Fences::none},
    {"gate_load_id", "without_fences", Fences::none},
    {"gate_leave", "without_fences", Fences::none},
    {"gate_swap", "without_fences", Fences::none},
    {"gate_close", "without_fences", Fences::none},
    {"gate_observe", "without_fences", Fences::none},
};
void PrintTo(const Weakening& w, std::ostream* out) { *out << w.protocol << ' ' << w.access; }

class WeakenedOrderTest : public ::testing::TestWithParam<Weakening> {};

TEST_P(WeakenedOrderTest, IsFound) {
  Model model;
  for (const auto& [name, access] : names) {
    if (std::string_view(name) == GetParam().access) model.weakened = access;
  }
  ASSERT_TRUE(model.weakened);
  model.fences = GetParam().fences;
  std::string found;
  for (const Case& c : cases) {
    if (std::string_view(c.protocol) == GetParam().protocol && found.empty())
      found = model.explore(c.body);
  }
  EXPECT_NE(found, "") << "no case needs this order: take the weaker one";
  RecordProperty("found", found);
}

INSTANTIATE_TEST_SUITE_P(Orders, WeakenedOrderTest, ::testing::ValuesIn(weakenings),
                         [](const auto& instance) {
                           return std::string(instance.param.protocol) + "_" +
                                  instance.param.access;
                         });

}  // namespace
}  // namespace spillway::detail
