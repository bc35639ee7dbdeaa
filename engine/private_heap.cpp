// SPDX-License-Identifier: Apache-2.0
#include <atomic>
#include <new>
#include <string>

#include <dlfcn.h>

#include <spillway/engine/private_heap.hpp>

namespace spillway::detail {
namespace {

class Mimalloc final : public std::pmr::memory_resource {
 public:
  Mimalloc() {
#if !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)  // Sanitizers want to see every block.
    void* const library = dlopen("libmimalloc.so.2", RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) return;
    allocate_ = reinterpret_cast<Allocate>(dlsym(library, "mi_malloc_aligned"));
    free_ = reinterpret_cast<Free>(dlsym(library, "mi_free"));
    const auto version = reinterpret_cast<int (*)()>(dlsym(library, "mi_version"));
    if (allocate_ == nullptr || free_ == nullptr || version == nullptr) {
      allocate_ = nullptr;
      return;
    }
    const int number = version();  // 209 is 2.0.9.
    name_ = "mimalloc " + std::to_string(number / 100) + "." + std::to_string(number / 10 % 10) +
            "." + std::to_string(number % 10);
#endif
  }
  std::string_view name() const { return name_; }

 private:
  using Allocate = void* (*)(std::size_t bytes, std::size_t alignment);
  using Free = void (*)(void*);

  void* do_allocate(std::size_t bytes, std::size_t alignment) override {
    if (allocate_ == nullptr) return std::pmr::new_delete_resource()->allocate(bytes, alignment);
    void* const memory = allocate_(bytes, alignment);
    if (memory == nullptr) throw std::bad_alloc();
    return memory;
  }
  void do_deallocate(void* memory, std::size_t bytes, std::size_t alignment) override {
    if (allocate_ == nullptr)
      return std::pmr::new_delete_resource()->deallocate(memory, bytes, alignment);
    free_(memory);
  }
  bool do_is_equal(const memory_resource& other) const noexcept override { return this == &other; }

  Allocate allocate_ = nullptr;
  Free free_ = nullptr;
  std::string name_ = "malloc";
};

Mimalloc& instance() {
  static auto* const heap = new Mimalloc;  // Outlives every static object that still flushes.
  return *heap;
}

std::atomic<std::pmr::memory_resource*> replaced{nullptr};

}  // namespace

std::pmr::memory_resource* private_heap() {
  std::pmr::memory_resource* const other = replaced.load(std::memory_order_acquire);
  return other != nullptr ? other : &instance();
}
void replace_private_heap(std::pmr::memory_resource* heap) noexcept {
  replaced.store(heap, std::memory_order_release);
}
std::string_view private_heap_name() { return instance().name(); }

}  // namespace spillway::detail
