// SPDX-License-Identifier: Apache-2.0
//
// The machine's own disk, as the spool meets it: what somebody else may have put into its way.
#include <cerrno>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <support/child_process.hpp>
#include <support/temporary_file.hpp>
#include <sys/stat.h>
#include <unistd.h>

#include <spillway/transport/disk.hpp>

namespace spillway::transport {
namespace {

class DiskTest : public ::testing::Test {
 protected:
  DiskTest() {
    EXPECT_EQ(disk->make_directory(Disk::no_parent, path), 0);
    directory = disk->open_directory(Disk::no_parent, path);
    EXPECT_GE(directory, 0);
  }
  ~DiskTest() override { disk->close(directory); }

  testing::TemporaryDirectory temporary;
  const std::string path = temporary.path("spool");
  std::shared_ptr<Disk> disk = system_disk();
  Disk::Handle directory = -1;
  std::uint64_t size = 0;
};

TEST_F(DiskTest, WhatIsWrittenIsReadAgain) {
  const Disk::Handle file = disk->create(directory, "one");
  ASSERT_GE(file, 0);
  EXPECT_EQ(disk->write(file, "hello", 5), 5);
  EXPECT_EQ(disk->sync(file), 0);
  disk->close(file);
  EXPECT_EQ(disk->sync(directory), 0);
  EXPECT_EQ(disk->create(directory, "one"), -EEXIST);
  EXPECT_EQ(disk->rename(directory, "one", "two"), 0);
  std::vector<std::string> names;
  EXPECT_EQ(disk->list(directory, names), 0);
  EXPECT_EQ(names, std::vector<std::string>{"two"});
  const Disk::Handle again = disk->open(directory, "two", size);
  ASSERT_GE(again, 0);
  EXPECT_EQ(size, 5U);
  char bytes[8] = {};
  EXPECT_EQ(disk->read(again, bytes, sizeof bytes), 5);
  EXPECT_STREQ(bytes, "hello");
  disk->close(again);
  EXPECT_EQ(disk->remove(directory, "two"), 0);
  EXPECT_EQ(disk->remove(directory, "two"), -ENOENT);
  EXPECT_EQ(disk->make_directory(Disk::no_parent, path), -EEXIST);
}

TEST_F(DiskTest, OnlyTheOwnerMayReadIt) {
  const mode_t before = umask(0);
  disk->make_directory(directory, "box");
  disk->close(disk->create(directory, "file"));
  umask(before);
  struct stat status {};
  ASSERT_EQ(stat((path + "/box").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0700U);
  ASSERT_EQ(stat((path + "/file").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0600U);
}

TEST_F(DiskTest, WhatIsNoPlainFileOfOursIsRefused) {
  disk->close(disk->create(directory, "file"));
  ASSERT_EQ(symlink("file", (path + "/symlink").c_str()), 0);
  ASSERT_EQ(mkfifo((path + "/fifo").c_str(), 0600), 0);
  EXPECT_EQ(disk->open(directory, "symlink", size), -EPERM);
  EXPECT_EQ(disk->open(directory, "fifo", size), -EPERM);
  ASSERT_EQ(link((path + "/file").c_str(), (path + "/hard").c_str()), 0);
  EXPECT_EQ(disk->open(directory, "file", size), -EPERM) << "has a second name";
  EXPECT_EQ(disk->open(directory, "nothing", size), -ENOENT);
  ASSERT_EQ(symlink("elsewhere", (path + "/taken").c_str()), 0);
  EXPECT_EQ(disk->create(directory, "taken"), -EEXIST);
}

TEST_F(DiskTest, ADirectoryThatOthersMayChangeIsRefused) {
  ASSERT_EQ(symlink(path.c_str(), temporary.path("link").c_str()), 0);
  EXPECT_EQ(disk->open_directory(Disk::no_parent, temporary.path("link")), -EPERM);
  EXPECT_EQ(disk->open_directory(Disk::no_parent, temporary.write("file", "")), -EPERM);
  ASSERT_EQ(chmod(path.c_str(), 0777), 0);
  EXPECT_EQ(disk->open_directory(Disk::no_parent, path), -EPERM);
}

TEST_F(DiskTest, ALockIsOneHandlesAndGoesWithIt) {
  const Disk::Handle other = disk->open_directory(Disk::no_parent, path);
  EXPECT_EQ(disk->lock(directory), 0);
  EXPECT_EQ(disk->lock(other), -EWOULDBLOCK);
  disk->close(directory);
  EXPECT_EQ(disk->lock(other), 0);
  directory = other;
}

TEST_F(DiskTest, AForkedChildKeepsNoLock) {
  ASSERT_EQ(disk->lock(directory), 0);
  int born[2];
  int gone[2];
  ASSERT_EQ(pipe(born), 0);
  ASSERT_EQ(pipe(gone), 0);
  const pid_t child = fork();
  if (child == 0) {
    char byte = 0;
    ::close(gone[1]);
    if (::write(born[1], &byte, 1) != 1) _exit(2);
    _exit(::read(gone[0], &byte, 1) == 0 ? 0 : 1);  // Until the parent lets it go.
  }
  ::close(gone[0]);
  char byte = 0;
  ASSERT_EQ(::read(born[0], &byte, 1), 1);
  const Disk::Handle other = disk->open_directory(Disk::no_parent, path);
  EXPECT_EQ(disk->lock(other), -EWOULDBLOCK) << "the parent has it still";
  disk->close(directory);
  EXPECT_EQ(disk->lock(other), 0) << "although the child lives";
  directory = other;
  ::close(gone[1]);
  ::close(born[0]);
  ::close(born[1]);
  EXPECT_EQ(testing::wait_for_child(child), 0);
}

}  // namespace
}  // namespace spillway::transport
