#include "engine/llama/llama_engine.h"

#include <algorithm>
#include <deque>
#include <exception>
#include <iterator>
#include <list>
#include <memory>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/check.h"
#include "base/log.h"
#include "engine/llama/batch.h"
#include "engine/llama/model.h"
#include "engine/llama/request.h"
#include "engine/llama/slot.h"

namespace waystation::engine {
namespace {

constexpr std::uint32_t kSlotsMax = 64;
// While answers are being generated, a step takes at most this many tokens of waiting prompts: on a
// CPU they cost as much as that many streams, so a long prompt slows the others, not stops them.
constexpr std::size_t kPromptTokensBesideAnswers = 64;
// Copying another sequence's memory costs about as much as some tokens of a prompt.
constexpr std::size_t kTokensWorthCopying = 16;

std::size_t common_prefix(const std::vector<llama_token>& a, const std::vector<llama_token>& b) {
  return static_cast<std::size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first -
                                  a.begin());
}

bool same(const v1::Fence& a, const v1::Fence& b) {
  return a.request() == b.request() && a.attempt() == b.attempt() && a.epoch() == b.epoch();
}

class LlamaEngine final : public Engine {
 public:
  LlamaEngine(std::unique_ptr<Model> model, const LlamaOptions& options)
      : model_(std::move(model)),
        models_{model_->info()},
        batch_(model_->batch_tokens()),
        report_every_(options.report_every) {
    can_copy_ =
        !llama_model_is_recurrent(model_->model()) && !llama_model_is_hybrid(model_->model());
    slots_.resize(options.slots);
    for (std::uint32_t i = 0; i < options.slots; ++i)
      slots_[i].sequence = static_cast<llama_seq_id>(i);
  }

  const std::vector<v1::ModelInfo>& models() const override { return models_; }
  std::uint32_t slots() const override { return static_cast<std::uint32_t>(slots_.size()); }
  void start(v1::Assign assign) override;
  void cancel(const v1::Fence& fence) override;
  bool idle() const override { return requests_.empty(); }
  std::int64_t wait_us() const override { return 0; }
  void step(v1::Step& out) override;

 private:
  struct Turn {  // what a slot gets in one step
    Slot* slot;
    std::size_t tokens;
    std::int32_t row = -1;  // of its logits; -1: its prompt isn't through yet
  };
  struct Waiting {  // a choice without a slot
    Request* request;
    std::uint32_t choice;
  };

  void take(Request& request);
  void fill();
  enum class Placed { kYes, kNoSlot, kLater };
  Placed place(const Waiting& next);
  const Slot* sibling(const Waiting& next) const;
  void copy_cache(const Slot& from, Slot& to);
  Slot* choose_slot(const std::vector<llama_token>& tokens);
  void reuse_prefix(Slot& slot);
  void drop_cache(Slot& slot, std::size_t keep);
  void sweep(v1::Step& out);
  std::vector<Turn> plan();
  void decode(std::vector<Turn>& turns);
  void fail(const std::vector<Turn>& turns, int code);
  void advance(const Turn& turn);
  void report(Slot& slot, v1::Step& out);
  void report_end(Request& request, v1::Step& out);
  static void release(Slot& slot);

  std::unique_ptr<Model> model_;
  std::vector<v1::ModelInfo> models_;
  std::vector<Slot> slots_;
  std::list<Request> requests_;  // in order of start; their addresses stay
  std::deque<Waiting> waiting_;
  Batch batch_;
  bool can_copy_ = false;
  std::uint64_t starts_ = 0;
  const std::chrono::microseconds report_every_;
  std::chrono::steady_clock::time_point reported_at_;
};

void LlamaEngine::start(v1::Assign assign) {
  CHECK(requests_.size() < slots_.size());
  Request& request = requests_.emplace_back();
  request.fence = assign.fence();
  request.assign = std::move(assign);
  take(request);
  fill();
}

void LlamaEngine::take(Request& request) {
  auto prompt = make_prompt(*model_, request.assign.envelope(), request.fence.request());
  request.assign.clear_envelope();
  if (!prompt) {
    request.error = prompt.error();
    return;
  }
  request.prompt = std::make_shared<const Prompt>(std::move(*prompt));
  for (std::uint32_t choice = 0; choice < request.prompt->choices; ++choice) {
    const v1::ChoiceProgress* progress = request.progress(choice);
    // Something has to tell that the request is over, also when all its choices were.
    const bool done = progress != nullptr && !progress->finish_reason().empty() &&
                      (request.open > 0 || choice + 1 < request.prompt->choices);
    if (done) continue;
    ++request.open;
    waiting_.push_back({&request, choice});
  }
}

// Gives free slots to choices, first come first served.
void LlamaEngine::fill() {
  for (auto next = waiting_.begin(); next != waiting_.end();) {
    const Placed placed = next->request->ended() ? Placed::kYes : place(*next);
    if (placed == Placed::kNoSlot) return;
    next = placed == Placed::kYes ? waiting_.erase(next) : std::next(next);
  }
}

LlamaEngine::Placed LlamaEngine::place(const Waiting& next) {
  Request& request = *next.request;
  const std::vector<llama_token>& tokens = request.prompt->tokens_of(next.choice);
  Slot* slot = choose_slot(tokens);
  if (slot == nullptr) return Placed::kNoSlot;
  const Slot* from = sibling(next);
  if (from != nullptr && common_prefix(slot->cache, tokens) + kTokensWorthCopying > tokens.size()) {
    from = nullptr;
  }
  if (from != nullptr && from->behind() > 1) return Placed::kLater;  // its prompt isn't through yet
  auto answer = Answer::make(*model_, request.prompt, next.choice, request.progress(next.choice));
  if (!answer) {
    request.error = answer.error();
    return Placed::kYes;
  }
  slot->request = &request;
  slot->order = slot->used_at = ++starts_;
  slot->answer = std::move(*answer);
  if (slot->answer->finished()) return Placed::kYes;
  if (from != nullptr) copy_cache(*from, *slot);
  reuse_prefix(*slot);
  return Placed::kYes;
}

// A slot with another choice of the same prompt.
const Slot* LlamaEngine::sibling(const Waiting& next) const {
  const std::uint32_t each = next.request->prompt->choices_per_prompt;
  if (each == 1 || !can_copy_) return nullptr;
  for (const Slot& slot : slots_) {
    if (slot.request == next.request && slot.answer->choice() / each == next.choice / each) {
      return &slot;
    }
  }
  return nullptr;
}

// llama.cpp copies all of the sequence's memory with the next decode.
void LlamaEngine::copy_cache(const Slot& from, Slot& to) {
  llama_memory_seq_cp(llama_get_memory(model_->context()), from.sequence, to.sequence, -1, -1);
  to.cache = from.cache;
}

// The free slot that holds the longest beginning of `tokens`; of equal ones, that used longest ago.
Slot* LlamaEngine::choose_slot(const std::vector<llama_token>& tokens) {
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
  return best;
}

void LlamaEngine::reuse_prefix(Slot& slot) {
  const std::vector<llama_token>& tokens = slot.answer->tokens();
  // The last token always goes through the model: its logits give the next one.
  drop_cache(slot, std::min(common_prefix(slot.cache, tokens), tokens.size() - 1));
  slot.answer->cached_prompt_tokens =
      std::min(static_cast<std::uint32_t>(slot.cache.size()), slot.answer->prompt_tokens());
}

// Keeps the first `keep` tokens of the slot's sequence, or none where the model's memory can't be
// cut (recurrent ones).
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
  for (Request& request : requests_) {
    if (same(request.fence, fence)) request.cancelled = true;
  }
}

