// SPDX-License-Identifier: Apache-2.0
#include <utility>

#include <spillway/engine/debug_retention.hpp>

namespace spillway::detail {

DebugRetention::DebugRetention(std::size_t bytes_max, Ship ship, Drop drop)
    : bytes_max_(bytes_max), ship_(std::move(ship)), drop_(std::move(drop)) {}

// The request's id where there is one: its threads may be in different places of a trace, or in none.
bool DebugRetention::make_key(const ContextTexts& context) {
  key_.clear();
  if (!context.request_id.empty()) {
    key_.append(context.tenant).append(1, '\0').append(context.request_id);
    return true;
  }
  if (!context.trace_id) return false;
  key_.append(reinterpret_cast<const char*>(&context.trace_id), sizeof context.trace_id);
  return true;
}

DebugRetention::Request* DebugRetention::find() {
  const auto found = by_key_.find(key_);
  return found == by_key_.end() ? nullptr : &*found->second;
}

std::size_t DebugRetention::bytes_of(const Request& request) noexcept {
  // Twice the key: the index has a node of its own.
  return sizeof(Request) + 2 * request.key.size() + request.tenant.size() + request.user.size() +
         request.request_id.size();
}
std::size_t DebugRetention::bytes_of(const Record& record) noexcept {
  return sizeof(Record) + record.values.size();
}

DebugRetention::Request& DebugRetention::find_or_add(const ContextTexts& context, SteadyTime now) {
  if (Request* const known = find()) return *known;
  while (!requests_.empty() && (requests_.size() == requests_max || bytes_ > bytes_max_)) {
    forget(requests_.begin());
  }
  requests_.push_back({key_,
                       std::string(context.tenant),
                       std::string(context.user),
                       std::string(context.request_id),
                       context.trace_id,
                       now,
                       false,
                       0,
                       {}});
  Request& made = requests_.back();
  try {
    by_key_.emplace(made.key, std::prev(requests_.end()));
  } catch (...) {
    requests_.pop_back();
    throw;
  }
  made.bytes = bytes_of(made);
  bytes_ += made.bytes;
  return made;
}

void DebugRetention::forget(Requests::iterator request) {
  if (!request->records.empty()) drop_(request->records.size());
  bytes_ -= request->bytes;
  by_key_.erase(request->key);
  requests_.erase(request);
}

void DebugRetention::take(const LogView& log, std::uint32_t site, std::uint64_t ticks,
                          SteadyTime now) {
  if (!make_key(*log.context)) return drop_(1);
  Request& request = find_or_add(*log.context, now);
  if (request.is_interesting) return ship_(log, site, ticks);
  Record& record = request.records.emplace_back(
      Record{site, log.site, log.time_ns, ticks, log.span_id,
             std::string(reinterpret_cast<const char*>(log.values.data()), log.values.size())});
  request.bytes += bytes_of(record);
  bytes_ += bytes_of(record);
  while (bytes_ > bytes_max_ && !requests_.empty()) forget(requests_.begin());
}

void DebugRetention::keep(const ContextTexts& context, SteadyTime now) {
  if (!make_key(context)) return;
  Request& request = find_or_add(context, now);
  request.is_interesting = true;
  const std::vector<Record> records = std::exchange(request.records, {});
  for (const Record& record : records) {
    request.bytes -= bytes_of(record);
    bytes_ -= bytes_of(record);
  }
  const ContextTexts texts{request.tenant,   request.user, request.request_id,
                           request.trace_id, {},           context.trace_flags};
  for (const Record& record : records) {
    ship_({record.info, record.time_ns, record.span_id, &texts,
           std::as_bytes(std::span(record.values))},
          record.site, record.ticks);
  }
}

void DebugRetention::end(const ContextTexts& context) {
  if (!make_key(context)) return;
  // One that is interesting stays until it is old: threads of it may have more to say.
  const auto found = by_key_.find(key_);
  if (found != by_key_.end() && !found->second->is_interesting) forget(found->second);
}

void DebugRetention::expire(SteadyTime now) {
  while (!requests_.empty() && now - requests_.front().since >= age_max) {
    forget(requests_.begin());
  }
}

void DebugRetention::clear() {
  while (!requests_.empty()) forget(requests_.begin());
}

}  // namespace spillway::detail
