// SPDX-License-Identifier: Apache-2.0
//
// What the kernel lets this process use, and how much of it is used: its control groups (version 2,
// and 1 where a controller is mounted there), pressure (PSI), and the machine where no group sets a
// limit. Reads files anew with each call: for threads that may wait, some 50 µs a call.
//
// Sources: the kernel's Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst,
// accounting/psi.rst, read 2026-11.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace spillway::middleware {

class Cgroup {
 public:
  /// `root` stands before "/proc" and "/sys": a directory of files for tests.
  explicit Cgroup(std::string root = {});

  /// Of the group, of this one and those it is in, that is closest to its limit; of the machine when
  /// none has one.
  struct Memory {
    std::uint64_t used = 0;  ///< without page cache that can go at once (inactive_file)
    std::uint64_t limit = 0;
    bool of_machine = false;
    double utilization() const noexcept {
      return limit == 0 ? 0 : static_cast<double>(used) / static_cast<double>(limit);
    }
  };
  std::optional<Memory> memory() const;

  /// Since the group began.
  struct Cpu {
    std::uint64_t periods = 0;    ///< of CPU bandwidth control; 0: no quota
    std::uint64_t throttled = 0;  ///< periods in which the quota was used up
  };
  std::optional<Cpu> cpu() const;

  /// How long some task has waited for a CPU ("some total"): of the group, else of the machine;
  /// nothing where the kernel does not measure it. Its growth over a time is the share of it.
  std::optional<std::chrono::microseconds> cpu_pressure() const;

 private:
  std::optional<std::string> read(const std::string& path) const;
  struct Place {
    bool v2 = true;
    std::vector<std::string> folders;  // this group's, then those it is in
  };
  Place place_of(std::string_view controller) const;

  const std::string root_;
};

}  // namespace spillway::middleware
