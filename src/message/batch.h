// OpenAI's batches as values: the request that makes one, and the lines of its input file. Pure.
#pragma once

#include <cstdint>
#include <expected>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace waystation::message {

struct BatchRequest {
  std::string input_file_id;
  std::string endpoint;           // "/v1/chat/completions"; whether it can be run is not asked here
  std::string completion_window;  // "24h"
  std::string metadata;           // a JSON object; empty: none
  std::optional<std::int64_t> output_expires_after_s;
};

// Errors: kInvalidArgument with `param`.
Result<BatchRequest> parse_batch_request(std::string_view body);

struct BatchLine {
  std::string custom_id;
  std::string model;  // of the body; empty when it has none
  std::string body;   // a JSON object
};

// What is wrong with a line, as a batch's `errors` shows it.
struct BatchLineError {
  std::string code;  // "invalid_json_line", "missing_required_parameter", "invalid_url", …
  std::string message;
  std::string param;
};

// `endpoint`: what every line's url must be.
std::expected<BatchLine, BatchLineError> parse_batch_line(std::string_view line,
                                                          std::string_view endpoint);

}  // namespace waystation::message
