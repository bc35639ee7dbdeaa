// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include <spillway/buffers/cells.hpp>

namespace spillway::detail {

std::size_t BankLayout::bytes() const noexcept {
  const std::size_t bytes = std::size_t{Bank::first_cell_offset()} + cell_bytes +
                            touched_entries() * sizeof(std::uint32_t) +
                            (std::size_t{block_max} + 1) * sizeof(OctaveBlock);
  return (bytes + cache_line_bytes - 1) / cache_line_bytes * cache_line_bytes;
}

void Bank::clear() noexcept {
  if (blocks_used_ != 0) std::memset(blocks_[1], 0, blocks_used_ * sizeof(OctaveBlock));
  blocks_used_ = 0;
  touched_count_ = 0;
}

bool Bank::ensure_block(std::uint16_t& slot) noexcept {
  if (slot == 0 && blocks_used_ < block_max_) slot = static_cast<std::uint16_t>(++blocks_used_);
  return slot != 0;
}

std::uint32_t Bank::find_block(HistogramCell& histogram, std::uint32_t bucket) noexcept {
  const std::uint32_t octave = (bucket >> bucket_bits) - direct_octave_first;
  if (octave < direct_octaves) {
    std::uint16_t& block = histogram.block_of_octave[octave];
    return ensure_block(block) ? block : 0;
  }
  if (!ensure_block(histogram.directory_block)) return 0;
  std::uint16_t& directory = directory_block(histogram.directory_block)[bucket >> directory_shift];
  if (!ensure_block(directory)) return 0;
  std::uint16_t& block =
      directory_block(directory)[bucket >> bucket_bits & (octaves_per_directory - 1)];
  return ensure_block(block) ? block : 0;
}

template <class Cell>
bool Bank::widen(Cell& cell, std::uint32_t series, double value) noexcept {
  if (!is_valid_measurement(value)) return false;
  if (cell.count == 0) {
    touch(series);
    cell.minimum = cell.maximum = value;
  }
  cell.minimum = std::min(cell.minimum, value);
  cell.maximum = std::max(cell.maximum, value);
  return true;
}
template bool Bank::widen(GaugeCell&, std::uint32_t, double) noexcept;

void Bank::add_exemplar(std::uint32_t offset, const ExemplarRecord& exemplar) noexcept {
  auto& histogram = cell<HistogramCell>(offset);
  // A cell without a value is not among the touched ones, which alone are read and cleared.
  if (histogram.count == 0 || !ensure_block(histogram.exemplar_block)) return;
  ExemplarBlock& block = exemplar_block(histogram.exemplar_block);
  block.records[block.count++ % ExemplarBlock::kept] = exemplar;
}

Recorded Bank::record(std::uint32_t offset, std::uint32_t series, double value) noexcept {
  auto& histogram = cell<HistogramCell>(offset);
  value = without_tiny(value);
  const bool is_highest = histogram.count == 0 || value > histogram.maximum;
  if (!widen(histogram, series, value)) return Recorded::not_at_all;
  histogram.sum.add(value, histogram.count);
  histogram.count += 1;
  const std::uint32_t bucket = bucket_of(value);
  if (const std::uint32_t block = find_block(histogram, bucket); block != 0) {
    ++octave_block(block)[bucket & (buckets_per_octave - 1)];
  }
  return is_highest ? Recorded::as_highest : Recorded::plainly;
}

}  // namespace spillway::detail
