// Whether two schemas can hold for the same value. What isn't plain to see counts as a yes.
#include <algorithm>
#include <boost/json.hpp>
#include <string>
#include <vector>

#include "message/json_schema_normaliser.h"

namespace waystation::message::schema {
namespace {

constexpr int kDepthMax = 8;

std::vector<std::string> kinds_of_values(const json::array& values) {
  std::vector<std::string> kinds;
  for (const value& one : values) {
    kinds.emplace_back(one.is_null()     ? "null"
                       : one.is_bool()   ? "boolean"
                       : one.is_string() ? "string"
                       : one.is_array()  ? "array"
                       : one.is_object() ? "object"
                                         : "number");
  }
  return kinds;
}

// The values that a schema lists; empty when it lists none.
json::array listed(const object& schema) {
  if (const value* one = schema.if_contains("const")) return {*one};
  const value* list = schema.if_contains("enum");
  return list != nullptr && list->is_array() ? list->get_array() : json::array();
}

// The types that values of it have, an integer as a number; empty: any.
std::vector<std::string> kinds_of(const object& schema) {
  if (const json::array values = listed(schema); !values.empty()) return kinds_of_values(values);
  const value* type = schema.if_contains("type");
  if (type == nullptr) return {};
  std::vector<std::string> kinds;
  for (const value& one : type->is_array() ? type->get_array() : json::array{*type}) {
    if (!one.is_string()) return {};
    const std::string_view name = one.get_string();
    kinds.emplace_back(name == "integer" ? "number" : name);
  }
  return kinds;
}

template <typename List, typename Same>
bool have_nothing_in_common(const List& left, const List& right, Same same) {
  if (left.empty() || right.empty()) return false;
  return std::none_of(left.begin(), left.end(), [&](const auto& one) {
    return std::any_of(right.begin(), right.end(),
                       [&](const auto& other) { return same(one, other); });
  });
}

bool may_be_equal(const value& left, const value& right) {
  if (left.is_number() && right.is_number()) {
    return left.to_number<double>() == right.to_number<double>();
  }
  if (left.is_structured() && left.kind() == right.kind()) return true;
  return left == right;
}

const object* properties_of(const object& schema) {
  const value* found = schema.if_contains("properties");
  return found == nullptr ? nullptr : found->if_object();
}

bool is_closed(const object& schema) {
  const value* more = schema.if_contains("additionalProperties");
  return more != nullptr && more->is_bool() && !more->get_bool();
}

}  // namespace

bool Normaliser::exclusive(const value& left, const value& right, int depth) const {
  const object* a = target_of(left);
  const object* b = target_of(right);
  if (a == nullptr || b == nullptr || depth > kDepthMax) return false;
  const std::vector<std::string> kinds = kinds_of(*a);
  const std::vector<std::string> other_kinds = kinds_of(*b);
  if (have_nothing_in_common(kinds, other_kinds, std::equal_to<>())) return true;
  if (have_nothing_in_common(listed(*a), listed(*b), may_be_equal)) return true;
  const std::vector<std::string> only_objects{"object"};
  if (kinds != only_objects && other_kinds != only_objects) return false;
  return member_parts(*a, *b, depth) || member_parts(*b, *a, depth);
}

// A member that objects of `a` must have tells them from those of `b`.
bool Normaliser::member_parts(const object& a, const object& b, int depth) const {
  const value* required = a.if_contains("required");
  if (required == nullptr || !required->is_array()) return false;
  const object* of_a = properties_of(a);
  const object* of_b = properties_of(b);
  for (const value& name : required->get_array()) {
    if (!name.is_string()) continue;
    const value* in_a = of_a == nullptr ? nullptr : of_a->if_contains(name.get_string());
    const value* in_b = of_b == nullptr ? nullptr : of_b->if_contains(name.get_string());
    if (in_b == nullptr && is_closed(b)) return true;
    if (in_a != nullptr && in_b != nullptr && exclusive(*in_a, *in_b, depth + 1)) return true;
  }
  return false;
}

// The schema that a chain of references leads to; null when it isn't an object.
const object* Normaliser::target_of(const value& schema) const {
  const value* at = &schema;
  for (int steps = 0; at != nullptr && at->is_object() && steps < kDepthMax; ++steps) {
    const value* ref = at->get_object().if_contains("$ref");
    if (ref == nullptr) return &at->get_object();
    at = ref->is_string() ? resolve(std::string_view(ref->get_string())) : nullptr;
  }
  return nullptr;
}

Status Normaliser::check_exclusive(const object& it, const std::string& at) const {
  const auto* parts = it.at("oneOf").if_array();
  if (parts == nullptr) return {};  // any_of says so
  for (std::size_t i = 0; i < parts->size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      if (exclusive(parts->at(j), parts->at(i), 0)) continue;
      return bad(under(at, "oneOf"),
                 "can't be enforced: its alternatives " + std::to_string(j) + " and " +
                     std::to_string(i) +
                     " might hold for the same value; use anyOf, or give each a required property "
                     "with a const of its own");
    }
  }
  return {};
}

}  // namespace waystation::message::schema
