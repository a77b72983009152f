#include "message/json_schema.h"

#include <gtest/gtest.h>

#include "message/json_pattern.h"

namespace waystation::message {
namespace {

std::string normal(const std::string& schema, SchemaUse use = SchemaUse::kExact) {
  const auto made = normal_json_schema(schema, "s", use);
  return made ? *made : "error at " + made.error().param + ": " + made.error().message;
}
std::string refused_at(const std::string& schema) {
  const Status checked = check_json_schema(schema, "s");
  if (checked) return "";
  EXPECT_EQ(checked.error().code, Code::kInvalidArgument);
  EXPECT_TRUE(checked.error().message.starts_with(checked.error().param));
  return checked.error().param;
}

TEST(JsonSchema, KeepsWhatGrammarsSay) {
  EXPECT_EQ(normal(R"({"type":"string","maxLength":5,"minLength":1,"description":"d"})"),
            R"({"type":"string","minLength":1,"maxLength":5})");
  EXPECT_EQ(
      normal(R"({"type":"object","properties":{"b":{"type":"null"},"a":true},"required":["a"]})"),
      R"({"type":"object","properties":{"b":{"type":"null"},"a":{}},"required":["a"],"additionalProperties":false})");
  EXPECT_EQ(normal(R"({"type":"object"})"), R"({"type":"object"})");
  EXPECT_EQ(normal(R"({"type":"object","additionalProperties":{"type":"integer"}})"),
            R"({"type":"object","additionalProperties":{"type":"integer"}})");
  EXPECT_EQ(normal(R"({"type":"array","items":{"type":"boolean"},"minItems":2,"maxItems":100000})"),
            R"({"type":"array","items":{"type":"boolean"},"minItems":2,"maxItems":256})");
  EXPECT_EQ(normal("{}"), "{}");
  EXPECT_EQ(normal("true"), "{}");
}

TEST(JsonSchema, BoundsOfIntegers) {
  EXPECT_EQ(normal(R"({"type":"integer","minimum":100})"),
            R"({"type":"integer","minimum":100,"maximum":999999999999999})");
  EXPECT_EQ(normal(R"({"type":"integer","exclusiveMaximum":3,"minimum":-0.5})"),
            R"({"type":"integer","minimum":0,"maximum":2})");
  EXPECT_EQ(normal(R"({"type":"integer","exclusiveMinimum":0,"maximum":1})"), R"({"const":1})");
  EXPECT_EQ(refused_at(R"({"type":"integer","minimum":5,"maximum":3})"), "s");
  EXPECT_EQ(refused_at(R"({"type":"number","minimum":5})"), "s.minimum");
  EXPECT_EQ(normal(R"({"type":"integer","minimum":-9007199254740991,"maximum":9007199254740991})"),
            R"({"type":"integer","minimum":-999999999999999,"maximum":999999999999999})");
  EXPECT_EQ(refused_at(R"({"type":"integer","minimum":9007199254740991})"), "s.minimum");
  EXPECT_EQ(refused_at(R"({"type":"integer","multipleOf":2})"), "s.multipleOf");
  EXPECT_EQ(refused_at(R"({"type":"integer","multipleOf":1})"), "");
}

TEST(JsonSchema, TypesAndConstants) {
  EXPECT_EQ(normal(R"({"type":["string","null"],"maxLength":3})"),
            R"({"anyOf":[{"type":"string","maxLength":3},{"type":"null"}]})");
  EXPECT_EQ(normal(R"({"type":"string","enum":["a",1,"b"]})"), R"({"enum":["a","b"]})");
  EXPECT_EQ(normal(R"({"enum":["a"]})"), R"({"const":"a"})");
  EXPECT_EQ(refused_at(R"({"type":"integer","enum":["a"]})"), "s.enum");
  const auto enum_of = [](int count, const std::string& text) {
    std::string values;
    for (int i = 0; i < count; ++i) values += ",\"" + text + std::to_string(i) + "\"";
    return R"({"enum":[)" + values.substr(1) + "]}";
  };
  EXPECT_NE(normal(enum_of(2000, "v")), "");
  EXPECT_EQ(refused_at(enum_of(2001, "v")), "s.enum");
  EXPECT_EQ(refused_at(enum_of(100, std::string(1000, 'v'))), "s.enum");
  const std::string two = R"({"type":"object","properties":{"a":)" + enum_of(1500, "v") +
                          R"(,"b":)" + enum_of(1500, "v") + "}}";
  EXPECT_EQ(refused_at(two), "s.properties.b.enum");
  EXPECT_EQ(refused_at(R"({"type":"colour"})"), "s.type");
  EXPECT_EQ(refused_at(R"({"enum":["abc"],"maxLength":2})"), "s.maxLength");
}

TEST(JsonSchema, ReferencesAreFollowedInside) {
  EXPECT_EQ(
      normal(
          R"({"$ref":"#/$defs/n","$defs":{"n":{"type":"object","properties":{"next":{"$ref":"#/$defs/n"}}}}})"),
      R"({"$ref":"#/$defs/r0","$defs":{"r0":{"type":"object","properties":{"next":{"$ref":"#/$defs/r0"}},"additionalProperties":false}}})");
  EXPECT_EQ(refused_at(R"({"properties":{"a":{"$ref":"other.json"}}})"), "s.properties.a.$ref");
  EXPECT_EQ(refused_at(R"({"$ref":"#/$defs/a","$defs":{"a":{"$ref":"#/$defs/a"}}})"),
            "s(#/$defs/a).$ref");
  EXPECT_EQ(
      refused_at(
          R"({"$ref":"#/$defs/a","$defs":{"a":{"anyOf":[{"type":"null"},{"$ref":"#/$defs/a"}]}}})")
          .empty(),
      false);
  EXPECT_EQ(refused_at(R"({"$ref":"#/$defs/a","maxLength":3,"$defs":{"a":{"type":"string"}}})"),
            "s.maxLength");
  EXPECT_EQ(normal(R"({"allOf":[{"type":"null"}],"title":"t"})"), R"({"type":"null"})");
}

TEST(JsonSchema, TheRootMayStandInItself) {
  EXPECT_EQ(
      normal(R"({"type":"object","properties":{"next":{"anyOf":[{"$ref":"#"},{"type":"null"}]}}})"),
      R"({"type":"object","properties":{"next":{"anyOf":[{"$ref":"#/$defs/r0"},{"type":"null"}]}},)"
      R"("additionalProperties":false,"$defs":{"r0":{"type":"object","properties":{"next":)"
      R"({"anyOf":[{"$ref":"#/$defs/r0"},{"type":"null"}]}},"additionalProperties":false}}})");
  EXPECT_EQ(refused_at(R"({"$ref":"#"})"), "s(#).$ref");
  EXPECT_EQ(refused_at(R"({"anyOf":[{"type":"null"},{"$ref":"#"}]})"),
            "s.anyOf[1](#).anyOf[1].$ref");
}

TEST(JsonSchema, OneOfIsKeptWhereTheAlternativesExcludeEachOther) {
  EXPECT_EQ(normal(R"({"oneOf":[{"type":"null"},{"type":"string"}]})"),
            R"({"anyOf":[{"type":"null"},{"type":"string"}]})");
  const auto good = [](const std::string& a, const std::string& b) {
    return refused_at(R"({"oneOf":[)" + a + "," + b +
                      R"(],"$defs":{"cat":{"type":"object","properties":{"kind":{"const":"cat"}},)"
                      R"("required":["kind"]},"dog":{"type":"object","properties":{"kind":)"
                      R"({"enum":["dog","wolf"]}},"required":["kind"]}}})") == "";
  };
  const auto thing = [](const std::string& kind, const std::string& more = "") {
    return R"({"type":"object","properties":{"kind":)" + kind + R"(},"required":["kind"])" + more +
           "}";
  };
  EXPECT_TRUE(good(R"({"$ref":"#/$defs/cat"})", R"({"$ref":"#/$defs/dog"})"));
  EXPECT_FALSE(good(R"({"$ref":"#/$defs/cat"})", R"({"$ref":"#/$defs/cat"})"));
  EXPECT_TRUE(good(thing(R"({"const":1})"), thing(R"({"const":2})")));
  EXPECT_FALSE(good(thing(R"({"const":1})"), thing(R"({"const":1.0})")));
  EXPECT_TRUE(good(thing(R"({"type":"string"})"), thing(R"({"type":"integer"})")));
  EXPECT_FALSE(good(thing(R"({"type":"number"})"), thing(R"({"type":"integer"})")));
  // Without `required` both may be {}.
  EXPECT_FALSE(good(R"({"type":"object","properties":{"k":{"const":1}}})",
                    R"({"type":"object","properties":{"k":{"const":2}}})"));
  EXPECT_TRUE(good(thing(R"({"const":1})"),
                   R"({"type":"object","properties":{"x":{}},"additionalProperties":false})"));
  EXPECT_FALSE(good(thing(R"({"const":1})"), R"({"type":"object","properties":{"x":{}}})"));
  EXPECT_FALSE(good("true", R"({"type":"null"})"));
  EXPECT_TRUE(good(R"({"enum":["a","b"]})", R"({"const":"c"})"));
  EXPECT_FALSE(good(R"({"enum":["a","b"]})", R"({"enum":["b"]})"));
  EXPECT_FALSE(good(R"({"type":["null","string"]})", R"({"type":"string"})"));
  // No type says nothing of what isn't an object.
  EXPECT_FALSE(good(R"({"properties":{"k":{"const":1}},"required":["k"]})",
                    R"({"properties":{"k":{"const":2}},"required":["k"]})"));
  EXPECT_EQ(refused_at(R"({"properties":{"x":{"oneOf":[{"type":"null"},{}]}}})"),
            "s.properties.x.oneOf");
  EXPECT_EQ(refused_at(R"({"oneOf":[{"type":"null"}],"anyOf":[{"type":"null"}]})"), "s.oneOf");
  EXPECT_EQ(refused_at(R"({"oneOf":[{"type":"null"}],"maxLength":3})"), "s.maxLength");
}

TEST(JsonSchema, RefusesWhatItCannotKeep) {
  for (const char* keyword : {"not", "if", "then", "else", "dependentSchemas", "dependentRequired",
                              "contains", "propertyNames", "minProperties", "maxProperties",
                              "patternProperties", "unevaluatedProperties"}) {
    EXPECT_EQ(refused_at(R"({"type":"object","properties":{"x":{")" + std::string(keyword) +
                         R"(":{}}}})"),
              std::string("s.properties.x.") + keyword);
  }
  EXPECT_EQ(refused_at(R"({"type":"array","uniqueItems":true})"), "s.uniqueItems");
  EXPECT_EQ(refused_at(R"({"type":"array","uniqueItems":false})"), "");
  EXPECT_EQ(refused_at(R"({"type":"object","propertyNames":{"type":"string"}})"), "");
  EXPECT_EQ(refused_at(R"({"type":"string","format":"uri"})"), "s.format");
  EXPECT_EQ(refused_at(R"({"type":"string","pattern":"a","maxLength":3})"), "s.maxLength");
  EXPECT_EQ(refused_at(R"({"type":"string","minLength":3000})"), "s.minLength");
  EXPECT_EQ(refused_at(R"({"type":"string","minLength":3,"maxLength":2})"), "s.minLength");
  EXPECT_EQ(refused_at(R"({"allOf":[{"type":"null"},{"type":"string"}]})"), "s.allOf");
  EXPECT_EQ(refused_at(R"({"anyOf":[{"type":"null"}],"type":"null"})"), "s.type");
  EXPECT_EQ(refused_at(R"({"properties":{"a":false}})"), "s.properties.a");
  EXPECT_EQ(refused_at(R"({"required":["a"],"additionalProperties":false})"), "s.required");
  EXPECT_EQ(refused_at(R"([1])"), "s");
  EXPECT_EQ(refused_at(R"({"type":"array","items":[{"type":"null"}]})"), "s.items");
}

TEST(JsonSchema, LooseLeavesOutWhatItCannotKeep) {
  EXPECT_EQ(
      normal(R"({"type":"number","minimum":5,"not":{},"description":"d"})", SchemaUse::kLoose),
      R"({"type":"number","description":"d"})");
  EXPECT_EQ(normal(R"({"type":"string","format":"uri","maxLength":9})", SchemaUse::kLoose),
            R"({"type":"string","maxLength":9})");
  EXPECT_EQ(normal(R"({"oneOf":[{"type":"null"},{"type":"string"}]})", SchemaUse::kLoose),
            R"({"anyOf":[{"type":"null"},{"type":"string"}]})");
}

TEST(JsonPattern, IsWrittenInClasses) {
  const auto plain = [](const char* pattern) {
    const auto made = plain_pattern(pattern);
    return made ? *made : "error " + made.error().message;
  };
  EXPECT_EQ(plain("^ab?$"), "^[\\u0061][\\u0062]?$");
  EXPECT_EQ(plain("a|[b-d]{2,3}"), "^[\\u0061]|[\\u0062-\\u0064]{2,3}$");
  EXPECT_EQ(plain("^\\d+$"), "^[\\u0030-\\u0039]+$");
  EXPECT_EQ(plain("^(?:x\\.y)*$"), "^([\\u0078][\\u002E][\\u0079])*$");
  // Never what a JSON string has to escape.
  EXPECT_EQ(plain("[ -~]"), "^[\\u0020-\\u0021\\u0023-\\u005B\\u005D-\\u007E]$");
  EXPECT_EQ(plain("[^a]").find("\\u0022"), std::string::npos);
  for (const char* bad : {"\"", "\\\\", "(?=a)", "a$b", "a**", "(", ")", "[a", "\\b", "a{3000}",
                          "*", "\\1", "a||b", "^$", "[z-a]", "x\\"}) {
    EXPECT_TRUE(plain(bad).starts_with("error ")) << bad << " gave " << plain(bad);
  }
}

}  // namespace
}  // namespace waystation::message
