// The sampler under grammars, with the vocabulary of the real small model: what it chooses is what
// the plain way chooses, which strikes out of the whole vocabulary what the grammar forbids and
// chooses among the rest.
#include "engine/llama/sampler.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <map>
#include <random>

#include <common.h>
#include <gtest/gtest.h>

#include "engine/llama/json_grammar.h"
#include "engine/llama/random.h"

namespace waystation::engine {
namespace {

const std::filesystem::path kModel =
    std::filesystem::path(WAYSTATION_MODELS_DIR) / "SmolLM2-135M-Instruct.Q4_1.gguf";

// The plain way: everything is asked about, sorted and summed up.
class Plain {
 public:
  Plain(const Model& model, const Sampling& sampling)
      : grammar_(llama_sampler_init_grammar(model.vocab(), sampling.grammar.text.c_str(), "root")),
        sampling_(sampling) {}

  // The likeliest first.
  std::vector<llama_token_data> allowed(const std::vector<float>& logits) {
    std::vector<llama_token_data> tokens;
    for (std::size_t i = 0; i < logits.size(); ++i) {
      tokens.push_back({static_cast<llama_token>(i), logits[i], 0});
    }
    for (const auto& [token, bias] : sampling_.logit_bias) {
      tokens[static_cast<std::size_t>(token)].logit += bias;
    }
    for (const auto& [token, count] : counts_) {
      tokens[static_cast<std::size_t>(token)].logit -=
          static_cast<float>(count * sampling_.frequency_penalty + sampling_.presence_penalty);
    }
    llama_token_data_array array{tokens.data(), tokens.size(), -1, false};
    llama_sampler_apply(grammar_.get(), &array);
    std::erase_if(tokens, [](const auto& token) { return token.logit < -1e30F; });
    std::ranges::stable_sort(tokens, std::greater(), &llama_token_data::logit);
    return tokens;
  }

  // Those among which is drawn.
  std::vector<llama_token_data> kept(const std::vector<float>& logits) {
    std::vector<llama_token_data> tokens = allowed(logits);
    const double best = tokens[0].logit;
    const auto weight = [best](const auto& token) { return std::exp(token.logit - best); };
    if (sampling_.top_k > 0) {
      tokens.resize(std::min(tokens.size(), static_cast<std::size_t>(sampling_.top_k)));
    }
    double sum = 0;
    for (const auto& token : tokens) sum += weight(token);
    double until = 0;
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      until += weight(tokens[i]);
      if (sampling_.top_p < 1 && until >= sampling_.top_p * sum) tokens.resize(i + 1);
    }
    std::erase_if(tokens, [&](const auto& token) { return weight(token) < sampling_.min_p; });
    return tokens;
  }

  llama_token sample(const std::vector<float>& logits) {
    if (sampling_.temperature == 0) return allowed(logits)[0].id;
    std::vector<llama_token_data> tokens = kept(logits);
    const std::uint64_t random = random_at(sampling_.seed, index_);
    for (auto& token : tokens) {
      token.logit = token.logit / static_cast<float>(sampling_.temperature) +
                    gumbel(random_at(random, static_cast<std::uint64_t>(token.id)));
    }
    return std::ranges::max_element(tokens, {}, &llama_token_data::logit)->id;
  }

  void accept(llama_token token) {
    llama_sampler_accept(grammar_.get(), token);
    ++counts_[token];
    ++index_;
  }

 private:
  llama_sampler_ptr grammar_;
  Sampling sampling_;
  std::map<llama_token, int> counts_;
  std::uint64_t index_ = 0;
};

class SamplerTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (!std::filesystem::exists(kModel)) return;
    auto loaded =
        Model::load({.model_file = kModel, .slots = 1, .context_tokens = 512, .threads = 1});
    ASSERT_TRUE(loaded) << loaded.error().message;
    model_ = std::move(*loaded);
  }
  static void TearDownTestSuite() { model_.reset(); }
  void SetUp() override {
    if (!model_) GTEST_SKIP() << "no " << kModel << ": run `make models`";
  }

  static std::size_t vocabulary() {
    return static_cast<std::size_t>(llama_vocab_n_tokens(model_->vocab()));
  }
  static llama_token only_token(const std::string& text) {
    const auto tokens = common_tokenize(model_->vocab(), text, false, true);
    EXPECT_EQ(tokens.size(), 1u) << text;
    return tokens[0];
  }
  static Sampler sampler(const Sampling& sampling) {
    auto made = Sampler::make(*model_, sampling, 0);
    EXPECT_TRUE(made) << made.error().message;
    return std::move(*made);
  }
  static std::string schema(const std::string& json) {
    auto made = grammar_of_schema(json, "x");
    EXPECT_TRUE(made) << made.error().message;
    return *made;
  }

  static std::unique_ptr<Model> model_;
};

