// SPDX-License-Identifier: Apache-2.0
//
// Names and call sites as numbers: a number means the same for as long as the process lives, in
// its forked children too.
#include <atomic>
#include <string>
#include <thread>

#include <gtest/gtest.h>
#include <support/child_process.hpp>
#include <unistd.h>

#include <spillway/buffers/names.hpp>

namespace spillway::detail {
namespace {

TEST(NamesTest, ANameHasOneNumber) {
  const std::uint32_t id = intern_name("names_test");
  EXPECT_NE(id, 0U);
  EXPECT_EQ(intern_name(std::string("names_") + "test"), id);
  EXPECT_NE(intern_name("names_test2"), id);
  EXPECT_EQ(name_of(id), "names_test");
  EXPECT_EQ(name_of(~0U), "(too many names)");
}

/// What a library has at an address where the one before it, since unloaded, had a site of its own.
void load(LogSite& at, const char* message, std::uint32_t line) {
  at.message = message;
  at.line = line;
  at.record_head = 0;
  at.fields = ~std::uint64_t{0};
}

TEST(CallSitesTest, AnotherTextAtTheSameAddressIsAnotherSite) {
  const SiteKey keys[] = {{"user", ValueType::string}};
  LogSite site{Severity::info, "first", "first.cpp", 10};
  const std::uint32_t first = register_site(site, keys, 1);
  EXPECT_NE(first, 0U);
  EXPECT_EQ(site.record_head, log_record_head(first));

  load(site, "second", 10);
  const std::uint32_t second = register_site(site, keys, 1);
  EXPECT_NE(second, first);
  EXPECT_EQ(site.record_head, log_record_head(second));
  EXPECT_EQ(site_of(first).message, "first") << "records that are under way keep their text";
  EXPECT_EQ(site_of(second).message, "second");

  load(site, "second", 11);
  const std::uint32_t moved = register_site(site, keys, 1);
  EXPECT_NE(moved, second);

  const SiteKey others[] = {{"order", ValueType::string}};
  load(site, "second", 11);
  const std::uint32_t renamed = register_site(site, others, 1);
  EXPECT_NE(renamed, moved);
  EXPECT_EQ(site_of(renamed).fields.at(0).key, "order");
}

TEST(CallSitesTest, TheSameSiteLoadedAgainKeepsItsNumber) {
  const SiteKey keys[] = {{"user", ValueType::string}};
  LogSite site{Severity::info, "again", "again.cpp", 1};
  const std::uint32_t id = register_site(site, keys, 1);
  load(site, "again", 1);
  EXPECT_EQ(register_site(site, keys, 1), id);
  const SiteKey number[] = {{"user", ValueType::integer}};
  const std::uint32_t variant = register_site(site, number, 2);
  EXPECT_NE(variant, id);
  EXPECT_EQ(site.record_head, log_record_head(id)) << "the first variant stays with the site";
  EXPECT_EQ(register_site(site, number, 2), variant);
}

TEST(NamesForkTest, AChildRegistersNamesWhateverAnotherThreadWasDoing) {
  // To hash so long a name takes longer than to fork, and is done under the lock.
  const std::string long_name(std::size_t{16} << 20U, 'n');
  const std::uint32_t id = intern_name(long_name);
  for (int round = 0; round < 10; ++round) {
    std::atomic<bool> started{false};
    std::thread other([&] {
      started = true;
      started.notify_one();
      EXPECT_EQ(intern_name(long_name), id);
    });
    started.wait(false);
    const pid_t child = fork();
    if (child == 0) {
      alarm(30);  // Ends a child that hangs.
      const std::uint32_t made = intern_name("of the child");
      _exit(made != 0 && made != id && name_of(made) == "of the child" ? 7 : 1);
    }
    other.join();
    ASSERT_GT(child, 0);
    const int status = testing::wait_for_child(child);
    ASSERT_TRUE(WIFEXITED(status)) << "signal " << WTERMSIG(status) << " in round " << round;
    EXPECT_EQ(WEXITSTATUS(status), 7);
  }
}

}  // namespace
}  // namespace spillway::detail
