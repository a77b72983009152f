#include "app/config.h"

#include <cmath>
#include <filesystem>
#include <optional>
#include <sstream>
#include <utility>
#include <vector>

#include "app/toml_table.h"
#include "app/upstream_tables.h"

namespace waystation::app {
namespace {

// ---- Options that have a flag -------------------------------------------------------------------

enum class Wanted { kFlag, kText, kWhole, kNumber };

Wanted wanted_by(const CLI::Option& option) {
  const std::string type = option.get_type_name();
  if (option.get_items_expected_max() == 0) return Wanted::kFlag;
  if (type.starts_with("INT") || type.starts_with("UINT")) return Wanted::kWhole;
  if (type.starts_with("FLOAT")) return Wanted::kNumber;
  return Wanted::kText;
}

std::string in_words(Wanted wanted, bool list) {
  const std::string one = wanted == Wanted::kFlag     ? "true or false"
                          : wanted == Wanted::kWhole  ? "a whole number"
                          : wanted == Wanted::kNumber ? "a number"
                                                      : "a text";
  return list ? one + ", or a list of them" : one;
}

std::optional<std::string> value_of(const toml::node& node, Wanted wanted) {
  if (wanted == Wanted::kText) {
    const auto* value = node.as_string();
    return value == nullptr ? std::nullopt : std::optional(value->get());
  }
  if (wanted == Wanted::kFlag) {
    const auto* value = node.as_boolean();
    return value == nullptr ? std::nullopt : std::optional(value->get() ? "true" : "false");
  }
  if (const auto* value = node.as_integer()) return std::to_string(value->get());
  const auto* value = node.as_floating_point();
  if (wanted == Wanted::kWhole || value == nullptr || !std::isfinite(value->get())) {
    return std::nullopt;
  }
  std::ostringstream digits;
  digits.precision(17);
  digits << value->get();
  return digits.str();
}

Status set_option(const Place& place, const toml::node& node, const std::string& key,
                  CLI::Option& option) {
  const Wanted wanted = wanted_by(option);
  const bool list = option.get_expected_max() > 1;
  std::vector<std::string> values;
  if (const auto* items = node.as_array(); items != nullptr && list) {
    for (const toml::node& item : *items) {
      auto value = value_of(item, wanted);
      if (!value) return place.wrong_type(item, key, in_words(wanted, list));
      values.push_back(std::move(*value));
    }
  } else {
    auto value = value_of(node, wanted);
    if (!value) return place.wrong_type(node, key, in_words(wanted, list));
    values.push_back(std::move(*value));
  }
  if (option.count() > 0 || values.empty()) return {};  // the flag was given: it wins
  try {
    for (std::string& value : values) option.add_result(std::move(value));
    option.run_callback();
  } catch (const CLI::Error& error) {
    return place.at(node, error.what(), key);
  }
  return {};
}

// Flags that the file says in another way, or can't say.
bool has_no_key(const std::string& name) {
  return name == "help" || name == "config" || name == "upstream" || name.starts_with("upstream-");
}

CLI::Option* option_called(CLI::App& parser, const std::string& name) {
  return has_no_key(name) ? nullptr : parser.get_option_no_throw("--" + name);
}

std::vector<std::string> known_keys(const CLI::App& parser) {
  std::vector<std::string> known{"upstream", "fallback"};
  for (const CLI::Option* option : parser.get_options()) {
    for (const std::string& name : option->get_lnames()) {
      if (!has_no_key(name)) known.push_back(name);
    }
  }
  return known;
}

}  // namespace

Status load_config(const std::string& path, CLI::App& parser, ServeOptions& options) {
  std::error_code ec;
  if (!std::filesystem::is_regular_file(path, ec)) {
    return Error{Code::kNotFound, "the configuration file '" + path + "' isn't there", "config"};
  }
  const toml::parse_result parsed = toml::parse_file(path);
  const Place place{path};
  if (!parsed) {
    return place.at(parsed.error().source(), std::string(parsed.error().description()), "config");
  }
  for (const auto& [key, node] : parsed.table()) {
    const std::string name = swapped(std::string(key.str()), '_', '-');
    Status read;
    if (name == "upstream") {
      read = read_upstreams(place, node, options);
    } else if (name == "fallback") {
      read = read_fallback(place, node, options);
    } else if (CLI::Option* option = option_called(parser, name)) {
      read = set_option(place, node, name, *option);
    } else {
      return place.unknown(key, "", known_keys(parser));
    }
    if (!read) return read;
  }
  return {};
}

}  // namespace waystation::app
