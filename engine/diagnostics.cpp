// SPDX-License-Identifier: Apache-2.0
#include <chrono>
#include <cstdio>
#include <utility>

#include <spillway/engine/diagnostics.hpp>

namespace spillway::detail {

Diagnostics::Diagnostics(std::function<void(std::string_view)> sink, std::shared_ptr<Clock> clock)
    : sink_(std::move(sink)), clock_(std::move(clock)) {}

void Diagnostics::report(std::string_view message) noexcept {
  try {
    const std::scoped_lock lock(mutex_);
    if (!is_due(message)) return;
  } catch (...) {  // No memory to remember it: better said twice than not at all.
  }
  say(message);
}

void Diagnostics::post(std::string_view message) noexcept try {
  constexpr std::size_t posted_max = 64;
  const std::scoped_lock lock(mutex_);
  if (posted_.size() < posted_max && is_due(message)) posted_.emplace_back(message);
} catch (...) {  // No memory for it.
}

void Diagnostics::deliver() noexcept {
  std::vector<std::string> messages;
  {
    const std::scoped_lock lock(mutex_);
    messages.swap(posted_);
  }
  for (const std::string& message : messages) say(message);
}

bool Diagnostics::is_due(std::string_view message) {
  constexpr std::chrono::minutes interval{1};
  constexpr std::size_t kind_chars = 48;  // Exporter, endpoint and error stand in front.
  constexpr std::size_t kinds_max = 256;
  const SteadyTime now = clock_->steady();
  if (last_.size() >= kinds_max) last_.clear();
  const auto [at, first] = last_.try_emplace(std::string(message.substr(0, kind_chars)), now);
  if (!first && now - at->second < interval) return false;
  at->second = now;
  return true;
}

void Diagnostics::say(std::string_view message) const noexcept try {
  if (sink_) return sink_(message);
  std::fprintf(stderr, "spillway: %.*s\n", static_cast<int>(message.size()), message.data());
} catch (...) {  // The host's own; nobody here could do anything with it.
}

}  // namespace spillway::detail
