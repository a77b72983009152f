#include "app/upstream_tables.h"

#include <optional>
#include <utility>

#include "app/config.h"
#include "message/json.h"

namespace waystation::app {
namespace {

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

}  // namespace

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

}  // namespace waystation::app
