// Reading the members of a JSON object, with refusals that name the member. For this folder's
// sources only: it brings Boost.JSON, whose headers are slow to compile. Pure.
#pragma once

#include <boost/json/value.hpp>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace waystation::message::fields {

using Object = boost::json::object;
using Value = boost::json::value;

// kInvalidArgument: "<param> <what>".
Error bad(std::string param, const std::string& what);
// "… must be <wanted>, not <what it is>".
Error wrong_type(std::string param, std::string_view wanted, const Value& got);
// The client's own text, short enough for a message.
std::string quoted(std::string_view text);
// "tools" and 3 → "tools[3]".
std::string item(const std::string& param, std::size_t index);

// The member, or null when it is absent or JSON's null: clients send null for "not set".
const Value* find(const Object& object, std::string_view name);

// A whole number; 5.0 counts as one, as in JSON Schema. Above int64's range its bits are kept,
// which only a seed may use: look at is_uint64 first.
std::optional<std::int64_t> whole(const Value& value);

// Of an optional member. `param`: how the member is named in a refusal.
Result<double> number(const Object& object, const std::string& param, std::string_view name,
                      double low, double high, double otherwise);
Result<bool> flag(const Object& object, const std::string& param, std::string_view name,
                  bool otherwise = false);
Result<std::optional<std::int64_t>> integer(const Object& object, const std::string& param,
                                            std::string_view name, std::int64_t low,
                                            std::int64_t high);
// Empty when it is absent.
Result<std::string> text(const Object& object, const std::string& param, std::string_view name);
// One of `allowed`; empty when it is absent.
Result<std::string> one_of(const Object& object, const std::string& param, std::string_view name,
                           std::initializer_list<std::string_view> allowed);

// Of a member that must be there.
Result<std::string> required_text(const Object& object, const std::string& param,
                                  std::string_view name);

// The whole body, which must be an object. Its error names no member.
Result<Value> parse_body(std::string_view body);

// 1 to 64 letters, digits, '_' and '-': how functions and schemas are named.
bool is_plain_name(std::string_view name);

}  // namespace waystation::message::fields
