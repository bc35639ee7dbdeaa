// SPDX-License-Identifier: Apache-2.0
//
// Loggers: parts of a program that log under a name, with a level and with fields of their own.
//
//   auto log = engine.logger("db.pool");                         // once; a level by name, or by "db"
//   auto of_this_one = log.with({"host", host}, {"port", port}); // once a connection
//   SPILLWAY_DEBUG(of_this_one, "handed out", {"idle", idle});
//
// A record carries the address of what its logger has in common; the flusher puts that before the
// record's own fields. So fields of a logger cost the caller one store, however many they are.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include <spillway/engine/log.hpp>

namespace spillway {

namespace detail {
class LoggerTable;
extern constinit const std::atomic<Severity> level_off;
}  // namespace detail

/// A handle, to be kept and copied. Calls through one that no engine gave out do nothing; after its
/// engine has shut down, or is gone, they are counted as `closed`. Records are made by the macros of
/// log.hpp, on any thread.
class Logger {
 public:
  Logger() = default;

  /// A logger of the same name and level whose records have these fields too, before their own. One
  /// with the key of a field that is there already takes its place. At most 48 in all: what comes
  /// behind them is left out, and reported. Any thread; copies texts; takes a lock. May throw
  /// std::bad_alloc.
  Logger with(const Field& f0, const Field& f1 = {}, const Field& f2 = {}, const Field& f3 = {},
              const Field& f4 = {}, const Field& f5 = {}, const Field& f6 = {},
              const Field& f7 = {}) const;

  bool log_enabled(Severity severity) const noexcept {
    return severity >= level_->load(std::memory_order_relaxed);
  }
  [[gnu::always_inline]] void log(LogSite& site, const Field& f0 = {}, const Field& f1 = {},
                                  const Field& f2 = {}, const Field& f3 = {}, const Field& f4 = {},
                                  const Field& f5 = {}, const Field& f6 = {}, const Field& f7 = {},
                                  const Field& f8 = {}, const Field& f9 = {}, const Field& f10 = {},
                                  const Field& f11 = {}, const Field& f12 = {},
                                  const Field& f13 = {}, const Field& f14 = {},
                                  const Field& f15 = {}) const noexcept {
    detail::log<true>(engine_id_, state_.get(), site, f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10,
                      f11, f12, f13, f14, f15);
  }

 private:
  friend class detail::LoggerTable;
  std::shared_ptr<const detail::LoggerState> state_;
  const std::atomic<Severity>* level_ = &detail::level_off;  // of the table, which state_ keeps
  std::uint64_t engine_id_ = detail::no_engine_id;
};

}  // namespace spillway
