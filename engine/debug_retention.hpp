// SPDX-License-Identifier: Apache-2.0
//
// Log records below the level, kept until it is known whether their request is one that somebody will
// look at: it failed, was slow, or is sampled. Then they go out as if the level had been lower; else
// they are dropped as not_retained. Flusher only; bounded in bytes, requests and time, the oldest
// request going first.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <spillway/buffers/batch.hpp>
#include <spillway/engine/clock.hpp>

namespace spillway::detail {

class DebugRetention {
 public:
  /// Requests that records are kept of, or that are known to be interesting.
  static constexpr std::size_t requests_max = 1U << 16;
  /// A request that does not end within this is not one that is waited for.
  static constexpr std::chrono::seconds age_max{60};

  /// A kept record, redacted, with the number of its call site and its ticks.
  using Ship = std::function<void(const LogView& log, std::uint32_t site, std::uint64_t ticks)>;
  using Drop = std::function<void(std::uint64_t records)>;

  /// `ship` sends a record at last, `drop` counts those that are let go.
  DebugRetention(std::size_t bytes_max, Ship ship, Drop drop);

  /// Keeps a record below the level, or ships it when its request is known to be interesting. One that
  /// belongs to no request (its context has neither request id nor trace) is dropped.
  void take(const LogView& log, std::uint32_t site, std::uint64_t ticks, SteadyTime now);
  /// The request of this context is interesting: ships what is kept of it, and what is still to come.
  void keep(const ContextTexts& context, SteadyTime now);
  /// The request has ended and is not, unless keep() said so.
  void end(const ContextTexts& context);
  /// Lets go of requests that are too old.
  void expire(SteadyTime now);
  /// Lets go of all.
  void clear();

  std::size_t bytes() const noexcept { return bytes_; }

 private:
  struct Record {
    std::uint32_t site;
    const SiteInfo* info;
    std::int64_t time_ns;
    std::uint64_t ticks;
    std::uint64_t span_id;
    std::string values;
  };
  struct Request {
    std::string key;
    std::string tenant;
    std::string user;
    std::string request_id;
    TraceId trace_id;
    SteadyTime since;
    bool is_interesting = false;
    std::size_t bytes = 0;
    std::vector<Record> records;
  };
  using Requests = std::list<Request>;  // the oldest in front

  /// False: the context is of no request.
  bool make_key(const ContextTexts& context);
  Request* find();
  Request& find_or_add(const ContextTexts& context, SteadyTime now);
  void forget(Requests::iterator request);
  static std::size_t bytes_of(const Request& request) noexcept;
  static std::size_t bytes_of(const Record& record) noexcept;

  const std::size_t bytes_max_;
  const Ship ship_;
  const Drop drop_;
  Requests requests_;
  std::unordered_map<std::string_view, Requests::iterator> by_key_;  // into the requests' own keys
  std::size_t bytes_ = 0;
  std::string key_;
};

}  // namespace spillway::detail
