#include "app/config.h"

#include <cmath>
#include <filesystem>
#include <functional>
#include <limits>
#include <optional>
#include <sstream>
#include <utility>
#include <vector>

#include "base/nearest.h"
#include "message/json.h"

#define TOML_EXCEPTIONS 0
#define TOML_HEADER_ONLY 1
#include <toml++/toml.h>

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

// Where in the file something stands, for messages.
struct Place {
  const std::string& path;
  Error at(const toml::node& node, const std::string& message, std::string param = {}) const {
    return at(node.source(), message, std::move(param));
  }
  Error at(const toml::source_region& region, const std::string& message,
           std::string param = {}) const {
    return Error{Code::kInvalidArgument,
                 path + ":" + std::to_string(region.begin.line) + ": " + message, std::move(param)};
  }
  Error wrong_type(const toml::node& node, const std::string& key,
                   const std::string& wanted) const {
    return at(node, "'" + key + "' must be " + wanted + ", not " + kind_of(node), key);
  }
  Error unknown(const toml::key& key, const std::string& where,
                const std::vector<std::string>& known) const {
    const std::string name(key.str());
    return at(key.source(),
              "unknown key '" + name + "'" + where + "; did you mean '" +
                  nearest_name(name, known) + "'?",
              name);
  }
};

std::string swapped(std::string name, char from, char to) {
  std::replace(name.begin(), name.end(), from, to);
  return name;
}

// ---- Tables of our own
// -----------------------------------------------------------------------------

// A table's keys with what to do with their values.
using Take = std::function<Status(const toml::node& node, const std::string& key)>;
using Takes = std::vector<std::pair<std::string, Take>>;

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