std::unique_ptr<Model> SamplerTest::model_;

std::vector<float> random_logits(std::size_t size, float spread, std::mt19937& random) {
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> logits(size);
  for (float& logit : logits) logit = normal(random);
  return logits;
}

// Answers of random tokens, from flat to certain, under settings that decide in all the ways that
// there are.
TEST_F(SamplerTest, ChoosesWhatThePlainWayChooses) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  const std::string grammars[] = {
      schema(R"({"type":"object"})"),
      schema(R"({"type":"object","properties":{"größe":{"type":"integer","minimum":3},"note":
              {"type":"string","maxLength":30},"kind":{"enum":["red","green","言葉","🐎"]}},
              "required":["größe","note","kind"]})"),
      "root ::= [a-z]+ (\" 🐎\" [^x]{3,40} | \"é\" root)?"};
  const Sampling settings[] = {{.temperature = 0},
                               {.temperature = 0, .presence_penalty = 1.5, .logit_bias = {{32, 5}}},
                               {.temperature = 1},
                               {.temperature = 1, .top_p = 0.9},
                               {.temperature = 1.5, .top_p = 0.6, .top_k = 0, .min_p = 0},
                               {.temperature = 0.7, .top_p = 0.95, .top_k = 0, .min_p = 0.3},
                               {.temperature = 1, .top_k = 0, .min_p = 0.1},
                               {.temperature = 2, .top_k = 5, .min_p = 0},
                               {.temperature = 1, .top_k = 1000, .frequency_penalty = 0.5},
                               {.temperature = 0.5, .top_k = 0, .min_p = 0}};
  for (const std::string& grammar : grammars) {
    for (const Sampling& setting : settings) {
      Sampling sampling = setting;
      sampling.seed = random();
      sampling.grammar.text = grammar;
      Sampler quick = sampler(sampling);
      Plain plain(*model_, sampling);
      for (int i = 0; i < 12; ++i) {
        const float spread = std::vector<float>{0.5, 2, 8}[random() % 3];
        const std::vector<float> logits = random_logits(vocabulary(), spread, random);
        const llama_token token = quick.sample(logits);
        ASSERT_EQ(token, plain.sample(logits))
            << grammar << " temperature " << sampling.temperature << " top_p " << sampling.top_p
            << " top_k " << sampling.top_k << " spread " << spread << " token " << i;
        if (llama_vocab_is_eog(model_->vocab(), token)) break;
        quick.accept(token);
        plain.accept(token);
      }
    }
  }
}

// How often each token comes, against how often it has to.
TEST_F(SamplerTest, DrawsAreFair) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::vector<float> logits(vocabulary(), -30);
  // Forbidden ones before, between and behind the allowed ones.
  for (const auto& [text, logit] : std::vector<std::pair<std::string, float>>{
           {"maybe", 4}, {"yes", 2}, {"late", 1.9}, {"no", 1}, {"n", 0}, {"not", 0}, {"p", -1}}) {
    logits[static_cast<std::size_t>(only_token(text))] = logit;
  }
  for (const double min_p : {0.0, 0.2}) {
    for (const double temperature : {1.0, 0.5}) {
      Sampling sampling{.temperature = temperature, .top_k = 0, .min_p = min_p};
      sampling.grammar.text = "root ::= \"yes\" | \"no\" | \"perhaps\"";
      std::map<llama_token, double> wanted;
      double sum = 0;
      for (const auto& token : Plain(*model_, sampling).kept(logits)) {
        if (token.logit > -20) sum += wanted[token.id] = std::exp(token.logit / temperature);
      }
      ASSERT_EQ(wanted.size(), min_p > 0 ? 2u : 4u);
      constexpr int kDraws = 400;
      std::map<llama_token, int> got;
      for (std::uint64_t i = 0; i < kDraws; ++i) {
        sampling.seed = seed + i;
        ++got[sampler(sampling).sample(logits)];
      }
      for (const auto& [token, count] : got) ASSERT_TRUE(wanted.contains(token)) << token;
      for (const auto& [token, weight] : wanted) {
        const double mean = kDraws * weight / sum;
        EXPECT_NEAR(got[token], mean, 5 * std::sqrt(mean) + 1) << model_->piece(token);
      }
    }
  }
}

