// SPDX-License-Identifier: Apache-2.0
#include <random>

#include <spillway/middleware/siphash.hpp>

namespace spillway::detail {

const Hash128& process_hash_key() {
  static const Hash128 key = [] {
    std::random_device device;
    const auto word = [&] { return std::uint64_t{device()} << 32 | device(); };
    return Hash128{word(), word()};
  }();
  return key;
}

}  // namespace spillway::detail
