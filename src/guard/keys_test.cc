#include "guard/keys.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>
#include <vector>

#include "guard/sha256.h"

namespace waystation::guard {
namespace {

class Keys : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/keys-XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    path_ = folder_ + "/keys";
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  void write(const std::string& text) { std::ofstream(path_) << text; }
  std::string read() {
    std::ostringstream out;
    out << std::ifstream(path_).rdbuf();
    return out.str();
  }

  std::string folder_;
  std::string path_;
};

TEST(Sha256, KnownAnswers) {
  EXPECT_EQ(sha256_hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST_F(Keys, AnAddedKeyOpensItsTenantOnly) {
  const auto first = add_key(path_, "acme", 1'700'000'000'000);
  const auto second = add_key(path_, "other", 1'700'000'000'000);
  ASSERT_TRUE(first) << first.error().message;
  ASSERT_TRUE(second);
  EXPECT_NE(*first, *second);
  EXPECT_TRUE(first->starts_with("ws-"));
  EXPECT_GE(first->size(), 46u);

  const auto store = KeyStore::load(path_);
  ASSERT_TRUE(store) << store.error().message;
  EXPECT_EQ(store->size(), 2u);
  EXPECT_EQ(store->tenant_of(*first).value(), "acme");
  EXPECT_EQ(store->authenticate("Bearer " + *second).value(), "other");
  EXPECT_EQ(store->authenticate("bEARER  " + *second).value(), "other");
  const std::vector<std::string> bad{
      "", "Bearer ", *first, "Basic " + *first, "Bearer " + *first + "x", "Bearer ws-", "Bearer"};
  for (const std::string& wrong : bad) {
    const auto tenant = store->authenticate(wrong);
    ASSERT_FALSE(tenant) << wrong;
    EXPECT_EQ(tenant.error().code, Code::kUnauthenticated);
  }
}

TEST_F(Keys, TheFileHoldsNoKeyAndIsPrivate) {
  const auto key = add_key(path_, "acme", 1'700'000'000'000);
  ASSERT_TRUE(key);
  EXPECT_EQ(read(), sha256_hex(*key) + " acme 2023-11-14T22:13:20Z\n");
  struct stat info {};
  ASSERT_EQ(::stat(path_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
}

TEST_F(Keys, AddKeepsWhatIsThere) {
  write("# ours\n\n" + sha256_hex("k") + " old 2020-01-01T00:00:00Z");
  const auto key = add_key(path_, "new", 0);
  ASSERT_TRUE(key) << key.error().message;
  const auto store = KeyStore::load(path_);
  ASSERT_TRUE(store) << store.error().message;
  EXPECT_EQ(store->tenant_of("k").value(), "old");
  EXPECT_EQ(store->tenant_of(*key).value(), "new");
  EXPECT_TRUE(read().starts_with("# ours\n"));
}

TEST_F(Keys, AddsAtTheSameTimeLoseNothing) {
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([this, i] { ASSERT_TRUE(add_key(path_, "t" + std::to_string(i), 0)); });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(KeyStore::load(path_).value().size(), 8u);
}

TEST_F(Keys, MalformedLinesAreNamed) {
  const std::string hash = sha256_hex("k");
  const std::vector<std::pair<std::string, std::string>> cases{
      {hash + " a x\nnonsense\n", "line 2"},
      {hash.substr(1) + " a x\n", "line 1"},
      {hash + "\n", "line 1"},
      {hash + " bad/tenant x\n", "line 1"},
      {"#\n" + hash + " a x y\n", "line 2"},
      {hash + " a x\n" + hash + " b x\n", "line 2"},
  };
  for (const auto& [text, names] : cases) {
    write(text);
    const auto store = KeyStore::load(path_);
    ASSERT_FALSE(store) << text;
    EXPECT_EQ(store.error().code, Code::kInvalidArgument);
    EXPECT_NE(store.error().message.find(names), std::string::npos) << store.error().message;
  }
  EXPECT_EQ(KeyStore::load(folder_ + "/none").error().code, Code::kIo);
}

TEST_F(Keys, AChangedFileIsReadAgain) {
  const std::string first = add_key(path_, "a", 0).value();
  const auto file = KeyFile::open(path_).value();
  const auto tenant = [&](const std::string& key) {
    return file->authenticate("Bearer " + key).value_or("nobody");
  };
  const std::string second = add_key(path_, "b", 0).value();
  EXPECT_EQ(tenant(second), "nobody");
  file->refresh();
  EXPECT_EQ(tenant(first), "a");
  EXPECT_EQ(tenant(second), "b");
  // The first line goes.
  const std::string text = read();
  write(text.substr(text.find('\n') + 1));
  file->refresh();
  EXPECT_EQ(tenant(first), "nobody");
  EXPECT_EQ(tenant(second), "b");
  // What can't be used changes nothing.
  write("nonsense\n");
  file->refresh();
  EXPECT_EQ(tenant(second), "b");
  std::filesystem::remove(path_);
  file->refresh();
  EXPECT_EQ(tenant(second), "b");
  // No key at all is something that may be wanted.
  write("# nobody\n");
  file->refresh();
  EXPECT_EQ(tenant(second), "nobody");
  EXPECT_NE(KeyFile::open(path_).error().message.find("no key"), std::string::npos);
}

TEST_F(Keys, AddRefusesBadTenantsAndForeignFiles) {
  EXPECT_EQ(add_key(path_, "", 0).error().param, "tenant");
  EXPECT_EQ(add_key(path_, "a b", 0).error().param, "tenant");
  write("important notes\n");
  EXPECT_FALSE(add_key(path_, "a", 0));
  EXPECT_EQ(read(), "important notes\n");
}

}  // namespace
}  // namespace waystation::guard
