#include "engine/scripted/scripted_options.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <vector>

#include "base/nearest.h"

namespace waystation::engine {
namespace {

struct NumberKey {
  std::string_view name;
  std::uint32_t ScriptedOptions::*field;
  std::uint32_t min;
  std::uint32_t max;
};
struct TextKey {
  std::string_view name;
  std::string ScriptedOptions::*field;
};

constexpr std::array kNumbers{
    NumberKey{"tokens", &ScriptedOptions::tokens, 1, 1'000'000},
    NumberKey{"interval-ms", &ScriptedOptions::interval_ms, 0, 600'000},
    NumberKey{"slots", &ScriptedOptions::slots, 1, 65536},
    NumberKey{"prompt-tokens", &ScriptedOptions::prompt_tokens, 0, 1'000'000},
    NumberKey{"embed", &ScriptedOptions::embed, 0, 65536},
    NumberKey{"tools", &ScriptedOptions::tools, 0, 1},
};
constexpr std::array kTexts{
    TextKey{"name", &ScriptedOptions::name},
    TextKey{"crash-on", &ScriptedOptions::crash_on},
};

Error bad(std::string message) {
  return Error{Code::kInvalidArgument, "scripted engine: " + std::move(message), "scripted"};
}

Error unknown_key(std::string_view key) {
  std::vector<std::string> known;
  for (const NumberKey& number : kNumbers) known.emplace_back(number.name);
  for (const TextKey& entry : kTexts) known.emplace_back(entry.name);
  std::string all;
  for (const std::string& name : known) all += (all.empty() ? "" : ", ") + name;
  return bad("unknown key '" + std::string(key) + "', did you mean '" + nearest_name(key, known) +
             "'? Known keys: " + all);
}

Status set(ScriptedOptions& options, std::string_view key, std::string_view value) {
  for (const TextKey& entry : kTexts) {
    if (entry.name != key) continue;
    if (value.empty()) return bad("'" + std::string(key) + "' must not be empty");
    options.*entry.field = std::string(value);
    return {};
  }
  for (const NumberKey& number : kNumbers) {
    if (number.name != key) continue;
    std::uint32_t parsed = 0;
    const char* const end = value.data() + value.size();
    const auto [at, error] = std::from_chars(value.data(), end, parsed);
    if (error != std::errc() || at != end || parsed < number.min || parsed > number.max) {
      return bad("'" + std::string(key) + "' must be a number from " + std::to_string(number.min) +
                 " to " + std::to_string(number.max) + ", not '" + std::string(value) + "'");
    }
    options.*number.field = parsed;
    return {};
  }
  return unknown_key(key);
}

}  // namespace

Result<ScriptedOptions> parse_scripted_options(std::string_view text) {
  ScriptedOptions options;
  std::vector<std::string_view> seen;
  while (!text.empty()) {
    const std::size_t comma = text.find(',');
    const std::string_view entry = text.substr(0, comma);
    const std::size_t equals = entry.find('=');
    if (equals == std::string_view::npos) {
      return bad("'" + std::string(entry) + "' is not key=value, as in tokens=64,interval-ms=20");
    }
    const std::string_view key = entry.substr(0, equals);
    if (std::find(seen.begin(), seen.end(), key) != seen.end()) {
      return bad("'" + std::string(key) + "' is given twice");
    }
    seen.push_back(key);
    if (Status ok = set(options, key, entry.substr(equals + 1)); !ok) return ok.error();
    if (comma == std::string_view::npos) break;
    text.remove_prefix(comma + 1);
    if (text.empty()) return bad("a comma at the end; remove it");
  }
  return options;
}

}  // namespace waystation::engine
