#include "engine/llama/llama_engine.h"

#include <algorithm>
#include <exception>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/check.h"
#include "base/log.h"
#include "engine/llama/model.h"
#include "engine/llama/slot.h"

namespace waystation::engine {
namespace {

constexpr std::uint32_t kSlotsMax = 64;
// While answers are being generated, a step takes at most this many tokens of waiting prompts: on a
// CPU they cost as much as that many streams, so a long prompt slows the others, not stops them.
constexpr std::size_t kPromptTokensBesideAnswers = 64;

std::size_t common_prefix(const std::vector<llama_token>& a, const std::vector<llama_token>& b) {
  return static_cast<std::size_t>(
      std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
}

bool same(const v1::Fence& a, const v1::Fence& b) {
  return a.request() == b.request() && a.attempt() == b.attempt() && a.epoch() == b.epoch();
}

// The tokens of one llama_decode.
class Batch {
 public:
  explicit Batch(std::uint32_t capacity)
      : batch_(llama_batch_init(static_cast<std::int32_t>(capacity), 0, 1)) {}
  ~Batch() { llama_batch_free(batch_); }
  Batch(const Batch&) = delete;
  Batch& operator=(const Batch&) = delete;

  void clear() { batch_.n_tokens = 0; }
  bool empty() const { return batch_.n_tokens == 0; }
  const llama_batch& get() const { return batch_; }

  // Returns the token's row.
  std::int32_t add(llama_token token, std::size_t position, llama_seq_id sequence, bool logits) {
    const std::int32_t row = batch_.n_tokens++;
    batch_.token[row] = token;
    batch_.pos[row] = static_cast<llama_pos>(position);
    batch_.n_seq_id[row] = 1;
    batch_.seq_id[row][0] = sequence;
    batch_.logits[row] = logits ? 1 : 0;
    return row;
  }

 private:
  llama_batch batch_;
};

class LlamaEngine final : public Engine {
 public:
  LlamaEngine(std::unique_ptr<Model> model, std::uint32_t slots)
      : model_(std::move(model)), models_{model_->info()}, batch_(model_->batch_tokens()) {
    slots_.resize(slots);
    for (std::uint32_t i = 0; i < slots; ++i) slots_[i].sequence = static_cast<llama_seq_id>(i);
  }

  const std::vector<v1::ModelInfo>& models() const override { return models_; }
  std::uint32_t slots() const override { return static_cast<std::uint32_t>(slots_.size()); }
  void start(v1::Assign assign) override;
  void cancel(const v1::Fence& fence) override;
  bool idle() const override { return busy_ == 0; }
  std::int64_t wait_us() const override { return 0; }
  void step(v1::Step& out) override;

 private:
  struct Turn {  // what a slot gets in one step
    Slot* slot;
    std::size_t tokens;
    std::int32_t row = -1;  // of its logits; -1: its prompt isn't through yet
  };

  Slot& choose_slot(const std::vector<llama_token>& tokens);
  void reuse_prefix(Slot& slot);
  void drop_cache(Slot& slot, std::size_t keep);
  void sweep(v1::Step& out);
  std::vector<Turn> plan();
  void decode(std::vector<Turn>& turns);
  void fail(const std::vector<Turn>& turns, int code);
  void advance(const Turn& turn);
  void report(Slot& slot, v1::Step& out);
  void release(Slot& slot);

  std::unique_ptr<Model> model_;
  std::vector<v1::ModelInfo> models_;
  std::vector<Slot> slots_;
  Batch batch_;
  std::uint64_t starts_ = 0;
  std::size_t busy_ = 0;
};

void LlamaEngine::start(v1::Assign assign) {
  CHECK(busy_ < slots_.size());
  auto answer = Answer::make(*model_, assign);
  Slot& slot = choose_slot(answer ? answer->tokens() : std::vector<llama_token>{});
  ++busy_;
  slot.fence = std::move(*assign.mutable_fence());
  slot.order = ++starts_;
  if (!answer) {
    slot.error = answer.error();
    return;
  }
  slot.used_at = starts_;
  slot.answer = std::move(*answer);
  if (!slot.answer->finished()) reuse_prefix(slot);
}

// The free slot that holds the longest beginning of `tokens`; of equal ones, that used longest ago.
Slot& LlamaEngine::choose_slot(const std::vector<llama_token>& tokens) {
  Slot* best = nullptr;
  std::size_t best_prefix = 0;
  for (Slot& slot : slots_) {
    if (slot.busy()) continue;
    const std::size_t prefix = common_prefix(slot.cache, tokens);
    if (best == nullptr || prefix > best_prefix ||
        (prefix == best_prefix && slot.used_at < best->used_at)) {
      best = &slot;
      best_prefix = prefix;
    }
  }
  CHECK(best != nullptr);
  return *best;
}

void LlamaEngine::reuse_prefix(Slot& slot) {
  const std::vector<llama_token>& tokens = slot.answer->tokens();
  // The last token always goes through the model: its logits give the next one.
  drop_cache(slot, std::min(common_prefix(slot.cache, tokens), tokens.size() - 1));
  slot.answer->set_cached_prompt_tokens(
      std::min(static_cast<std::uint32_t>(slot.cache.size()), slot.answer->prompt_tokens()));
}

// Keeps the first `keep` tokens of the slot's sequence, or none where the model's memory can't be cut
// (recurrent ones).
void LlamaEngine::drop_cache(Slot& slot, std::size_t keep) {
  if (keep == slot.cache.size()) return;
  llama_memory_t memory = llama_get_memory(model_->context());
  if (!llama_memory_seq_rm(memory, slot.sequence, static_cast<llama_pos>(keep), -1)) {
    keep = 0;
    llama_memory_seq_rm(memory, slot.sequence, -1, -1);
  }
  slot.cache.resize(keep);
}

void LlamaEngine::cancel(const v1::Fence& fence) {
  for (Slot& slot : slots_) {
    if (slot.busy() && same(*slot.fence, fence)) slot.cancelled = true;
  }
}

void LlamaEngine::step(v1::Step& out) {
  sweep(out);
  std::vector<Turn> turns = plan();
  if (turns.empty()) return;
  decode(turns);
  for (const Turn& turn : turns) {
    if (turn.row >= 0 && !turn.slot->error) advance(turn);
    report(*turn.slot, out);
  }
}

// What ends without another token: cancelled, refused, or resumed at its very end.
void LlamaEngine::sweep(v1::Step& out) {
  for (Slot& slot : slots_) {
    if (!slot.busy()) continue;
    if (slot.cancelled || slot.error || slot.answer->finished()) report(slot, out);
  }
}

// Every answer in generation gets its next token; prompts share what is left of the step, first come
// first served. In the order of sequences: llama.cpp then takes all streams in one pass.
std::vector<LlamaEngine::Turn> LlamaEngine::plan() {
  std::vector<Turn> turns;
  std::vector<Slot*> prompts;
  for (Slot& slot : slots_) {
    if (!slot.busy()) continue;
    if (slot.behind() == 1) {
      turns.push_back({&slot, 1});
    } else {
      prompts.push_back(&slot);
    }
  }
  std::size_t left = model_->batch_tokens() - turns.size();
  if (!turns.empty()) left = std::min(left, kPromptTokensBesideAnswers);
  std::ranges::sort(prompts, {}, &Slot::order);
  for (Slot* slot : prompts) {
    const std::size_t tokens = std::min(left, slot->behind());
    if (tokens == 0) break;
    left -= tokens;
    turns.push_back({slot, tokens});
  }
  std::ranges::sort(turns, {}, [](const Turn& turn) { return turn.slot->sequence; });
  return turns;
}

void LlamaEngine::decode(std::vector<Turn>& turns) {
  batch_.clear();
  for (Turn& turn : turns) {
    Slot& slot = *turn.slot;
    const bool whole = turn.tokens == slot.behind();
    for (std::size_t i = 0; i < turn.tokens; ++i) {
      const std::size_t position = slot.cache.size();
      const llama_token token = slot.answer->tokens()[position];
      const bool last = whole && i + 1 == turn.tokens;
      const std::int32_t row = batch_.add(token, position, slot.sequence, last);
      if (last) turn.row = row;
      slot.cache.push_back(token);
    }
  }
  const int code = llama_decode(model_->context(), batch_.get());
  if (code != 0) fail(turns, code);
}

void LlamaEngine::fail(const std::vector<Turn>& turns, int code) {
  WS_LOG(error, "llama.cpp could not decode code={} requests={}", code, turns.size());
  for (const Turn& turn : turns) {
    turn.slot->error = Error{Code::kInternal, fmt::format("llama_decode failed with {}", code)};
    drop_cache(*turn.slot, 0);
  }
}

void LlamaEngine::advance(const Turn& turn) {
  try {
    turn.slot->answer->advance(*model_, turn.row);
  } catch (const std::exception& error) {
    turn.slot->error = Error{Code::kInternal, fmt::format("sampling failed: {}", error.what())};
  }
}

void LlamaEngine::report(Slot& slot, v1::Step& out) {
  v1::Output output;
  if (slot.cancelled) {
    output.set_dropped(true);
  } else if (slot.error) {
    v1::Failure& failure = *output.mutable_failure();
    failure.set_code(std::string(code_name(slot.error->code)));
    failure.set_message(slot.error->message);
    failure.set_param(slot.error->param);
  } else if (!slot.answer->report(output)) {
    return;
  }
  *output.mutable_fence() = *slot.fence;
  const bool over = output.dropped() || output.has_failure() || !output.finish_reason().empty();
  *out.add_outputs() = std::move(output);
  if (over) release(slot);
}

void LlamaEngine::release(Slot& slot) {
  slot.fence.reset();
  slot.answer.reset();
  slot.error.reset();
  slot.cancelled = false;
  --busy_;
}

}  // namespace

Result<std::unique_ptr<Engine>> open_llama_engine(const LlamaOptions& options) {
  if (options.slots == 0 || options.slots > kSlotsMax) {
    return Error{Code::kInvalidArgument,
                 fmt::format("a llama engine has 1 to {} slots, not {}", kSlotsMax, options.slots)};
  }
  if (options.threads == 0) {
    return Error{Code::kInvalidArgument, "a llama engine needs at least one thread"};
  }
  auto model = Model::load(options);
  if (!model) return model.error();
  const v1::ModelInfo& info = (*model)->info();
  WS_LOG(info, "model loaded id={} slots={} context_tokens={} threads={} fingerprint={}", info.id(),
         options.slots, info.context_length(), options.threads, info.fingerprint());
  return std::make_unique<LlamaEngine>(std::move(*model), options.slots);
}

}  // namespace waystation::engine
