// Embeddings on llama.cpp: any GGUF model's states, pooled as the model says, else their mean.
#pragma once

#include <memory>

#include "base/result.h"
#include "engine/engine.h"
#include "engine/llama/llama_engine.h"

namespace waystation::engine {

// Vectors have length 1. `dimensions` of a request keeps their first numbers and makes that length
// 1 again. `options.slots` = requests at once; their inputs share decodes. Errors as of
// open_llama_engine.
Result<std::unique_ptr<Engine>> open_embedding_engine(LlamaOptions options);

}  // namespace waystation::engine
