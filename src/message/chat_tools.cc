#include "message/chat_tools.h"

#include <algorithm>
#include <boost/json.hpp>

#include "message/json_schema.h"

namespace waystation::message {
namespace {

using fields::bad;
using fields::find;
using fields::item;
using fields::Object;
using fields::Value;
using fields::wrong_type;

constexpr std::size_t kToolsMax = 128;

// The `function` member of something of type "function".
Result<const Object*> function_in(const Object& object, const std::string& param) {
  auto type = fields::required_text(object, param + ".type", "type");
  if (!type) return type.error();
  if (*type != "function") {
    return bad(param + ".type", "is " + fields::quoted(*type) + "; only 'function' is supported");
  }
  const Value* function = find(object, "function");
  if (function == nullptr) return bad(param + ".function", "is required");
  if (!function->is_object()) return wrong_type(param + ".function", "an object", *function);
  return &function->get_object();
}

Result<const Object*> function_of(const Value& value, const std::string& param) {
  const auto* object = value.if_object();
  if (object == nullptr) return wrong_type(param, "an object", value);
  return function_in(*object, param);
}

Result<std::string> plain_name(const Object& object, const std::string& param) {
  auto name = fields::required_text(object, param, "name");
  if (name && !fields::is_plain_name(*name)) {
    return bad(param, "must be 1 to 64 letters, digits, '_' and '-'");
  }
  return name;
}

Result<Tool> parse_tool(const Value& value, const std::string& param) {
  auto function = function_of(value, param);
  if (!function) return function.error();
  const std::string at = param + ".function";
  Tool tool;
  auto name = plain_name(**function, at + ".name");
  if (!name) return name.error();
  tool.name = std::move(*name);
  auto description = fields::text(**function, at + ".description", "description");
  if (!description) return description.error();
  tool.description = std::move(*description);
  auto strict = fields::flag(**function, at + ".strict", "strict");
  if (!strict) return strict.error();
  tool.parameters = "{}";
  if (const Value* parameters = find(**function, "parameters")) {
    if (!parameters->is_object()) return wrong_type(at + ".parameters", "an object", *parameters);
    tool.parameters = boost::json::serialize(*parameters);
  }
  tool.strict = *strict;
  if (tool.strict) {
    auto good = check_json_schema(tool.parameters, at + ".parameters");
    if (!good) return good.error();
  }
  return tool;
}

bool has_tool(const ChatRequest& request, std::string_view name) {
  return std::any_of(request.tools.begin(), request.tools.end(),
                     [name](const Tool& tool) { return tool.name == name; });
}

Error no_such_tool(std::string param, const std::string& name) {
  return bad(std::move(param), "is " + fields::quoted(name) + ", which is not one of the tools");
}

// Only some of the tools may be called: the others are left out, so that none can be.
Status choose_allowed(const Object& choice, ChatRequest& out) {
  const std::string param = "tool_choice.allowed_tools";
  const Value* value = find(choice, "allowed_tools");
  if (value == nullptr) return bad(param, "is required");
  const auto* allowed = value->if_object();
  if (allowed == nullptr) return wrong_type(param, "an object", *value);
  auto mode = fields::one_of(*allowed, param + ".mode", "mode", {"auto", "required"});
  if (!mode) return mode.error();
  if (mode->empty()) return bad(param + ".mode", "is required");
  const Value* tools = find(*allowed, "tools");
  if (tools == nullptr) return bad(param + ".tools", "is required");
  const auto* array = tools->if_array();
  if (array == nullptr) return wrong_type(param + ".tools", "an array", *tools);
  if (array->empty()) return bad(param + ".tools", "must have at least one tool");
  std::vector<std::string> names;
  for (std::size_t i = 0; i < array->size(); ++i) {
    const std::string at = item(param + ".tools", i);
    auto function = function_of((*array)[i], at);
    if (!function) return function.error();
    auto name = plain_name(**function, at + ".function.name");
    if (!name) return name.error();
    if (!has_tool(out, *name)) return no_such_tool(at + ".function.name", *name);
    names.push_back(std::move(*name));
  }
  std::erase_if(out.tools, [&](const Tool& tool) {
    return std::find(names.begin(), names.end(), tool.name) == names.end();
  });
  out.tool_choice = *mode == "required" ? ToolChoice::kRequired : ToolChoice::kAuto;
  return {};
}

Status parse_choice_object(const Object& choice, ChatRequest& out) {
  auto type = fields::required_text(choice, "tool_choice.type", "type");
  if (!type) return type.error();
  if (out.tools.empty()) return bad("tool_choice", "needs tools");
  if (*type == "allowed_tools") return choose_allowed(choice, out);
  auto function = function_in(choice, "tool_choice");
  if (!function) return function.error();
  auto name = plain_name(**function, "tool_choice.function.name");
  if (!name) return name.error();
  if (!has_tool(out, *name)) return no_such_tool("tool_choice.function.name", *name);
  out.tool_choice = ToolChoice::kNamed;
  out.tool_name = std::move(*name);
  return {};
}

Status parse_tool_choice(const Object& body, ChatRequest& out) {
  out.tool_choice = out.tools.empty() ? ToolChoice::kNone : ToolChoice::kAuto;
  const Value* choice = find(body, "tool_choice");
  if (choice == nullptr) return {};
  if (const auto* object = choice->if_object()) return parse_choice_object(*object, out);
  if (!choice->is_string()) return wrong_type("tool_choice", "a string or an object", *choice);
  auto mode = fields::one_of(body, "tool_choice", "tool_choice", {"none", "auto", "required"});
  if (!mode) return mode.error();
  if (*mode == "none") out.tool_choice = ToolChoice::kNone;
  if (*mode == "required") {
    if (out.tools.empty()) return bad("tool_choice", "needs tools");
    out.tool_choice = ToolChoice::kRequired;
  }
  return {};
}

}  // namespace

Status parse_tools(const Object& body, ChatRequest& out) {
  if (const Value* tools = find(body, "tools")) {
    const auto* array = tools->if_array();
    if (array == nullptr) return wrong_type("tools", "an array", *tools);
    if (array->size() > kToolsMax) {
      return bad("tools", "may have at most " + std::to_string(kToolsMax) + " tools");
    }
    for (std::size_t i = 0; i < array->size(); ++i) {
      auto tool = parse_tool((*array)[i], item("tools", i));
      if (!tool) return tool.error();
      if (has_tool(out, tool->name)) {
        return bad(item("tools", i) + ".function.name",
                   "is " + fields::quoted(tool->name) + ", which an earlier tool is named too");
      }
      out.tools.push_back(std::move(*tool));
    }
  }
  auto parallel = fields::flag(body, "parallel_tool_calls", "parallel_tool_calls", true);
  if (!parallel) return parallel.error();
  out.parallel_tool_calls = *parallel;
  return parse_tool_choice(body, out);
}

Status parse_response_format(const Object& body, ChatRequest& out) {
  const Value* format = find(body, "response_format");
  if (format == nullptr) return {};
  const auto* object = format->if_object();
  if (object == nullptr) return wrong_type("response_format", "an object", *format);
  const std::string param = "response_format";
  auto type =
      fields::one_of(*object, param + ".type", "type", {"text", "json_object", "json_schema"});
  if (!type) return type.error();
  if (type->empty()) return bad(param + ".type", "is required");
  if (*type == "text") return {};
  if (*type == "json_object") {
    if (find(*object, "schema") != nullptr) {
      return bad(param + ".schema", "belongs to the type json_schema, as json_schema.schema");
    }
    out.response_format = ResponseFormat::kJsonObject;
    return {};
  }
  const std::string at = param + ".json_schema";
  const Value* wrapped = find(*object, "json_schema");
  if (wrapped == nullptr) return bad(at, "is required");
  if (!wrapped->is_object()) return wrong_type(at, "an object", *wrapped);
  if (auto name = plain_name(wrapped->get_object(), at + ".name"); !name) return name.error();
  auto strict = fields::flag(wrapped->get_object(), at + ".strict", "strict");
  if (!strict) return strict.error();
  auto description = fields::text(wrapped->get_object(), at + ".description", "description");
  if (!description) return description.error();
  const Value* schema = find(wrapped->get_object(), "schema");
  if (schema == nullptr) {  // any object will do
    out.response_format = ResponseFormat::kJsonObject;
    return {};
  }
  if (!schema->is_object()) return wrong_type(at + ".schema", "an object", *schema);
  out.response_format = ResponseFormat::kJsonSchema;
  out.json_schema = boost::json::serialize(*schema);
  return check_json_schema(out.json_schema, at + ".schema");
}

Result<std::vector<ToolCall>> parse_tool_calls(const Value& value, const std::string& param) {
  const auto* array = value.if_array();
  if (array == nullptr) return wrong_type(param, "an array", value);
  std::vector<ToolCall> calls;
  for (std::size_t i = 0; i < array->size(); ++i) {
    const std::string at = item(param, i);
    auto function = function_of((*array)[i], at);
    if (!function) return function.error();
    ToolCall call;
    auto id = fields::required_text((*array)[i].get_object(), at + ".id", "id");
    if (!id) return id.error();
    call.id = std::move(*id);
    auto name = plain_name(**function, at + ".function.name");
    if (!name) return name.error();
    call.name = std::move(*name);
    auto arguments = fields::required_text(**function, at + ".function.arguments", "arguments");
    if (!arguments) return arguments.error();
    call.arguments = std::move(*arguments);
    calls.push_back(std::move(call));
  }
  return calls;
}

}  // namespace waystation::message
