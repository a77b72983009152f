// Reading fields of foreign JSON. For this folder's sources. Pure.
#pragma once

#include <boost/json/object.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace waystation::upstream {

// ---- Lenient: what is missing or of another type is simply not there
// -----------------------------

const boost::json::object* object_at(const boost::json::object& from, std::string_view name);
const boost::json::array* array_at(const boost::json::object& from, std::string_view name);
// Empty when it is no string.
std::string_view string_at(const boost::json::object& from, std::string_view name);
double number_of(const boost::json::value& value, double otherwise = 0);
double number_at(const boost::json::object& from, std::string_view name, double otherwise = 0);
// A whole number from 0 to `most`, however it is written.
std::optional<std::uint32_t> count_of(const boost::json::value& value, std::uint32_t most);

// ---- Strict: missing and null are the same, any other type is an error
// ---------------------------
//
// kUnavailable, saying "content is a number, not text"; within() tells where that was.

// Empty when there is none.
Result<std::string_view> text_in(const boost::json::object& from, std::string_view name);
// Text, or a list of parts of it, which are joined in `joined`.
Result<std::string_view> content_in(const boost::json::object& from, std::string_view name,
                                    std::string& joined);
// Null when there is none.
Result<const boost::json::object*> object_in(const boost::json::object& from,
                                             std::string_view name);
Result<const boost::json::array*> array_in(const boost::json::object& from, std::string_view name);
// A place in a list of `size`.
Result<std::uint32_t> index_in(const boost::json::object& from, std::string_view name,
                               std::size_t otherwise, std::size_t size);

// The text, or its beginning, to be shown in a message.
std::string cut(std::string_view text, std::size_t bytes_max);

// "content is …" becomes "choices[0].delta.content is …".
Error within(std::string place, Error error);
// "choices[0]."
std::string place_in(std::string_view list, std::size_t position);

}  // namespace waystation::upstream
