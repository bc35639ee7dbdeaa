// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <typeinfo>

#include <cxxabi.h>
#include <dlfcn.h>
#include <execinfo.h>

#include <spillway/engine/exception.hpp>

namespace spillway {
namespace {

std::string demangled(const char* name) {
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> text(
      abi::__cxa_demangle(name, nullptr, nullptr, &status), std::free);
  return status == 0 && text != nullptr ? text.get() : name;
}

std::string hexadecimal(std::uintptr_t value) {
  std::string text;
  do {
    text.insert(text.begin(), "0123456789abcdef"[value & 15U]);
    value >>= 4;
  } while (value != 0);
  return "0x" + text;
}

std::string frame_of(void* address) {
  const auto at = reinterpret_cast<std::uintptr_t>(address);
  Dl_info info{};
  if (dladdr(address, &info) == 0 || info.dli_fname == nullptr) return hexadecimal(at);
  // A function that is not exported has no name here: the place in its file finds it.
  std::string text;
  if (info.dli_sname != nullptr) {
    text = demangled(info.dli_sname) + "+" +
           hexadecimal(at - reinterpret_cast<std::uintptr_t>(info.dli_saddr)) + " ";
  }
  text.append("(").append(info.dli_fname);
  if (info.dli_sname == nullptr) {
    text.append("+").append(hexadecimal(at - reinterpret_cast<std::uintptr_t>(info.dli_fbase)));
  }
  return text + ")";
}

}  // namespace

// What a function-try-block of a constructor catches is thrown again: the blocks stand within.

ExceptionInfo::ExceptionInfo(const std::exception& error) noexcept {
  try {
    add(error);
    take_stack();
  } catch (...) {  // No memory for the texts.
  }
}

ExceptionInfo::ExceptionInfo(const std::exception_ptr& error, bool with_stack) noexcept {
  if (error == nullptr) return;
  try {
    try {
      std::rethrow_exception(error);
    } catch (const std::exception& known) {
      add(known);
    } catch (...) {
      add_current();
    }
    if (with_stack) take_stack();
  } catch (...) {  // No memory for the texts.
  }
}

// Each one stays alive while those that are nested in it are looked at.
void ExceptionInfo::add(const std::exception& error) {
  add_link(demangled(typeid(error).name()), error.what());
  try {
    std::rethrow_if_nested(error);
  } catch (const std::exception& cause) {
    add(cause);
  } catch (...) {
    add_current();
  }
}

void ExceptionInfo::add_current() {
  const std::type_info* const type = abi::__cxa_current_exception_type();
  add_link(type == nullptr ? "unknown" : demangled(type->name()), {});
}

void ExceptionInfo::add_link(std::string type, std::string_view message) {
  if (depth_ < depth_max) {
    links_[depth_++] = {std::move(type), std::string(message)};
    return;
  }
  std::string& last = links_[depth_max - 1].message;
  last.append("; caused by ").append(type);
  if (!message.empty()) last.append(": ").append(message);
}

void ExceptionInfo::take_stack() {
  std::array<void*, frames_max> frames{};
  const int count = backtrace(frames.data(), static_cast<int>(frames.size()));
  constexpr int own = 2;  // This function and the constructor.
  for (int i = own; i < count; ++i) {
    if (!stack_.empty()) stack_ += '\n';
    stack_ += frame_of(frames[static_cast<std::size_t>(i)]);
  }
}

}  // namespace spillway
