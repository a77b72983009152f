#include "engine/scripted/scripted_engine.h"

#include <unistd.h>

#include <algorithm>
#include <map>
#include <queue>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/check.h"
#include "engine/scripted/script.h"

namespace waystation::engine {
namespace {

constexpr std::uint32_t kContextLength = 1 << 21;  // more than prompt-tokens and tokens can be

// As in an engine that computes all its slots together, tokens come in common steps, some of them
// to an interval: whoever takes them has a message a step, not one a token.
constexpr std::int64_t kStepsAnInterval = 8;
constexpr std::int64_t kStepUsMin = 1'000;
constexpr std::int64_t kStepUsMax = 5'000;

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
  std::uint64_t
      request;  // a number in the order of starts, so that outputs are a function of the calls
  std::uint32_t choice;
  auto operator<=>(const Due&) const = default;
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
    request.start_us = clock_.steady_us();
    plan(request, assign);
    const std::uint64_t number = next_number_++;
    for (std::uint32_t choice = 0; choice < request.choices.size(); ++choice) {
      if (!request.choices[choice].done) due_.push({request.start_us, number, choice});
    }
    CHECK(numbers_.try_emplace(key_of(request.fence), number).second);
    running_.emplace(number, std::move(request));
  }

  void cancel(const v1::Fence& fence) override {
    const auto number = numbers_.find(key_of(fence));
    if (number == numbers_.end()) return;
    Running& request = running_.at(number->second);
    if (std::exchange(request.cancelled, true)) return;
    due_.push({0, number->second, 0});
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
      const auto found = running_.find(due.request);
      if (found == running_.end()) continue;  // stale
      Running& request = found->second;
      speak(request, due.choice, *out.add_outputs());
      if (request.open == 0) {
        numbers_.erase(key_of(request.fence));
        running_.erase(found);
      } else if (!request.choices[due.choice].done) {
        // At most one token of a choice a step, also when the clock has run ahead.
        due.due_us = due_us(request, request.choices[due.choice]);
        again.push_back(due);
      }
    }
    for (const Due& due : again) due_.push(due);
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
    const std::int64_t interval_us = std::int64_t{options_.interval_ms} * 1000;
    const std::int64_t step_us = std::clamp(interval_us / kStepsAnInterval, kStepUsMin, kStepUsMax);
    const std::int64_t at_us = request.start_us + interval_us * (choice.next - choice.first);
    return (at_us + step_us - 1) / step_us * step_us;
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
  std::unordered_map<std::uint64_t, Running> running_;
  std::map<Key, std::uint64_t> numbers_;
  std::priority_queue<Due, std::vector<Due>, std::greater<>> due_;
  std::uint64_t next_number_ = 1;
};

}  // namespace

std::unique_ptr<Engine> make_scripted_engine(ScriptedOptions options, const Clock& clock) {
  return std::make_unique<ScriptedEngine>(std::move(options), clock);
}

}  // namespace waystation::engine
