#include "engine/llama/machine.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace waystation::engine {
namespace {

namespace fs = std::filesystem;

const fs::path kModel = fs::path(WAYSTATION_MODELS_DIR) / "SmolLM2-135M-Instruct.Q4_1.gguf";

class MachineTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!fs::exists(kModel)) GTEST_SKIP() << "the model is missing: run 'make models'";
    std::string name = (fs::temp_directory_path() / "waystation-machine-XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    dir_ = name;
  }
  void TearDown() override {
    if (!dir_.empty()) fs::remove_all(dir_);
  }
  // The model's first bytes.
  fs::path cut(std::size_t size) {
    std::string bytes(size, '\0');
    std::ifstream(kModel, std::ios::binary).read(bytes.data(), static_cast<std::streamsize>(size));
    std::ofstream(dir_ / "cut.gguf", std::ios::binary) << bytes;
    return dir_ / "cut.gguf";
  }
  fs::path dir_;
};

TEST_F(MachineTest, ReadsWhatTheMemoryDependsOn) {
  const auto facts = read_gguf_facts(kModel);
  ASSERT_TRUE(facts) << facts.error().message;
  EXPECT_EQ(facts->architecture, "llama");
  EXPECT_EQ(facts->file_bytes, fs::file_size(kModel));
  EXPECT_EQ(facts->context_trained, 8192u);
  // 30 layers, 3 heads kept, 64 numbers a head for keys and as many for values, 2 bytes each.
  EXPECT_EQ(facts->cache_bytes_per_token, 30u * 3 * (64 + 64) * 2);
}

TEST_F(MachineTest, AFileThatIsCutOffIsTold) {
  const auto cut_off = read_gguf_facts(cut(20u << 20));
  ASSERT_FALSE(cut_off);
  EXPECT_EQ(cut_off.error().code, Code::kCorruption);
  EXPECT_NE(cut_off.error().message.find("is cut off"), std::string::npos);
  const auto no_header = read_gguf_facts(cut(1000));
  ASSERT_FALSE(no_header);
  EXPECT_EQ(no_header.error().code, Code::kCorruption);
}

TEST(Machine, TheEngineSaysWhatItWasCompiledFor) {
#if defined(__x86_64__) || defined(__aarch64__)
  EXPECT_FALSE(cpu_features_needed().empty());
#endif
}

}  // namespace
}  // namespace waystation::engine
