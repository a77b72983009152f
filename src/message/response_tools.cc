#include "message/response_tools.h"

#include <algorithm>
#include <boost/json.hpp>
#include <optional>
#include <set>
#include <vector>

#include "message/json.h"

namespace waystation::message {
namespace {

namespace json = boost::json;
using fields::bad;
using fields::find;
using fields::Object;
using fields::Value;
using fields::wrong_type;

struct Tool {
  std::string name;
  std::string members;  // of the object that both APIs describe a function with
};

// What `tool_choice` says to the model.
struct Choice {
  std::string chat = "\"auto\"";
  std::optional<std::set<std::string>> allowed = {};  // the only ones it may see
};

Result<Tool> parse_tool(const Value& value, const std::string& at) {
  const auto* tool = value.if_object();
  if (tool == nullptr) return wrong_type(at, "an object", value);
  auto type = fields::required_text(*tool, at + ".type", "type");
  if (!type) return type.error();
  if (*type != "function") {
    return bad(at + ".type",
               "is " + fields::quoted(*type) + "; only tools of type 'function' are supported");
  }
  auto name = fields::required_text(*tool, at + ".name", "name");
  if (!name) return name.error();
  if (!fields::is_plain_name(*name)) {
    return bad(at + ".name", "must be 1 to 64 letters, digits, '_' and '-'");
  }
  auto description = fields::text(*tool, at + ".description", "description");
  if (!description) return description.error();
  const Value* parameters = find(*tool, "parameters");
  if (parameters != nullptr && !parameters->is_object()) {
    return wrong_type(at + ".parameters", "an object", *parameters);
  }
  auto strict = fields::flag(*tool, at + ".strict", "strict", true);
  if (!strict) return strict.error();
  std::string members =
      "\"name\":" + json_string(*name) +
      ",\"description\":" + (description->empty() ? "null" : json_string(*description)) +
      ",\"parameters\":" + (parameters == nullptr ? "null" : json::serialize(*parameters)) +
      ",\"strict\":" + (*strict ? "true" : "false");
  return Tool{std::move(*name), std::move(members)};
}

Result<std::vector<Tool>> parse_tools(const Object& body) {
  std::vector<Tool> tools;
  const Value* value = find(body, "tools");
  if (value == nullptr) return tools;
  if (!value->is_array()) return wrong_type("tools", "an array", *value);
  for (std::size_t i = 0; i < value->get_array().size(); ++i) {
    auto tool = parse_tool(value->get_array()[i], fields::item("tools", i));
    if (!tool) return tool.error();
    tools.push_back(std::move(*tool));
  }
  return tools;
}

Result<std::string> known_tool(const std::vector<Tool>& tools, const Object& object,
                               const std::string& at) {
  auto name = fields::required_text(object, at + ".name", "name");
  if (!name) return name;
  const bool known =
      std::any_of(tools.begin(), tools.end(), [&](const Tool& tool) { return tool.name == *name; });
  if (!known) return bad(at + ".name", "is " + fields::quoted(*name) + ", which is not in tools");
  return name;
}

Result<Choice> parse_allowed(const std::vector<Tool>& tools, const Object& object) {
  auto mode = fields::one_of(object, "tool_choice.mode", "mode", {"auto", "required"});
  if (!mode) return mode.error();
  Choice choice{json_string(mode->empty() ? "auto" : *mode), std::set<std::string>()};
  const Value* allowed = find(object, "tools");
  if (allowed == nullptr || !allowed->is_array()) {
    return bad("tool_choice.tools", "must be an array of functions");
  }
  for (std::size_t i = 0; i < allowed->get_array().size(); ++i) {
    const std::string at = fields::item("tool_choice.tools", i);
    const Value& tool = allowed->get_array()[i];
    if (!tool.is_object()) return wrong_type(at, "an object", tool);
    auto name = known_tool(tools, tool.get_object(), at);
    if (!name) return name.error();
    choice.allowed->insert(std::move(*name));
  }
  return choice;
}

Result<Choice> parse_choice(const std::vector<Tool>& tools, const Object& body) {
  const Value* value = find(body, "tool_choice");
  if (value == nullptr) return Choice();
  if (!value->is_object()) {
    auto mode = fields::one_of(body, "tool_choice", "tool_choice", {"none", "auto", "required"});
    if (!mode) return mode.error();
    return Choice{json_string(*mode)};
  }
  const Object& object = value->get_object();
  auto type = fields::required_text(object, "tool_choice.type", "type");
  if (!type) return type.error();
  if (*type == "allowed_tools") return parse_allowed(tools, object);
  if (*type != "function") {
    return bad("tool_choice.type",
               "is " + fields::quoted(*type) + "; supported are function and allowed_tools");
  }
  auto name = known_tool(tools, object, "tool_choice");
  if (!name) return name.error();
  return Choice{"{\"type\":\"function\",\"function\":{\"name\":" + json_string(*name) + "}}"};
}

}  // namespace

Result<ResponseTools> parse_response_tools(const Object& body) {
  auto tools = parse_tools(body);
  if (!tools) return tools.error();
  auto choice = parse_choice(*tools, body);
  if (!choice) return choice.error();
  auto parallel = fields::flag(body, "parallel_tool_calls", "parallel_tool_calls", true);
  if (!parallel) return parallel.error();

  ResponseTools out;
  for (const Tool& tool : *tools) {
    if (!out.shown.empty()) out.shown += ",";
    out.shown += "{\"type\":\"function\"," + tool.members + "}";
    if (choice->allowed && !choice->allowed->contains(tool.name)) continue;
    if (!out.chat.empty()) out.chat += ",";
    out.chat += "{\"type\":\"function\",\"function\":{" + tool.members + "}}";
  }
  if (out.chat.empty() && choice->chat == "\"required\"") {
    return bad("tool_choice", "is 'required', but there are no tools");
  }
  out.shown = "[" + out.shown + "]";
  if (!out.chat.empty()) out.chat = "[" + out.chat + "]";
  const Value* given = find(body, "tool_choice");
  out.choice_shown = given == nullptr ? "\"auto\"" : json::serialize(*given);
  out.chat_choice = std::move(choice->chat);
  out.parallel = *parallel;
  return out;
}

}  // namespace waystation::message
