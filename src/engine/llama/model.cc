#include "engine/llama/model.h"

#include <algorithm>
#include <exception>
#include <mutex>
#include <string_view>

#include <chat.h>
#include <fmt/format.h>
#include <ggml-cpu.h>
#include <log.h>

#include "base/check.h"
#include "base/log.h"
#include "engine/llama/gguf_file.h"

namespace waystation::engine {
namespace {

// One llama_decode takes at most this many tokens: what a prompt chunk may be when no answer waits.
constexpr std::uint32_t kBatchTokens = 512;
// The same for embeddings, and so their longest input; and how many inputs share a decode.
constexpr std::uint32_t kEmbeddingTokensMax = 2048;
constexpr std::uint32_t kEmbeddingInputs = 64;

// llama.cpp's own lines, from warnings up, as ours. A line may come in pieces.
void forward_log(ggml_log_level level, const char* text, void*) {
  thread_local ggml_log_level last = GGML_LOG_LEVEL_NONE;
  if (level != GGML_LOG_LEVEL_CONT) last = level;
  if (last != GGML_LOG_LEVEL_WARN && last != GGML_LOG_LEVEL_ERROR) return;
  std::string_view line(text);
  while (line.ends_with('\n')) line.remove_suffix(1);
  if (line.empty() || line == ".") return;
  if (last == GGML_LOG_LEVEL_ERROR) {
    WS_LOG(error, "llama.cpp: {}", line);
  } else {
    WS_LOG(warn, "llama.cpp: {}", line);
  }
}

void init_llama_once() {
  static std::once_flag once;
  std::call_once(once, [] {
    llama_log_set(forward_log, nullptr);
    common_log_set_verbosity_thold(LOG_LEVEL_OUTPUT);  // it prints past our logger; it also throws
    llama_backend_init();
  });
}

}  // namespace

Model::Model() = default;
Model::~Model() = default;

void Model::FreeTemplates::operator()(common_chat_templates* templates) const {
  common_chat_templates_free(templates);
}

void Model::FreeThreads::operator()(ggml_threadpool* threads) const {
  ggml_threadpool_free(threads);
}

Result<std::unique_ptr<Model>> Model::load(const LlamaOptions& options) {
  if (auto good = check_gguf(options.model_file); !good) return good.error();
  std::unique_ptr<Model> model(new Model);
  if (auto done = model->open(options); !done) return done.error();
  if (options.embedding) {
    if (auto done = model->make_embedding_context(options); !done) return done.error();
  } else {
    if (auto done = model->load_template(options.chat_template); !done) return done.error();
    if (auto done = model->make_context(options); !done) return done.error();
    model->first_bytes_.emplace(model->vocab());
    model->control_text_.emplace(model->vocab());
  }
  if (auto done = model->warm_up(); !done) return done.error();

  auto fingerprint = gguf_fingerprint(options.model_file, options.cache_dir);
  if (!fingerprint) return fingerprint.error();
  model->info_.set_id(options.model_id.empty() ? options.model_file.stem().string()
                                               : options.model_id);
  model->info_.set_fingerprint(*fingerprint);
  model->info_.set_engine("llama");
  if (options.embedding) {
    model->info_.add_tasks("embedding");
    model->info_.set_embedding_length(
        static_cast<std::uint32_t>(llama_model_n_embd_out(model->model())));
  } else {
    model->info_.set_prefills(true);
  }
  return model;
}

Status Model::open(const LlamaOptions& options) {
  init_llama_once();
  llama_model_params params = llama_model_default_params();
  params.n_gpu_layers = 0;
  try {
    model_.reset(llama_model_load_from_file(options.model_file.c_str(), params));
  } catch (const std::exception& error) {
    WS_LOG(error, "llama.cpp: {}", error.what());
  }
  if (!model_) {
    return Error{Code::kInvalidArgument,
                 fmt::format("llama.cpp can't load {}: the file is damaged, or its architecture is "
                             "unknown to this version; the lines above tell which",
                             options.model_file.string())};
  }
  vocab_ = llama_model_get_vocab(model_.get());
  return {};
}

Status Model::load_template(const std::string& override_template) {
  std::string reason = "the model has none";
  try {
    templates_.reset(common_chat_templates_init(model_.get(), override_template).release());
    auto can = common_chat_templates_get_caps(templates_.get());
    template_has_calls_ = can["supports_tool_calls"];
    template_has_tools_ = can["supports_tools"] && template_has_calls_;
    if (common_chat_templates_was_explicit(templates_.get())) return {};
    template_has_calls_ = template_has_tools_ = false;
  } catch (const std::exception& error) {
    reason = error.what();
  }
  WS_LOG(warn, "chat template: using ChatML reason=\"{}\"", reason);
  try {
    templates_.reset(common_chat_templates_init(model_.get(), "chatml").release());
  } catch (const std::exception& error) {
    return Error{Code::kInternal, fmt::format("no chat template: {}", error.what())};
  }
  return {};
}

Status Model::make_context(const LlamaOptions& options) {
  const auto trained = static_cast<std::uint32_t>(llama_model_n_ctx_train(model_.get()));
  std::uint32_t tokens = options.context_tokens;
  if (tokens == 0 || tokens > trained) tokens = trained;

  llama_context_params params = llama_context_default_params();
  params.n_ctx = tokens * options.slots;
  params.n_batch = kBatchTokens;
  params.n_ubatch = kBatchTokens;
  params.n_seq_max = options.slots;
  params.n_outputs_max = options.slots;
  params.n_threads = static_cast<std::int32_t>(options.threads);
  params.n_threads_batch = params.n_threads;
  params.no_perf = true;
  // What follows makes a token's logits independent of what else is in its batch, so that an answer
  // that is resumed, or shares the machine, is the answer it would have been (docs/adr/0004).
  params.kv_unified = false;
  params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
  context_.reset(llama_init_from_model(model_.get(), params));
  if (!context_) {
    return Error{Code::kUnavailable,
                 fmt::format("no memory for {} slots of {} tokens: use fewer slots or a shorter "
                             "context",
                             options.slots, tokens)};
  }
  info_.set_context_length(std::min(tokens, llama_n_ctx_seq(context_.get())));
  return start_threads(params.n_threads);
}

// Inputs go through the model whole, several at once: a state's mean is taken over one pass.
Status Model::make_embedding_context(const LlamaOptions& options) {
  const auto trained = static_cast<std::uint32_t>(llama_model_n_ctx_train(model_.get()));
  std::uint32_t tokens = std::min(options.context_tokens, kEmbeddingTokensMax);
  if (tokens == 0) tokens = kEmbeddingTokensMax;
  tokens = std::min(tokens, trained);

  llama_context_params params = llama_context_default_params();
  params.n_ctx = params.n_batch = params.n_ubatch = tokens;
  params.n_seq_max = std::min(kEmbeddingInputs, tokens);
  params.n_threads = static_cast<std::int32_t>(options.threads);
  params.n_threads_batch = params.n_threads;
  params.no_perf = true;
  params.embeddings = true;
  params.kv_unified = true;
  params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
  context_.reset(llama_init_from_model(model_.get(), params));
  if (context_ && llama_pooling_type(context_.get()) == LLAMA_POOLING_TYPE_NONE) {
    params.pooling_type = LLAMA_POOLING_TYPE_MEAN;  // no model for embeddings: any will do
    context_.reset(llama_init_from_model(model_.get(), params));
  }
  if (!context_) {
    return Error{Code::kUnavailable,
                 fmt::format("no memory for inputs of {} tokens: use a shorter context", tokens)};
  }
  if (llama_pooling_type(context_.get()) == LLAMA_POOLING_TYPE_RANK) {
    return Error{Code::kInvalidArgument, "this model ranks texts, it doesn't embed them"};
  }
  info_.set_context_length(tokens);
  return start_threads(params.n_threads);
}

Status Model::start_threads(std::int32_t count) {
  ggml_threadpool_params threads = ggml_threadpool_params_default(count);
  threads_.reset(ggml_threadpool_new(&threads));
  if (!threads_) return Error{Code::kUnavailable, "can't start the engine's threads"};
  llama_attach_threadpool(context_.get(), threads_.get(), threads_.get());
  return {};
}

// The first decode reads the weights from disk; better before the first request than during it.
Status Model::warm_up() {
  llama_token token = llama_vocab_bos(vocab_);
  if (token == LLAMA_TOKEN_NULL) token = 0;
  const int failed = llama_decode(context_.get(), llama_batch_get_one(&token, 1));
  if (failed != 0) {
    return Error{Code::kInvalidArgument,
                 fmt::format("the model loads but doesn't run (llama_decode says {})", failed)};
  }
  if (llama_memory_t memory = llama_get_memory(context_.get())) llama_memory_clear(memory, true);
  return {};
}

std::span<const float> Model::logits(std::int32_t row) const {
  const float* logits = llama_get_logits_ith(context_.get(), row);
  CHECK(logits != nullptr);
  return {logits, static_cast<std::size_t>(llama_vocab_n_tokens(vocab_))};
}

std::uint32_t Model::batch_tokens() const {
  return llama_n_batch(context_.get());
}

std::string Model::piece(llama_token token, bool control) const {
  return common_token_to_piece(vocab_, token, control);
}

}  // namespace waystation::engine
