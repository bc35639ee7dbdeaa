// SPDX-License-Identifier: Apache-2.0
//
// What the spool asks of a file system: each call that may fail, as one function, so that a test or a
// simulation can make it fail. The sender's thread calls it. Results are 0 or more, or an errno with
// a minus sign; nothing throws but std::bad_alloc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace spillway::transport {

class Disk {
 public:
  /// A directory or a file that is open; ended by close().
  using Handle = int;
  /// In place of a parent directory: names are paths.
  static constexpr Handle no_parent = -100;

  virtual ~Disk() = default;

  /// Makes a directory that only its owner may enter. -EEXIST is no trouble.
  virtual int make_directory(Handle parent, const std::string& name) = 0;
  /// Opens a directory. -EPERM: it is a symbolic link, or somebody else owns it or may write there.
  virtual Handle open_directory(Handle parent, const std::string& name) = 0;
  /// Takes a directory for this handle alone; -EWOULDBLOCK: another one has it. Ends with the handle,
  /// and with the process.
  virtual int lock(Handle directory) = 0;
  virtual int list(Handle directory, std::vector<std::string>& names) = 0;

  /// A new file that only its owner may read, to write to; -EEXIST when the name is taken.
  virtual Handle create(Handle directory, const std::string& name) = 0;
  virtual std::int64_t write(Handle file, const char* bytes, std::size_t count) = 0;
  /// An existing file, to read, and its size. -EPERM: it is not a plain file of this user's with this
  /// one name.
  virtual Handle open(Handle directory, const std::string& name, std::uint64_t& size) = 0;
  virtual std::int64_t read(Handle file, char* bytes, std::size_t count) = 0;
  /// What was written to a file, or which names a directory has, outlives a loss of power.
  virtual int sync(Handle handle) = 0;
  virtual void close(Handle handle) = 0;
  virtual int rename(Handle directory, const std::string& from, const std::string& to) = 0;
  virtual int remove(Handle directory, const std::string& name) = 0;
};

/// Puts a file with these bytes in the place of the one of that name, by a rename: whoever reads it, and
/// whenever the process dies, sees the old one or the new one. 0, or an errno with a minus sign: then the
/// old one is there. Uses the name `<name>.new`.
int replace_file(Disk& disk, Disk::Handle directory, const std::string& name,
                 std::span<const std::string_view> pieces);

/// The machine's own. A child of fork() does not keep its parent's locks.
std::shared_ptr<Disk> system_disk();

}  // namespace spillway::transport