void LlamaEngine::step(v1::Step& out) {
  fill();
  sweep(out);
  std::vector<Turn> turns = plan();
  if (turns.empty()) return;
  decode(turns);
  const auto now = std::chrono::steady_clock::now();
  const bool due = now - reported_at_ >= report_every_;
  if (due) reported_at_ = now;
  for (const Turn& turn : turns) {
    const Slot& slot = *turn.slot;
    if (slot.request->ended()) continue;  // told by the next sweep
    if (turn.row >= 0) advance(turn);
    if (slot.request->ended()) continue;
    if (due || !slot.answer->reported() || slot.answer->finished()) report(*turn.slot, out);
  }
}

// What ends without another token: cancelled, refused, or resumed at its very end.
void LlamaEngine::sweep(v1::Step& out) {
  for (auto request = requests_.begin(); request != requests_.end();) {
    const auto next = std::next(request);
    if (request->ended()) report_end(*request, out);
    request = next;
  }
  for (Slot& slot : slots_) {
    if (slot.busy() && slot.answer->finished()) report(slot, out);
  }
}

// Every answer in generation gets its next token; prompts share what is left of the step, first
// come first served. In the order of sequences: llama.cpp then takes all streams in one pass.
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
  WS_LOG(error, "llama.cpp could not decode code={} answers={}", code, turns.size());
  for (const Turn& turn : turns) {
    turn.slot->request->error =
        Error{Code::kInternal, fmt::format("llama_decode failed with {}", code)};
    drop_cache(*turn.slot, 0);
  }
}

void LlamaEngine::advance(const Turn& turn) {
  try {
    turn.slot->answer->advance(*model_, turn.row);
  } catch (const std::exception& error) {
    turn.slot->request->error =
        Error{Code::kInternal, fmt::format("sampling failed: {}", error.what())};
  }
}

// Tells what is new of the slot's answer; frees the slot, and with the last answer the request.
void LlamaEngine::report(Slot& slot, v1::Step& out) {
  Request& request = *slot.request;
  v1::Output output;
  if (!slot.answer->report(output) && request.started) return;
  if (!request.started) {
    request.started = true;
    output.set_started(true);
    output.set_prompt_tokens(request.prompt->prompt_tokens());
    output.set_cached_prompt_tokens(slot.answer->cached_prompt_tokens);
  }
  *output.mutable_fence() = request.fence;
  output.set_choice(slot.answer->choice());
  const bool over = !output.finish_reason().empty();
  if (over) output.set_more(--request.open > 0);
  *out.add_outputs() = std::move(output);
  if (!over) return;
  release(slot);
  if (request.open == 0) requests_.remove_if([&](const Request& one) { return &one == &request; });
}

// Cancelled or wrong: tells it and forgets all of it.
void LlamaEngine::report_end(Request& request, v1::Step& out) {
  v1::Output& output = *out.add_outputs();
  *output.mutable_fence() = request.fence;
  if (request.cancelled) {
    output.set_dropped(true);
  } else {
    v1::Failure& failure = *output.mutable_failure();
    failure.set_code(std::string(code_name(request.error->code)));
    failure.set_message(request.error->message);
    failure.set_param(request.error->param);
  }
  for (Slot& slot : slots_) {
    if (slot.request == &request) release(slot);
  }
  std::erase_if(waiting_, [&](const Waiting& one) { return one.request == &request; });
  requests_.remove_if([&](const Request& one) { return &one == &request; });
}

void LlamaEngine::release(Slot& slot) {
  slot.request = nullptr;
  slot.answer.reset();
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
  return std::make_unique<LlamaEngine>(std::move(*model), options);
}

}  // namespace waystation::engine
