#include "engine/scripted/scripted_engine.h"

#include <unistd.h>

#include <algorithm>
#include <map>
#include <queue>
#include <string>
#include <utility>

#include "base/check.h"
#include "message/chat.h"

namespace waystation::engine {
namespace {

constexpr std::uint32_t kContextLength = 1 << 21;  // more than prompt-tokens and tokens can be

std::string token_text(std::uint32_t index) { return "tok" + std::to_string(index) + " "; }

std::int64_t next_ms_us(std::int64_t us) { return (us + 999) / 1000 * 1000; }

// (request, attempt): the epoch is the worker's business.
using Key = std::pair<std::string, std::uint32_t>;
Key key_of(const v1::Fence& fence) { return {fence.request(), fence.attempt()}; }

struct Slot {
  v1::Fence fence;
  std::int64_t start_us = 0;
  std::uint32_t first = 0;  // tokens that earlier attempts made durable
  std::uint32_t next = 0;   // the token that comes next
  std::uint32_t end = 0;    // the first that doesn't come
  bool limited = false;     // ends by max_tokens
  bool started = false;
  bool cancelled = false;
  std::string text;  // held back by earlier attempts
  v1::Failure failure;
};

// When a slot has something to say. Stale entries (of an earlier `due_us`) are skipped.
struct Due {
  std::int64_t due_us;
  std::uint64_t order;  // of start: makes the order of outputs a function of the calls
  Key key;
  bool operator>(const Due& other) const {
    return std::pair(due_us, order) > std::pair(other.due_us, other.order);
  }
};

class ScriptedEngine final : public Engine {
 public:
  ScriptedEngine(ScriptedOptions options, const Clock& clock)
      : options_(std::move(options)), clock_(clock) {
    v1::ModelInfo model;
    model.set_id(options_.name);
    model.set_fingerprint("scripted:v1");
    model.set_context_length(kContextLength);
    model.set_engine("scripted");
    models_.push_back(std::move(model));
  }

  const std::vector<v1::ModelInfo>& models() const override { return models_; }
  std::uint32_t slots() const override { return options_.slots; }

  void start(v1::Assign assign) override {
    CHECK(running_.size() < options_.slots);
    Slot slot;
    slot.fence = std::move(*assign.mutable_fence());
    slot.start_us = clock_.steady_us();
    plan(slot, assign);
    const Key key = key_of(slot.fence);
    const std::uint64_t order = next_order_++;
    due_.push({slot.start_us, order, key});
    CHECK(running_.try_emplace(key, order, std::move(slot)).second);
  }

  void cancel(const v1::Fence& fence) override {
    const auto found = running_.find(key_of(fence));
    if (found == running_.end() || found->second.slot.cancelled) return;
    found->second.slot.cancelled = true;
    due_.push({0, found->second.order, found->first});
  }

  bool idle() const override { return running_.empty(); }

  std::int64_t wait_us() const override {
    if (due_.empty()) return 0;
    return std::max<std::int64_t>(0, due_.top().due_us - clock_.steady_us());
  }

  void step(v1::Step& out) override {
    const std::int64_t now_us = clock_.steady_us();
    std::vector<Due> again;
    while (!due_.empty() && due_.top().due_us <= now_us) {
      const Due due = due_.top();
      due_.pop();
      const auto found = running_.find(due.key);
      if (found == running_.end() || found->second.order != due.order) continue;  // stale
      if (speak(found->second.slot, *out.add_outputs())) {
        running_.erase(found);
      } else {
        // At most one token of a request a step, also when the clock has run ahead.
        again.push_back({due_us(found->second.slot), due.order, due.key});
      }
    }
    for (Due& due : again) due_.push(std::move(due));
  }

 private:
  struct Running {
    Running(std::uint64_t its_order, Slot its_slot) : order(its_order), slot(std::move(its_slot)) {}
    std::uint64_t order;
    Slot slot;
  };

  // Decides the whole answer at its start.
  void plan(Slot& slot, const v1::Assign& assign) const {
    const auto request = message::parse_chat_request(assign.envelope().data());
    if (!request) {
      slot.failure.set_code(std::string(code_name(request.error().code)));
      slot.failure.set_message(request.error().message);
      slot.failure.set_param(request.error().param);
      return;
    }
    for (const auto& message : request->messages) {
      if (!options_.crash_on.empty() && message.content.contains(options_.crash_on)) {
        ::_exit(kScriptedCrashExit);
      }
    }
    const std::uint32_t budget = request->max_tokens.value_or(options_.tokens);
    slot.limited = budget < options_.tokens;
    slot.end = std::min(budget, options_.tokens);
    const auto durable = static_cast<std::uint32_t>(assign.resume_token_ids_size());
    slot.first = slot.next = std::min(durable, slot.end);
    std::string before;
    for (std::uint32_t i = 0; i < slot.first; ++i) before += token_text(i);
    if (assign.resume_text_bytes() < before.size()) {
      slot.text = before.substr(assign.resume_text_bytes());
    }
  }

  std::int64_t due_us(const Slot& slot) const {
    const std::int64_t ms = std::int64_t{options_.interval_ms} * (slot.next - slot.first);
    return next_ms_us(slot.start_us + ms * 1000);
  }

  // True when that was the last of the request.
  bool speak(Slot& slot, v1::Output& output) const {
    if (slot.cancelled) {
      *output.mutable_fence() = std::move(slot.fence);
      output.set_dropped(true);
      return true;
    }
    *output.mutable_fence() = slot.fence;
    if (!slot.failure.code().empty()) {
      *output.mutable_failure() = std::move(slot.failure);
      return true;
    }
    if (!slot.started) {
      slot.started = true;
      output.set_started(true);
      output.set_prompt_tokens(options_.prompt_tokens);
    }
    std::string text = std::move(slot.text);
    slot.text.clear();
    const std::uint32_t count = options_.interval_ms == 0 ? slot.end - slot.next : 1;
    for (std::uint32_t i = 0; i < count && slot.next < slot.end; ++i, ++slot.next) {
      output.add_token_ids(slot.next);
      text += token_text(slot.next);
    }
    output.set_text(std::move(text));
    if (slot.next < slot.end) return false;
    output.set_finish_reason(slot.limited ? "length" : "stop");
    return true;
  }

  const ScriptedOptions options_;
  const Clock& clock_;
  std::vector<v1::ModelInfo> models_;
  std::map<Key, Running> running_;
  std::priority_queue<Due, std::vector<Due>, std::greater<>> due_;
  std::uint64_t next_order_ = 1;
};

}  // namespace

std::unique_ptr<Engine> make_scripted_engine(ScriptedOptions options, const Clock& clock) {
  return std::make_unique<ScriptedEngine>(std::move(options), clock);
}

}  // namespace waystation::engine
