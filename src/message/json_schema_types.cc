#include <algorithm>
#include <array>
#include <boost/json.hpp>
#include <cmath>
#include <utility>

#include "message/json_pattern.h"
#include "message/json_schema_normaliser.h"

namespace waystation::message::schema {
namespace {

// Grammars repeat a rule so many times at most.
constexpr std::int64_t kLengthMax = 2000;
constexpr std::int64_t kItemsMax = 256;
constexpr std::size_t kPropertiesMax = 512;

constexpr std::string_view kDate =
    "(19|20)[0-9]{2}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|"
    "02-(0[1-9]|1[0-9]|2[0-8]))";
constexpr std::string_view kTime =
    "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{3})?(Z|[+\\-]([01][0-9]|2[0-3]):[0-5][0-9])";
constexpr std::string_view kByte = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])";

// What a string of a format looks like, or less; empty for an unknown one.
std::string pattern_of_format(std::string_view format) {
  const std::string byte(kByte);
  if (format == "date") return std::string(kDate);
  if (format == "time") return std::string(kTime);
  if (format == "date-time") return std::string(kDate) + "T" + std::string(kTime);
  if (format == "email") return "[a-z0-9]+([._\\-][a-z0-9]+)*@[a-z0-9]{1,60}(\\.[a-z]{2,20}){1,3}";
  if (format == "hostname") return "[a-z][a-z0-9]{0,60}(\\.[a-z][a-z0-9]{0,60}){0,2}";
  if (format == "ipv4") return byte + "\\." + byte + "\\." + byte + "\\." + byte;
  return {};
}

}  // namespace

Result<value> Normaliser::object_node(const object& it, const std::string& at) {
  object members;
  if (const value* given = it.if_contains("properties")) {
    const auto* properties = given->if_object();
    if (properties == nullptr) return bad(under(at, "properties"), "must be an object");
    if (properties->size() > kPropertiesMax) return bad(under(at, "properties"), "are too many");
    for (const auto& member : *properties) {
      auto made = node(member.value(), under(under(at, "properties"), member.key()), {});
      if (!made) return made.error();
      members[member.key()] = std::move(*made);
    }
  }
  value more = object();  // what members without a name of their own must be
  const value* additional = it.if_contains("additionalProperties");
  const bool closed = additional != nullptr && additional->is_bool() && !additional->get_bool();
  if (additional != nullptr && !additional->is_bool()) {
    auto made = node(*additional, under(at, "additionalProperties"), {});
    if (!made) return made.error();
    more = std::move(*made);
  }
  json::array required;
  if (const value* given = it.if_contains("required")) {
    const std::string where = under(at, "required");
    const auto* names = given->if_array();
    if (names == nullptr) return bad(where, "must be a list of names");
    for (const value& name : *names) {
      if (!name.is_string()) return bad(where, "must be a list of names");
      if (!members.contains(name.get_string())) {
        if (closed) {
          return bad(where, "wants '" + std::string(std::string_view(name.get_string())) +
                                "', which additionalProperties forbids");
        }
        members[name.get_string()] = more;
      }
      required.push_back(name);
    }
  }
  object out = typed("object");
  if (members.empty() && !closed) {
    if (!more.get_object().empty()) out["additionalProperties"] = std::move(more);
    return value(std::move(out));
  }
  out["properties"] = std::move(members);
  if (!required.empty()) out["required"] = std::move(required);
  out["additionalProperties"] = false;
  return value(std::move(out));
}

// A count's keyword; `otherwise` when it isn't there.
Result<std::int64_t> Normaliser::count(const object& it, std::string_view name,
                                       const std::string& at, std::int64_t otherwise) const {
  const value* given = it.if_contains(name);
  if (given == nullptr) return otherwise;
  const auto number = whole(*given);
  if (given->is_uint64() || !number || *number < 0) {
    return bad(under(at, name), "must be a whole number, at least 0");
  }
  return *number;
}

// Both bounds of a length; the upper one may be lowered to what a grammar can count.
Result<Normaliser::Counts> Normaliser::counts(const object& it, std::string_view low,
                                              std::string_view high, const std::string& at,
                                              std::int64_t limit) const {
  auto min = count(it, low, at, 0);
  if (!min) return min.error();
  auto max = count(it, high, at, -1);
  if (!max) return max.error();
  if (*max >= 0 && *min > *max) {
    return bad(under(at, low), "is more than " + std::string(high));
  }
  if (*min > limit) {
    if (!loose_) {
      return bad(under(at, low), "can be " + std::to_string(limit) + " at most");
    }
    min = 0;
  }
  return Counts{*min, *max < 0 ? -1 : std::min(*max, limit)};
}

Result<value> Normaliser::array_node(const object& it, const std::string& at) {
  auto range = counts(it, "minItems", "maxItems", at, kItemsMax);
  if (!range) return range.error();
  object out = typed("array");
  if (const value* given = it.if_contains("prefixItems")) {
    const auto* parts = given->if_array();
    if (parts == nullptr) return bad(under(at, "prefixItems"), "must be a list of schemas");
    if (!parts->empty()) return tuple(*parts, *range, at);
  }
  if (const value* items = it.if_contains("items")) {
    const std::string where = under(at, "items");
    if (items->is_bool() && !items->get_bool()) {
      if (range->min > 0) return bad(under(at, "minItems"), "wants items, which items forbids");
      range->max = 0;
    } else if (items->is_array()) {
      if (!loose_) return bad(where, "must be one schema; a list of them is called prefixItems");
    } else {
      auto made = node(*items, where, {});
      if (!made) return made.error();
      out["items"] = std::move(*made);
    }
  }
  if (range->max == 0) return value(object{{"const", json::array()}});
  if (range->min > 0) out["minItems"] = range->min;
  if (range->max >= 0) out["maxItems"] = range->max;
  return value(std::move(out));
}

