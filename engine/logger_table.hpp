// SPDX-License-Identifier: Apache-2.0
//
// The loggers of an engine: their levels, and what their records refer to until the flusher has read
// them. Owned by the engine and every logger together.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <sys/types.h>

#include <spillway/buffers/names.hpp>
#include <spillway/engine/config.hpp>
#include <spillway/engine/logger.hpp>

namespace spillway::detail {

/// Fields of a logger. With the 16 of a call site they are 64.
inline constexpr std::size_t logger_fields_max = 48;
/// Names and sets of keys. More of them come from data, which is a mistake.
inline constexpr std::size_t logger_shapes_max = 1U << 14;

/// Name and keys that many loggers can have in common: a logger for each connection is another state
/// of one shape.
struct LoggerShape {
  std::uint32_t number;  ///< in its engine
  std::string logger;
  std::vector<SiteField> fields;
};

struct LoggerLevels {
  std::atomic<Severity> recorded;  ///< from here on records are made
  std::atomic<Severity> own;       ///< below it they go out only if their request is kept
};

/// Constant once it is made.
struct LoggerState {
  std::shared_ptr<LoggerTable> table;
  const LoggerLevels* levels;
  const LoggerShape* shape;
  std::vector<std::string> packed;  ///< the fields' values one by one, as record.hpp packs them
  std::string values;               ///< the same in a row
};

class LoggerTable : public std::enable_shared_from_this<LoggerTable> {
 public:
  /// `report` hears of what was left out, until close().
  LoggerTable(std::uint64_t engine_id, const Config& config,
              std::function<void(std::string)> report);

  // ---- any thread; all take the lock ----

  Logger logger(std::string_view name);
  Logger with(const LoggerState& base, std::span<const FieldCopy> fields);
  void set_level(Severity level) noexcept;
  void set_level(std::string_view logger, std::optional<Severity> level);
  /// From where on the engine's own records are made.
  Severity level() const noexcept;

  // ---- the flusher ----

  /// The engine's own level.
  Severity own_level() const noexcept { return own_level_.load(std::memory_order_relaxed); }
  /// Appends the states that no logger holds any more. Records that refer to them are in the rings by
  /// now: when these have been drained, the states may go.
  void take_retired(std::vector<std::unique_ptr<const LoggerState>>& retired);
  /// Nothing reads records any more. Any thread.
  void close() noexcept;

 private:
  Logger make(std::unique_ptr<LoggerState> state);
  void retire(const LoggerState* state) noexcept;
  // Under the lock.
  const LoggerShape* shape_of(std::string_view logger, std::vector<SiteField> fields);
  Severity own_level(std::string_view logger) const;
  Severity recorded(Severity own) const noexcept;
  void apply() noexcept;
  void report(std::string message);

  const std::uint64_t engine_id_;
  const bool nowhere_;     // logs go to nobody: all levels are off
  const Severity retain_;  // from here on records are kept for a while; off: none
  const pid_t process_;
  mutable std::mutex mutex_;
  std::atomic<Severity> own_level_;                          // written under the lock
  std::map<std::string, Severity, std::less<>> own_levels_;  // what was set, by name
  std::map<std::string, std::unique_ptr<LoggerLevels>, std::less<>> levels_;
  std::map<std::string, std::unique_ptr<const LoggerShape>> shapes_;  // by name, keys and types
  const std::function<void(std::string)> report_;
  std::vector<std::unique_ptr<const LoggerState>> retired_;
  bool closed_ = false;
};

/// The level of a logger by the longest of these names that it is, or is below; else `otherwise`.
Severity level_of(std::string_view logger,
                  const std::map<std::string, Severity, std::less<>>& levels, Severity otherwise);

}  // namespace spillway::detail
