// SPDX-License-Identifier: Apache-2.0
//
// A model of weak memory, and the search through everything that it allows.
//
// Code that takes its memory as a template parameter (buffers/memory_access.hpp) runs here on
// WeakMemory: a few threads, each a context of its own on one machine thread, that are switched at
// each shared access. An exploration runs a small case again and again, one run for each way of
// making the choices that the model leaves open:
//
//   - which thread goes on, before each access that another thread could notice;
//   - which store a load reads: any that is not older than what the thread has seen. Each store is
//     kept with the view (what had been seen, and what had happened) of the thread that made it if
//     it is a release; an acquire load takes that view over. This is C++20's memory model without
//     load buffering, for variables that one thread writes, and it asserts that there is one;
//   - whether a store without an order of its own, which the compiler may sink below the loads that
//     follow, is still to come. Only the fence of the asymmetric pair can tell: membarrier makes a
//     processor pass a fence, not a compiler.
//
// Plain memory (write(), read()) has no choices: it reports a data race when an access is not
// ordered after the last one by another thread.
//
// Weakening: `Model::weakened` names one access whose order is taken as relaxed, or the fence that
// is left out.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <ucontext.h>

#include <spillway/buffers/memory_access.hpp>

namespace spillway::testing {

/// How the fences of the gate are made.
enum class Fences { asymmetric, portable, none };

class Model {
 public:
  static constexpr std::size_t thread_max = 4;  // The first is the case's own frame.
  static constexpr std::size_t variable_max = 8;
  static constexpr std::uint64_t run_max = 20'000'000;

  std::optional<detail::Access> weakened;
  Fences fences = Fences::asymmetric;

  /// The model whose case is running.
  static Model& current() { return *current_; }

  /// Runs `make_case` in every way. It makes its objects, calls run() with its threads once, and
  /// checks what came of it. Returns the first violation, or an empty text.
  std::string explore(const std::function<void(Model&)>& make_case) {
    current_ = this;
    trail_.clear();
    runs_ = 0;
    do {
      begin();
      make_case(*this);
      ++runs_;
    } while (violation_.empty() && runs_ < run_max && next_trail());
    current_ = nullptr;
    if (violation_.empty() && runs_ == run_max) violation_ = "the case is too large to explore";
    return violation_;
  }
  std::uint64_t runs() const { return runs_; }

  /// Runs `bodies` as threads to their ends, or to the first violation: then returns false, and the
  /// case must not look at what they left.
  bool run(std::vector<std::function<void()>> bodies) {
    bodies_ = std::move(bodies);
    for (std::size_t i = 0; i < bodies_.size(); ++i) {
      Thread& thread = threads_[i + 1];
      thread.view = threads_[0].view;
      ++thread.view.clock[i + 1];
      thread.done = false;
      getcontext(&thread.context);
      if (thread.stack == nullptr) thread.stack = std::make_unique<char[]>(stack_bytes);
      thread.context.uc_stack.ss_sp = thread.stack.get();
      thread.context.uc_stack.ss_size = stack_bytes;
      thread.context.uc_link = &threads_[0].context;
      makecontext(&thread.context, &Model::start, 0);
    }
    running_ = 1 + choose(bodies_.size());
    swapcontext(&threads_[0].context, &threads_[running_].context);
    running_ = 0;
    for (std::size_t i = 1; i <= bodies_.size(); ++i) threads_[0].view.join(threads_[i].view);
    return violation_.empty();
  }

  /// A fact of the case. Its first failure ends the exploration.
  void check(bool holds, const char* what) {
    if (!holds) fail(what);
  }

 private:
  friend struct WeakMemory;
  template <class T>
  friend class WeakAtomic;

  static constexpr std::size_t stack_bytes = 64 * 1024;

  using Seen = std::array<std::uint32_t, variable_max>;
  struct View {
    Seen seen{};                                    // the oldest store that may be read
    std::array<std::uint32_t, thread_max> clock{};  // what has happened before
    void join(const View& other) {
      for (std::size_t i = 0; i < variable_max; ++i) seen[i] = std::max(seen[i], other.seen[i]);
      for (std::size_t i = 0; i < thread_max; ++i) clock[i] = std::max(clock[i], other.clock[i]);
    }
  };
  struct Thread {
    View view;
    View released;  // the view at the last release fence: what relaxed stores publish
    View readable;  // views of relaxed loads: what an acquire fence takes over
    std::function<void()> sunk;
    std::size_t sunk_variable = 0;
    bool done = true;
    ucontext_t context{};
    std::unique_ptr<char[]> stack;
  };
  struct Cell {  // 8 bytes of plain memory
    std::size_t writer = 0;
    std::uint32_t written = 0;
    std::array<std::uint32_t, thread_max> read{};
  };
  struct Choice {
    std::size_t taken;
    std::size_t count;
  };

