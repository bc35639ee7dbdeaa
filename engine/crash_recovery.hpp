// SPDX-License-Identifier: Apache-2.0
//
// Reads the rings that a dead process left in crash_dir (crash_rings.hpp). Trusts nothing in them: the
// process may have died anywhere, and what is out of bounds ends the reading of its ring, and is
// counted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <spillway/buffers/names.hpp>
#include <spillway/buffers/record.hpp>
#include <spillway/engine/crash_rings.hpp>
#include <spillway/transport/disk.hpp>

namespace spillway::detail {

/// Takes the records of dead processes, lane by lane, in their order. What it is given is valid
/// during the call.
class RecoveredRecords {
 public:
  virtual ~RecoveredRecords() = default;
  /// Call sites are of the process that began last.
  virtual void begin_process() = 0;
  virtual void begin_lane() = 0;
  /// As in a ring, behind its header.
  virtual void on_context(std::span<const std::byte> body) = 0;
  virtual void on_log(const SiteInfo& site, std::uint32_t dead_site, std::int64_t wall_ns,
                      std::uint64_t span_id, std::span<const std::byte> values) = 0;
  /// Names of entries are numbers of this process.
  virtual void on_span(std::string_view name, std::int64_t start_ns, std::int64_t end_ns,
                       const SpanBody& body, std::span<const std::byte> entries) = 0;
  virtual void on_span_part(std::uint64_t span_id, std::span<const std::byte> entries) = 0;
};

class CrashRecovery {
 public:
  struct Counts {
    std::uint64_t processes = 0;
    std::uint64_t logs = 0;
    std::uint64_t spans = 0;
    std::uint64_t unreadable_bytes = 0;  ///< of rings, behind something that is no record
  };

  /// Takes the boxes of engines of `service` that are gone. `own_box` is this engine's. Null: there
  /// are none.
  static std::unique_ptr<CrashRecovery> find(const std::string& directory,
                                             const std::string& service,
                                             const std::string& own_box);
  ~CrashRecovery();

  Counts read(RecoveredRecords& records);
  /// Deletes what was read: it is settled.
  void remove() noexcept;

 private:
  struct Box {
    transport::Disk::Handle handle = -1;
    std::vector<std::string> files;
  };
  struct DeadProcess;

  CrashRecovery() = default;
  void read_box(const Box& box, RecoveredRecords& records, Counts& counts);

  std::shared_ptr<transport::Disk> disk_ = transport::system_disk();
  std::vector<Box> boxes_;
};

}  // namespace spillway::detail
