#include "app/toml_table.h"

#include <algorithm>

#include "base/nearest.h"

namespace waystation::app {
namespace {

std::string kind_of(const toml::node& node) {
  switch (node.type()) {
    case toml::node_type::table:
      return "a table";
    case toml::node_type::array:
      return "a list";
    case toml::node_type::string:
      return "a text";
    case toml::node_type::integer:
      return "a whole number";
    case toml::node_type::floating_point:
      return "a number";
    case toml::node_type::boolean:
      return "true or false";
    default:
      return "a date or a time";
  }
}

}  // namespace

Error Place::at(const toml::node& node, const std::string& message, std::string param) const {
  return at(node.source(), message, std::move(param));
}

Error Place::at(const toml::source_region& region, const std::string& message,
                std::string param) const {
  return Error{Code::kInvalidArgument,
               path + ":" + std::to_string(region.begin.line) + ": " + message, std::move(param)};
}

Error Place::wrong_type(const toml::node& node, const std::string& key,
                        const std::string& wanted) const {
  return at(node, "'" + key + "' must be " + wanted + ", not " + kind_of(node), key);
}

Error Place::unknown(const toml::key& key, const std::string& where,
                     const std::vector<std::string>& known) const {
  const std::string name(key.str());
  return at(
      key.source(),
      "unknown key '" + name + "'" + where + "; did you mean '" + nearest_name(name, known) + "'?",
      name);
}

std::string swapped(std::string name, char from, char to) {
  std::replace(name.begin(), name.end(), from, to);
  return name;
}

Status read_table(const Place& place, const toml::table& table, const std::string& where,
                  const Takes& takes) {
  for (const auto& [key, node] : table) {
    const std::string name = swapped(std::string(key.str()), '-', '_');
    const auto take = std::find_if(takes.begin(), takes.end(),
                                   [&name](const auto& each) { return each.first == name; });
    if (take == takes.end()) {
      std::vector<std::string> known;
      for (const auto& each : takes) known.push_back(each.first);
      return place.unknown(key, where, known);
    }
    if (Status taken = take->second(node, name); !taken) return taken;
  }
  return {};
}

Take text(const Place& place, std::string& into) {
  return [&](const toml::node& node, const std::string& key) -> Status {
    const auto* value = node.as_string();
    if (value == nullptr) return place.wrong_type(node, key, "a text");
    into = value->get();
    return {};
  };
}

Take flag(const Place& place, bool& into) {
  return [&](const toml::node& node, const std::string& key) -> Status {
    const auto* value = node.as_boolean();
    if (value == nullptr) return place.wrong_type(node, key, "true or false");
    into = value->get();
    return {};
  };
}

Take texts(const Place& place, std::vector<std::string>& into) {
  return [&](const toml::node& node, const std::string& key) -> Status {
    const auto* list = node.as_array();
    if (list == nullptr) return place.wrong_type(node, key, "a list of texts");
    for (const toml::node& item : *list) {
      const auto* value = item.as_string();
      if (value == nullptr) return place.wrong_type(item, key, "a list of texts");
      into.push_back(value->get());
    }
    return {};
  };
}

}  // namespace waystation::app
