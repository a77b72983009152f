#include "message/batch.h"

#include <boost/json.hpp>

#include "message/fields.h"
#include "message/json_value.h"
#include "message/parameters.h"

namespace waystation::message {
namespace {

using fields::find;
using fields::Object;
using fields::Value;

constexpr std::size_t kCustomIdBytesMax = 512;
constexpr std::int64_t kExpiresAfterMinS = 3600;
constexpr std::int64_t kExpiresAfterMaxS = 30 * 24 * 3600;

Result<std::optional<std::int64_t>> parse_expiry(const Object& body, std::string_view name) {
  const Value* value = find(body, name);
  const std::string param(name);
  if (value == nullptr) return std::optional<std::int64_t>();
  const Object* object = value->if_object();
  if (object == nullptr) return fields::wrong_type(param, "an object", *value);
  auto anchor = fields::required_text(*object, param + ".anchor", "anchor");
  if (!anchor) return anchor.error();
  if (*anchor != "created_at") return fields::bad(param + ".anchor", "must be 'created_at'");
  auto seconds =
      fields::integer(*object, param + ".seconds", "seconds", kExpiresAfterMinS, kExpiresAfterMaxS);
  if (!seconds) return seconds.error();
  if (!*seconds) return fields::bad(param + ".seconds", "is missing");
  return *seconds;
}

// Why the line's member can't be used: it isn't there, or is something else than `wanted`.
std::unexpected<BatchLineError> unusable(const Object& line, const char* name, const char* wanted) {
  const Value* value = find(line, name);
  if (value == nullptr) {
    return std::unexpected(BatchLineError{"missing_required_parameter",
                                          "the line has no '" + std::string(name) + "'", name});
  }
  return std::unexpected(
      BatchLineError{"invalid_type", fields::wrong_type(name, wanted, *value).message, name});
}

const std::string_view* text_of(const Object& line, const char* name, std::string_view& out) {
  const Value* value = find(line, name);
  if (value == nullptr || !value->is_string()) return nullptr;
  out = value->get_string();
  return &out;
}

}  // namespace

Result<BatchRequest> parse_batch_request(std::string_view body) {
  auto parsed = fields::parse_body(body);
  if (!parsed) return parsed.error();
  const Object& object = parsed->get_object();
  BatchRequest out;
  auto input = fields::required_text(object, "input_file_id", "input_file_id");
  if (!input) return input.error();
  auto endpoint = fields::required_text(object, "endpoint", "endpoint");
  if (!endpoint) return endpoint.error();
  auto window = fields::required_text(object, "completion_window", "completion_window");
  if (!window) return window.error();
  if (*window != "24h") return fields::bad("completion_window", "must be '24h'");
  if (Status s = check_labels(object); !s) return s.error();
  auto expiry = parse_expiry(object, "output_expires_after");
  if (!expiry) return expiry.error();
  if (const Value* metadata = find(object, "metadata")) {
    out.metadata = boost::json::serialize(*metadata);
  }
  out.input_file_id = std::move(*input);
  out.endpoint = std::move(*endpoint);
  out.completion_window = std::move(*window);
  out.output_expires_after_s = *expiry;
  return out;
}

std::expected<BatchLine, BatchLineError> parse_batch_line(std::string_view line,
                                                          std::string_view endpoint) {
  auto parsed = parse_json(line);
  if (!parsed || !parsed->is_object()) {
    return std::unexpected(BatchLineError{
        "invalid_json_line",
        "the line is not a JSON object" + (parsed ? "" : ": " + parsed.error().message), ""});
  }
  const Object& object = parsed->get_object();
  std::string_view custom_id, method, url;
  if (text_of(object, "custom_id", custom_id) == nullptr) {
    return unusable(object, "custom_id", "a string");
  }
  if (custom_id.empty()) {
    return std::unexpected(
        BatchLineError{"missing_required_parameter", "custom_id is empty", "custom_id"});
  }
  if (custom_id.size() > kCustomIdBytesMax) {
    return std::unexpected(BatchLineError{
        "invalid_custom_id",
        "custom_id is longer than " + std::to_string(kCustomIdBytesMax) + " bytes", "custom_id"});
  }
  if (text_of(object, "method", method) == nullptr) return unusable(object, "method", "a string");
  if (method != "POST") {
    return std::unexpected(BatchLineError{"invalid_method", "the method must be POST", "method"});
  }
  if (text_of(object, "url", url) == nullptr) return unusable(object, "url", "a string");
  if (url != endpoint) {
    return std::unexpected(BatchLineError{"invalid_url",
                                          "the url must be the batch's endpoint, " +
                                              std::string(endpoint) + ", not " +
                                              fields::quoted(url),
                                          "url"});
  }
  const Value* body = find(object, "body");
  if (body == nullptr || !body->is_object()) return unusable(object, "body", "an object");
  std::string_view model;
  text_of(body->get_object(), "model", model);
  return BatchLine{std::string(custom_id), std::string(model), boost::json::serialize(*body)};
}

}  // namespace waystation::message
