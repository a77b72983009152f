// A loaded model with what belongs to it: vocabulary, chat template, compute threads, context.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include <llama-cpp.h>

#include "base/result.h"
#include "engine/llama/control_text.h"
#include "engine/llama/first_bytes.h"
#include "engine/llama/llama_engine.h"
#include "message/proto/link.pb.h"

struct common_chat_templates;
struct ggml_threadpool;

namespace waystation::engine {

// Immutable after load, except for what llama_decode does to the context. One thread.
class Model {
 public:
  static Result<std::unique_ptr<Model>> load(const LlamaOptions& options);
  ~Model();

  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  llama_context* context() const { return context_.get(); }
  const llama_model* model() const { return model_.get(); }
  const llama_vocab* vocab() const { return vocab_; }
  // Not of an embedding model.
  const FirstBytes& first_bytes() const { return *first_bytes_; }
  const ControlText& control_text() const { return *control_text_; }
  const common_chat_templates* templates() const { return templates_.get(); }
  const v1::ModelInfo& info() const { return info_; }
  // Row `row` of the last llama_decode, over the whole vocabulary. Valid until the next one.
  std::span<const float> logits(std::int32_t row) const;
  // Tokens that one llama_decode may take.
  std::uint32_t batch_tokens() const;

  // A token's bytes; control tokens have none unless `control`. A character may be spread over
  // several tokens.
  std::string piece(llama_token token, bool control = false) const;
  // The model's own chat template can tell it about tools, and show calls.
  bool template_has_tools() const { return template_has_tools_; }
  bool template_has_calls() const { return template_has_calls_; }

 private:
  Model();

  Status open(const LlamaOptions& options);
  Status load_template(const std::string& override_template);
  Status make_context(const LlamaOptions& options);
  Status make_embedding_context(const LlamaOptions& options);
  Status start_threads(std::int32_t count);
  Status warm_up();

  struct FreeTemplates {
    void operator()(common_chat_templates* templates) const;
  };
  struct FreeThreads {
    void operator()(ggml_threadpool* threads) const;
  };

  // Destroyed in reverse: the context before the threads and the model it uses.
  llama_model_ptr model_;
  std::unique_ptr<ggml_threadpool, FreeThreads> threads_;
  llama_context_ptr context_;
  std::unique_ptr<common_chat_templates, FreeTemplates> templates_;
  const llama_vocab* vocab_ = nullptr;
  std::optional<FirstBytes> first_bytes_;
  std::optional<ControlText> control_text_;
  bool template_has_tools_ = false;
  bool template_has_calls_ = false;
  v1::ModelInfo info_;
};

}  // namespace waystation::engine
