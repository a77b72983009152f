#include "message/parameters.h"

#include <algorithm>
#include <boost/json.hpp>
#include <charconv>
#include <limits>

#include "base/utf8.h"

namespace waystation::message {
namespace {

using fields::bad;
using fields::find;
using fields::Object;
using fields::Value;
using fields::wrong_type;

constexpr std::size_t kStopsMax = 4;
constexpr std::size_t kLogitBiasMax = 1024;
constexpr std::size_t kMetadataPairsMax = 16;
constexpr std::size_t kMetadataKeyBytesMax = 64;
constexpr std::ptrdiff_t kMetadataValueCharactersMax = 512;

Status parse_numbers(const Object& body, Generation& out) {
  struct Field {
    const char* name;
    double low;
    double high;
    double* value;
  };
  const Field numbers[] = {{"temperature", 0, 2, &out.temperature},
                           {"top_p", 0, 1, &out.top_p},
                           {"presence_penalty", -2, 2, &out.presence_penalty},
                           {"frequency_penalty", -2, 2, &out.frequency_penalty}};
  for (const Field& field : numbers) {
    auto number = fields::number(body, field.name, field.name, field.low, field.high, *field.value);
    if (!number) return number.error();
    *field.value = *number;
  }
  if (find(body, "min_p") != nullptr) {
    auto min_p = fields::number(body, "min_p", "min_p", 0, 1, 0);
    if (!min_p) return min_p.error();
    out.min_p = *min_p;
  }
  auto top_k = fields::integer(body, "top_k", "top_k", 0, std::numeric_limits<std::int32_t>::max());
  if (!top_k) return top_k.error();
  if (*top_k) out.top_k = static_cast<std::uint32_t>(**top_k);
  if (const Value* seed = find(body, "seed")) {
    const auto number = fields::whole(*seed);
    if (!number) return wrong_type("seed", "an integer", *seed);
    out.seed = static_cast<std::uint64_t>(*number);
  }
  auto n = fields::integer(body, "n", "n", 1, kChoicesMax);
  if (!n) return n.error();
  if (*n) out.choices = static_cast<std::uint32_t>(**n);
  return {};
}

Status parse_stop(const Object& body, Generation& out) {
  const Value* stop = find(body, "stop");
  if (stop == nullptr) return {};
  if (const auto* text = stop->if_string()) {
    if (text->empty()) return bad("stop", "must not be empty");
    out.stop.emplace_back(std::string_view(*text));
    return {};
  }
  const auto* array = stop->if_array();
  if (array == nullptr) return wrong_type("stop", "a string or an array of strings", *stop);
  if (array->size() > kStopsMax) {
    return bad("stop", "may have at most " + std::to_string(kStopsMax) + " strings");
  }
  for (std::size_t i = 0; i < array->size(); ++i) {
    const std::string at = fields::item("stop", i);
    const auto* text = (*array)[i].if_string();
    if (text == nullptr) return wrong_type(at, "a string", (*array)[i]);
    if (text->empty()) return bad(at, "must not be empty");
    out.stop.emplace_back(std::string_view(*text));
  }
  return {};
}

Status parse_logit_bias(const Object& body, Generation& out) {
  const Value* bias = find(body, "logit_bias");
  if (bias == nullptr) return {};
  const auto* object = bias->if_object();
  if (object == nullptr) return wrong_type("logit_bias", "an object", *bias);
  if (object->size() > kLogitBiasMax) {
    return bad("logit_bias", "may have at most " + std::to_string(kLogitBiasMax) + " tokens");
  }
  for (const auto& member : *object) {
    const std::string_view key = member.key();
    const std::string at = "logit_bias." + utf8_prefix(key, 40);
    std::uint32_t token = 0;
    const auto [end, ec] = std::from_chars(key.data(), key.data() + key.size(), token);
    if (ec != std::errc() || end != key.data() + key.size()) {
      return bad(at, "is not a token id, which is a whole number");
    }
    if (!member.value().is_number()) return wrong_type(at, "a number", member.value());
    const double value = member.value().to_number<double>();
    if (!(value >= -100 && value <= 100)) return bad(at, "must be between -100 and 100");
    out.logit_bias.emplace_back(token, value);
  }
  // One order for one meaning, however the client wrote it.
  std::sort(out.logit_bias.begin(), out.logit_bias.end());
  return {};
}

Status check_metadata(const Object& body) {
  const Value* metadata = find(body, "metadata");
  if (metadata == nullptr) return {};
  const auto* object = metadata->if_object();
  if (object == nullptr) return wrong_type("metadata", "an object", *metadata);
  if (object->size() > kMetadataPairsMax) {
    return bad("metadata", "may have at most " + std::to_string(kMetadataPairsMax) + " pairs");
  }
  for (const auto& member : *object) {
    const std::string at = "metadata." + utf8_prefix(member.key(), 40);
    if (member.key().size() > kMetadataKeyBytesMax) {
      return bad(at, "has a name of more than " + std::to_string(kMetadataKeyBytesMax) + " bytes");
    }
    if (!member.value().is_string()) return wrong_type(at, "a string", member.value());
    const std::string_view value = member.value().get_string();
    const auto characters = std::count_if(value.begin(), value.end(), [](char byte) {
      return (static_cast<unsigned char>(byte) & 0xC0) != 0x80;
    });
    if (characters > kMetadataValueCharactersMax) {
      return bad(at, "is longer than 512 characters");
    }
  }
  return {};
}

}  // namespace

Result<std::string> parse_model(const Object& body) {
  auto model = fields::required_text(body, "model", "model");
  if (model && model->empty()) return bad("model", "must not be empty");
  return model;
}

Result<std::optional<std::uint32_t>> parse_token_limit(const Object& body, const char* name) {
  const Value* value = find(body, name);
  if (value == nullptr) return std::optional<std::uint32_t>();
  const auto number = fields::whole(*value);
  if (!number) return wrong_type(name, "an integer", *value);
  if (value->is_uint64() || *number < 1) return bad(name, "must be a positive integer");
  constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max();
  return std::optional(static_cast<std::uint32_t>(std::min(*number, kMost)));
}

Status parse_generation(const Object& body, Generation& out) {
  if (auto status = parse_numbers(body, out); !status) return status;
  if (auto status = parse_stop(body, out); !status) return status;
  if (auto status = parse_logit_bias(body, out); !status) return status;
  auto limit = parse_token_limit(body, "max_tokens");
  if (!limit) return limit.error();
  out.max_tokens = *limit;
  auto tier = fields::one_of(body, "service_tier", "service_tier",
                             {"auto", "default", "flex", "priority", "fast", "scale"});
  if (!tier) return tier.error();
  // Names for the same two: OpenAI's own answers show them like this.
  if (*tier == "fast") *tier = "priority";
  if (*tier == "scale") *tier = "default";
  out.service_tier = std::move(*tier);
  return {};
}

Status parse_stream(const Object& body, Generation& out) {
  auto stream = fields::flag(body, "stream", "stream");
  if (!stream) return stream.error();
  out.stream = *stream;
  const Value* options = find(body, "stream_options");
  if (options == nullptr) return {};
  const auto* object = options->if_object();
  if (object == nullptr) return wrong_type("stream_options", "an object", *options);
  if (!out.stream) return bad("stream_options", "is only allowed together with stream: true");
  auto usage = fields::flag(*object, "stream_options.include_usage", "include_usage");
  if (!usage) return usage.error();
  out.include_usage = *usage;
  auto padding = fields::flag(*object, "stream_options.include_obfuscation", "include_obfuscation");
  if (!padding) return padding.error();
  return {};
}

Status check_labels(const Object& body) {
  if (auto status = check_metadata(body); !status) return status;
  for (const char* name : {"user", "safety_identifier", "prompt_cache_key"}) {
    auto text = fields::text(body, name, name);
    if (!text) return text.error();
  }
  auto store = fields::flag(body, "store", "store");
  if (!store) return store.error();
  return {};
}

Status refuse_foreign(const Object& body) {
  for (const char* name : {"grammar", "json_schema", "guided_json", "guided_regex", "guided_choice",
                           "guided_grammar", "structured_outputs"}) {
    if (find(body, name) != nullptr) {
      return bad(name, "is not a parameter here; response_format with json_schema is");
    }
  }
  return {};
}

}  // namespace waystation::message
