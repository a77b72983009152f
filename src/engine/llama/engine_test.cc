// The llama engine with a real small model.
#include <chrono>
#include <map>
#include <string>
#include <vector>

#include "engine/llama/testing_fixture.h"

namespace waystation::engine {
namespace {

TEST_F(LlamaEngine, TellsAboutItself) {
  ASSERT_EQ(engine_->models().size(), 1U);
  const v1::ModelInfo& info = engine_->models()[0];
  EXPECT_EQ(info.id(), "small");
  EXPECT_EQ(info.fingerprint(),
            "sha256:b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53");
  EXPECT_EQ(info.context_length(), 1024U);
  EXPECT_EQ(info.engine(), "llama");
  EXPECT_EQ(engine_->slots(), 8U);
}

TEST_F(LlamaEngine, GreedyAnswersAreTheSameEachTime) {
  const Got first = run(body(kPrompts[0], kMore));
  EXPECT_TRUE(first.started);
  EXPECT_GT(first.prompt_tokens, 10U);
  EXPECT_EQ(first.tokens.size(), 48U);
  EXPECT_EQ(first.finish_reason, "length");
  EXPECT_GT(first.text.size(), 48U);
  const Got second = run(body(kPrompts[0], kMore));
  EXPECT_EQ(first.text, second.text);
  EXPECT_EQ(first.tokens, second.tokens);
}

TEST_F(LlamaEngine, AnswersEndByThemselves) {
  const Got got = run(body("What is 2+2?", R"("temperature":0,"max_tokens":100)"));
  EXPECT_EQ(got.finish_reason, "stop");
  EXPECT_NE(got.text.find('4'), std::string::npos) << got.text;
  EXPECT_LT(got.tokens.size(), 100U);
  // The token that ends the answer is handed out too, and has no text.
  ASSERT_GE(got.tokens.size(), 2U);
  EXPECT_EQ(got.text_bytes_after[got.tokens.size() - 2], got.text.size());
}

TEST_F(LlamaEngine, ResumesAtEveryToken) {
  for (const std::string& prompt : kPrompts) {
    const v1::Assign whole = assign("r", body(prompt, kMore));
    const Got undisturbed = run(whole);
    ASSERT_GE(undisturbed.tokens.size(), 8U) << undisturbed.text;
    for (std::size_t k = 0; k < undisturbed.tokens.size(); k += k < 8 ? 1 : 9) {
      run(body("Something else, so that the slots' caches differ. " + std::to_string(k),
               R"("max_tokens":2)"));
      const Got rest = run(resume(whole, undisturbed, k));
      const std::size_t bytes = k == 0 ? 0 : undisturbed.text_bytes_after[k - 1];
      ASSERT_EQ(undisturbed.text.substr(0, bytes) + rest.text, undisturbed.text)
          << prompt << " " << k;
      ASSERT_EQ(rest.finish_reason, undisturbed.finish_reason);
      ASSERT_EQ(rest.tokens.size() + k, undisturbed.tokens.size());
      ASSERT_EQ(rest.prompt_tokens, undisturbed.prompt_tokens);
    }
  }
}

TEST_F(LlamaEngine, ResumesSampledAnswersToo) {
  for (const std::string more :
       {R"("temperature":0.9,"top_p":0.95,"seed":42,"max_tokens":40)",
        R"("temperature":1.2,"max_tokens":40)",  // the request's id gives the seed
        R"("temperature":0.7,"presence_penalty":0.8,"frequency_penalty":0.5,"max_tokens":40)"}) {
    const v1::Assign whole = assign("request-7", body(kPrompts[0], more));
    const Got undisturbed = run(whole);
    for (const std::size_t k : {1, 2, 9, 25}) {
      const Got rest = run(resume(whole, undisturbed, k));
      EXPECT_EQ(undisturbed.text.substr(0, undisturbed.text_bytes_after[k - 1]) + rest.text,
                undisturbed.text)
          << more << " " << k;
    }
  }
}

TEST_F(LlamaEngine, SeedsMatter) {
  const auto with_seed = [&](int seed) {
    return run(body(kPrompts[0],
                    R"("temperature":1,"max_tokens":24,"seed":)" + std::to_string(seed)))
        .text;
  };
  EXPECT_EQ(with_seed(1), with_seed(1));
  EXPECT_NE(with_seed(1), with_seed(2));
}

TEST_F(LlamaEngine, HandsOutEveryTokenAndWholeCharacters) {
  const Got got = run(body(kPrompts[2], R"("temperature":0,"max_tokens":64)"));
  std::size_t without_text = 0;
  std::size_t before = 0;
  for (const std::size_t after : got.text_bytes_after) {
    without_text += after == before ? 1 : 0;
    before = after;
    // No character is ever cut: the next byte doesn't continue one.
    if (after < got.text.size()) {
      EXPECT_NE(static_cast<unsigned char>(got.text[after]) & 0xC0, 0x80);
    }
  }
  EXPECT_GT(without_text, 0U) << "this answer should have characters of several tokens: "
                              << got.text;
}

TEST_F(LlamaEngine, StopStringsAcrossTokensAreHeldBackAndResumed) {
  const Got free = run(body(kPrompts[0], kMore));
  // From inside one token to inside another.
  const std::string stop = free.text.substr(free.text_bytes_after[19] - 2, 9);
  ASSERT_EQ(stop.find_first_of("\"\\\n"), std::string::npos) << "choose another place: " << stop;
  const v1::Assign whole = assign("r", body(kPrompts[0], kMore + R"(,"stop":[")" + stop + R"("])"));
  const Got got = run(whole);
  EXPECT_EQ(got.finish_reason, "stop");
  EXPECT_EQ(got.text, free.text.substr(0, free.text.find(stop)));
  ASSERT_LT(got.tokens.size(), free.tokens.size());
  for (std::size_t k = 0; k < got.tokens.size(); ++k) {
    const Got rest = run(resume(whole, got, k));
    const std::size_t bytes = k == 0 ? 0 : got.text_bytes_after[k - 1];
    ASSERT_EQ(got.text.substr(0, bytes) + rest.text, got.text) << k;
    ASSERT_EQ(rest.finish_reason, "stop");
  }
}

TEST_F(LlamaEngine, ResumedAtTheVeryEndItOnlyFinishes) {
  const v1::Assign whole = assign("r", body(kPrompts[0], R"("temperature":0,"max_tokens":5)"));
  const Got got = run(whole);
  const Got rest = run(resume(whole, got, 5));
  EXPECT_TRUE(rest.tokens.empty());
  EXPECT_EQ(rest.text, "");
  EXPECT_EQ(rest.finish_reason, "length");
  EXPECT_TRUE(rest.started);
}

TEST_F(LlamaEngine, TextThatWasNotHandedOutComesAfterResuming) {
  const v1::Assign whole = assign("r", body(kPrompts[0], kMore));
  const Got got = run(whole);
  v1::Assign late = resume(whole, got, 10);
  late.mutable_resume(0)->set_text(got.text.substr(0, got.text_bytes_after[6]));
  EXPECT_EQ(got.text.substr(0, got.text_bytes_after[6]) + run(late).text, got.text);
}

TEST_F(LlamaEngine, TogetherTheyAnswerAsAlone) {
  std::vector<v1::Assign> assigns;
  std::map<std::string, std::string> alone;
  for (int i = 0; i < 8; ++i) {
    const std::string request = "r" + std::to_string(i);
    assigns.push_back(
        assign(request, body(kPrompts[i % 4] + " Please, number " + std::to_string(i), kMore)));
    alone[request] = run(assigns.back()).text;
  }
  // Other slots, so that nothing comes from their caches.
  std::swap(assigns[0], assigns[7]);
  std::swap(assigns[2], assigns[5]);
  std::map<std::string, Got> together = run_all(assigns);
  for (const auto& [request, text] : alone) EXPECT_EQ(together[request].text, text) << request;
}

TEST_F(LlamaEngine, PrefixesAreReusedAndChangeNothing) {
  std::string story = "Once upon a time there was a courier who";
  for (int i = 0; i < 12; ++i)
    story += " rode to station " + std::to_string(i) + " and wrote it down;";
  const Got cold = run(body(story + " What did the courier do?", kMore));
  run(body(story + " Who was the courier?", kMore));
  const Got warm = run(body(story + " What did the courier do?", kMore));
  EXPECT_GT(warm.cached_prompt_tokens, warm.prompt_tokens / 2);
  EXPECT_LT(warm.cached_prompt_tokens, warm.prompt_tokens);
  EXPECT_EQ(warm.text, cold.text);
}

TEST_F(LlamaEngine, ALongPromptDoesNotStopTheOthers) {
  got_.clear();
  engine_->start(
      assign("short", body("Count to one hundred.", R"("temperature":0,"max_tokens":40)")));
  while (got_["short"].tokens.size() < 4) step();
  std::string prompt;
  for (int i = 0; i < 100; ++i) prompt += "word " + std::to_string(i) + ", ";
  engine_->start(assign("long", body(prompt, R"("temperature":0,"max_tokens":4)")));
  const std::size_t before = got_["short"].tokens.size();
  int steps = 0;
  while (got_["long"].tokens.empty()) {
    step();
    ++steps;
    EXPECT_TRUE(got_["long"].started) << "a prompt that was taken is told at once";
  }
  EXPECT_GT(steps, 3);
  EXPECT_EQ(got_["short"].tokens.size(), before + steps);
  while (!engine_->idle()) step();
}

TEST_F(LlamaEngine, TokensTravelTogetherButForTheFirstAndTheLast) {
  const Got undisturbed = run(body(kPrompts[0], kMore));
  auto opened = open_llama_engine({.model_file = kModel,
                                   .slots = 1,
                                   .context_tokens = 1024,
                                   .report_every = std::chrono::hours(1)});
  ASSERT_TRUE(opened) << opened.error().message;
  Engine& seldom = **opened;
  seldom.start(assign("r", body(kPrompts[0], kMore)));
  Got got;
  std::vector<std::size_t> tokens_told;
  for (int i = 0; i < 200 && !seldom.idle(); ++i) {
    v1::Step out;
    seldom.step(out);
    for (const v1::Output& output : out.outputs()) {
      if (output.token_ids_size() > 0) tokens_told.push_back(output.token_ids_size());
      got.add(output);
    }
  }
  EXPECT_EQ(tokens_told, (std::vector<std::size_t>{1, undisturbed.tokens.size() - 1}));
  EXPECT_EQ(got.text, undisturbed.text);
  EXPECT_EQ(got.tokens, undisturbed.tokens);
  EXPECT_EQ(got.finish_reason, undisturbed.finish_reason);
}

TEST_F(LlamaEngine, CancelFreesTheSlotAtTheNextStep) {
  got_.clear();
  const v1::Assign one = assign("r", body(kPrompts[0], kMore));
  engine_->start(one);
  step();
  engine_->cancel(one.fence());
  v1::Fence unknown = one.fence();
  unknown.set_attempt(9);
  engine_->cancel(unknown);
  step();
  EXPECT_TRUE(got_["r"].dropped);
  EXPECT_TRUE(engine_->idle());
  EXPECT_EQ(got_["r"].tokens.size(), 1U);
}

TEST_F(LlamaEngine, RefusesWhatDoesNotFit) {
  std::string prompt;
  for (int i = 0; i < 1200; ++i) prompt += " horse";
  const Got got = run(body(prompt));
  EXPECT_EQ(got.failure_code, "context_length_exceeded");
  EXPECT_NE(got.failure_message.find("1024"), std::string::npos) << got.failure_message;
  EXPECT_FALSE(got.started);
  EXPECT_EQ(run("{\"model\":1}").failure_code, "invalid_argument");
  v1::Assign other = assign("r", body("Hello"));
  other.mutable_envelope()->set_type("waystation.embedding.request.v1");
  EXPECT_EQ(run(other).failure_code, "invalid_argument");
  v1::Assign foreign = assign("r", body("Hello"));
  foreign.add_resume()->add_token_ids(1u << 30);
  EXPECT_EQ(run(foreign).failure_code, "invalid_argument");
}

TEST_F(LlamaEngine, EndsWhenTheContextIsFull) {
  std::string prompt;
  for (int i = 0; i < 960; ++i) prompt += " horse";
  const Got got = run(body(prompt, R"("temperature":0,"max_tokens":4000)"));
  if (got.finish_reason == "length") {
    EXPECT_EQ(got.prompt_tokens + got.tokens.size(), 1024U);
  } else {
    EXPECT_EQ(got.finish_reason, "stop");
  }
  EXPECT_GT(got.tokens.size(), 0U);
}

TEST(LlamaEngineOpen, SaysWhatIsWrong) {
  EXPECT_EQ(open_llama_engine({.model_file = "/nowhere/model.gguf"}).error().code, Code::kNotFound);
  EXPECT_EQ(open_llama_engine({.model_file = "/proc/self/exe"}).error().code,
            Code::kInvalidArgument);
  EXPECT_EQ(open_llama_engine({.model_file = kModel, .slots = 0}).error().code,
            Code::kInvalidArgument);
  EXPECT_EQ(open_llama_engine({.model_file = kModel, .threads = 0}).error().code,
            Code::kInvalidArgument);
}

}  // namespace
}  // namespace waystation::engine
