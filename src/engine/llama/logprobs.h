// How likely the model found a token, before anything was done to its choice.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <llama.h>

#include "engine/llama/model.h"
#include "message/proto/records.pb.h"

namespace waystation::engine {

// Natural logarithms of the softmax over row `row` of the last decode's logits: of `token`, and of
// the `alternatives` likeliest tokens, the likeliest first.
v1::TokenLogprob token_logprob(const Model& model, std::int32_t row, llama_token token,
                               std::int32_t alternatives);

}  // namespace waystation::engine
