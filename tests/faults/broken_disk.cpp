// SPDX-License-Identifier: Apache-2.0
//
// A disk that answers EIO, by LD_PRELOAD: while the file named by FAULTS_EIO_WHILE exists, what writes and what makes
// durable fails on files below the folder FAULTS_EIO_BELOW, and a byte is appended to FAULTS_EIO_WHILE.struck. A real one takes a device mapper's error target, which few
// machines allow.
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <system_error>

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

namespace {

bool is_broken(int file) {
  const char* const marker = std::getenv("FAULTS_EIO_WHILE");
  const char* const below = std::getenv("FAULTS_EIO_BELOW");
  if (marker == nullptr || below == nullptr || access(marker, F_OK) != 0) return false;
  std::error_code error;
  const std::filesystem::path path =
      std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(file), error);
  return !error && path.native().starts_with(below);
}

/// So that the row can tell that its fault was there.
void note_strike() {
  const std::string path = std::string(std::getenv("FAULTS_EIO_WHILE")) + ".struck";
  const int file = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (file < 0) return;
  static_cast<void>(syscall(SYS_write, file, "x", 1));
  close(file);
}

/// The C library's own function, or EIO.
template <class... Arguments, class Result>
Result call(Result (*mine)(Arguments...), const char* name, int file, Arguments... arguments) {
  const int error = errno;
  if (is_broken(file)) {
    note_strike();
    errno = EIO;
    return -1;
  }
  errno = error;
  return reinterpret_cast<decltype(mine)>(dlsym(RTLD_NEXT, name))(arguments...);
}

}  // namespace

extern "C" {
ssize_t write(int file, const void* bytes, size_t count) {
  return call(&write, "write", file, file, bytes, count);
}
ssize_t pwritev2(int file, const iovec* parts, int count, off_t offset, int flags) {
  return call(&pwritev2, "pwritev2", file, file, parts, count, offset, flags);
}
int fsync(int file) { return call(&fsync, "fsync", file, file); }
}
