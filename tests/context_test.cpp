// SPDX-License-Identifier: Apache-2.0
//
// The names of tenants and users, which are kept for the life of the process.
#include <string>

#include <gtest/gtest.h>

#include <spillway/engine/testing.hpp>

namespace spillway {
namespace {

Config quiet() {
  Config config;
  config.metrics = MetricsTo::none;
  config.logs = LogsTo::none;
  return config;
}

TEST(ContextTest, NamesThatNoMetricAsksForAreNotKept) {
  testing::TestEngine test(quiet());
  const auto requests =
      test.engine.per(test.engine.counter("Requests"), ContextField::tenant, "TenantID");
  const std::uint32_t before = detail::intern_identity("before");
  for (int i = 0; i < 1000; ++i) {
    const std::string user = "u-" + std::to_string(i);
    const Context context{{.tenant = "acme", .user = user}};
    const Scope scope(context);
    requests.add(1);
    requests.add(1);
    const Context copy = Context::current();
    const Scope nested(copy);
    requests.add(1);
  }
  EXPECT_EQ(detail::intern_identity("after"), before + 2) << "acme, and this one";
}

TEST(ContextTest, PastTheirBytesNamesShareOne) {
  constexpr std::size_t bytes_max = 64U << 20;
  std::string name(1U << 20, 'x');
  std::uint32_t last = 0;
  std::size_t kept = 0;
  for (std::size_t i = 0; i < bytes_max / name.size() + 2; ++i) {
    name.replace(0, 8, std::to_string(10'000'000 + i));
    last = detail::intern_identity(name);
    if (detail::identity_of(last) == name) ++kept;
  }
  EXPECT_LE(kept, bytes_max / name.size());
  EXPECT_GE(kept, bytes_max / name.size() - 1);
  EXPECT_EQ(detail::identity_of(last), "__other__");
  EXPECT_NE(last, 0U) << "which would be no name";
  name.replace(0, 8, "10000000");
  EXPECT_EQ(detail::identity_of(detail::intern_identity(name)), name) << "what is known stays";
}

}  // namespace
}  // namespace spillway
