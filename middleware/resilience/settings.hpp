// SPDX-License-Identifier: Apache-2.0
//
// How the middleware's options are checked: all of them at once, each with its name, its value and
// what is allowed. Cold.
#pragma once

#include <chrono>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>

namespace spillway::middleware {

/// Collects what is wrong with some options; done() throws std::invalid_argument with all of it.
class SettingsCheck {
 public:
  explicit SettingsCheck(std::string_view what) : what_(what) {}

  /// A NaN lies in no range.
  template <class T>
  requires std::is_arithmetic_v<T> SettingsCheck& within(std::string_view name, T value, T least,
                                                         T most) {
    if (value >= least && value <= most) return *this;
    std::ostringstream line;
    line << "\n  " << name << " = " << value << ": allowed are " << least << " to " << most;
    errors_ += line.str();
    return *this;
  }
  template <class Rep, class Period>
  SettingsCheck& within(std::string_view name, std::chrono::duration<Rep, Period> value,
                        std::chrono::duration<Rep, Period> least,
                        std::chrono::duration<Rep, Period> most) {
    using Milliseconds = std::chrono::duration<double, std::milli>;
    return within(std::string(name) + " (ms)", Milliseconds(value).count(),
                  Milliseconds(least).count(), Milliseconds(most).count());
  }
  SettingsCheck& require(bool holds, std::string_view message) {
    if (!holds) errors_.append("\n  ").append(message);
    return *this;
  }

  void done() const {
    if (!errors_.empty())
      throw std::invalid_argument("spillway: the options of " + what_ + " cannot work:" + errors_);
  }

 private:
  std::string what_;
  std::string errors_;
};

}  // namespace spillway::middleware
