// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include <spillway/engine/clock.hpp>

namespace spillway::detail {

/// Says what went wrong, each kind of message once a minute. The sink is the host's code: it runs on
/// the flusher's and the sender's thread only, never inside an operation, and what it throws ends
/// here.
class Diagnostics {
 public:
  /// Without a sink: a line on stderr.
  Diagnostics(std::function<void(std::string_view)> sink, std::shared_ptr<Clock> clock);

  /// Says it now. Flusher and sender.
  void report(std::string_view message) noexcept;
  /// Leaves it for deliver(); past 64 waiting messages it is lost. Any thread, inside an operation
  /// too.
  void post(std::string_view message) noexcept;
  /// Says what was posted. Flusher.
  void deliver() noexcept;

 private:
  bool is_due(std::string_view message);  // with mutex_ held
  void say(std::string_view message) const noexcept;

  const std::function<void(std::string_view)> sink_;
  const std::shared_ptr<Clock> clock_;
  std::mutex mutex_;
  std::map<std::string, SteadyTime, std::less<>> last_;
  std::vector<std::string> posted_;
};

}  // namespace spillway::detail
