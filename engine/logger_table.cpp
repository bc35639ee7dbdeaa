// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>

#include <unistd.h>

#include <spillway/engine/logger_table.hpp>

namespace spillway {

namespace detail {

constinit const std::atomic<Severity> level_off{Severity::off};

Severity level_of(std::string_view logger,
                  const std::map<std::string, Severity, std::less<>>& levels, Severity otherwise) {
  while (!logger.empty()) {
    if (const auto found = levels.find(logger); found != levels.end()) return found->second;
    const std::size_t dot = logger.rfind('.');
    logger = logger.substr(0, dot == std::string_view::npos ? 0 : dot);
  }
  return otherwise;
}

LoggerTable::LoggerTable(std::uint64_t engine_id, const Config& config,
                         std::function<void(std::string)> report)
    : engine_id_(engine_id),
      nowhere_(config.logs == LogsTo::none),
      retain_(config.log_retain_level),
      process_(getpid()),
      own_level_(config.log_level),
      report_(std::move(report)) {
  for (const LoggerLevel& one : config.log_levels.get()) own_levels_[one.logger] = one.level;
}

// ---- Levels ----

Severity LoggerTable::own_level(std::string_view logger) const {
  return level_of(logger, own_levels_, own_level());
}

Severity LoggerTable::recorded(Severity own) const noexcept {
  return nowhere_ || own == Severity::off ? Severity::off : std::min(own, retain_);
}

void LoggerTable::apply() noexcept {
  for (auto& [name, levels] : levels_) {
    const Severity own = own_level(name);
    levels->own.store(own, std::memory_order_relaxed);
    levels->recorded.store(recorded(own), std::memory_order_relaxed);
  }
}

void LoggerTable::set_level(Severity level) noexcept {
  const std::scoped_lock lock(mutex_);
  own_level_.store(level, std::memory_order_relaxed);
  apply();
}

void LoggerTable::set_level(std::string_view logger, std::optional<Severity> level) {
  if (logger.empty()) {
    if (level) set_level(*level);
    return;
  }
  const std::scoped_lock lock(mutex_);
  if (level) {
    own_levels_.insert_or_assign(std::string(logger), *level);
  } else if (const auto found = own_levels_.find(logger); found != own_levels_.end()) {
    own_levels_.erase(found);
  }
  apply();
}

Severity LoggerTable::level() const noexcept { return recorded(own_level()); }

// ---- Loggers ----

Logger LoggerTable::logger(std::string_view name) {
  auto state = std::make_unique<LoggerState>();
  {
    const std::scoped_lock lock(mutex_);
    const LoggerShape* const shape = shape_of(name, {});
    // Past the largest number of shapes it goes by the engine's name and level.
    std::unique_ptr<LoggerLevels>& levels = levels_[shape->logger];
    if (levels == nullptr) {
      levels = std::make_unique<LoggerLevels>();
      levels->own = own_level(shape->logger);
      levels->recorded = recorded(levels->own);
    }
    state->levels = levels.get();
    state->shape = shape;
  }
  return make(std::move(state));
}

Logger LoggerTable::with(const LoggerState& base, std::span<const FieldCopy> fields) {
  auto state = std::make_unique<LoggerState>();
  state->levels = base.levels;
  state->packed = base.packed;
  std::vector<SiteField> keys = base.shape->fields;
  std::size_t left_out = 0;
  for (const FieldCopy& field : fields) {
    if (field.type == ValueType::none) continue;
    const auto same = std::find_if(keys.begin(), keys.end(),
                                   [&](const SiteField& other) { return other.key == field.key; });
    const auto at = static_cast<std::size_t>(same - keys.begin());
    if (at == logger_fields_max) {
      ++left_out;
      continue;
    }
    if (same == keys.end()) {
      keys.push_back({std::string(field.key), field.type});
      state->packed.emplace_back();
    }
    keys[at].type = field.type;
    state->packed[at].clear();
    append_packed(field, state->packed[at]);
  }
  {
    const std::scoped_lock lock(mutex_);
    if (left_out != 0) {
      report("logger '" + base.shape->logger + "': " + std::to_string(left_out) +
             " fields are left out: a logger has at most " + std::to_string(logger_fields_max));
    }
    const std::size_t wanted = keys.size();
    state->shape = shape_of(base.shape->logger, std::move(keys));
    if (state->shape->fields.size() != wanted) state->packed.clear();
  }
  for (const std::string& value : state->packed) state->values += value;
  return make(std::move(state));
}

const LoggerShape* LoggerTable::shape_of(std::string_view logger, std::vector<SiteField> fields) {
  std::string key(logger);
  for (const SiteField& field : fields) {
    key.append(1, '\0').append(field.key).append(1, static_cast<char>(field.type));
  }
  const auto found = shapes_.find(key);
  if (found != shapes_.end()) return found->second.get();
  if (shapes_.size() >= logger_shapes_max && !key.empty()) {
    report("logger '" + std::string(logger) + "' logs without its name and fields: there are " +
           std::to_string(logger_shapes_max) + " names and sets of keys already");
    return shape_of({}, {});
  }
  auto shape = std::make_unique<const LoggerShape>(LoggerShape{
      static_cast<std::uint32_t>(shapes_.size()), std::string(logger), std::move(fields)});
  return shapes_.emplace(std::move(key), std::move(shape)).first->second.get();
}

Logger LoggerTable::make(std::unique_ptr<LoggerState> state) {
  state->table = shared_from_this();
  Logger logger;
  logger.level_ = &state->levels->recorded;
  logger.engine_id_ = engine_id_;
  // Should there be no memory for the count of its holders, the deleter has it all the same.
  logger.state_ = std::shared_ptr<const LoggerState>(
      state.release(), [](const LoggerState* last) { last->table->retire(last); });
  return logger;
}

void LoggerTable::retire(const LoggerState* state) noexcept {
  std::unique_ptr<const LoggerState> mine(state);
  const std::shared_ptr<LoggerTable> self = state->table;
  // In the child of a fork nobody reads records, and the lock may have been somebody's.
  if (getpid() != process_) return;
  const std::scoped_lock lock(mutex_);
  if (closed_) return;
  try {
    retired_.push_back(nullptr);
    retired_.back() = std::move(mine);
  } catch (...) {
    static_cast<void>(mine.release());  // Records may refer to it: rather lost than gone.
  }
}

void LoggerTable::report(std::string message) {
  if (!closed_) report_(std::move(message));
}

void LoggerTable::take_retired(std::vector<std::unique_ptr<const LoggerState>>& retired) {
  const std::scoped_lock lock(mutex_);
  retired.insert(retired.end(), std::make_move_iterator(retired_.begin()),
                 std::make_move_iterator(retired_.end()));
  retired_.clear();
}

void LoggerTable::close() noexcept {
  std::vector<std::unique_ptr<const LoggerState>> last;
  const std::scoped_lock lock(mutex_);
  closed_ = true;
  last.swap(retired_);
}

}  // namespace detail

Logger Logger::with(const Field& f0, const Field& f1, const Field& f2, const Field& f3,
                    const Field& f4, const Field& f5, const Field& f6, const Field& f7) const {
  if (state_ == nullptr) return {};
  const detail::FieldCopies fields(f0, f1, f2, f3, f4, f5, f6, f7);
  return state_->table->with(*state_, fields.present());
}

}  // namespace spillway
