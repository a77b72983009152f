// Reading TOML tables by a list of their keys, with messages that say where in the file something
// is wrong: what every table of a configuration file needs.
#pragma once

#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"

// What toml++ asserts is not always true of a wrong file, which it then refuses as it should.
#ifdef NDEBUG
#error "with NDEBUG toml++ takes what it asserts for granted"
#endif
#define TOML_ASSERT(expr) static_cast<void>(0)
#define TOML_EXCEPTIONS 0
#define TOML_HEADER_ONLY 1
#include <toml++/toml.h>

namespace waystation::app {

// Where in the file something stands, for messages. `path` must outlive it.
struct Place {
  const std::string& path;
  Error at(const toml::node& node, const std::string& message, std::string param = {}) const;
  Error at(const toml::source_region& region, const std::string& message,
           std::string param = {}) const;
  Error wrong_type(const toml::node& node, const std::string& key, const std::string& wanted) const;
  Error unknown(const toml::key& key, const std::string& where,
                const std::vector<std::string>& known) const;
};

// A table's keys with what to do with their values. A Take keeps references to what it is made of.
using Take = std::function<Status(const toml::node& node, const std::string& key)>;
using Takes = std::vector<std::pair<std::string, Take>>;

// Keys may be written with '-' or '_'. An unknown one is an error that ends with `where`.
Status read_table(const Place& place, const toml::table& table, const std::string& where,
                  const Takes& takes);

Take text(const Place& place, std::string& into);
Take flag(const Place& place, bool& into);
Take texts(const Place& place, std::vector<std::string>& into);

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

std::string swapped(std::string name, char from, char to);

}  // namespace waystation::app
