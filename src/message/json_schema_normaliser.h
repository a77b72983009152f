// The walk behind normal_json_schema, for this folder's sources only. Pure.
#pragma once

#include <boost/json.hpp>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "message/json_schema.h"

namespace waystation::message::schema {

namespace json = boost::json;
using json::object;
using json::value;

// Integers that are bounded on one side have so many digits at most.
inline constexpr std::int64_t kIntegerMax = 999'999'999'999'999;

// A whole number; 5.0 counts as one, as in JSON Schema.
std::optional<std::int64_t> whole(const value& number);

// $refs entered without going into a member or an item.
using Open = std::set<std::string>;

// Makes one schema normal. json_schema.cc: what all schemas have; json_schema_types.cc: each type;
// json_schema_exclusive.cc: alternatives that exclude each other.
// `at` is always the path of the schema in hand, as errors name it.
class Normaliser {
 public:
  Normaliser(const value& root, SchemaUse use, std::string_view prefix)
      : root_(root), loose_(use == SchemaUse::kLoose), prefix_(prefix) {}

  Result<value> run(const std::string& param);

 private:
  struct Counts {
    std::int64_t min = 0;
    std::int64_t max = -1;  // -1: none
  };

  static Error bad(const std::string& at, const std::string& what) {
    return Error{Code::kInvalidArgument, at + " " + what, at};
  }
  static Error cant(const std::string& at) {
    return bad(at, "can't be enforced on an answer; leave it out, or use json_object");
  }
  static std::string under(const std::string& at, std::string_view name) {
    return at + "." + std::string(name);
  }
  static object typed(std::string_view type) { return object{{"type", type}}; }

  Result<value> node(const value& schema, const std::string& at, const Open& open);
  Result<value> bare_node(const value& schema, const std::string& at, const Open& open);
  Status refuse_unsupported(const object& it, const std::string& at) const;
  // A keyword that can stand beside no other.
  Status alone(const object& it, std::string_view name, const std::string& at) const;
  Result<value> reference(const object& it, const std::string& at, const Open& open);
  const value* resolve(std::string_view ref) const;
  Result<value> all_of(const object& it, const std::string& at, const Open& open);
  Result<value> any_of(const object& it, std::string_view name, const std::string& at,
                       const Open& open);
  // A oneOf whose alternatives exclude each other says the same as an anyOf.
  Status check_exclusive(const object& it, const std::string& at) const;
  bool exclusive(const value& left, const value& right, int depth) const;
  bool member_parts(const object& a, const object& b, int depth) const;
  const object* target_of(const value& schema) const;
  Result<value> constants(const object& it, const std::string& at);
  Result<std::vector<std::string>> types_of(const object& it, const std::string& at) const;
  Result<value> by_type(const object& it, const std::string& at);
  Result<value> of_type(const object& it, const std::string& type, const std::string& at);
  Result<value> object_node(const object& it, const std::string& at);
  // A count's keyword; `otherwise` when it isn't there.
  Result<std::int64_t> count(const object& it, std::string_view name, const std::string& at,
                             std::int64_t otherwise) const;
  // Both bounds of a length; the upper one may be lowered to what a grammar can count.
  Result<Counts> counts(const object& it, std::string_view low, std::string_view high,
                        const std::string& at, std::int64_t limit) const;
  Result<value> array_node(const object& it, const std::string& at);
  // Exactly the items that are named, or fewer where fewer are allowed.
  Result<value> tuple(const json::array& parts, const Counts& range, const std::string& at);
  Result<value> string_node(const object& it, const std::string& at);
  // The tighter of the two keywords, as a bound that belongs to the range.
  Result<std::optional<std::int64_t>> bound(const object& it, std::string_view inclusive,
                                            std::string_view exclusive, const std::string& at,
                                            bool upper) const;
  Result<value> integer_node(const object& it, const std::string& at);

  const value& root_;
  const bool loose_;
  const std::string prefix_;
  std::size_t nodes_ = 0;
  std::size_t constants_ = 0;  // values of enum and const so far
  std::size_t constant_bytes_ = 0;
  std::map<std::string, std::string> names_;  // $ref as given → its name in definitions_
  object definitions_;
};

}  // namespace waystation::message::schema
