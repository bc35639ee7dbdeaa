// SPDX-License-Identifier: Apache-2.0
//
// A payload as a file of the spool. All integers as the machine stores them (little endian).
//
//   SpoolHeader | SpoolItem of each item | the items' bytes, one after the other
//
// The header and the table of items have a checksum each, and so has every item's bytes: what is
// damaged or cut off costs the items that it hit, and no other one. Only a damaged header or table
// costs the whole file.
//
// How far a payload has been delivered, and how many records are left of it, says the name of the
// file, because a rename is one step and needs no room on the disk:
//
//   00000000000000a1-019aa3e5f6c0-000000000000000c-000000-0001a2b3-logs-put-log-events
//   sequence         created_ms   records left     items  bytes    signal destination
//                                                  done
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <spillway/buffers/byte_buffer.hpp>
#include <spillway/buffers/payload.hpp>

namespace spillway::detail {

struct SpoolHeader {
  char magic[8];
  std::uint32_t version;
  std::uint32_t items;
  std::uint64_t bytes;       ///< of the items together
  std::int64_t created_ms;   ///< wall clock
  std::uint32_t signal;      ///< Signal
  char destination[28];      ///< name of its exporter, filled up with zeros
  std::uint32_t table_crc;   ///< CRC-32 of the table of items
  std::uint32_t header_crc;  ///< CRC-32 of all of the above
};
static_assert(sizeof(SpoolHeader) == 72 && std::is_trivially_copyable_v<SpoolHeader>);

struct SpoolItem {
  std::uint32_t bytes;
  std::uint32_t crc;  ///< CRC-32 of its bytes
  std::uint64_t records;
  std::int64_t time_ms;
  std::uint64_t id;
};
static_assert(sizeof(SpoolItem) == 32 && std::is_trivially_copyable_v<SpoolItem>);

/// A file larger than this is none of ours: no destination takes a payload of that size.
inline constexpr std::uint64_t spool_file_bytes_max = 64U << 20;
inline constexpr std::size_t spool_destination_chars_max = sizeof(SpoolHeader::destination) - 1;

/// What the name of a file says.
struct SpoolName {
  std::uint64_t sequence = 0;
  std::int64_t created_ms = 0;
  std::uint64_t records = 0;     ///< that are not delivered or dropped yet
  std::uint32_t items_done = 0;  ///< the first so many are delivered or dropped
  std::uint32_t bytes = 0;       ///< of the file
  Signal signal = Signal::metrics;
  std::string destination;

  std::string text() const;
  void append_to(std::string& text) const;
};
/// Nothing: it is no file of a spool.
std::optional<SpoolName> parse_spool_name(std::string_view text);

std::string_view signal_name(Signal signal) noexcept;

/// Appends the payload as a file. Items beyond 2^32 bytes do not occur: payloads are smaller.
void append_spool_file(const Payload& payload, std::string_view destination,
                       std::int64_t created_ms, ByteBuffer& out);

/// What can be read of a file.
struct SpoolFile {
  struct Item {
    SpoolItem entry;
    std::string_view bytes;
    bool intact;
  };
  Signal signal = Signal::metrics;
  std::string destination;
  std::int64_t created_ms = 0;
  std::vector<Item> items;  ///< all that the table names, also those that are damaged or cut off
};
/// Views into `bytes`. Nothing: it is no file of a spool, or its header or table is damaged.
std::optional<SpoolFile> read_spool_file(std::string_view bytes);

}  // namespace spillway::detail
