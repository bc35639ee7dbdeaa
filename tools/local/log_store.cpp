// SPDX-License-Identifier: Apache-2.0
#include "local/log_store.hpp"

#include <algorithm>
#include <utility>

namespace spillway::local {
namespace {

constexpr std::size_t chunk_bytes_max = 256U << 10;
// So that a small store forgets its events a few at a time.
constexpr std::size_t chunks_per_store_min = 16;

}  // namespace

// ---- Streams ----

bool LogStream::add(const LogEventView& event) {
  ++event_count_;
  message_bytes_ += event.message.size();
  const bool opens = chunks_.empty() || chunks_.back().entries.size() >= chunk_events_max_ ||
                     chunks_.back().text.size() + event.message.size() > chunk_bytes_max;
  if (opens) {
    // The next one will be like the last; growing step by step leaves holes in the heap.
    Chunk next;
    if (!chunks_.empty()) {
      next.text.reserve(chunks_.back().text.size());
      next.entries.reserve(chunks_.back().entries.size());
    }
    chunks_.push_back(std::move(next));
  }
  Chunk& chunk = chunks_.back();
  chunk.text += event.message;
  chunk.entries.push_back({event.timestamp_ms, chunk.text.size()});
  return opens;
}

std::pair<std::size_t, std::size_t> LogStream::drop_chunk() {
  const std::pair gone{chunks_.front().entries.size(), chunks_.front().text.size()};
  first_kept_ += gone.first;
  chunks_.pop_front();
  return gone;
}

void LogStream::read(std::uint64_t from, std::size_t limit,
                     const std::function<void(std::int64_t, std::string_view)>& visit) const {
  std::uint64_t position = first_kept_;
  for (const Chunk& chunk : chunks_) {
    if (position + chunk.entries.size() <= from) {
      position += chunk.entries.size();
      continue;
    }
    std::size_t begin = 0;
    for (const Entry& entry : chunk.entries) {
      if (position++ >= from) {
        if (limit-- == 0) return;
        visit(entry.timestamp_ms, std::string_view(chunk.text).substr(begin, entry.end - begin));
      }
      begin = entry.end;
    }
  }
}

// ---- The store ----

LogStore::LogStore(std::size_t events_kept_max, std::size_t bytes_kept_max)
    : events_kept_max_(events_kept_max), bytes_kept_max_(bytes_kept_max) {}

LogGroup* LogStore::find_group(std::string_view name) {
  const auto found = groups_.find(name);
  return found == groups_.end() ? nullptr : &found->second;
}

bool LogStore::create_group(std::string_view name, std::int64_t now_ms) {
  return groups_.try_emplace(std::string(name), LogGroup{.created_ms = now_ms}).second;
}

bool LogStore::create_stream(LogGroup& group, std::string_view name, std::int64_t now_ms) {
  const std::size_t chunk_events_max =
      std::max<std::size_t>(1, events_kept_max_ / chunks_per_store_min);
  return group.streams.try_emplace(std::string(name), now_ms, chunk_events_max).second;
}

void LogStore::add(LogStream& stream, std::span<const LogEventView> events) {
  for (const LogEventView& event : events) {
    if (stream.add(event)) chunk_owners_.push_back(&stream);
    ++events_kept_;
    bytes_kept_ += event.message.size();
    while (events_kept_ > events_kept_max_ || bytes_kept_ > bytes_kept_max_) {
      const auto [event_count, bytes] = chunk_owners_.front()->drop_chunk();
      chunk_owners_.pop_front();
      events_kept_ -= event_count;
      bytes_kept_ -= bytes;
    }
  }
}

void LogStore::clear() {
  groups_.clear();
  chunk_owners_.clear();
  events_kept_ = 0;
  bytes_kept_ = 0;
}

const LogStream* LogStore::find_stream(std::string_view group, std::string_view stream) const {
  const auto found_group = groups_.find(group);
  if (found_group == groups_.end()) return nullptr;
  const auto found = found_group->second.streams.find(stream);
  return found == found_group->second.streams.end() ? nullptr : &found->second;
}

// ---- Reading back ----

std::vector<LogStreamSummary> LogStore::summaries() const {
  std::vector<LogStreamSummary> result;
  for (const auto& [group_name, group] : groups_) {
    for (const auto& [name, stream] : group.streams) {
      result.push_back(
          {group_name, name, stream.event_count(), stream.message_bytes(), stream.first_kept()});
    }
  }
  return result;
}

std::vector<LogEvent> LogStore::events(std::string_view group, std::string_view stream,
                                       std::uint64_t from, std::size_t limit) const {
  std::vector<LogEvent> result;
  if (const LogStream* const found = find_stream(group, stream)) {
    found->read(from, limit, [&](std::int64_t timestamp_ms, std::string_view message) {
      result.push_back({timestamp_ms, std::string(message)});
    });
  }
  return result;
}

void LogStore::write_summaries(JsonWriter& json) const {
  std::uint64_t event_count = 0;
  json.begin_object().key("groups").begin_array();
  for (const auto& [group_name, group] : groups_) {
    json.begin_object().field("group", group_name).key("retention_days");
    group.retention ? json.value(group.retention->count()) : json.null();
    json.key("streams").begin_array();
    for (const auto& [name, stream] : group.streams) {
      json.begin_object().field("stream", name).field("events", stream.event_count());
      json.field("message_bytes", stream.message_bytes());
      json.field("first_kept", stream.first_kept()).end_object();
      event_count += stream.event_count();
    }
    json.end_array().end_object();
  }
  json.end_array().field("events", event_count).field("events_kept", events_kept_).end_object();
}

bool LogStore::write_events(JsonWriter& json, std::string_view group, std::string_view stream,
                            std::uint64_t from, std::size_t limit) const {
  const LogStream* const found = find_stream(group, stream);
  if (found == nullptr) return false;
  json.begin_object().field("group", group).field("stream", stream);
  json.field("events", found->event_count()).field("first_kept", found->first_kept());
  json.field("from", std::max(from, found->first_kept())).key("page").begin_array();
  found->read(from, limit, [&](std::int64_t timestamp_ms, std::string_view message) {
    json.begin_object().field("timestamp", timestamp_ms).field("message", message).end_object();
  });
  json.end_array().end_object();
  return true;
}

}  // namespace spillway::local
