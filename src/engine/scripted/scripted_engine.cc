#include "engine/scripted/scripted_engine.h"

#include <unistd.h>

#include <algorithm>
#include <map>
#include <queue>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "engine/scripted/script.h"

namespace waystation::engine {
namespace {

constexpr std::uint32_t kContextLength = 1 << 21;  // more than prompt-tokens and tokens can be

std::int64_t next_ms_us(std::int64_t us) {
  return (us + 999) / 1000 * 1000;
}

// (request, attempt): the epoch is the worker's business.
using Key = std::pair<std::string, std::uint32_t>;
Key key_of(const v1::Fence& fence) {
  return {fence.request(), fence.attempt()};
}

struct Choice {
  std::uint32_t first = 0;  // tokens that earlier attempts made durable
  std::uint32_t next = 0;   // the token that comes next
  bool done = false;
};

struct Running {
  v1::Fence fence;
  std::uint64_t order = 0;  // of start: makes the order of outputs a function of the calls
  std::int64_t start_us = 0;
  Script script;
  std::vector<Choice> choices;
  std::size_t open = 0;
  bool started = false;
  bool cancelled = false;
  v1::Failure failure;
  std::vector<Piece> held;  // by choice: what earlier attempts held back
};

// When a choice has something to say. Stale entries (of a request that is over) are skipped.
struct Due {
  std::int64_t due_us;
  std::uint64_t order;
  std::uint32_t choice;
  Key key;
  bool operator>(const Due& other) const {
    return std::tuple(due_us, order, choice) > std::tuple(other.due_us, other.order, other.choice);
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
    model.set_prefills(true);
    if (options_.embed > 0) {
      for (const char* task : {"chat", "completion", "embedding"}) model.add_tasks(task);
      model.set_embedding_length(options_.embed);
    }
    models_.push_back(std::move(model));
  }

  const std::vector<v1::ModelInfo>& models() const override { return models_; }
  std::uint32_t slots() const override { return options_.slots; }

  void start(v1::Assign assign) override {
    CHECK(running_.size() < options_.slots);
    Running request;
    request.fence = std::move(*assign.mutable_fence());
    request.order = next_order_++;
    request.start_us = clock_.steady_us();
    plan(request, assign);
    const Key key = key_of(request.fence);
    for (std::uint32_t choice = 0; choice < request.choices.size(); ++choice) {
      if (!request.choices[choice].done) {
        due_.push({request.start_us, request.order, choice, key});
      }
    }
    CHECK(running_.try_emplace(key, std::move(request)).second);
  }

  void cancel(const v1::Fence& fence) override {
    const auto found = running_.find(key_of(fence));
    if (found == running_.end() || found->second.cancelled) return;
    found->second.cancelled = true;
    due_.push({0, found->second.order, 0, found->first});
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
      Due due = due_.top();
      due_.pop();
      const auto found = running_.find(due.key);
      if (found == running_.end() || found->second.order != due.order) continue;  // stale
      Running& request = found->second;
      speak(request, due.choice, *out.add_outputs());
      if (request.open == 0) {
        running_.erase(found);
      } else if (!request.choices[due.choice].done) {
        // At most one token of a choice a step, also when the clock has run ahead.
        due.due_us = due_us(request, request.choices[due.choice]);
        again.push_back(std::move(due));
      }
    }
    for (Due& due : again) due_.push(std::move(due));
  }

 private:
  // Decides all of the answer at its start.
  void plan(Running& request, const v1::Assign& assign) const {
    auto script = make_script(options_, assign.envelope(), request.fence.request());
    if (!script) {
      request.failure.set_code(std::string(code_name(script.error().code)));
      request.failure.set_message(script.error().message);
      request.failure.set_param(script.error().param);
      request.choices.resize(1);
      request.open = 1;
      return;
    }
    if (!options_.crash_on.empty() && script->prompt.contains(options_.crash_on)) {
      ::_exit(kScriptedCrashExit);
    }
    request.script = std::move(*script);
    request.choices.resize(request.script.choices);
    request.held.resize(request.script.choices);
    for (std::uint32_t index = 0; index < request.choices.size(); ++index) {
      resume(request, index, assign);
    }
  }

  void resume(Running& request, std::uint32_t index, const v1::Assign& assign) const {
    Choice& choice = request.choices[index];
    const bool last = index + 1 == request.choices.size();
    if (index < static_cast<std::uint32_t>(assign.resume_size())) {
      const v1::ChoiceProgress& progress = assign.resume(static_cast<int>(index));
      // Something has to tell that the request is over, also when all its choices were.
      choice.done = !progress.finish_reason().empty() && (request.open > 0 || !last);
      choice.first = choice.next = request.script.resume(progress, index, request.held[index]);
    }
    if (!choice.done) ++request.open;
  }

  std::int64_t due_us(const Running& request, const Choice& choice) const {
    const std::int64_t ms = std::int64_t{options_.interval_ms} * (choice.next - choice.first);
    return next_ms_us(request.start_us + ms * 1000);
  }

  void speak(Running& request, std::uint32_t index, v1::Output& output) const {
    *output.mutable_fence() = request.fence;
    if (request.cancelled || !request.failure.code().empty()) {
      request.open = 0;
      if (request.cancelled) {
        output.set_dropped(true);
      } else {
        *output.mutable_failure() = request.failure;
      }
      return;
    }
    if (!request.started) {
      request.started = true;
      output.set_started(true);
      output.set_prompt_tokens(options_.prompt_tokens * request.script.prompts);
    }
    output.set_choice(index);
    Choice& choice = request.choices[index];
    const Script& script = request.script;
    Piece piece = std::move(request.held[index]);
    request.held[index] = {};
    const std::uint32_t end = script.end();
    const std::uint32_t count = options_.interval_ms == 0 ? end - choice.next : 1;
    for (std::uint32_t i = 0; i < count && choice.next < end; ++i, ++choice.next) {
      output.add_token_ids(choice.next);
      script.say(choice.next, index, piece);
    }
    output.set_text(std::move(piece.text));
    if (piece.call) *output.add_tool_calls() = std::move(*piece.call);
    if (choice.next < end) return;
    for (const std::string& embedding : script.embeddings) output.add_embeddings(embedding);
    choice.done = true;
    output.set_finish_reason(script.finish_reason);
    output.set_more(--request.open > 0);
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
