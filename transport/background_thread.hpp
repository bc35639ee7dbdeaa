// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <thread>

#include <unistd.h>

namespace spillway::transport {

/// The process that an object with threads was made in. A forked child has the object but none of its
/// threads: it cannot wait for them, nor for the locks that they held.
class HomeProcess {
 public:
  bool is_another() const noexcept { return getpid() != process_; }

 private:
  const pid_t process_ = getpid();
};

/// For destructors: in a forked child lets go of the object, which says is_inherited(), as it is.
template <class Object>
void release_inherited(std::unique_ptr<Object>& object) noexcept {
  if (object != nullptr && object->is_inherited()) static_cast<void>(object.release());
}

/// A thread that leaves every signal to the host's. Throws std::system_error when the system gives
/// no thread; the caller's signals are as before either way.
std::thread start_thread(const char* name, std::function<void()> body);

}  // namespace spillway::transport
