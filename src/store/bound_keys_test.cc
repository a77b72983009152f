#include "store/bound_keys.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>

namespace waystation::store {
namespace {

TEST(BoundKeys, BindOneBodyOfOneTenantForADay) {
  char name[] = "/tmp/ws_bound_keys_test.XXXXXX";
  const std::string folder = ::mkdtemp(name);
  const auto database = Database::open({.path = folder + "/store.db"}, bound_keys_schema()).value();
  const std::string odd("\0\xff", 2);  // fingerprints are bytes
  const auto find = [&](const std::string& tenant, const KeyUse& use, TimeMs now_ms) {
    const auto found = database->call<std::optional<std::string>>(
        [&](Sql& sql) { return find_bound(sql, tenant, use, now_ms); });
    return found ? found->value_or("none") : std::string(code_name(found.error().code));
  };
  const auto bind = [&](const KeyUse& use, const std::string& object, TimeMs now_ms) {
    return database->call<void>([&](Sql& sql) { return bind_key(sql, "a", use, object, now_ms); });
  };
  EXPECT_EQ(find("a", {"k", odd}, 1000), "none");
  ASSERT_TRUE(bind({"k", odd}, "batch_1", 1000));
  ASSERT_TRUE(bind({"", odd}, "batch_2", 1000));
  EXPECT_EQ(find("a", {"k", odd}, 1000), "batch_1");
  EXPECT_EQ(find("a", {"k", std::string("\0\xfe", 2)}, 1000), "idempotency_mismatch");
  EXPECT_EQ(find("b", {"k", odd}, 1000), "none");
  EXPECT_EQ(find("a", {"", odd}, 1000), "none");
  EXPECT_EQ(find("a", {"k", odd}, 1000 + kKeyBindsMs - 1), "batch_1");
  EXPECT_EQ(find("a", {"k", odd}, 1000 + kKeyBindsMs), "none");
  // It may be bound again then.
  ASSERT_TRUE(bind({"k", "other"}, "batch_3", 1000 + kKeyBindsMs));
  EXPECT_EQ(find("a", {"k", "other"}, 1000 + kKeyBindsMs), "batch_3");
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace waystation::store
