// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include <spillway/buffers/batch.hpp>
#include <spillway/encoders/xray.hpp>
#include <spillway/engine/batcher.hpp>
#include <spillway/engine/clock.hpp>
#include <spillway/engine/ledger.hpp>

namespace spillway::detail {

/// Brings the spans of one segment together, so that a trace goes out in few documents. Flusher
/// only.
///
/// A segment goes out one round after its root was drained: spans that ended before it on other
/// threads are in their rings by then. Spans whose root does not come (it is still open, or was
/// dropped) go out on their own after `patience`, or when more than `held_bytes_max` wait.
class TraceAssembler {
 public:
  static constexpr std::chrono::seconds patience{3};
  static constexpr std::size_t held_bytes_max = 8U << 20;

  /// Appends the spans of one segment to a payload.
  using Encode =
      std::function<TraceEncoded(std::span<const SpanView>, const ContextTexts&, Payload&)>;

  /// `batcher` and `ledger` outlive it.
  TraceAssembler(Encode encode, Batcher& batcher, Ledger& ledger);

  void add_part(std::uint64_t span_id, std::span<const std::byte> entries, SteadyTime now);
  void add_span(const SpanView& span, const ContextTexts& context, SteadyTime now);

  /// Ends a round: encodes the segments that are complete since the round before, and those that
  /// waited too long.
  void end_round(SteadyTime now);
  /// Encodes everything that is held.
  void flush(SteadyTime now);

 private:
  struct HeldSpan {
    SpanView view;  // its entries are an offset into `bytes` until the segment is encoded
    std::size_t entries_offset;
  };
  struct Segment {
    std::vector<HeldSpan> spans;
    std::vector<std::byte> bytes;
    SteadyTime since{};
    std::uint64_t root_round = 0;  // the round that the root came in; 0: not yet
    std::string tenant;
    std::string user;
    std::string request_id;
  };
  struct Part {
    std::vector<std::byte> entries;
    SteadyTime since{};
  };

  void send(std::unique_ptr<Segment> segment, SteadyTime now);
  std::unique_ptr<Segment> take_segment();

  const Encode encode_;
  Batcher& batcher_;
  Ledger& ledger_;
  std::uint64_t round_ = 1;
  std::size_t held_bytes_ = 0;
  std::unordered_map<std::uint64_t, std::unique_ptr<Segment>> segments_;
  std::unordered_map<std::uint64_t, Part> parts_;
  std::vector<std::unique_ptr<Segment>> spare_;
  std::vector<SpanView> views_;
  std::vector<std::uint64_t>
      complete_;  // segments whose root came in the round before or in this one
  SteadyTime next_sweep_{};
};

}  // namespace spillway::detail
