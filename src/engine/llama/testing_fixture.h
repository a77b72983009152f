// For tests with the real small model: SmolLM2-135M-Instruct, fetched by `make models`.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "engine/llama/llama_engine.h"
#include "message/chat.h"
#include "message/completion.h"

namespace waystation::engine {

inline const std::filesystem::path kModel =
    std::filesystem::path(WAYSTATION_MODELS_DIR) / "SmolLM2-135M-Instruct.Q4_1.gguf";

// What came of a choice, joined over its outputs.
struct Got {
  bool started = false;
  std::uint32_t prompt_tokens = 0;
  std::uint32_t cached_prompt_tokens = 0;
  std::vector<std::uint32_t> tokens;
  std::vector<std::size_t> text_bytes_after;       // each token
  std::vector<v1::ChoiceProgress> progress_after;  // each token
  std::string text;
  std::vector<v1::ToolCallDelta> calls;
  std::vector<v1::TokenLogprob> logprobs;
  std::string finish_reason;
  std::string failure_code;
  std::string failure_message;
  std::string failure_param;
  bool dropped = false;
  bool more = false;

  bool over() const { return !finish_reason.empty() || !failure_code.empty() || dropped; }

  void add(const v1::Output& output) {
    EXPECT_FALSE(over()) << "an output after the last one";
    text += output.text();
    for (const v1::ToolCallDelta& piece : output.tool_calls()) add_call(piece);
    for (const v1::TokenLogprob& logprob : output.logprobs()) logprobs.push_back(logprob);
    for (const std::uint32_t id : output.token_ids()) {
      tokens.push_back(id);
      text_bytes_after.push_back(text.size());
      progress_after.push_back(progress());
    }
    finish_reason = output.finish_reason();
    failure_code = output.failure().code();
    failure_message = output.failure().message();
    failure_param = output.failure().param();
    dropped = output.dropped();
    more = output.more();
  }

  v1::ChoiceProgress progress() const {
    v1::ChoiceProgress made;
    made.mutable_token_ids()->Add(tokens.begin(), tokens.end());
    made.set_text(text);
    for (const v1::ToolCallDelta& call : calls) *made.add_tool_calls() = call;
    return made;
  }

 private:
  void add_call(const v1::ToolCallDelta& piece) {
    for (v1::ToolCallDelta& call : calls) {
      if (call.index() != piece.index()) continue;
      EXPECT_TRUE(piece.id().empty() && piece.name().empty()) << "id and name come once";
      call.mutable_arguments()->append(piece.arguments());
      return;
    }
    calls.push_back(piece);
  }
};

inline std::string body(const std::string& prompt, const std::string& more = R"("temperature":0)") {
  return R"({"model":"m","messages":[{"role":"user","content":")" + prompt + R"("}],)" + more + "}";
}

inline v1::Assign assign(const std::string& request, const std::string& json) {
  v1::Assign made;
  made.mutable_fence()->set_epoch(1);
  made.mutable_fence()->set_request(request);
  made.mutable_fence()->set_attempt(1);
  made.mutable_envelope()->set_type(std::string(message::kChatRequestType));
  made.mutable_envelope()->set_data(json);
  return made;
}

// The same after its first `tokens` tokens became durable.
inline v1::Assign resume(v1::Assign made, const Got& got, std::size_t tokens) {
  v1::ChoiceProgress& progress = *made.add_resume();
  if (tokens > 0) progress = got.progress_after[tokens - 1];
  return made;
}

class LlamaEngine : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (!std::filesystem::exists(kModel)) return;
    auto opened = open_llama_engine({.model_file = kModel,
                                     .model_id = "small",
                                     .slots = 8,
                                     .context_tokens = 1024,
                                     .threads = 1});  // a test machine may be busy
    ASSERT_TRUE(opened) << opened.error().message;
    engine_ = std::move(*opened);
  }
  static void TearDownTestSuite() { engine_.reset(); }

  void SetUp() override {
    if (!engine_) GTEST_SKIP() << "no " << kModel << ": run `make models` to test the real engine";
  }
  void TearDown() override {
    if (engine_) {
      EXPECT_TRUE(engine_->idle());
    }
  }

  // Of choice 0 the key is the request's id, of the others "id/choice".
  void step() {
    v1::Step out;
    engine_->step(out);
    std::map<std::string, int> seen;
    for (const v1::Output& output : out.outputs()) {
      std::string key = output.fence().request();
      if (output.choice() > 0) key += "/" + std::to_string(output.choice());
      EXPECT_EQ(++seen[key], 1) << "two outputs of one choice in a step";
      Got& got = got_[key];
      if (output.started()) {
        Got& first = got_[output.fence().request()];
        EXPECT_FALSE(first.started);
        first.started = true;
        first.prompt_tokens = output.prompt_tokens();
        first.cached_prompt_tokens = output.cached_prompt_tokens();
      }
      got.add(output);
    }
  }

  // Runs requests together until all are over; forgets earlier ones.
  std::map<std::string, Got> run_all(const std::vector<v1::Assign>& assigns) {
    got_.clear();
    for (const v1::Assign& one : assigns) engine_->start(one);
    for (int i = 0; i < 5000 && !engine_->idle(); ++i) step();
    return got_;
  }
  Got run(const v1::Assign& one) { return run_all({one})[one.fence().request()]; }
  Got run(const std::string& json) { return run(assign("r", json)); }

  inline static std::unique_ptr<Engine> engine_;
  std::map<std::string, Got> got_;
};

inline const std::string kMore = R"("temperature":0,"max_tokens":48)";
inline const std::vector<std::string> kPrompts = {
    "Tell me about a horse and a lighthouse.", "请用中文介绍一下北京的历史。",
    "Repeat exactly: 😀🚀🐎❤️ 你好世界 😀🚀🐎❤️",
    "Write a Python function that adds two numbers."};

}  // namespace waystation::engine
