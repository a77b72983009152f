// OpenAI's embedding request as a value. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "message/completion.h"

namespace waystation::message {

inline constexpr std::string_view kEmbeddingRequestType = "waystation.embedding.request.v1";

inline constexpr std::size_t kEmbeddingInputsMax = 2048;

struct EmbeddingRequest {
  std::string model;
  std::vector<TokenInput> inputs;  // at least one, none empty
  std::optional<std::uint32_t> dimensions;
  bool base64 = false;  // encoding_format
};

// Errors: kInvalidArgument with `param`.
Result<EmbeddingRequest> parse_embedding_request(std::string_view body);

}  // namespace waystation::message
