// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <utility>

#include <fcntl.h>
#include <unistd.h>

#include <spillway/middleware/resilience/cgroup.hpp>
#include <spillway/transport/text.hpp>

namespace spillway::middleware {
namespace {

constexpr std::size_t file_bytes_max = 64U << 10;
constexpr std::size_t folders_max = 16;
// Version 1 writes "no limit" as the largest number of pages.
constexpr std::uint64_t unlimited_from = std::uint64_t{1} << 60;

/// Takes the next line off `text`.
std::string_view next_line(std::string_view& text) noexcept {
  const auto end = text.find('\n');
  const std::string_view line = text.substr(0, end);
  text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  return line;
}

/// The number behind a key: "nr_periods 17", "MemTotal:  24684092 kB".
std::optional<std::uint64_t> value_of(std::string_view text, std::string_view key) {
  while (!text.empty()) {
    std::string_view line = next_line(text);
    if (!line.starts_with(key)) continue;
    line.remove_prefix(key.size());
    if (!line.starts_with(' ')) continue;
    line = transport::trim(line);
    return transport::parse_number<std::uint64_t>(line.substr(0, line.find(' ')));
  }
  return std::nullopt;
}

/// Whether `list` ("cpu,cpuacct") has `name`.
bool names(std::string_view list, std::string_view name) {
  while (!list.empty()) {
    const auto comma = list.find(',');
    if (list.substr(0, comma) == name) return true;
    list.remove_prefix(comma == std::string_view::npos ? list.size() : comma + 1);
  }
  return false;
}

}  // namespace

Cgroup::Cgroup(std::string root) : root_(std::move(root)) {}

std::optional<std::string> Cgroup::read(const std::string& path) const {
  const int descriptor = open((root_ + path).c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return std::nullopt;
  std::string text;
  std::array<char, 4096> piece;
  ssize_t size = 0;
  while (text.size() < file_bytes_max &&
         (size = ::read(descriptor, piece.data(), piece.size())) > 0)
    text.append(piece.data(), static_cast<std::size_t>(size));
  close(descriptor);
  if (size < 0) return std::nullopt;
  return text;
}

// Lines of /proc/self/cgroup: "4:memory:/shop/orders" (version 1), "0::/shop/orders" (version 2).
Cgroup::Place Cgroup::place_of(std::string_view controller) const {
  const std::string groups = read("/proc/self/cgroup").value_or("");
  std::string base = "/sys/fs/cgroup";
  std::string path;
  Place place;
  for (std::string_view text = groups; !text.empty();) {
    const std::string_view line = next_line(text);
    const auto first = line.find(':');
    const auto second = line.find(':', first + 1);
    if (first == std::string_view::npos || second == std::string_view::npos) continue;
    const std::string_view controllers = line.substr(first + 1, second - first - 1);
    if (!controllers.empty() && !names(controllers, controller)) continue;
    if (controllers.empty() && !place.v2) continue;  // Version 1 has the controller.
    path = line.substr(second + 1);
    place.v2 = controllers.empty();
    if (!place.v2) base = "/sys/fs/cgroup/" + std::string(controllers);
  }
  // In a container without a namespace of its own the path is the host's and leads nowhere: what is
  // mounted is then the group itself.
  while (path.size() > 1 && place.folders.size() < folders_max) {
    place.folders.push_back(base + path);
    path.resize(path.rfind('/'));
  }
  place.folders.push_back(base);
  return place;
}

std::optional<Cgroup::Memory> Cgroup::memory() const {
  const Place place = place_of("memory");
  const char* const limit_file = place.v2 ? "/memory.max" : "/memory.limit_in_bytes";
  const char* const used_file = place.v2 ? "/memory.current" : "/memory.usage_in_bytes";
  const char* const cache_key = place.v2 ? "inactive_file" : "total_inactive_file";
  std::optional<Memory> tightest;
  for (const std::string& folder : place.folders) {
    const auto number = [&](const char* file) -> std::optional<std::uint64_t> {
      const auto text = read(folder + file);
      return text ? transport::parse_number<std::uint64_t>(transport::trim(*text)) : std::nullopt;
    };
    const auto limit = number(limit_file);  // "max" is no number.
    const auto used = number(used_file);
    if (!limit || !used || *limit == 0 || *limit >= unlimited_from) continue;
    const std::uint64_t cache =
        value_of(read(folder + "/memory.stat").value_or(""), cache_key).value_or(0);
    const Memory memory{*used - std::min(*used, cache), *limit};
    if (!tightest || memory.utilization() > tightest->utilization()) tightest = memory;
  }
  if (tightest) return tightest;
  const std::string machine = read("/proc/meminfo").value_or("");
  const auto total = value_of(machine, "MemTotal:");
  const auto available = value_of(machine, "MemAvailable:");
  if (!total || !available || *total == 0) return std::nullopt;
  return Memory{(*total - std::min(*total, *available)) << 10, *total << 10, true};
}

std::optional<Cgroup::Cpu> Cgroup::cpu() const {
  for (const std::string& folder : place_of("cpu").folders) {
    const auto text = read(folder + "/cpu.stat");
    if (!text) continue;
    const auto periods = value_of(*text, "nr_periods");
    const auto throttled = value_of(*text, "nr_throttled");
    if (periods && throttled) return Cpu{*periods, *throttled};
  }
  return std::nullopt;
}

std::optional<std::chrono::microseconds> Cgroup::cpu_pressure() const {
  std::vector<std::string> files;
  const Place place = place_of("cpu");
  if (place.v2) files.push_back(place.folders.front() + "/cpu.pressure");
  files.push_back("/proc/pressure/cpu");
  for (const std::string& file : files) {
    // some avg10=1.53 avg60=0.87 avg300=0.69 total=3495870
    const auto content = read(file);
    if (!content) continue;
    std::string_view text = *content;
    const std::string_view line = next_line(text);
    constexpr std::string_view key = " total=";
    const auto at = line.find(key);
    if (!line.starts_with("some ") || at == std::string_view::npos) continue;
    if (const auto total = transport::parse_number<std::int64_t>(line.substr(at + key.size())))
      return std::chrono::microseconds(*total);
  }
  return std::nullopt;
}

}  // namespace spillway::middleware