// "yes" is more than half of what is allowed, but not of what might be when 65 have been asked
// about.
TEST_F(SamplerTest, TopPIsAPartOfWhatIsAllowed) {
  std::vector<float> logits(vocabulary(), -9.5);  // together half of one with 2
  for (llama_token i = 0; i < 60; ++i) logits[static_cast<std::size_t>(i)] = 1.9F;
  logits[static_cast<std::size_t>(only_token("yes"))] = 2;
  logits[static_cast<std::size_t>(only_token("no"))] = 1.95F;
  Sampling sampling{.temperature = 1, .top_p = 0.5, .top_k = 0, .min_p = 0};
  sampling.grammar.text = "root ::= \"yes\" | \"no\"";
  ASSERT_EQ(Plain(*model_, sampling).kept(logits).size(), 1u);
  for (sampling.seed = 0; sampling.seed < 20; ++sampling.seed) {
    EXPECT_EQ(sampler(sampling).sample(logits), only_token("yes"));
  }
}

// What a vocabulary's tokens begin with says nothing about a token that is asked for by its number.
TEST_F(SamplerTest, GrammarsMayNameTokens) {
  const llama_token token = only_token("<|im_start|>");
  Sampling sampling{.temperature = 0};
  sampling.grammar.text = R"(root ::= "\"["? <[)" + std::to_string(token) + "]>";
  std::vector<float> logits(vocabulary(), 1);
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (model_->piece(static_cast<llama_token>(i)).starts_with("\"")) logits[i] = 0;
  }
  logits[static_cast<std::size_t>(token)] = 0.5;
  Sampler one = sampler(sampling);
  EXPECT_EQ(one.sample(logits), token);
  one.accept(token);
  EXPECT_TRUE(llama_vocab_is_eog(model_->vocab(), one.sample(logits)));
}

TEST_F(SamplerTest, ADeadEndIsAnError) {
  Sampling sampling{.temperature = 0};
  sampling.grammar.text = "root ::= \"\\x00\"";
  Sampler one = sampler(sampling);
  EXPECT_THROW(one.sample(std::vector<float>(vocabulary(), 1)), std::exception);
  sampling.grammar.text = "root ::= nothing";
  EXPECT_FALSE(Sampler::make(*model_, sampling, 0));
}

// The whole vocabulary would be 49,152 a token.
TEST_F(SamplerTest, AsksTheGrammarAboutFewTokens) {
  const std::string grammar = schema(R"({"type":"object","properties":{"name":{"type":"string"},
      "age":{"type":"integer","minimum":18,"maximum":65},"story":{"type":"string","minLength":40,
      "maxLength":60},"horse":{"enum":["Bay","Grey"]}},"required":["name","age","story","horse"]})");
  const std::pair<Sampling, std::uint64_t> limits[] = {
      {{.temperature = 0}, 400},
      {{.temperature = 1, .seed = 1}, 400},
      {{.temperature = 1, .top_p = 0.9, .seed = 1}, 400},
      {{.temperature = 1, .top_p = 0.9, .top_k = 0, .min_p = 0, .seed = 1}, 6000},
      {{.temperature = 1, .top_k = 0, .min_p = 0, .seed = 1}, 400}};
  for (const auto& [setting, limit] : limits) {
    Sampling sampling = setting;
    sampling.grammar.text = grammar;
    Sampler one = sampler(sampling);
    llama_memory_clear(llama_get_memory(model_->context()), true);
    auto tokens = common_tokenize(model_->vocab(),
                                  "<|im_start|>user\nDescribe a courier.<|im_end|>\n"
                                  "<|im_start|>assistant\n",
                                  false, true);
    std::uint64_t count = 0;
    while (count < 40) {
      ASSERT_EQ(llama_decode(model_->context(),
                             llama_batch_get_one(tokens.data(), static_cast<int>(tokens.size()))),
                0);
      tokens = {one.sample(model_->logits(-1))};
      ++count;
      if (llama_vocab_is_eog(model_->vocab(), tokens[0])) break;
      one.accept(tokens[0]);
    }
    EXPECT_GE(count, 20u);
    EXPECT_LE(one.checked() / count, limit)
        << "temperature " << sampling.temperature << " top_p " << sampling.top_p << " top_k "
        << sampling.top_k << " tokens " << count;
  }
}

}  // namespace
}  // namespace waystation::engine
