#include "message/token_input.h"

#include <boost/json.hpp>
#include <limits>

namespace waystation::message {
namespace {

using fields::bad;
using fields::item;
using fields::Value;
using fields::wrong_type;

constexpr std::string_view kWanted = "a string, or an array of strings or of token ids";

Result<TokenInput> text_input(const Value& value, const std::string& param, bool empty_text) {
  const std::string_view text = value.get_string();
  if (text.empty() && !empty_text) return bad(param, "must not be empty");
  return TokenInput(std::string(text));
}

Result<TokenInput> token_input(const boost::json::array& ids, const std::string& param) {
  if (ids.empty()) return bad(param, "must not be empty");
  std::vector<std::uint32_t> tokens;
  tokens.reserve(ids.size());
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const auto id = fields::whole(ids[i]);
    if (!id) return wrong_type(item(param, i), "a token id", ids[i]);
    if (ids[i].is_uint64() || *id < 0 || *id > std::numeric_limits<std::int32_t>::max()) {
      return bad(item(param, i), "is not a token id");
    }
    tokens.push_back(static_cast<std::uint32_t>(*id));
  }
  return TokenInput(std::move(tokens));
}

}  // namespace

Result<std::vector<TokenInput>> parse_inputs(const fields::Object& body, const std::string& param,
                                             std::size_t inputs_max, bool empty_text) {
  const Value* value = fields::find(body, param);
  if (value == nullptr) return bad(param, "is required");
  std::vector<TokenInput> out;
  const auto keep = [&out](Result<TokenInput> input) -> Status {
    if (!input) return input.error();
    out.push_back(std::move(*input));
    return {};
  };
  if (value->is_string()) {
    if (auto status = keep(text_input(*value, param, empty_text)); !status) return status.error();
    return out;
  }
  const auto* array = value->if_array();
  if (array == nullptr) return wrong_type(param, kWanted, *value);
  if (array->empty()) return bad(param, "must not be empty");
  if (array->front().is_number()) {
    if (auto status = keep(token_input(*array, param)); !status) return status.error();
    return out;
  }
  if (array->size() > inputs_max) {
    return bad(param, "may have at most " + std::to_string(inputs_max) + " inputs");
  }
  for (std::size_t i = 0; i < array->size(); ++i) {
    const Value& one = (*array)[i];
    const std::string at = item(param, i);
    if (one.kind() != array->front().kind() || !(one.is_string() || one.is_array())) {
      return bad(at, "must be a string or an array of token ids, the same as the others");
    }
    auto status =
        keep(one.is_string() ? text_input(one, at, empty_text) : token_input(one.get_array(), at));
    if (!status) return status.error();
  }
  return out;
}

}  // namespace waystation::message
