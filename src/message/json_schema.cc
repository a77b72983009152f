#include "message/json_schema.h"

#include <algorithm>
#include <array>
#include <boost/json.hpp>
#include <cmath>
#include <utility>

#include "base/utf8.h"
#include "message/json_schema_normaliser.h"
#include "message/json_value.h"

namespace waystation::message {
namespace schema {
namespace {

constexpr std::size_t kNodesMax = 5000;
// Each value is an alternative of the grammar, which costs the worker time at every token.
constexpr std::size_t kConstantsMax = 2000;
constexpr std::size_t kConstantBytesMax = 64u << 10;

// Keywords that say something about values and that no grammar of ours can keep.
constexpr std::array<std::string_view, 19> kUnsupported{"not",
                                                        "if",
                                                        "then",
                                                        "else",
                                                        "dependentSchemas",
                                                        "dependencies",
                                                        "dependentRequired",
                                                        "contains",
                                                        "minContains",
                                                        "maxContains",
                                                        "propertyNames",
                                                        "minProperties",
                                                        "maxProperties",
                                                        "uniqueItems",
                                                        "patternProperties",
                                                        "unevaluatedProperties",
                                                        "unevaluatedItems",
                                                        "$dynamicRef",
                                                        "$recursiveRef"};

// Keywords that say something about values, by the type that they speak of.
constexpr std::array<std::string_view, 3> kOfObjects{"properties", "required",
                                                     "additionalProperties"};
constexpr std::array<std::string_view, 5> kOfArrays{"items", "prefixItems", "minItems", "maxItems",
                                                    "additionalItems"};
constexpr std::array<std::string_view, 4> kOfStrings{"pattern", "format", "minLength", "maxLength"};
constexpr std::array<std::string_view, 5> kOfNumbers{"minimum", "maximum", "exclusiveMinimum",
                                                     "exclusiveMaximum", "multipleOf"};

template <typename Names>
std::string_view first_of(const object& schema, const Names& names) {
  for (const std::string_view name : names) {
    if (schema.contains(name)) return name;
  }
  return {};
}

// The first keyword that says something about values, besides `allowed`.
std::string_view any_constraint(const object& schema, std::string_view allowed = {}) {
  for (const std::string_view name : {"type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref"}) {
    if (name != allowed && schema.contains(name)) return name;
  }
  for (const auto found : {first_of(schema, kOfObjects), first_of(schema, kOfArrays),
                           first_of(schema, kOfStrings), first_of(schema, kOfNumbers)}) {
    if (!found.empty()) return found;
  }
  return {};
}

bool has_type(const value& instance, std::string_view type) {
  if (type == "null") return instance.is_null();
  if (type == "boolean") return instance.is_bool();
  if (type == "string") return instance.is_string();
  if (type == "array") return instance.is_array();
  if (type == "object") return instance.is_object();
  if (type == "number") return instance.is_number();
  return instance.is_number() && (!instance.is_double() || whole(instance).has_value());
}

bool known_type(std::string_view type) {
  constexpr std::array<std::string_view, 7> kTypes{"null",   "boolean", "string", "array",
                                                   "object", "number",  "integer"};
  return std::find(kTypes.begin(), kTypes.end(), type) != kTypes.end();
}

}  // namespace

std::optional<std::int64_t> whole(const value& number) {
  if (const auto* i = number.if_int64()) return *i;
  if (const auto* d = number.if_double();
      d != nullptr && std::abs(*d) < 9e15 && std::trunc(*d) == *d) {
    return static_cast<std::int64_t>(*d);
  }
  return std::nullopt;
}

Result<value> Normaliser::run(const std::string& param) {
  auto done = node(root_, param, {});
  if (!done) return done.error();
  if (!definitions_.empty()) {
    if (!done->is_object()) return *done;
    done->get_object()["$defs"] = definitions_;
  }
  return done;
}

Result<value> Normaliser::node(const value& schema, const std::string& at, const Open& open) {
  auto made = bare_node(schema, at, open);
  if (!loose_ || !made || !made->is_object() || !schema.is_object()) return made;
  if (made->get_object().contains("$ref")) return made;
  for (const char* name : {"title", "description"}) {
    const value* text = schema.get_object().if_contains(name);
    if (text != nullptr && text->is_string()) made->get_object()[name] = *text;
  }
  return made;
}

Result<value> Normaliser::bare_node(const value& schema, const std::string& at, const Open& open) {
  if (++nodes_ > kNodesMax) return bad(at, "is too large a schema");
  if (const auto* flag = schema.if_bool()) {
    if (*flag || loose_) return value(object());
    return bad(at, "is false: no value is allowed there");
  }
  const auto* found = schema.if_object();
  if (found == nullptr) return bad(at, "must be a schema: an object, or true");
  const object& it = *found;
  if (const Status good = refuse_unsupported(it, at); !good) return good.error();
  if (it.contains("$ref")) return reference(it, at, open);
  if (it.contains("allOf")) return all_of(it, at, open);
  if (it.contains("anyOf")) return any_of(it, "anyOf", at, open);
  if (it.contains("oneOf")) {
    const Status good = loose_ ? Status() : check_exclusive(it, at);
    return good ? any_of(it, "oneOf", at, open) : Result<value>(good.error());
  }
  if (it.contains("const") || it.contains("enum")) return constants(it, at);
  return by_type(it, at);
}

Status Normaliser::refuse_unsupported(const object& it, const std::string& at) const {
  if (loose_) return {};
  for (const std::string_view name : kUnsupported) {
    const value* found = it.if_contains(name);
    if (found == nullptr) continue;
    if (name == "uniqueItems" && found->is_bool() && !found->get_bool()) continue;
    if (name == "minProperties" && whole(*found) == 0) continue;
    if (name == "propertyNames" && *found == value(typed("string"))) continue;  // they all are
    return cant(under(at, name));
  }
  return {};
}

// A keyword that can stand beside no other.
Status Normaliser::alone(const object& it, std::string_view name, const std::string& at) const {
  const std::string_view other = any_constraint(it, name);
  if (other.empty() || loose_) return {};
  return bad(under(at, other),
             "can't be enforced beside " + std::string(name) + "; put it inside, or leave it out");
}

Result<value> Normaliser::reference(const object& it, const std::string& at, const Open& open) {
  if (const Status good = alone(it, "$ref", at); !good) return good.error();
  const std::string where = under(at, "$ref");
  const auto* text = it.at("$ref").if_string();
  if (text == nullptr) return bad(where, "must be a string");
  const std::string ref(std::string_view{*text});
  if (open.contains(ref)) return bad(where, "leads back to itself");
  const value* target = resolve(ref);
  if (target == nullptr) {
    return bad(where, "is '" + utf8_prefix(ref, 80) +
                          "', which is not in this schema; only \"#\" and \"#/…\" can be followed");
  }
  const auto known = names_.find(ref);
  const std::string name =
      known != names_.end() ? known->second : prefix_ + std::to_string(names_.size());
  if (known == names_.end()) {
    names_[ref] = name;
    Open inside = open;
    inside.insert(ref);
    auto made = node(*target, at + "(" + ref + ")", inside);
    if (!made) return made.error();
    definitions_[name] = std::move(*made);
  }
  return value(object{{"$ref", "#/$defs/" + name}});
}

const value* Normaliser::resolve(std::string_view ref) const {
  if (ref == "#") return &root_;
  if (!ref.starts_with("#/") || ref.find('%') != std::string_view::npos) return nullptr;
  boost::system::error_code wrong;
  return root_.find_pointer(ref.substr(1), wrong);
}

Result<value> Normaliser::all_of(const object& it, const std::string& at, const Open& open) {
  const std::string where = under(at, "allOf");
  const auto* parts = it.at("allOf").if_array();
  if (parts == nullptr || parts->empty()) return bad(where, "must be a list of schemas");
  if (parts->size() == 1 && any_constraint(it, "allOf").empty()) {
    return node(parts->at(0), where + "[0]", open);
  }
  if (!loose_) return cant(where);
  object rest = it;
  rest.erase("allOf");
  return node(rest, at, open);
}

Result<value> Normaliser::any_of(const object& it, std::string_view name, const std::string& at,
                                 const Open& open) {
  if (const Status good = alone(it, name, at); !good) return good.error();
  const std::string where = under(at, name);
  const auto* parts = it.at(name).if_array();
  if (parts == nullptr || parts->empty()) return bad(where, "must be a list of schemas");
  json::array alternatives;
  for (std::size_t i = 0; i < parts->size(); ++i) {
    auto made = node(parts->at(i), where + "[" + std::to_string(i) + "]", open);
    if (!made) return made.error();
    alternatives.push_back(std::move(*made));
  }
  if (alternatives.size() == 1) return alternatives[0];
  return value(object{{"anyOf", std::move(alternatives)}});
}

Result<value> Normaliser::constants(const object& it, const std::string& at) {
  const std::string_view name = it.contains("const") ? "const" : "enum";
  if (!loose_) {
    object rest = it;
    rest.erase("type");
    if (const Status good = alone(rest, name, at); !good) return good.error();
  }
  json::array values;
  if (name == "const") {
    values.push_back(it.at("const"));
  } else {
    const auto* list = it.at("enum").if_array();
    if (list == nullptr || list->empty()) return bad(under(at, "enum"), "must be a list of values");
    values = *list;
  }
  constants_ += values.size();
  constant_bytes_ += json::serialize(values).size();
  if (constants_ > kConstantsMax || constant_bytes_ > kConstantBytesMax) {
    return bad(under(at, name), "brings the schema's values to more than " +
                                    std::to_string(kConstantsMax) + ", or " +
                                    std::to_string(kConstantBytesMax) + " bytes of them");
  }
  auto types = types_of(it, at);
  if (!types) return types.error();
  json::array kept;
  for (const value& one : values) {
    const auto fits = [&](const std::string& type) { return has_type(one, type); };
    if (types->empty() || std::any_of(types->begin(), types->end(), fits)) kept.push_back(one);
  }
  if (kept.empty()) return bad(under(at, name), "has no value of the schema's type");
  if (kept.size() == 1) return value(object{{"const", kept[0]}});
  return value(object{{"enum", std::move(kept)}});
}

Result<std::vector<std::string>> Normaliser::types_of(const object& it,
                                                      const std::string& at) const {
  std::vector<std::string> types;
  const value* type = it.if_contains("type");
  if (type == nullptr) return types;
  const std::string where = under(at, "type");
  const json::array list = type->is_array() ? type->get_array() : json::array{*type};
  for (const value& one : list) {
    if (!one.is_string() || !known_type(one.get_string())) {
      return bad(where,
                 "must be one of null, boolean, string, number, integer, object, array, or a "
                 "list of them");
    }
    types.emplace_back(std::string_view(one.get_string()));
  }
  if (types.empty()) return bad(where, "must not be empty");
  return types;
}

Result<value> Normaliser::by_type(const object& it, const std::string& at) {
  auto types = types_of(it, at);
  if (!types) return types.error();
  if (types->empty()) {  // one of the types that the keywords allow will do
    if (!first_of(it, kOfObjects).empty()) {
      types->push_back("object");
    } else if (!first_of(it, kOfArrays).empty()) {
      types->push_back("array");
    } else if (!first_of(it, kOfStrings).empty()) {
      types->push_back("string");
    } else if (!first_of(it, kOfNumbers).empty()) {
      types->push_back("number");
    } else {
      return value(object());
    }
  }
  json::array alternatives;
  for (const std::string& type : *types) {
    auto made = of_type(it, type, at);
    if (!made) return made.error();
    alternatives.push_back(std::move(*made));
  }
  if (alternatives.size() == 1) return alternatives[0];
  return value(object{{"anyOf", std::move(alternatives)}});
}

Result<value> Normaliser::of_type(const object& it, const std::string& type,
                                  const std::string& at) {
  if (type == "object") return object_node(it, at);
  if (type == "array") return array_node(it, at);
  if (type == "string") return string_node(it, at);
  if (type == "integer") return integer_node(it, at);
  if (type == "number") {
    const std::string_view bound = first_of(it, kOfNumbers);
    if (!bound.empty() && !loose_) {
      return bad(under(at, bound),
                 "can't be enforced on a number that may have decimals; use type "
                 "integer, or leave it out");
    }
  }
  return value(typed(type));
}

}  // namespace schema

Result<std::string> normal_json_schema(std::string_view schema, std::string_view param,
                                       SchemaUse use, std::string_view prefix) {
  auto root = parse_json(schema);
  if (!root) {
    Error error = root.error();
    error.param = std::string(param);
    return error;
  }
  auto done = schema::Normaliser(*root, use, prefix).run(std::string(param));
  if (!done) return done.error();
  return boost::json::serialize(*done);
}

Status check_json_schema(std::string_view schema, std::string_view param) {
  auto normal = normal_json_schema(schema, param, SchemaUse::kExact);
  if (!normal) return normal.error();
  return {};
}

}  // namespace waystation::message
