#include "engine/llama/embedding_engine.h"

#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "message/embedding.h"

namespace waystation::engine {
namespace {

const std::filesystem::path kModel =
    std::filesystem::path(WAYSTATION_MODELS_DIR) / "SmolLM2-135M-Instruct.Q4_1.gguf";

std::vector<float> numbers(const std::string& bytes) {
  std::vector<float> out(bytes.size() / sizeof(float));
  std::memcpy(out.data(), bytes.data(), bytes.size());
  return out;
}

double product(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += double{a[i]} * b[i];
  return sum;
}

class Embeddings : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (!std::filesystem::exists(kModel)) return;
    auto opened = open_embedding_engine({.model_file = kModel,
                                         .model_id = "small",
                                         .slots = 16,
                                         .context_tokens = 512,
                                         .threads = 1});
    ASSERT_TRUE(opened) << opened.error().message;
    engine_ = std::move(*opened);
  }
  static void TearDownTestSuite() { engine_.reset(); }
  void SetUp() override {
    if (!engine_) GTEST_SKIP() << "no " << kModel << ": run `make models` to test the real engine";
  }

  static v1::Assign assign(const std::string& request, const std::string& input,
                           const std::string& more = "") {
    v1::Assign made;
    made.mutable_fence()->set_request(request);
    made.mutable_envelope()->set_type(std::string(message::kEmbeddingRequestType));
    made.mutable_envelope()->set_data(R"({"model":"small","input":)" + input + more + "}");
    return made;
  }

  std::map<std::string, v1::Output> run(const std::vector<v1::Assign>& assigns) {
    std::map<std::string, v1::Output> outputs;
    for (const v1::Assign& one : assigns) engine_->start(one);
    for (int i = 0; i < 200 && !engine_->idle(); ++i) {
      v1::Step step;
      engine_->step(step);
      for (const v1::Output& output : step.outputs()) {
        EXPECT_TRUE(outputs.emplace(output.fence().request(), output).second);
      }
    }
    EXPECT_TRUE(engine_->idle());
    return outputs;
  }
  v1::Output run(const v1::Assign& one) { return run(std::vector{one}).begin()->second; }

  inline static std::unique_ptr<Engine> engine_;
};

TEST_F(Embeddings, TellsAboutItself) {
  const v1::ModelInfo& info = engine_->models()[0];
  ASSERT_EQ(info.tasks_size(), 1);
  EXPECT_EQ(info.tasks(0), "embedding");
  EXPECT_EQ(info.embedding_length(), 576u);
  EXPECT_EQ(info.context_length(), 512u);
}

TEST_F(Embeddings, AloneAndTogetherAreTheSame) {
  const v1::Output alone = run(assign("a", R"("A horse runs along the road.")"));
  EXPECT_EQ(alone.finish_reason(), "stop");
  ASSERT_EQ(alone.embeddings_size(), 1);
  const auto horse = numbers(alone.embeddings(0));
  ASSERT_EQ(horse.size(), 576u);
  EXPECT_NEAR(product(horse, horse), 1, 1e-5);

  const auto outputs = run(
      {assign("a", R"(["A horse runs along the road.","Le code est en Python."])"),
       assign(
           "b",
           R"(["Stock prices fell today after the bank's report.","A horse runs along the road."])")});
  const v1::Output& both = outputs.at("a");
  ASSERT_EQ(both.embeddings_size(), 2);
  EXPECT_GT(both.prompt_tokens(), alone.prompt_tokens());
  for (const std::string& same : {both.embeddings(0), outputs.at("b").embeddings(1)}) {
    const auto vector = numbers(same);
    for (std::size_t i = 0; i < horse.size(); ++i) ASSERT_NEAR(vector[i], horse[i], 1e-3) << i;
  }
  EXPECT_LT(product(horse, numbers(both.embeddings(1))), 0.999);
  EXPECT_LT(product(horse, numbers(outputs.at("b").embeddings(0))), 0.999);
}

TEST_F(Embeddings, MoreInputsThanOneDecodeTakes) {
  std::string inputs = "[";
  for (int i = 0; i < 150; ++i) {
    inputs += (i > 0 ? "," : "") + std::string("\"text number ") + std::to_string(i % 50) + "\"";
  }
  const v1::Output output = run(assign("a", inputs + "]"));
  ASSERT_EQ(output.embeddings_size(), 150);
  for (int i = 0; i < 50; ++i) {
    EXPECT_NEAR(product(numbers(output.embeddings(i)), numbers(output.embeddings(i + 100))), 1,
                1e-3);
  }
}

TEST_F(Embeddings, DimensionsAndTokenIds) {
  const v1::Output whole = run(assign("a", "[1,2,3,4]"));
  EXPECT_EQ(whole.prompt_tokens(), 4u);
  const v1::Output cut = run(assign("a", "[1,2,3,4]", R"(,"dimensions":64)"));
  const auto few = numbers(cut.embeddings(0));
  ASSERT_EQ(few.size(), 64u);
  EXPECT_NEAR(product(few, few), 1, 1e-5);
  auto beginning = numbers(whole.embeddings(0));
  beginning.resize(64);
  const double length = std::sqrt(product(beginning, beginning));
  for (std::size_t i = 0; i < 64; ++i) EXPECT_NEAR(few[i], beginning[i] / length, 1e-4);
}

TEST_F(Embeddings, RefusesWhatItCannotDo) {
  const auto failure = [&](const v1::Assign& one) { return run(one).failure(); };
  EXPECT_EQ(failure(assign("a", R"("x")", R"(,"dimensions":577)")).param(), "dimensions");
  EXPECT_EQ(failure(assign("a", "[99999999]")).param(), "input");
  std::string longest = "\"";
  for (int i = 0; i < 600; ++i) longest += " horse";
  const v1::Failure too_long = failure(assign("a", longest + "\""));
  EXPECT_EQ(too_long.code(), "context_length_exceeded");
  EXPECT_EQ(too_long.param(), "input");
  v1::Assign chat = assign("a", R"("x")");
  chat.mutable_envelope()->set_type("waystation.chat.request.v1");
  EXPECT_EQ(failure(chat).code(), "invalid_argument");
}

}  // namespace
}  // namespace waystation::engine