  void begin() {
    depth_ = 0;
    running_ = 0;
    variables_ = 0;
    fence_seen_ = {};
    strong_seen_ = {};
    cells_.clear();
    for (Thread& thread : threads_) {
      thread.view = thread.released = thread.readable = {};
      thread.sunk = nullptr;
      thread.done = true;
    }
    threads_[0].view.clock[0] = 1;
  }
  bool next_trail() {
    while (!trail_.empty() && trail_.back().taken + 1 == trail_.back().count) trail_.pop_back();
    if (trail_.empty()) return false;
    ++trail_.back().taken;
    return true;
  }
  std::size_t choose(std::size_t count) {
    if (count == 1) return 0;
    if (depth_ == trail_.size()) trail_.push_back({0, count});
    return trail_[depth_++].taken;
  }

  static void start() {
    Model& model = current();
    model.bodies_[model.running_ - 1]();
    model.land_sunk();
    model.threads_[model.running_].done = true;
    model.go_on();
  }
  // Lets any thread that is not done go on; the case's frame when none is left.
  void go_on() {
    std::array<std::size_t, thread_max> runnable{};
    std::size_t count = 0;
    if (!threads_[running_].done) runnable[count++] = running_;
    for (std::size_t i = 1; i <= bodies_.size(); ++i) {
      if (i != running_ && !threads_[i].done) runnable[count++] = i;
    }
    const std::size_t next = count == 0 ? 0 : runnable[choose(count)];
    if (next == running_) return;
    const std::size_t from = std::exchange(running_, next);
    swapcontext(&threads_[from].context, &threads_[next].context);
  }
  void switch_point() {
    if (running_ != 0) go_on();
  }
  void fail(const char* what) {
    if (violation_.empty()) violation_ = what;
    if (running_ == 0) return;
    // The threads are left where they are; the next begin() forgets them.
    const std::size_t from = std::exchange(running_, 0);
    swapcontext(&threads_[from].context, &threads_[0].context);
  }

  Thread& self() { return threads_[running_]; }
  void land_sunk() {
    if (!self().sunk) return;
    const std::function<void()> store = std::exchange(self().sunk, nullptr);
    store();
  }
  // A full fence passed by a thread at this moment. What a later fence has for sure is what was
  // seen before this one; that it happened before needs a load that reads a store besides.
  void pass_fence(std::size_t index) {
    Thread& thread = threads_[index];
    thread.view.join(thread.readable);
    for (std::size_t i = 0; i < variable_max; ++i) {
      const std::uint32_t seen = std::max({thread.view.seen[i], fence_seen_[i], strong_seen_[i]});
      thread.view.seen[i] = fence_seen_[i] = seen;
    }
    thread.released = thread.view;
    ++thread.view.clock[index];
  }

  void touch(const std::byte* at, std::size_t bytes, bool write) {
    const auto first = reinterpret_cast<std::uintptr_t>(at) / 8;
    const auto last = (reinterpret_cast<std::uintptr_t>(at) + bytes - 1) / 8;
    const View& view = self().view;
    for (std::uintptr_t i = first; i <= last; ++i) {
      Cell& cell = cells_[i];
      if (cell.written > view.clock[cell.writer]) fail("data race: with a write");
      if (write) {
        for (std::size_t t = 0; t < thread_max; ++t) {
          if (cell.read[t] > view.clock[t]) fail("data race: write against read");
        }
        cell.writer = running_;
        cell.written = view.clock[running_];
      } else {
        cell.read[running_] = view.clock[running_];
      }
    }
  }

  static inline Model* current_ = nullptr;
  std::vector<Choice> trail_;
  std::size_t depth_ = 0;
  std::uint64_t runs_ = 0;
  std::string violation_;
  std::array<Thread, thread_max> threads_;
  std::vector<std::function<void()>> bodies_;
  std::size_t running_ = 0;
  std::size_t variables_ = 0;
  Seen fence_seen_{};   // before the last sequentially consistent fence
  Seen strong_seen_{};  // the last sequentially consistent store
  std::unordered_map<std::uintptr_t, Cell> cells_;
};

/// An atomic variable of the model, written by one thread once threads run.
template <class T>
class WeakAtomic {
 public:
  // NOLINTNEXTLINE(google-explicit-constructor): as std::atomic has it
  WeakAtomic(T value) : index_(Model::current().variables_++) {
    Model& model = Model::current();
    model.check(index_ < Model::variable_max, "too many variables for the model");
    stores_.push_back({value, model.self().view});
  }
  WeakAtomic(const WeakAtomic&) = delete;
  WeakAtomic& operator=(const WeakAtomic&) = delete;

