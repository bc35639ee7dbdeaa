// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>

#include <zlib.h>

#include <spillway/engine/crash_metrics.hpp>

namespace spillway::detail {

using transport::Disk;

namespace {

constexpr const char* file_name = "metrics";

std::uint64_t crc_of(const CrashPoint& head, std::span<const ValueCount> values) noexcept {
  auto crc = crc32(0, reinterpret_cast<const Bytef*>(&head), offsetof(CrashPoint, crc));
  if (!values.empty()) {
    crc = crc32(crc, reinterpret_cast<const Bytef*>(values.data()),
                static_cast<uInt>(values.size_bytes()));
  }
  return crc;
}

void append_point(const MetricPoint& point, std::int64_t end_ms, std::uint64_t sequence,
                  std::string& to) {
  CrashPoint head{point.series->id,
                  static_cast<std::uint32_t>(point.values.size()),
                  point.time_ms,
                  end_ms,
                  sequence,
                  point.count,
                  point.count - point.counted_elsewhere,
                  point.sum,
                  point.minimum,
                  point.maximum,
                  point.last,
                  0};
  head.crc = crc_of(head, point.values);
  to.append(reinterpret_cast<const char*>(&head), sizeof head);
  to.append(reinterpret_cast<const char*>(point.values.data()), point.values.size_bytes());
}

std::size_t bytes_of(const MetricPoint& point) noexcept {
  return sizeof(CrashPoint) + point.values.size_bytes();
}

}  // namespace

// ---- Writing ----

void CrashMetricsWriter::add_closed(const MetricPoint& point, std::int64_t end_ms,
                                    std::uint64_t sequence) {
  if (closed_.empty() || closed_.back().sequence != sequence) closed_.push_back({sequence, 0, {}});
  append_point(point, end_ms, sequence, closed_.back().bytes);
  ++closed_.back().points;
  closed_bytes_ += bytes_of(point);
  while (closed_bytes_ > bytes_max / 2) {
    closed_bytes_ -= closed_.front().bytes.size();
    left_out_ += closed_.front().points;
    closed_.pop_front();
  }
}

void CrashMetricsWriter::forget(const std::function<bool(std::uint64_t)>& settled) {
  while (!closed_.empty() && settled(closed_.front().sequence)) {
    closed_bytes_ -= closed_.front().bytes.size();
    closed_.pop_front();
  }
}

void CrashMetricsWriter::begin(std::span<const std::uint64_t> positions) {
  CrashMetricsHead head{};
  std::memcpy(head.magic, CrashMetricsHead::expected_magic, sizeof head.magic);
  head.lanes = positions.size();
  text_.clear();
  text_.append(reinterpret_cast<const char*>(&head), sizeof head);
  text_.append(reinterpret_cast<const char*>(positions.data()), positions.size_bytes());
}

void CrashMetricsWriter::add_open(const MetricPoint& point, std::int64_t end_ms) {
  if (text_.size() + bytes_of(point) > bytes_max / 2) {
    ++left_out_;
    return;
  }
  append_point(point, end_ms, 0, text_);
}

std::optional<int> CrashMetricsWriter::finish(Disk& disk, Disk::Handle box) {
  std::vector<std::string_view> pieces{text_};
  for (const Closed& one : closed_) pieces.push_back(one.bytes);
  const int error = transport::replace_file(disk, box, file_name, pieces);
  if (error == 0) return std::nullopt;
  // The old one would say again what has been delivered since.
  disk.remove(box, file_name);
  return error;
}

// ---- Reading ----

CrashMetricsReader::CrashMetricsReader(std::string bytes) : bytes_(std::move(bytes)) {
  CrashMetricsHead head{};
  if (bytes_.size() >= sizeof head) std::memcpy(&head, bytes_.data(), sizeof head);
  if (std::memcmp(head.magic, CrashMetricsHead::expected_magic, sizeof head.magic) == 0 &&
      head.lanes <= (bytes_.size() - sizeof head) / sizeof(std::uint64_t)) {
    lanes_ = head.lanes;
    at_ = sizeof head + lanes_ * sizeof(std::uint64_t);
    return;
  }
  unreadable_bytes_ = bytes_.size();
  at_ = bytes_.size();
}

std::uint64_t CrashMetricsReader::position_of(std::uint64_t lane) const noexcept {
  std::uint64_t position = 0;
  if (lane < lanes_) {
    std::memcpy(&position, bytes_.data() + sizeof(CrashMetricsHead) + lane * sizeof(std::uint64_t),
                sizeof position);
  }
  return position;
}

const CrashMetricsReader::Point* CrashMetricsReader::next() {
  while (at_ < bytes_.size()) {
    const std::size_t left = bytes_.size() - at_;
    CrashPoint& head = point_.head;
    if (left >= sizeof head) std::memcpy(&head, bytes_.data() + at_, sizeof head);
    if (left < sizeof head || head.values > (left - sizeof head) / sizeof(ValueCount)) {
      unreadable_bytes_ += left;
      at_ = bytes_.size();
      break;
    }
    point_.values.resize(head.values);
    if (head.values != 0) {
      std::memcpy(point_.values.data(), bytes_.data() + at_ + sizeof head,
                  point_.values.size() * sizeof(ValueCount));
    }
    const std::size_t bytes = sizeof head + point_.values.size() * sizeof(ValueCount);
    at_ += bytes;
    if (crc_of(head, point_.values) == head.crc) return &point_;
    unreadable_bytes_ += bytes;
  }
  return nullptr;
}

}  // namespace spillway::detail
