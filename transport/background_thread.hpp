// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <thread>

namespace spillway::transport {

/// A thread that leaves every signal to the host's. Throws std::system_error when the system gives
/// no thread; the caller's signals are as before either way.
std::thread start_thread(const char* name, std::function<void()> body);

}  // namespace spillway::transport
