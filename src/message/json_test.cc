#include "message/json.h"

#include <gtest/gtest.h>

namespace waystation::message {
namespace {

TEST(Json, StringsAreEscaped) {
  EXPECT_EQ(json_string(""), R"("")");
  EXPECT_EQ(json_string("a\"b\\c\n\r\t\x01 你😀/"), R"("a\"b\\c\n\r\t\u0001 你😀/")");
  EXPECT_EQ(json_string(std::string_view("\0x", 2)), R"("\u0000x")");
}

TEST(Json, CanonicalFormIsTheSameForEverySpelling) {
  const auto one = canonical_json(R"({"b": [1, 2.5, true, null], "a": {"z": "\u4f60", "y": 1}})");
  const auto two = canonical_json("{\"a\":{\"y\":1,\n\"z\":\"你\"},\"b\":[1,2.5,true,null]}");
  ASSERT_TRUE(one);
  ASSERT_TRUE(two);
  EXPECT_EQ(*one, *two);
  EXPECT_EQ(one->substr(0, 12), R"({"a":{"y":1,)");
  EXPECT_NE(*one, canonical_json(R"({"b":[2.5,1,true,null],"a":{"z":"你","y":1}})").value());
}

TEST(Json, RefusesWhatIsNotJson) {
  for (const char* bad : {"", "{", "{} {}", "nul", "{\"a\":\"\xc3\"}", "{\"a\":1,}"}) {
    EXPECT_FALSE(canonical_json(bad)) << bad;
  }
  const auto deep = canonical_json(std::string(1000, '[') + std::string(1000, ']'));
  ASSERT_FALSE(deep);
  EXPECT_NE(deep.error().message.find("nested deeper"), std::string::npos);
}

}  // namespace
}  // namespace waystation::message
