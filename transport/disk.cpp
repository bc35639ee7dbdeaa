// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cerrno>
#include <mutex>
#include <string_view>

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <spillway/transport/disk.hpp>

namespace spillway::transport {
namespace {

static_assert(Disk::no_parent == AT_FDCWD);

template <class Call>
auto repeated(Call&& call) {
  auto result = call();
  while (result < 0 && errno == EINTR) result = call();
  return result;
}

int result_of(int result) { return result < 0 ? -errno : result; }

/// The descriptors that hold a lock. A child inherits them, and with them the locks, which would then
/// outlive the parent: it closes them, which takes nothing from the parent.
struct Locks {
  std::mutex mutex;
  std::vector<int> descriptors;

  static Locks& all() {
    static auto* const instance = new Locks;  // Never destroyed: forks come until the very end.
    return *instance;
  }
  Locks() {
    pthread_atfork([] { all().mutex.lock(); }, [] { all().mutex.unlock(); },
                   [] {
                     for (const int descriptor : all().descriptors) ::close(descriptor);
                     all().descriptors.clear();
                     all().mutex.unlock();
                   });
  }
};

class SystemDisk final : public Disk {
 public:
  int make_directory(Handle parent, const std::string& name) override {
    return result_of(mkdirat(parent, name.c_str(), S_IRWXU));
  }

  Handle open_directory(Handle parent, const std::string& name) override {
    const int directory = repeated([&] {
      return openat(parent, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    });
    if (directory < 0) return errno == ELOOP || errno == ENOTDIR ? -EPERM : -errno;
    struct stat status {};
    if (fstat(directory, &status) != 0 || status.st_uid != geteuid() ||
        (status.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
      ::close(directory);
      return -EPERM;
    }
    return directory;
  }

  int lock(Handle directory) override {
    Locks& locks = Locks::all();
    const std::scoped_lock guard(locks.mutex);
    locks.descriptors.reserve(locks.descriptors.size() + 1);
    if (repeated([&] { return flock(directory, LOCK_EX | LOCK_NB); }) != 0) return -errno;
    locks.descriptors.push_back(directory);
    return 0;
  }

  int list(Handle directory, std::vector<std::string>& names) override {
    // A description of its own: reading moves the position that all copies of one share.
    const int copy =
        repeated([&] { return openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC); });
    if (copy < 0) return -errno;
    DIR* const stream = fdopendir(copy);
    if (stream == nullptr) {
      const int error = errno;
      ::close(copy);
      return -error;
    }
    const std::unique_ptr<DIR, void (*)(DIR*)> closing(stream, [](DIR* one) { closedir(one); });
    while (true) {
      errno = 0;
      const dirent* const entry = readdir(stream);
      if (entry == nullptr) return -errno;
      const std::string_view name = entry->d_name;
      if (name != "." && name != "..") names.emplace_back(name);
    }
  }

  Handle create(Handle directory, const std::string& name) override {
    return result_of(repeated([&] {
      return openat(directory, name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                    S_IRUSR | S_IWUSR);
    }));
  }

  std::int64_t write(Handle file, const char* bytes, std::size_t count) override {
    const auto written = repeated([&] { return ::write(file, bytes, count); });
    return written < 0 ? -errno : written;
  }

  Handle open(Handle directory, const std::string& name, std::uint64_t& size) override {
    // Not waiting: to open a pipe would.
    const int file = repeated([&] {
      return openat(directory, name.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    });
    if (file < 0) return errno == ELOOP ? -EPERM : -errno;
    struct stat status {};
    if (fstat(file, &status) != 0 || !S_ISREG(status.st_mode) || status.st_nlink != 1 ||
        status.st_uid != geteuid()) {
      ::close(file);
      return -EPERM;
    }
    size = static_cast<std::uint64_t>(status.st_size);
    return file;
  }

  std::int64_t read(Handle file, char* bytes, std::size_t count) override {
    const auto got = repeated([&] { return ::read(file, bytes, count); });
    return got < 0 ? -errno : got;
  }

  int sync(Handle handle) override {
    return result_of(repeated([&] { return fsync(handle); }));
  }

  void close(Handle handle) override {
    Locks& locks = Locks::all();
    const std::scoped_lock guard(locks.mutex);
    std::erase(locks.descriptors, handle);
    ::close(handle);
  }

  int rename(Handle directory, const std::string& from, const std::string& to) override {
    return result_of(renameat(directory, from.c_str(), directory, to.c_str()));
  }

  int remove(Handle directory, const std::string& name) override {
    return result_of(unlinkat(directory, name.c_str(), 0));
  }
};

}  // namespace

int replace_file(Disk& disk, Disk::Handle directory, const std::string& name,
                 std::span<const std::string_view> pieces) {
  const std::string made = name + ".new";
  disk.remove(directory, made);
  const Disk::Handle file = disk.create(directory, made);
  int error = std::min(file, 0);
  for (std::string_view rest : pieces) {
    while (error == 0 && !rest.empty()) {
      const std::int64_t written = disk.write(file, rest.data(), rest.size());
      if (written <= 0) {
        error = written < 0 ? static_cast<int>(written) : -EIO;
      } else {
        rest.remove_prefix(static_cast<std::size_t>(written));
      }
    }
  }
  if (file >= 0) disk.close(file);
  if (error == 0) error = std::min(disk.rename(directory, made, name), 0);
  if (error != 0) disk.remove(directory, made);
  return error;
}

std::shared_ptr<Disk> system_disk() { return std::make_shared<SystemDisk>(); }

}  // namespace spillway::transport
