// SPDX-License-Identifier: Apache-2.0
#include <array>

#include <spillway/encoders/json.hpp>
#include <spillway/engine/delivery_health.hpp>

namespace spillway {

std::string_view to_string(HealthState state) noexcept {
  constexpr std::array<std::string_view, 3> names{"healthy", "degraded", "failing"};
  return names[static_cast<std::size_t>(state)];
}

std::string Health::to_json() const {
  detail::ByteBuffer out;
  const auto text = [&](std::string_view name, std::string_view value) {
    out.append(name);
    detail::append_json_string(out, value);
  };
  text("{\"state\":", to_string(state));
  if (!reason.empty()) text(",\"reason\":", reason);
  out.append(",\"destinations\":[");
  std::string_view separator;
  for (const DestinationHealth& one : destinations) {
    out.append(separator);
    separator = ",";
    text("{\"name\":", one.name);
    text(",\"state\":", to_string(one.state));
    if (!one.reason.empty()) text(",\"reason\":", one.reason);
    out.append(",\"oldest_held_ms\":");
    detail::append_number(out, static_cast<std::int64_t>(one.oldest_held.count()));
    if (one.since_success.count() >= 0) {
      out.append(",\"since_success_ms\":");
      detail::append_number(out, static_cast<std::int64_t>(one.since_success.count()));
    }
    out.append(",\"lost_since_success\":");
    detail::append_number(out, one.lost_since_success);
    out.append('}');
  }
  out.append("]}");
  return std::string(out.view());
}

namespace detail {

using std::chrono::duration_cast;
using std::chrono::milliseconds;
using std::chrono::seconds;

namespace {

constexpr std::int64_t never = 0;

std::int64_t stamp(SteadyTime time) noexcept {
  return std::max<std::int64_t>(
      duration_cast<std::chrono::nanoseconds>(time.time_since_epoch()).count(), 1);
}
milliseconds since(std::int64_t stamp_ns, SteadyTime now) noexcept {
  return std::max(
      duration_cast<milliseconds>(now.time_since_epoch() - std::chrono::nanoseconds(stamp_ns)),
      milliseconds(0));
}
std::string in_words(milliseconds time) { return std::to_string(time.count() / 1000) + " s"; }

}  // namespace

void DeliveryHealth::succeeded(SteadyTime now, std::uint64_t lost_so_far) noexcept {
  succeeded_ns_.store(stamp(now), std::memory_order_relaxed);
  failing_since_ns_.store(never, std::memory_order_relaxed);
  lost_at_success_.store(lost_so_far, std::memory_order_relaxed);
}

void DeliveryHealth::failed(SteadyTime now, std::string_view message) {
  if (failing_since_ns_.load(std::memory_order_relaxed) == never) {
    failing_since_ns_.store(stamp(now), std::memory_order_relaxed);
  }
  if (message.empty()) return;
  const std::scoped_lock lock(mutex_);
  message_.assign(message.substr(0, message_chars_max));
}

void DeliveryHealth::observe(SteadyTime now, std::optional<SteadyTime> oldest,
                             std::uint64_t lost_so_far) noexcept {
  oldest_ns_.store(oldest ? stamp(*oldest) : never, std::memory_order_relaxed);
  if (lost_so_far != lost_seen_) {
    lost_seen_ = lost_so_far;
    lost_ns_.store(stamp(now), std::memory_order_relaxed);
  }
}

DestinationHealth DeliveryHealth::read(SteadyTime now, std::uint64_t lost_so_far) const {
  const auto load = [](const std::atomic<std::int64_t>& value) {
    return value.load(std::memory_order_relaxed);
  };
  DestinationHealth health;
  if (const std::int64_t oldest = load(oldest_ns_); oldest != never) {
    health.oldest_held = since(oldest, now);
  }
  if (const std::int64_t success = load(succeeded_ns_); success != never) {
    health.since_success = since(success, now);
  }
  const std::uint64_t lost_before = lost_at_success_.load(std::memory_order_relaxed);
  health.lost_since_success = lost_so_far > lost_before ? lost_so_far - lost_before : 0;
  const std::int64_t failing = load(failing_since_ns_);
  const auto because = [&](HealthState state, std::string reason) {
    health.state = state;
    health.reason = std::move(reason);
    const std::scoped_lock lock(mutex_);
    if (failing != never && !message_.empty()) health.reason.append("; ").append(message_);
  };
  if (health.lost_since_success != 0) {
    because(HealthState::failing, std::to_string(health.lost_since_success) +
                                      " records were lost and none was delivered since");
  } else if (failing != never && since(failing, now) >= health_failing_after) {
    because(HealthState::failing,
            "every attempt of the last " + in_words(since(failing, now)) + " failed");
  } else if (failing != never) {
    because(HealthState::degraded, "the last attempt failed");
  } else if (health.oldest_held >= health_late) {
    because(HealthState::degraded, "a record waits for " + in_words(health.oldest_held));
  } else if (const std::int64_t lost = load(lost_ns_);
             lost != never && since(lost, now) < health_loss_remembered) {
    because(HealthState::degraded,
            "records were lost " + in_words(since(lost, now)) + " ago; stats() says why");
  }
  return health;
}

}  // namespace detail
}  // namespace spillway
