// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <spillway/transport/disk.hpp>

namespace spillway::testing {

/// A disk in memory whose calls fail when the test says so, and that knows what a loss of power leaves:
/// bytes and names that were synced. A crash freezes it: no later call has an effect, which is all that
/// a process can do to a disk once it is dead.
class MemoryDisk final : public transport::Disk {
 public:
  enum class Fault : std::uint8_t {
    fail,  ///< the call does nothing and returns `error`
    crash  ///< a write has done half of its work, any other call nothing
  };
  /// At the call with this number, counted from 1.
  void set_fault(std::uint64_t call, Fault fault, int error = ENOSPC) {
    fault_at_ = calls_ + call;
    fault_ = fault;
    error_ = error;
  }
  /// Every call that needs room fails while this is set.
  void set_full(bool full) { full_ = full; }
  /// Every call fails so while this is not 0.
  void set_broken(int error) { broken_ = error; }

  /// Nothing can be renamed or deleted while this is not 0.
  void set_undeletable(int error) { undeletable_ = error; }

  std::uint64_t calls() const { return calls_; }
  bool crashed() const { return crashed_; }
  std::function<void()> on_crash;
  /// Before each sync(): time that it takes.
  std::function<void()> on_sync;

  /// The disk as the next process finds it.
  void restart(bool power_was_lost) {
    crashed_ = false;
    fault_at_ = 0;
    handles_.clear();
    for (auto& [path, directory] : directories_) {
      directory.locked_by = -1;
      if (power_was_lost) {
        directory.names = directory.durable_names;
        for (auto& [name, file] : directory.names) file->bytes = file->durable_bytes;
      } else {
        directory.durable_names = directory.names;
      }
      for (auto& [name, file] : directory.names) file->durable_bytes = file->bytes;
    }
  }

  /// All files: path and content.
  std::vector<std::pair<std::string, std::string*>> files() {
    std::vector<std::pair<std::string, std::string*>> all;
    for (auto& [path, directory] : directories_) {
      for (auto& [name, file] : directory.names) all.emplace_back(path + "/" + name, &file->bytes);
    }
    return all;
  }
  /// As rm -r does it under a process that has them open.
  void remove_everything() { directories_.clear(); }

