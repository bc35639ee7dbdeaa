// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "local/json.hpp"
#include "local/observed.hpp"

namespace spillway::local {

/// An event of a request; the text belongs to the parsed request.
struct LogEventView {
  std::int64_t timestamp_ms;
  std::string_view message;
};

/// One stream's events. Messages stand end to end in chunks, so that a million short ones cost
/// little more than their bytes; the oldest chunk goes first when the store is full.
class LogStream {
 public:
  LogStream(std::int64_t created_ms, std::size_t chunk_events_max)
      : created_ms_(created_ms), chunk_events_max_(chunk_events_max) {}

  std::int64_t created_ms() const { return created_ms_; }
  std::uint64_t event_count() const { return event_count_; }
  std::uint64_t message_bytes() const { return message_bytes_; }
  /// Position of the oldest event that is still kept.
  std::uint64_t first_kept() const { return first_kept_; }

  /// Calls `visit(timestamp_ms, message)` for up to `limit` events from position `from` on.
  void read(std::uint64_t from, std::size_t limit,
            const std::function<void(std::int64_t, std::string_view)>& visit) const;

 private:
  friend class LogStore;
  struct Entry {
    std::int64_t timestamp_ms;
    std::size_t end;  ///< of the message, in the chunk's text
  };
  struct Chunk {
    std::string text;
    std::vector<Entry> entries;
  };

  /// True when the event opened a new chunk.
  bool add(const LogEventView& event);
  /// Forgets the oldest chunk; returns how many events and bytes went.
  std::pair<std::size_t, std::size_t> drop_chunk();

  std::int64_t created_ms_;
  std::size_t chunk_events_max_;
  std::uint64_t event_count_ = 0;
  std::uint64_t message_bytes_ = 0;
  std::uint64_t first_kept_ = 0;
  std::deque<Chunk> chunks_;
};

/// Streams have addresses that last until clear(): the store's own bookkeeping points at them.
struct LogGroup {
  std::int64_t created_ms = 0;
  std::optional<std::chrono::days> retention{};
  std::map<std::string, LogStream, std::less<>> streams{};
};

/// Groups, streams and events, like the service's; counts are exact even for events that are no
/// longer kept. Its owner locks.
class LogStore {
 public:
  LogStore(std::size_t events_kept_max, std::size_t bytes_kept_max);

  using Groups = std::map<std::string, LogGroup, std::less<>>;
  const Groups& groups() const { return groups_; }
  LogGroup* find_group(std::string_view name);
  /// False when the group, or the stream, is there already.
  bool create_group(std::string_view name, std::int64_t now_ms);
  bool create_stream(LogGroup& group, std::string_view name, std::int64_t now_ms);

  void add(LogStream& stream, std::span<const LogEventView> events);
  void clear();

  std::vector<LogStreamSummary> summaries() const;
  std::vector<LogEvent> events(std::string_view group, std::string_view stream, std::uint64_t from,
                               std::size_t limit) const;
  void write_summaries(JsonWriter& json) const;
  /// False when there is no such stream.
  bool write_events(JsonWriter& json, std::string_view group, std::string_view stream,
                    std::uint64_t from, std::size_t limit) const;

 private:
  const LogStream* find_stream(std::string_view group, std::string_view stream) const;

  std::size_t events_kept_max_;
  std::size_t bytes_kept_max_;
  Groups groups_;
  /// The stream of each chunk, oldest chunk first.
  std::deque<LogStream*> chunk_owners_;
  std::size_t events_kept_ = 0;
  std::size_t bytes_kept_ = 0;
};

}  // namespace spillway::local
