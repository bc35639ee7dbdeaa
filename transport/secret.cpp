// SPDX-License-Identifier: Apache-2.0
#include <new>

#include <openssl/crypto.h>
#include <sys/mman.h>
#include <unistd.h>

#include <spillway/transport/secret.hpp>

namespace spillway::transport {
namespace {

std::size_t whole_pages(std::size_t bytes) noexcept {
  static const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  return (bytes + page - 1) / page * page;
}

}  // namespace

void* detail::allocate_secret(std::size_t bytes) {
  void* const memory =
      mmap(nullptr, whole_pages(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  // A kernel without it dumps the page as any other.
  madvise(memory, whole_pages(bytes), MADV_DONTDUMP);
  return memory;
}

void detail::free_secret(void* memory, std::size_t bytes) noexcept {
  OPENSSL_cleanse(memory, bytes);
  munmap(memory, whole_pages(bytes));
}

void wipe(std::string& text) noexcept {
  OPENSSL_cleanse(text.data(), text.size());
  text.clear();
}

}  // namespace spillway::transport