// Exactly the items that are named, or fewer where fewer are allowed.
Result<value> Normaliser::tuple(const json::array& parts, const Counts& range,
                                const std::string& at) {
  const auto size = static_cast<std::int64_t>(parts.size());
  if (range.min > size && !loose_) {
    return bad(under(at, "minItems"), "can't be more than the items of prefixItems");
  }
  if (range.max == 0) return value(object{{"const", json::array()}});
  const auto kept = static_cast<std::size_t>(range.max < 0 ? size : std::min(size, range.max));
  json::array items;
  for (std::size_t i = 0; i < kept; ++i) {
    auto made = node(parts[i], under(at, "prefixItems[" + std::to_string(i) + "]"), {});
    if (!made) return made.error();
    items.push_back(std::move(*made));
  }
  object out = typed("array");
  out["prefixItems"] = std::move(items);
  return value(std::move(out));
}

Result<value> Normaliser::string_node(const object& it, const std::string& at) {
  auto range = counts(it, "minLength", "maxLength", at, kLengthMax);
  if (!range) return range.error();
  const bool bounded = range->min > 0 || range->max >= 0;
  const bool patterned = it.contains("pattern");
  const bool formatted = it.contains("format");
  object out = typed("string");
  if (patterned || formatted) {
    const std::string_view name = patterned ? "pattern" : "format";
    const std::string where = under(at, name);
    const auto* text = it.at(name).if_string();
    if (text == nullptr) return bad(where, "must be a string");
    if (!loose_ && (bounded || (patterned && formatted))) {
      const std::string_view other = patterned && formatted ? "format"
                                     : range->min > 0       ? "minLength"
                                                            : "maxLength";
      return bad(under(at, other),
                 "can't be enforced beside " + std::string(name) + "; leave one of them out");
    }
    if (patterned) {
      auto plain = plain_pattern(std::string_view(*text));
      if (plain) {
        out["pattern"] = *plain;
        return value(std::move(out));
      }
      if (!loose_) return bad(where, plain.error().message);
    } else {
      if (*text == "uuid") {
        out["format"] = "uuid";
        return value(std::move(out));
      }
      const std::string looks = pattern_of_format(std::string_view(*text));
      if (!looks.empty()) {
        out["pattern"] = plain_pattern(looks).value();
        return value(std::move(out));
      }
      if (!loose_) {
        return bad(where,
                   "can't be enforced unless it is date, time, date-time, email, hostname, "
                   "ipv4 or uuid; leave it out");
      }
    }
  }
  if (range->min > 0) out["minLength"] = range->min;
  if (range->max >= 0) out["maxLength"] = range->max;
  return value(std::move(out));
}

// The tighter of the two keywords, as a bound that belongs to the range.
Result<std::optional<std::int64_t>> Normaliser::bound(const object& it, std::string_view inclusive,
                                                      std::string_view exclusive,
                                                      const std::string& at, bool upper) const {
  std::optional<std::int64_t> out;
  for (const std::string_view name : {inclusive, exclusive}) {
    const value* given = it.if_contains(name);
    if (given == nullptr) continue;
    if (!given->is_number()) return bad(under(at, name), "must be a number");
    auto number = given->to_number<double>();
    const auto limit = static_cast<double>(kIntegerMax);
    if (upper ? number < -limit : number > limit) {
      return bad(under(at, name),
                 "can't be enforced: it is beyond ±" + std::to_string(kIntegerMax));
    }
    number = std::clamp(number, -limit, limit);  // narrower, where it hardly matters
    auto edge = static_cast<std::int64_t>(upper ? std::floor(number) : std::ceil(number));
    if (name == exclusive && static_cast<double>(edge) == number) edge += upper ? -1 : 1;
    out = !out ? edge : upper ? std::min(*out, edge) : std::max(*out, edge);
  }
  return out;
}

Result<value> Normaliser::integer_node(const object& it, const std::string& at) {
  if (const value* step = it.if_contains("multipleOf"); step != nullptr && !loose_) {
    if (whole(*step) != 1) return cant(under(at, "multipleOf"));
  }
  auto low = bound(it, "minimum", "exclusiveMinimum", at, false);
  if (!low) return low.error();
  auto high = bound(it, "maximum", "exclusiveMaximum", at, true);
  if (!high) return high.error();
  object out = typed("integer");
  if (!*low && !*high) return value(std::move(out));
  const std::int64_t least = low->value_or(-kIntegerMax);
  const std::int64_t most = high->value_or(kIntegerMax);
  if (least > most) return bad(at, "allows no integer: its bounds contradict each other");
  if (least == most) return value(object{{"const", least}});
  out["minimum"] = least;
  out["maximum"] = most;
  return value(std::move(out));
}

}  // namespace waystation::message::schema
