// Inputs that are text or token ids: legacy prompts and what is to be embedded.
#pragma once

#include <string>
#include <vector>

#include <llama.h>

#include "base/result.h"
#include "engine/llama/model.h"
#include "message/completion.h"

namespace waystation::engine {

// Text becomes tokens as the model's tokenizer makes them, with its beginning mark and without
// special tokens from the text; ids go as they are. kInvalidArgument (with `param`): ids that the
// model doesn't have.
Result<std::vector<llama_token>> tokens_of_input(const Model& model,
                                                 const message::TokenInput& input,
                                                 const std::string& param);

// The input as text; broken characters become U+FFFD.
std::string text_of_input(const Model& model, const message::TokenInput& input);

}  // namespace waystation::engine