template <typename Number>
Take number(const Place& place, Number& into, std::int64_t least,
            std::int64_t most = std::numeric_limits<std::int32_t>::max()) {
  return [&place, &into, least, most](const toml::node& node, const std::string& key) -> Status {
    const auto* value = node.as_integer();
    if (value == nullptr) return place.wrong_type(node, key, "a whole number");
    if (value->get() < least || value->get() > most) {
      return place.at(
          node, "'" + key + "' must be " + std::to_string(least) + " to " + std::to_string(most),
          key);
    }
    into = static_cast<Number>(value->get());
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

template <typename Value>
Take one_of(const Place& place, Value& into, std::vector<std::pair<std::string, Value>> values) {
  return [&place, &into, values](const toml::node& node, const std::string& key) -> Status {
    const auto* given = node.as_string();
    std::string all;
    for (const auto& [name, value] : values) {
      all += (all.empty() ? "" : ", ") + ("\"" + name + "\"");
      if (given != nullptr && given->get() == name) {
        into = value;
        return {};
      }
    }
    return place.at(node, "'" + key + "' must be one of " + all, key);
  };
}

// ---- [[upstream]]
// ----------------------------------------------------------------------------------

upstream::ModelRoute route_of(const std::string& given) {
  const auto equals = given.find('=');
  return {given.substr(0, equals), equals == std::string::npos ? "" : given.substr(equals + 1)};
}

// ["a", "ours=theirs"], or a table: ours = "theirs" or ours = {model = "theirs", tasks = […]}.
Take models(const Place& place, std::vector<upstream::ModelRoute>& into) {
  return [&](const toml::node& node, const std::string& key) -> Status {
    if (const auto* list = node.as_array()) {
      std::vector<std::string> names;
      if (Status taken = texts(place, names)(*list, key); !taken) return taken;
      for (const std::string& name : names) into.push_back(route_of(name));
      return {};
    }
    const auto* table = node.as_table();
    if (table == nullptr) return place.wrong_type(node, key, "a list of texts or a table");
    for (const auto& [name, value] : *table) {
      upstream::ModelRoute& route = into.emplace_back();
      route.name = name.str();
      if (const auto* theirs = value.as_string()) {
        route.theirs = theirs->get();
        continue;
      }
      const auto* details = value.as_table();
      if (details == nullptr) {
        return place.wrong_type(value, route.name, "the upstream's name for it, or a table");
      }
      const Takes takes{{"model", text(place, route.theirs)},
                        {"tasks", texts(place, route.tasks)},
                        {"context_length", number(place, route.context_length, 0)},
                        {"embedding_length", number(place, route.embedding_length, 0)}};
      if (Status read = read_table(place, *details, " of the model '" + route.name + "'", takes);
          !read) {
        return read;
      }
    }
    return {};
  };
}

Take headers(const Place& place, std::vector<std::pair<std::string, std::string>>& into) {
  return [&](const toml::node& node, const std::string& key) -> Status {
    const auto* table = node.as_table();
    if (table == nullptr) return place.wrong_type(node, key, "a table of texts");
    for (const auto& [name, value] : *table) {
      const auto* content = value.as_string();
      if (content == nullptr) return place.wrong_type(value, std::string(name.str()), "a text");
      into.emplace_back(name.str(), content->get());
    }
    return {};
  };
}

// Members of a JSON body.
Take json_members(const Place& place, std::vector<std::pair<std::string, std::string>>& into) {
  return [&](const toml::node& node, const std::string& key) -> Status {
    const auto* table = node.as_table();
    if (table == nullptr) return place.wrong_type(node, key, "a table");
    for (const auto& [name, value] : *table) {
      std::string json;
      if (const auto* content = value.as_string()) {
        json = message::json_string(content->get());
      } else if (const auto* yes = value.as_boolean()) {
        json = yes->get() ? "true" : "false";
      } else if (const auto* whole = value.as_integer()) {
        json = std::to_string(whole->get());
      } else {
        return place.wrong_type(value, std::string(name.str()),
                                "a text, a whole number, or true or false");
      }
      into.emplace_back(name.str(), std::move(json));
    }
    return {};
  };
}

Result<upstream::Options> read_upstream(const Place& place, const toml::table& table) {
  upstream::Options o;
  std::string key_env;
  using upstream::Continuation;
  using upstream::Echo;
  const Takes takes{
      {"name", text(place, o.name)},
      {"url", text(place, o.url)},
      {"key_env", text(place, key_env)},
      {"models", models(place, o.models)},
      {"weight", number(place, o.weight, 1, 1'000'000)},
      {"rank", number(place, o.rank, 0, 1'000'000)},
      {"concurrency", number(place, o.concurrency, 1, 65'536)},
      {"connect_timeout_ms", number(place, o.connect_timeout_ms, 1)},
      {"first_byte_timeout_ms", number(place, o.first_byte_timeout_ms, 1)},
      {"idle_timeout_ms", number(place, o.idle_timeout_ms, 1)},
      {"answer_timeout_ms", number(place, o.answer_timeout_ms, 1)},
      {"total_timeout_ms", number(place, o.total_timeout_ms, 1)},
      {"ca_file", text(place, o.ca_file)},
      {"headers", headers(place, o.headers)},
      {"drop", texts(place, o.drop)},
      {"always_stream", flag(place, o.always_stream)},
      {"continuation",
       one_of<Continuation>(place, o.continuation,
                            {{"none", Continuation::kNone}, {"prefill", Continuation::kPrefill}})},
      {"continue_flags", json_members(place, o.continue_flags)},
      {"echo",
       one_of<Echo>(place, o.echo,
                    {{"auto", Echo::kAuto}, {"strip", Echo::kStrip}, {"keep", Echo::kKeep}})},
      {"breaker_failures", number(place, o.breaker_failures, 1, 1'000'000)},
      {"probe_min_ms", number(place, o.probe_min_ms, 1)},
      {"probe_max_ms", number(place, o.probe_max_ms, 1)},
      {"answer_bytes_max", number(place, o.answer_bytes_max, 1 << 10, 1ll << 32)},
      {"event_bytes_max", number(place, o.event_bytes_max, 1 << 10, 1ll << 32)},
  };
  if (Status read = read_table(place, table, " in [[upstream]]", takes); !read) return read.error();
  if (o.url.empty()) return place.at(table, "this [[upstream]] has no url", "url");
  if (o.name.empty()) o.name = upstream_name_of(o.url);
  auto key = read_key(key_env, o.name);
  if (!key) return place.at(table, key.error().message, "key_env");
  o.key = std::move(*key);
  if (Status good = upstream::check_options(o); !good) {
    return place.at(table, good.error().message, good.error().param);
  }
  return o;
}

Status read_upstreams(const Place& place, const toml::node& node, ServeOptions& options) {
  const auto* list = node.as_array();
  if (list == nullptr) return place.at(node, "write [[upstream]], with two brackets", "upstream");
  for (const toml::node& item : *list) {
    const auto* table = item.as_table();
    if (table == nullptr) return place.wrong_type(item, "upstream", "a table");
    auto upstream = read_upstream(place, *table);
    if (!upstream) return upstream.error();
    options.upstreams.push_back(std::move(*upstream));
  }
  return {};
}

Status read_fallback(const Place& place, const toml::node& node, ServeOptions& options) {
  const auto* table = node.as_table();
  if (table == nullptr) return place.wrong_type(node, "fallback", "a table");
  for (const auto& [model, others] : *table) {
    std::vector<std::string>& into = options.fallback[std::string(model.str())];
    if (Status taken = texts(place, into)(others, std::string(model.str())); !taken) return taken;
  }
  return {};
}

// ---- Options that have a flag
// ----------------------------------------------------------------------

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
