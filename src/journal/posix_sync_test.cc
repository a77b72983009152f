// That the system is asked to sync is what a file system in memory can't show. So this program has
// an fsync and an fdatasync of its own, which stand before the C library's.
#include "journal/posix_file_system.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace {

std::vector<std::string> synced;  // "call path"
bool fails = false;

int sync_with(const std::string& call, long number, int fd) {
  std::error_code error;
  const auto path = std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(fd), error);
  synced.push_back(call + " " + path.string());
  if (!fails) return static_cast<int>(::syscall(number, fd));
  errno = EIO;
  return -1;
}

}  // namespace

extern "C" int fsync(int fd) {
  return sync_with("fsync", SYS_fsync, fd);
}
extern "C" int fdatasync(int fd) {
  return sync_with("fdatasync", SYS_fdatasync, fd);
}

namespace waystation::journal {
namespace {

using Calls = std::vector<std::string>;

class PosixSync : public testing::Test {
 protected:
  PosixSync() {
    std::string path = (std::filesystem::temp_directory_path() / "journal-test-XXXXXX").string();
    EXPECT_NE(::mkdtemp(path.data()), nullptr);
    dir_ = std::filesystem::canonical(path).string();
    synced.clear();
  }
  ~PosixSync() override {
    fails = false;
    std::filesystem::remove_all(dir_);
  }
  static Calls calls() { return std::exchange(synced, {}); }

  std::string dir_;
  PosixFileSystem files_;
};

TEST_F(PosixSync, AsksTheSystem) {
  const std::string path = dir_ + "/f";
  const auto file = files_.open(path, OpenMode::kCreate);
  ASSERT_TRUE(file);
  ASSERT_TRUE((*file)->write_at(0, "a"));
  EXPECT_EQ(calls(), Calls{}) << "nobody wanted that";
  ASSERT_TRUE((*file)->sync_data());
  EXPECT_EQ(calls(), Calls{"fdatasync " + path});
  ASSERT_TRUE((*file)->sync());
  EXPECT_EQ(calls(), Calls{"fsync " + path});
  ASSERT_TRUE(files_.sync_dir(dir_));
  EXPECT_EQ(calls(), Calls{"fsync " + dir_});
}

TEST_F(PosixSync, OfEachFolderThatItMakesTheNameToo) {
  ASSERT_TRUE(files_.make_dir(dir_ + "/a/b"));
  EXPECT_EQ(calls(), (Calls{"fsync " + dir_ + "/a", "fsync " + dir_}));
  ASSERT_TRUE(files_.make_dir(dir_ + "/a/b"));
  EXPECT_EQ(calls(), Calls{}) << "it was there";
}

TEST_F(PosixSync, SaysThatItFailed) {
  const auto file = files_.open(dir_ + "/f", OpenMode::kCreate);
  ASSERT_TRUE(file);
  fails = true;
  for (const Status& status : {(*file)->sync_data(), (*file)->sync(), files_.sync_dir(dir_),
                               files_.make_dir(dir_ + "/a")}) {
    ASSERT_FALSE(status);
    EXPECT_EQ(status.error().code, Code::kIo);
  }
}

}  // namespace
}  // namespace waystation::journal
