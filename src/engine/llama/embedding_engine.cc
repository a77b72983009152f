#include "engine/llama/embedding_engine.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <list>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/check.h"
#include "base/log.h"
#include "engine/llama/batch.h"
#include "engine/llama/input.h"
#include "engine/llama/model.h"
#include "message/embedding.h"

namespace waystation::engine {
namespace {

struct Job {
  v1::Fence fence;
  std::vector<std::vector<llama_token>> inputs;
  std::vector<std::string> vectors;  // of inputs[0], inputs[1], … as far as they are done
  std::uint32_t dimensions = 0;
  std::uint32_t prompt_tokens = 0;
  std::optional<Error> error;
  bool cancelled = false;

  bool over() const { return error || cancelled || vectors.size() == inputs.size(); }
};

// Float32 little-endian, of length 1.
std::string unit_vector(const float* numbers, std::uint32_t count) {
  static_assert(std::endian::native == std::endian::little);
  double sum = 0;
  for (std::uint32_t i = 0; i < count; ++i) sum += double{numbers[i]} * numbers[i];
  const double scale = sum > 0 ? 1 / std::sqrt(sum) : 0;
  std::string bytes(count * sizeof(float), '\0');
  for (std::uint32_t i = 0; i < count; ++i) {
    const auto number = static_cast<float>(numbers[i] * scale);
    std::memcpy(bytes.data() + i * sizeof(float), &number, sizeof number);
  }
  return bytes;
}

class EmbeddingEngine final : public Engine {
 public:
  EmbeddingEngine(std::unique_ptr<Model> model, std::uint32_t slots)
      : model_(std::move(model)),
        models_{model_->info()},
        slots_(slots),
        batch_(model_->batch_tokens()) {}

  const std::vector<v1::ModelInfo>& models() const override { return models_; }
  std::uint32_t slots() const override { return slots_; }
  bool idle() const override { return jobs_.empty(); }
  std::int64_t wait_us() const override { return 0; }

  void start(v1::Assign assign) override {
    CHECK(jobs_.size() < slots_);
    Job& job = jobs_.emplace_back();
    job.fence = std::move(*assign.mutable_fence());
    if (Status good = take(assign.envelope(), job); !good) job.error = good.error();
  }

  void cancel(const v1::Fence& fence) override {
    for (Job& job : jobs_) {
      if (job.fence.request() == fence.request() && job.fence.attempt() == fence.attempt() &&
          job.fence.epoch() == fence.epoch()) {
        job.cancelled = true;
      }
    }
  }

  void step(v1::Step& out) override {
    decode();
    for (auto job = jobs_.begin(); job != jobs_.end();) {
      if (!job->over()) {
        ++job;
        continue;
      }
      report(*job, *out.add_outputs());
      job = jobs_.erase(job);
    }
  }

 private:
  struct Place {  // an input in the batch; its sequence is its index
    Job* job;
    std::size_t input;
  };

  Status take(const v1::Envelope& envelope, Job& job) const;
  void decode();
  void report(Job& job, v1::Output& output) const;

  std::unique_ptr<Model> model_;
  std::vector<v1::ModelInfo> models_;
  std::uint32_t slots_;
  Batch batch_;
  std::list<Job> jobs_;  // in order of start
};

Status EmbeddingEngine::take(const v1::Envelope& envelope, Job& job) const {
  if (envelope.type() != message::kEmbeddingRequestType) {
    return Error{Code::kInvalidArgument,
                 fmt::format("this model makes embeddings: it can't answer a {}", envelope.type()),
                 "model"};
  }
  const auto request = message::parse_embedding_request(envelope.data());
  if (!request) return request.error();
  const std::uint32_t size = models_[0].embedding_length();
  job.dimensions = request->dimensions.value_or(size);
  if (job.dimensions == 0 || job.dimensions > size) {
    return Error{
        Code::kInvalidArgument,
        fmt::format("dimensions must be from 1 to {}, which is what the model gives", size),
        "dimensions"};
  }
  for (const message::TokenInput& input : request->inputs) {
    auto tokens = tokens_of_input(*model_, input, "input");
    if (!tokens) return tokens.error();
    if (tokens->empty()) {
      return Error{Code::kInvalidArgument, "input has a text without any token", "input"};
    }
    if (tokens->size() > models_[0].context_length()) {
      return Error{Code::kContextLengthExceeded,
                   fmt::format("an input has {} tokens, but this model takes {} at most: cut it",
                               tokens->size(), models_[0].context_length()),
                   "input"};
    }
    job.prompt_tokens += static_cast<std::uint32_t>(tokens->size());
    job.inputs.push_back(std::move(*tokens));
  }
  return {};
}

// One pass over the model for the oldest inputs, as many as fit.
void EmbeddingEngine::decode() {
  std::vector<Place> places;
  batch_.clear();
  const std::uint32_t room = model_->batch_tokens();
  const std::uint32_t inputs_max = llama_n_seq_max(model_->context());
  for (Job& job : jobs_) {
    if (job.over()) continue;
    for (std::size_t i = job.vectors.size(); i < job.inputs.size(); ++i) {
      if (places.size() == inputs_max || batch_.size() + job.inputs[i].size() > room) break;
      const auto sequence = static_cast<llama_seq_id>(places.size());
      for (std::size_t position = 0; position < job.inputs[i].size(); ++position) {
        batch_.add(job.inputs[i][position], position, sequence, true);
      }
      places.push_back({&job, i});
    }
  }
  if (batch_.empty()) return;
  if (llama_memory_t memory = llama_get_memory(model_->context())) llama_memory_clear(memory, true);
  const int code = llama_decode(model_->context(), batch_.get());
  if (code != 0) WS_LOG(error, "llama.cpp could not embed code={} inputs={}", code, places.size());
  for (std::size_t i = 0; i < places.size(); ++i) {
    Job& job = *places[i].job;
    const float* numbers =
        code == 0 ? llama_get_embeddings_seq(model_->context(), static_cast<llama_seq_id>(i))
                  : nullptr;
    if (numbers == nullptr) {
      job.error = Error{Code::kInternal, fmt::format("llama_decode failed with {}", code)};
    } else if (!job.error) {
      job.vectors.push_back(unit_vector(numbers, job.dimensions));
    }
  }
}

void EmbeddingEngine::report(Job& job, v1::Output& output) const {
  *output.mutable_fence() = std::move(job.fence);
  if (job.cancelled) {
    output.set_dropped(true);
  } else if (job.error) {
    v1::Failure& failure = *output.mutable_failure();
    failure.set_code(std::string(code_name(job.error->code)));
    failure.set_message(job.error->message);
    failure.set_param(job.error->param);
  } else {
    output.set_started(true);
    output.set_prompt_tokens(job.prompt_tokens);
    for (std::string& vector : job.vectors) output.add_embeddings(std::move(vector));
    output.set_finish_reason("stop");
  }
}

}  // namespace

Result<std::unique_ptr<Engine>> open_embedding_engine(LlamaOptions options) {
  options.embedding = true;
  if (options.slots == 0 || options.threads == 0) {
    return Error{Code::kInvalidArgument, "an embedding engine needs a slot and a thread at least"};
  }
  auto model = Model::load(options);
  if (!model) return model.error();
  const v1::ModelInfo& info = (*model)->info();
  WS_LOG(info, "embedding model loaded id={} numbers={} context_tokens={} fingerprint={}",
         info.id(), info.embedding_length(), info.context_length(), info.fingerprint());
  return std::make_unique<EmbeddingEngine>(std::move(*model), options.slots);
}

}  // namespace waystation::engine
