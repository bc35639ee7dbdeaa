// SPDX-License-Identifier: Apache-2.0
//
// Control groups as files of a directory, as the kernel writes them in version 2, version 1 and both.
#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>
#include <support/temporary_file.hpp>

#include <spillway/middleware/resilience/cgroup.hpp>

namespace spillway::middleware {
namespace {

class CgroupTest : public ::testing::Test {
 protected:
  void write(const std::string& file, std::string_view text) {
    const std::filesystem::path path = directory.path(file);
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path) << text;
  }
  Cgroup cgroup() const { return Cgroup(directory.path("")); }

  spillway::testing::TemporaryDirectory directory;
};

TEST_F(CgroupTest, Version2WithoutPageCacheThatCanGo) {
  write("proc/self/cgroup", "0::/shop/orders\n");
  write("sys/fs/cgroup/shop/orders/memory.max", "1000000\n");
  write("sys/fs/cgroup/shop/orders/memory.current", "900000\n");
  write("sys/fs/cgroup/shop/orders/memory.stat", "anon 1\ninactive_file 400000\nactive_file 7\n");
  const auto memory = cgroup().memory();
  ASSERT_TRUE(memory);
  EXPECT_EQ(memory->used, 500000U);
  EXPECT_EQ(memory->limit, 1000000U);
  EXPECT_DOUBLE_EQ(memory->utilization(), 0.5);
  EXPECT_FALSE(memory->of_machine);
}

TEST_F(CgroupTest, TheGroupAboveCounts) {
  write("proc/self/cgroup", "0::/shop/orders\n");
  write("sys/fs/cgroup/shop/orders/memory.max", "max\n");
  write("sys/fs/cgroup/shop/orders/memory.current", "10\n");
  write("sys/fs/cgroup/shop/memory.max", "1000\n");
  write("sys/fs/cgroup/shop/memory.current", "990\n");
  const auto memory = cgroup().memory();
  ASSERT_TRUE(memory);
  EXPECT_EQ(memory->used, 990U);
}

TEST_F(CgroupTest, InAContainerThePathOfTheHostLeadsNowhere) {
  write("proc/self/cgroup", "4:memory:/docker/0f1e2d\n0::/docker/0f1e2d\n");
  write("sys/fs/cgroup/memory/memory.limit_in_bytes", "2000\n");
  write("sys/fs/cgroup/memory/memory.usage_in_bytes", "1500\n");
  write("sys/fs/cgroup/memory/memory.stat", "inactive_file 1\ntotal_inactive_file 500\n");
  const auto memory = cgroup().memory();
  ASSERT_TRUE(memory);
  EXPECT_EQ(memory->used, 1000U);
  EXPECT_EQ(memory->limit, 2000U);
}

TEST_F(CgroupTest, WithoutALimitItIsTheMachine) {
  write("proc/self/cgroup", "4:memory:/\n");
  write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  write("sys/fs/cgroup/memory/memory.usage_in_bytes", "1500\n");
  write("proc/meminfo", "MemTotal:       1000 kB\nMemFree: 1 kB\nMemAvailable:    250 kB\n");
  const auto memory = cgroup().memory();
  ASSERT_TRUE(memory);
  EXPECT_TRUE(memory->of_machine);
  EXPECT_EQ(memory->used, 750U << 10);
  EXPECT_EQ(memory->limit, 1000U << 10);
}

TEST_F(CgroupTest, WhatIsNotThereIsNothing) {
  EXPECT_FALSE(cgroup().memory());
  EXPECT_FALSE(cgroup().cpu());
  EXPECT_FALSE(cgroup().cpu_pressure());
  write("proc/self/cgroup", "garbage\n0:\n::\n");
  write("proc/meminfo", "MemTotal: many\n");
  EXPECT_FALSE(cgroup().memory());
}

TEST_F(CgroupTest, ThrottlingOfBothVersions) {
  write("proc/self/cgroup", "0::/shop\n");
  write("sys/fs/cgroup/shop/cpu.stat",
        "usage_usec 5\nnr_periods 100\nnr_throttled 7\nthrottled_usec 900\n");
  auto cpu = cgroup().cpu();
  ASSERT_TRUE(cpu);
  EXPECT_EQ(cpu->periods, 100U);
  EXPECT_EQ(cpu->throttled, 7U);
  write("proc/self/cgroup", "3:cpuset:/\n2:cpu,cpuacct:/shop\n0::/\n");
  write("sys/fs/cgroup/cpu,cpuacct/shop/cpu.stat",
        "nr_periods 20\nnr_throttled 3\nthrottled_time 9\n");
  cpu = cgroup().cpu();
  ASSERT_TRUE(cpu);
  EXPECT_EQ(cpu->periods, 20U);
  EXPECT_EQ(cpu->throttled, 3U);
}

TEST_F(CgroupTest, PressureOfTheGroupElseOfTheMachine) {
  write("proc/self/cgroup", "0::/shop\n");
  write("proc/pressure/cpu", "some avg10=12.50 avg60=1.00 avg300=0.00 total=7\nfull avg10=0.00\n");
  ASSERT_TRUE(cgroup().cpu_pressure());
  EXPECT_EQ(cgroup().cpu_pressure()->count(), 7);
  write("sys/fs/cgroup/shop/cpu.pressure", "some avg10=50.00 avg60=1.00 avg300=0.00 total=9000\n");
  EXPECT_EQ(cgroup().cpu_pressure()->count(), 9000);
}

TEST_F(CgroupTest, ThisMachineTellsItsMemory) {
  const auto memory = Cgroup().memory();
  ASSERT_TRUE(memory);
  EXPECT_GT(memory->used, 0U);
  EXPECT_GT(memory->limit, 0U);
}

}  // namespace
}  // namespace spillway::middleware
