// An engine on llama.cpp: one GGUF model, continuous batching over slots. Why it has a slot loop of
// its own: docs/adr/0004-llama-slot-loop.md.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "base/result.h"
#include "engine/engine.h"

namespace waystation::engine {

struct LlamaOptions {
  std::filesystem::path model_file = {};
  std::string model_id = {};  // as clients name it; empty: the file's name without ".gguf"
  std::uint32_t slots = 8;    // requests at once; 1 to 64
  std::uint32_t context_tokens = 4096;  // a slot's prompt and answer; 0 or more than the model was
                                        // trained with: what it was trained with
  std::uint32_t threads = 1;            // compute threads; more than free cores is far slower
  std::string chat_template = {};       // Jinja; empty: the model's own, else ChatML
  // Answers are told of at most this often, so that a fast model's tokens travel together; the
  // first and the last ones never wait. 0: after every step.
  std::chrono::microseconds report_every{0};
  bool embedding = false;  // for open_embedding_engine
  std::filesystem::path cache_dir =
      {};  // for the model's fingerprint; empty: hash it at every start
};

// Loads the model; takes from a fraction of a second to minutes. Errors: kNotFound, kIo,
// kInvalidArgument (no GGUF, or one that llama.cpp can't run), kUnavailable (not enough memory).
Result<std::unique_ptr<Engine>> open_llama_engine(const LlamaOptions& options);

}  // namespace waystation::engine
