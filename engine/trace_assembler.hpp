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
/// dropped) go out on their own after `patience`, or when they come to `segment_bytes_max`, so that no
/// round has more to write than that; and the first ones when those of all segments come to
/// `held_bytes_max`.
///
/// A segment that was announced when it began goes out as one in progress when it is still open after
/// `in_progress_after`, once.
class TraceAssembler {
 public:
  static constexpr std::chrono::seconds patience{3};
  static constexpr std::size_t held_bytes_max = 8U << 20;
  static constexpr std::size_t segment_bytes_max = 256U << 10;
  /// Announced and not ended; of more than these the next ones are not shown in progress.
  static constexpr std::size_t open_segments_max = 16'384;

  /// Appends the spans of one segment to a payload.
  using Encode =
      std::function<TraceEncoded(std::span<const SpanView>, const ContextTexts&, Payload&)>;

  /// `batcher` and `ledger` outlive it. `in_progress_after` 0: no segment is announced.
  TraceAssembler(Encode encode, Batcher& batcher, Ledger& ledger,
                 std::chrono::milliseconds in_progress_after = {});

  void add_part(std::uint64_t span_id, std::span<const std::byte> entries, SteadyTime now);
  void add_span(const SpanView& span, const ContextTexts& context, SteadyTime now);

  /// A segment has begun: `span` is as it will be, but for its end.
  void announce(const SpanView& span, const ContextTexts& context, SteadyTime now);

  /// Ends a round: encodes the segments that are complete since the round before, and those that
  /// waited too long.
  void end_round(SteadyTime now);
  /// Encodes everything that is held.
  void flush(SteadyTime now);
  /// When the first span came of those that are held; max: none is. Looks at each segment.
  SteadyTime oldest() const;

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
    std::string trace_state;
  };
  struct Part {
    std::vector<std::byte> entries;
    SteadyTime since{};
  };

  struct Announced {
    std::unique_ptr<Segment> segment;  // of its root alone
    SteadyTime since{};
  };

  static std::size_t bytes_of(const Segment& segment);
  void hold(Segment& segment, const SpanView& span, std::span<const std::byte> part);
  void send(std::unique_ptr<Segment> segment, SteadyTime now);
  void send_in_progress(SteadyTime now);
  void encode(const Segment& segment, bool counted, SteadyTime now) noexcept;
  void spare(std::unique_ptr<Segment> segment);
  std::unique_ptr<Segment> take_segment();

  const Encode encode_;
  Batcher& batcher_;
  Ledger& ledger_;
  const std::chrono::milliseconds in_progress_after_;
  std::uint64_t round_ = 1;
  std::size_t held_bytes_ = 0;
  std::unordered_map<std::uint64_t, std::unique_ptr<Segment>> segments_;
  std::unordered_map<std::uint64_t, Part> parts_;
  std::unordered_map<std::uint64_t, Announced> announced_;  // segments that are open
  std::vector<std::unique_ptr<Segment>> spare_;
  std::vector<SpanView> views_;
  std::vector<std::uint64_t>
      complete_;  // segments whose root came in the round before or in this one
  SteadyTime next_sweep_{};
};

}  // namespace spillway::detail
