// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include <spillway/engine/trace_assembler.hpp>

namespace spillway::detail {

TraceAssembler::TraceAssembler(Encode encode, Batcher& batcher, Ledger& ledger)
    : encode_(std::move(encode)), batcher_(batcher), ledger_(ledger) {}

std::unique_ptr<TraceAssembler::Segment> TraceAssembler::take_segment() {
  if (spare_.empty()) return std::make_unique<Segment>();
  std::unique_ptr<Segment> segment = std::move(spare_.back());
  spare_.pop_back();
  return segment;
}

void TraceAssembler::add_part(std::uint64_t span_id, std::span<const std::byte> entries,
                              SteadyTime now) {
  if (held_bytes_ + entries.size() > held_bytes_max) return;  // The span goes out without it.
  Part& part = parts_[span_id];
  part.since = now;
  part.entries.insert(part.entries.end(), entries.begin(), entries.end());
  held_bytes_ += entries.size();
}

void TraceAssembler::add_span(const SpanView& span, const ContextTexts& context, SteadyTime now) {
  auto& segment = segments_[span.body.segment_id];
  if (segment == nullptr) {
    segment = take_segment();
    segment->since = now;
  }
  HeldSpan held{span, segment->bytes.size()};
  const auto append = [&](std::span<const std::byte> entries) {
    segment->bytes.insert(segment->bytes.end(), entries.begin(), entries.end());
    held_bytes_ += entries.size();
  };
  if ((span.body.flags & span_has_parts) != 0) {
    if (const auto part = parts_.find(span.body.span_id); part != parts_.end()) {
      append(part->second.entries);
      held_bytes_ -= part->second.entries.size();
      parts_.erase(part);
    } else {
      held.view.body.flags |= span_cut;
    }
  }
  append(span.entries);
  held.view.body.entry_bytes =
      static_cast<std::uint32_t>(segment->bytes.size() - held.entries_offset);
  held_bytes_ += sizeof(HeldSpan);
  segment->spans.push_back(held);
  if (span.body.span_id == span.body.segment_id) {
    segment->root_round = round_;
    segment->tenant = context.tenant;
    segment->user = context.user;
    segment->request_id = context.request_id;
    complete_.push_back(span.body.segment_id);
  }
  if (held_bytes_ > held_bytes_max) flush(now);
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

void TraceAssembler::send(std::unique_ptr<Segment> segment, SteadyTime now) {
  views_.clear();
  for (const HeldSpan& held : segment->spans) {
    views_.push_back(held.view);
    views_.back().entries =
        std::span(segment->bytes).subspan(held.entries_offset, held.view.body.entry_bytes);
  }
  const ContextTexts context{segment->tenant, segment->user, segment->request_id, {}};
  const TraceEncoded result = encode_(views_, context, batcher_.open());
  batcher_.appended(now);
  if (result.spans_too_large != 0) {
    ledger_.drop_in_batch(Signal::spans, DropCause::too_large, result.spans_too_large);
  }
  held_bytes_ -= segment->bytes.size() + segment->spans.size() * sizeof(HeldSpan);
  constexpr std::size_t spare_max = 1024;
  if (spare_.size() == spare_max) return;
  segment->spans.clear();
  segment->bytes.clear();
  segment->root_round = 0;
  spare_.push_back(std::move(segment));
}

}  // namespace spillway::detail
