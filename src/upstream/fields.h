// Reading fields of foreign JSON: what is missing or of another type is simply not there. For this
// folder's sources. Pure.
#pragma once

#include <boost/json/object.hpp>
#include <string>
#include <string_view>

#include "base/result.h"

namespace waystation::upstream {

const boost::json::object* object_at(const boost::json::object& from, std::string_view name);
const boost::json::array* array_at(const boost::json::object& from, std::string_view name);
// Empty when it is no string.
std::string_view string_at(const boost::json::object& from, std::string_view name);
double number_of(const boost::json::value& value, double otherwise = 0);
double number_at(const boost::json::object& from, std::string_view name, double otherwise = 0);

// A token of a logprobs entry: its "bytes" where it has them, else its text.
std::string token_bytes(const boost::json::object& from);

// The vector of an item of an embeddings answer, numbers or base64, as float32 little-endian.
// kInvalidArgument says what is wrong with it.
Result<std::string> read_vector(const boost::json::object& item);

}  // namespace waystation::upstream
