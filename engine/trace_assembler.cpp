// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <new>

#include <spillway/engine/trace_assembler.hpp>

namespace spillway::detail {

TraceAssembler::TraceAssembler(Encode encode, Batcher& batcher, Ledger& ledger,
                               std::chrono::milliseconds in_progress_after)
    : encode_(std::move(encode)),
      batcher_(batcher),
      ledger_(ledger),
      in_progress_after_(in_progress_after) {}

std::unique_ptr<TraceAssembler::Segment> TraceAssembler::take_segment() {
  if (spare_.empty()) return std::make_unique<Segment>();
  std::unique_ptr<Segment> segment = std::move(spare_.back());
  spare_.pop_back();
  return segment;
}

void TraceAssembler::spare(std::unique_ptr<Segment> segment) {
  constexpr std::size_t spare_max = 1024;
  constexpr std::size_t spare_bytes_max = 8192;
  if (spare_.size() == spare_max ||
      segment->bytes.capacity() + segment->spans.capacity() * sizeof(HeldSpan) > spare_bytes_max) {
    return;
  }
  segment->spans.clear();
  segment->bytes.clear();
  segment->root_round = 0;
  try {
    spare_.push_back(std::move(segment));
  } catch (const std::bad_alloc&) {  // One less to use again.
  }
}

std::size_t TraceAssembler::bytes_of(const Segment& segment) {
  return segment.bytes.size() + segment.spans.size() * sizeof(HeldSpan);
}

void TraceAssembler::add_part(std::uint64_t span_id, std::span<const std::byte> entries,
                              SteadyTime now) {
  if (held_bytes_ + entries.size() > held_bytes_max) return;  // The span goes out without it.
  try {
    Part& part = parts_[span_id];
    part.since = now;
    part.entries.insert(part.entries.end(), entries.begin(), entries.end());
    held_bytes_ += entries.size();
  } catch (const std::bad_alloc&) {  // The same.
    if (const auto part = parts_.find(span_id); part != parts_.end()) {
      held_bytes_ -= part->second.entries.size();
      parts_.erase(part);
    }
  }
}

// Adds a span with the entries that went ahead of it, and then its own.
void TraceAssembler::hold(Segment& segment, const SpanView& span, std::span<const std::byte> part) {
  HeldSpan held{span, segment.bytes.size()};
  try {
    segment.bytes.insert(segment.bytes.end(), part.begin(), part.end());
    segment.bytes.insert(segment.bytes.end(), span.entries.begin(), span.entries.end());
    held.view.body.entry_bytes =
        static_cast<std::uint32_t>(segment.bytes.size() - held.entries_offset);
    segment.spans.push_back(held);
  } catch (const std::bad_alloc&) {
    segment.bytes.resize(held.entries_offset);
    throw;
  }
}

namespace {

template <class Segment>
void set_context(Segment& segment, const ContextTexts& context) {
  segment.tenant = context.tenant;
  segment.user = context.user;
  segment.request_id = context.request_id;
  segment.trace_state = context.trace_state;
}

}  // namespace

void TraceAssembler::add_span(const SpanView& span, const ContextTexts& context, SteadyTime now) {
  const std::uint64_t id = span.body.segment_id;
  // What can run out of memory comes before what is counted on.
  if (segments_.find(id) == segments_.end()) {
    std::unique_ptr<Segment> made = take_segment();
    made->since = now;
    set_context(*made, context);  // The root's own, when it comes, is the same.
    segments_.emplace(id, std::move(made));
  }
  std::unique_ptr<Segment>& segment = segments_.find(id)->second;
  if (span.body.span_id == id) {
    complete_.push_back(id);
    set_context(*segment, context);
  }
  const std::size_t bytes_before = bytes_of(*segment);
  if ((span.body.flags & span_has_parts) == 0) {
    hold(*segment, span, {});
  } else if (const auto part = parts_.find(span.body.span_id); part != parts_.end()) {
    hold(*segment, span, part->second.entries);
    held_bytes_ -= part->second.entries.size();
    parts_.erase(part);
  } else {
    hold(*segment, span, {});
    segment->spans.back().view.body.flags |= span_cut;
  }
  const std::size_t bytes = bytes_of(*segment);
  held_bytes_ += bytes - bytes_before;
  if (span.body.span_id == id) {
    segment->root_round = round_;
    if (const auto open = announced_.find(id); open != announced_.end()) {
      spare(std::move(open->second.segment));
      announced_.erase(open);
    }
  } else if (bytes > segment_bytes_max && segment->root_round == 0) {
    send(std::move(segment), now);
    segments_.erase(id);
  }
  // One for each that comes: what waits stays within its bound, and no round is longer for it.
  if (held_bytes_ > held_bytes_max && !segments_.empty()) {
    const auto first = segments_.begin();
    send(std::move(first->second), now);
    segments_.erase(first);
  }
}

void TraceAssembler::announce(const SpanView& span, const ContextTexts& context, SteadyTime now) {
  const std::uint64_t id = span.body.segment_id;
  // Its end may have come first, by the ring of another thread.
  if (const auto ended = segments_.find(id);
      ended != segments_.end() && ended->second->root_round != 0) {
    return;
  }
  if (announced_.size() == open_segments_max) return;
  std::unique_ptr<Segment> segment = take_segment();
  hold(*segment, span, {});
  set_context(*segment, context);
  announced_[id] = {std::move(segment), now};
}

void TraceAssembler::send_in_progress(SteadyTime now) {
  for (auto at = announced_.begin(); at != announced_.end();) {
    const bool waits = now - at->second.since < in_progress_after_;
    if (!waits) {
      encode(*at->second.segment, false, now);
      spare(std::move(at->second.segment));
    }
    at = waits ? std::next(at) : announced_.erase(at);
  }
}

void TraceAssembler::end_round(SteadyTime now) {
  std::erase_if(complete_, [&](std::uint64_t id) {
    const auto found = segments_.find(id);
    if (found == segments_.end()) return true;
    if (found->second->root_round == round_) return false;
    send(std::move(found->second), now);
    segments_.erase(found);
    return true;
  });
  ++round_;
  if (now < next_sweep_) return;
  next_sweep_ = now + patience / 4;
  send_in_progress(now);
  for (auto at = segments_.begin(); at != segments_.end();) {
    const bool waits = at->second->root_round != 0 || now - at->second->since < patience;
    if (!waits) send(std::move(at->second), now);
    at = waits ? std::next(at) : segments_.erase(at);
  }
  // Parts whose span was dropped.
  constexpr std::chrono::minutes part_patience{5};
  std::erase_if(parts_, [&](const auto& entry) {
    if (now - entry.second.since < part_patience) return false;
    held_bytes_ -= entry.second.entries.size();
    return true;
  });
}

void TraceAssembler::flush(SteadyTime now) {
  for (auto& [id, segment] : segments_) send(std::move(segment), now);
  segments_.clear();
  complete_.clear();
}

SteadyTime TraceAssembler::oldest() const {
  SteadyTime oldest = SteadyTime::max();
  for (const auto& [id, segment] : segments_) oldest = std::min(oldest, segment->since);
  for (const auto& [id, part] : parts_) oldest = std::min(oldest, part.since);
  return oldest;
}

void TraceAssembler::encode(const Segment& segment, bool counted, SteadyTime now) noexcept try {
  if (segment.spans.empty()) return;  // There was no memory for its only one.
  views_.clear();
  for (const HeldSpan& held : segment.spans) {
    views_.push_back(held.view);
    views_.back().entries =
        std::span(segment.bytes).subspan(held.entries_offset, held.view.body.entry_bytes);
  }
  const ContextTexts context{
      segment.tenant, segment.user, segment.request_id, {}, segment.trace_state};
  const TraceEncoded result = encode_(views_, context, batcher_.open());
  batcher_.appended(now);
  if (counted && result.spans_too_large != 0) {
    ledger_.drop_in_batch(Signal::spans, DropCause::too_large, result.spans_too_large);
  }
} catch (const std::bad_alloc&) {
  batcher_.cancel();
  if (counted) ledger_.drop_in_batch(Signal::spans, DropCause::no_memory, segment.spans.size());
}

void TraceAssembler::send(std::unique_ptr<Segment> segment, SteadyTime now) {
  encode(*segment, true, now);
  held_bytes_ -= bytes_of(*segment);
  spare(std::move(segment));
}

}  // namespace spillway::detail
