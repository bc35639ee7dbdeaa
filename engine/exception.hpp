// SPDX-License-Identifier: Apache-2.0
//
// Exceptions in logs: type, message, what they were caused by, and where they were logged.
//
//   } catch (const std::exception& error) {
//     SPILLWAY_EXCEPTION(engine, error, "charge failed", {"order_id", id});
//   }
//
// An ERROR with the fields exception.type, exception.message and exception.stacktrace (OpenTelemetry's
// names), and exception.cause.type, exception.cause.message, exception.cause.cause.type... for what is
// nested in it (std::throw_with_nested), so in JSON an object in an object. C++ keeps no stack of the
// place that threw: it is that of the place that logs.
#pragma once

#include <array>
#include <cstddef>
#include <exception>
#include <string>
#include <string_view>

#include <spillway/engine/log.hpp>

namespace spillway {

/// What can be said of an exception, as texts. For those that are not a std::exception, the type.
/// Allocates; without memory for it, texts are empty.
class ExceptionInfo {
 public:
  /// Exceptions told apart; those nested deeper are in the message of the last one.
  static constexpr std::size_t depth_max = 4;
  static constexpr std::size_t frames_max = 32;

  explicit ExceptionInfo(const std::exception& error) noexcept;
  /// As std::current_exception() gives it, in `catch (...)`. `with_stack`: false where nobody reads
  /// stack(), which takes most of the time.
  explicit ExceptionInfo(const std::exception_ptr& error, bool with_stack = true) noexcept;

  /// How many there are: the exception itself and those nested in it.
  std::size_t depth() const noexcept { return depth_; }
  std::string_view type(std::size_t which) const noexcept { return links_[which].type; }
  std::string_view message(std::size_t which) const noexcept { return links_[which].message; }
  /// A line a frame, the innermost first: "orders::charge(int)+0x1f (/usr/bin/orders)".
  std::string_view stack() const noexcept { return stack_; }

 private:
  struct Link {
    std::string type;
    std::string message;
  };
  void add(const std::exception& error);
  void add_current();
  void add_link(std::string type, std::string_view message);
  void take_stack();

  std::array<Link, depth_max> links_;
  std::size_t depth_ = 0;
  std::string stack_;
};

}  // namespace spillway

#define SPILLWAY_EXCEPTION_CAUSE(which_, path_)                                            \
  spillway_info.depth() > (which_)                                                         \
      ? ::spillway::Field("exception." path_ "type", spillway_info.type(which_))           \
      : ::spillway::Field(),                                                               \
      spillway_info.depth() > (which_)                                                     \
          ? ::spillway::Field("exception." path_ "message", spillway_info.message(which_)) \
          : ::spillway::Field()

/// Records an ERROR about an exception, with up to five more fields. `engine` is an Engine or Logger,
/// `exception` a std::exception or std::exception_ptr.
#define SPILLWAY_EXCEPTION(engine, exception_, message_, ...)                                   \
  do {                                                                                          \
    if ((engine).log_enabled(::spillway::Severity::error)) {                                    \
      static constinit ::spillway::LogSite spillway_site{::spillway::Severity::error, message_, \
                                                         __FILE__, __LINE__};                   \
      const ::spillway::ExceptionInfo spillway_info{exception_};                                \
      (engine).log(spillway_site, {"exception.type", spillway_info.type(0)},                    \
                   {"exception.message", spillway_info.message(0)},                             \
                   SPILLWAY_EXCEPTION_CAUSE(1, "cause."),                                       \
                   SPILLWAY_EXCEPTION_CAUSE(2, "cause.cause."),                                 \
                   SPILLWAY_EXCEPTION_CAUSE(3, "cause.cause.cause."),                           \
                   {"exception.stacktrace", spillway_info.stack()} __VA_OPT__(, ) __VA_ARGS__); \
    }                                                                                           \
  } while (false)