  int make_directory(Handle parent, const std::string& name) override {
    if (const int error = before(true)) return error;
    const std::string path = path_of(parent, name);
    if (directories_.contains(path)) return -EEXIST;
    directories_[path];
    return 0;
  }
  Handle open_directory(Handle parent, const std::string& name) override {
    if (const int error = before()) return error;
    const std::string path = path_of(parent, name);
    if (!directories_.contains(path)) return -ENOENT;
    return opened({path, nullptr, 0});
  }
  int lock(Handle handle) override {
    if (const int error = before()) return error;
    Directory* const directory = directory_of(handle);
    if (directory == nullptr) return -ENOENT;
    if (directory->locked_by >= 0 && directory->locked_by != handle) return -EWOULDBLOCK;
    directory->locked_by = handle;
    return 0;
  }
  int list(Handle handle, std::vector<std::string>& names) override {
    if (const int error = before()) return error;
    const std::string path = handles_.at(handle).path;
    for (const auto& [other, directory] : directories_) {
      if (other.starts_with(path + "/")) names.push_back(other.substr(path.size() + 1));
    }
    if (const Directory* const directory = directory_of(handle)) {
      for (const auto& [name, file] : directory->names) names.push_back(name);
    }
    return 0;
  }
  Handle create(Handle handle, const std::string& name) override {
    if (const int error = before(true)) return error;
    Directory* const directory = directory_of(handle);
    if (directory == nullptr) return -ENOENT;
    if (directory->names.contains(name)) return -EEXIST;
    auto file = std::make_shared<File>();
    directory->names[name] = file;
    return opened({handles_.at(handle).path, std::move(file), 0});
  }
  std::int64_t write(Handle handle, const char* bytes, std::size_t count) override {
    const bool dies = !crashed_ && calls_ + 1 == fault_at_ && fault_ == Fault::crash;
    if (dies) handles_.at(handle).file->bytes.append(bytes, count / 2);
    if (const int error = before(true)) return error;
    // In pieces, as a disk that gets full does it.
    count = std::min(count, std::max<std::size_t>(count / 2, 64));
    handles_.at(handle).file->bytes.append(bytes, count);
    return static_cast<std::int64_t>(count);
  }
  Handle open(Handle handle, const std::string& name, std::uint64_t& size) override {
    if (const int error = before()) return error;
    Directory* const directory = directory_of(handle);
    if (directory == nullptr || !directory->names.contains(name)) return -ENOENT;
    size = directory->names.at(name)->bytes.size();
    return opened({handles_.at(handle).path, directory->names.at(name), 0});
  }
  std::int64_t read(Handle handle, char* bytes, std::size_t count) override {
    if (const int error = before()) return error;
    Open& from = handles_.at(handle);
    count = from.file->bytes.copy(bytes, std::min<std::size_t>(count, 4096), from.position);
    from.position += count;
    return static_cast<std::int64_t>(count);
  }
  int sync(Handle handle) override {
    if (on_sync) on_sync();
    if (const int error = before()) return error;
    if (File* const file = handles_.at(handle).file.get()) {
      file->durable_bytes = file->bytes;
    } else if (Directory* const directory = directory_of(handle)) {
      directory->durable_names = directory->names;
    }
    return 0;
  }
  void close(Handle handle) override {
    if (before() != 0 && crashed_) return;
    if (Directory* const directory = directory_of(handle)) {
      if (directory->locked_by == handle) directory->locked_by = -1;
    }
    handles_.erase(handle);
  }
  int rename(Handle handle, const std::string& from, const std::string& to) override {
    if (const int error = before()) return error;
    if (undeletable_ != 0) return -undeletable_;
    Directory* const directory = directory_of(handle);
    if (directory == nullptr || !directory->names.contains(from)) return -ENOENT;
    directory->names[to] = directory->names.at(from);
    directory->names.erase(from);
    return 0;
  }
  int remove(Handle handle, const std::string& name) override {
    if (const int error = before()) return error;
    if (undeletable_ != 0) return -undeletable_;
    Directory* const directory = directory_of(handle);
    return directory != nullptr && directory->names.erase(name) != 0 ? 0 : -ENOENT;
  }

 private:
  struct File {
    std::string bytes;
    std::string durable_bytes;
  };
  struct Directory {
    std::map<std::string, std::shared_ptr<File>> names;
    std::map<std::string, std::shared_ptr<File>> durable_names;
    Handle locked_by = -1;
  };
  struct Open {
    std::string path;
    std::shared_ptr<File> file;  // null: the directory
    std::size_t position;
  };

  int before(bool needs_room = false) {
    if (crashed_) return -EIO;
    ++calls_;
    if (calls_ == fault_at_) {
      if (fault_ == Fault::fail) return -error_;
      crashed_ = true;
      if (on_crash) on_crash();
      return -EIO;
    }
    if (broken_ != 0) return -broken_;
    return full_ && needs_room ? -ENOSPC : 0;
  }
  Handle opened(Open what) {
    handles_[++last_handle_] = std::move(what);
    return last_handle_;
  }
  std::string path_of(Handle parent, const std::string& name) const {
    return parent == no_parent ? name : handles_.at(parent).path + "/" + name;
  }
  Directory* directory_of(Handle handle) {
    const auto open = handles_.find(handle);
    if (open == handles_.end() || open->second.file != nullptr) return nullptr;
    const auto found = directories_.find(open->second.path);
    return found == directories_.end() ? nullptr : &found->second;
  }

  std::map<std::string, Directory> directories_;
  std::map<Handle, Open> handles_;
  Handle last_handle_ = 10;
  std::uint64_t calls_ = 0;
  std::uint64_t fault_at_ = 0;
  Fault fault_ = Fault::fail;
  int error_ = 0;
  int broken_ = 0;
  int undeletable_ = 0;
  bool full_ = false;
  bool crashed_ = false;
};

}  // namespace spillway::testing
