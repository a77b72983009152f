#include "engine/llama/gguf_file.h"

#include <filesystem>
#include <fstream>
#include <string>

#include <gtest/gtest.h>

namespace waystation::engine {
namespace {

namespace fs = std::filesystem;

class GgufFile : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "waystation-gguf-XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    dir_ = name;
  }
  void TearDown() override { fs::remove_all(dir_); }

  fs::path write(const std::string& name, const std::string& bytes) {
    std::ofstream(dir_ / name, std::ios::binary) << bytes;
    return dir_ / name;
  }

  fs::path dir_;
};

TEST_F(GgufFile, RefusesWhatIsNotThere) {
  const auto checked = check_gguf(dir_ / "none.gguf");
  ASSERT_FALSE(checked);
  EXPECT_EQ(checked.error().code, Code::kNotFound);
  EXPECT_NE(checked.error().message.find("none.gguf"), std::string::npos);
}

TEST_F(GgufFile, RefusesOtherFiles) {
  for (const std::string bytes : {"", "GG", "PK\x03\x04 a zip"}) {
    const auto checked = check_gguf(write("other.bin", bytes));
    ASSERT_FALSE(checked);
    EXPECT_EQ(checked.error().code, Code::kInvalidArgument);
  }
  EXPECT_EQ(check_gguf(dir_).error().code, Code::kInvalidArgument);
  EXPECT_TRUE(check_gguf(write("model.gguf", "GGUF and more")));
}

TEST_F(GgufFile, FingerprintIsTheHashOfTheFile) {
  const fs::path file = write("abc", "abc");
  const std::string abc = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
  EXPECT_EQ(gguf_fingerprint(file, {}).value(), abc);
  EXPECT_EQ(gguf_fingerprint(file, dir_ / "cache").value(), abc);
  EXPECT_EQ(gguf_fingerprint(file, dir_ / "cache").value(), abc);
  EXPECT_EQ(gguf_fingerprint(dir_ / "none", {}).error().code, Code::kIo);
}

TEST_F(GgufFile, FingerprintIsCachedWhileTheFileStaysTheSame) {
  const fs::path file = write("model", "abc");
  const std::string first = gguf_fingerprint(file, dir_ / "cache").value();
  const auto time = fs::last_write_time(file);
  write("model", "xyz");
  fs::last_write_time(file, time);  // same size, same time: taken for the same file
  EXPECT_EQ(gguf_fingerprint(file, dir_ / "cache").value(), first);
  fs::last_write_time(file, time + std::chrono::seconds(1));
  EXPECT_NE(gguf_fingerprint(file, dir_ / "cache").value(), first);
  write("model", "longer");
  fs::last_write_time(file, time);
  EXPECT_NE(gguf_fingerprint(file, dir_ / "cache").value(), first);
}

}  // namespace
}  // namespace waystation::engine
