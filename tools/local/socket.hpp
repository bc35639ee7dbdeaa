// SPDX-License-Identifier: Apache-2.0
//
// File descriptors that close themselves, and what the two listeners share.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

namespace spillway::local {

class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int fd) : fd_(fd) {}
  ~FileDescriptor() { reset(); }
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }

  int get() const { return fd_; }
  void reset() noexcept;

 private:
  int fd_ = -1;
};

/// Something that a waiting thread can be called away with. Once called, for good.
class StopSignal {
 public:
  StopSignal();
  void call() noexcept;
  /// Waits until `fd` can be read (or written); false when called away or when time is up.
  bool wait_for(int fd, bool write,
                std::optional<std::chrono::steady_clock::time_point> deadline) const;
  /// Waits out a time; false when called away.
  bool sleep_for(std::chrono::milliseconds time) const {
    return !wait_for(-1, false, std::chrono::steady_clock::now() + time) && !called();
  }
  bool called() const;

 private:
  FileDescriptor event_;
};

enum class SocketKind : std::uint8_t { stream, datagram };

/// A bound (and for streams listening) socket on a loopback address. Throws std::system_error when
/// it cannot be had, std::invalid_argument when `host` is not loopback.
FileDescriptor open_listener(const std::string& host, std::uint16_t port, SocketKind kind);
std::uint16_t port_of(const FileDescriptor& listener);

}  // namespace spillway::local