  T load(std::memory_order order) const {
    Model& model = Model::current();
    const bool own = writer_ == model.running_;
    if (!own) model.switch_point();
    Model::Thread& self = model.self();
    if (self.sunk && (self.sunk_variable == index_ || order == std::memory_order_seq_cst ||
                      model.choose(2) == 1)) {
      model.land_sunk();
    }
    std::size_t oldest = self.view.seen[index_];
    if (order == std::memory_order_seq_cst) {
      oldest =
          std::max<std::size_t>({oldest, model.strong_seen_[index_], model.fence_seen_[index_]});
    }
    // The newest first: what strong memory does is tried before what only weak memory does.
    const std::size_t at = stores_.size() - 1 - model.choose(stores_.size() - oldest);
    self.view.seen[index_] = static_cast<std::uint32_t>(at);
    if (order == std::memory_order_relaxed) {
      self.readable.join(stores_[at].view);
    } else {
      self.view.join(stores_[at].view);
    }
    return stores_[at].value;
  }

  void store(T value, std::memory_order order) {
    Model& model = Model::current();
    model.land_sunk();
    if (model.running_ != 0) {
      model.check(writer_ == 0 || writer_ == model.running_, "the model knows one writer only");
      writer_ = model.running_;
    }
    model.switch_point();
    const bool may_sink = order == std::memory_order_relaxed && model.running_ != 0 &&
                          model.fences == Fences::asymmetric;
    if (may_sink && model.choose(2) == 0) {
      model.self().sunk = [this, value, order] { append(value, order); };
      model.self().sunk_variable = index_;
      return;
    }
    append(value, order);
  }

 private:
  struct Store {
    T value;
    Model::View view;
  };

  void append(T value, std::memory_order order) {
    Model& model = Model::current();
    Model::Thread& self = model.self();
    const auto at = static_cast<std::uint32_t>(stores_.size());
    self.view.seen[index_] = at;
    Model::View published = order == std::memory_order_relaxed ? self.released : self.view;
    published.seen[index_] = at;
    stores_.push_back({value, published});
    if (order == std::memory_order_seq_cst) model.strong_seen_[index_] = at;
    ++self.view.clock[model.running_];  // What follows did not happen before this store.
  }

  const std::size_t index_;
  std::size_t writer_ = 0;
  std::vector<Store> stores_;
};

/// What code under the model takes for its memory.
struct WeakMemory {
  template <class T>
  using Atomic = WeakAtomic<T>;
  static constexpr bool has_fences = true;

  static std::memory_order order(detail::Access access, std::memory_order written) {
    return Model::current().weakened == access ? std::memory_order_relaxed : written;
  }
  static void light_fence() {
    if (Model::current().weakened != detail::Access::light_fence) Model::current().land_sunk();
  }
  static void full_fence() {
    Model& model = Model::current();
    model.land_sunk();
    model.switch_point();
    if (model.weakened != detail::Access::full_fence) model.pass_fence(model.running_);
  }
  /// The flusher's, as asymmetric_fence.hpp promises it.
  static void heavy_fence() {
    Model& model = Model::current();
    model.land_sunk();
    model.switch_point();
    if (model.fences == Fences::none || model.weakened == detail::Access::heavy_fence) return;
    model.pass_fence(model.running_);
    if (model.fences != Fences::asymmetric) return;
    // membarrier(2): the caller, every other thread, and the caller again.
    for (std::size_t i = 1; i <= model.bodies_.size(); ++i) model.pass_fence(i);
    model.pass_fence(model.running_);
  }

  static void write(std::byte* to, const void* from, std::size_t bytes) {
    Model::current().touch(to, bytes, true);
    std::memcpy(to, from, bytes);
  }
  static void read(void* to, const std::byte* from, std::size_t bytes) {
    Model::current().touch(from, bytes, false);
    std::memcpy(to, from, bytes);
  }
};

/// The same without fences: sequentially consistent accesses, as under ThreadSanitizer.
struct WeakMemoryWithoutFences : WeakMemory {
  static constexpr bool has_fences = false;
  static void full_fence() {}
};

}  // namespace spillway::testing
