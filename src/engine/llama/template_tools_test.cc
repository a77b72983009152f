// Templates that know tools or think, put over the real small model: the prompts, grammars and
// readers are the template's, the text is the model's.
#include <nlohmann/json.hpp>

#include <string>
#include <vector>

#include "engine/llama/testing_fixture.h"

namespace waystation::engine {
namespace {

using nlohmann::json;

constexpr char kWithTools[] = R"({%- if tools %}<|im_start|>system
You can call these tools, each in <tool_call> tags with a name and arguments:
{%- for tool in tools %}
{{ tool | tojson }}
{%- endfor %}<|im_end|>
{% endif %}
{%- for message in messages %}
{%- if message.role == "assistant" and message.tool_calls %}<|im_start|>assistant
{%- if message.content %}
{{ message.content }}
{%- endif %}
{%- for call in message.tool_calls %}
<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>
{%- endfor %}<|im_end|>
{% elif message.role == "tool" %}<|im_start|>user
<tool_response>
{{ message.content }}
</tool_response><|im_end|>
{% else %}<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %})";

constexpr char kThinking[] = R"({%- for message in messages %}
{%- if message.role == "assistant" %}<|im_start|>assistant
{% if message.reasoning_content %}<think>
{{ message.reasoning_content }}
</think>

{% endif %}{{ message.content }}<|im_end|>
{% else %}<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is defined and enable_thinking is false %}<think>

</think>

{% else %}<think>
{% endif %}{% endif %})";

const std::string kTool =
    R"("tools":[{"type":"function","function":{"name":"add","parameters":{"type":"object",
  "properties":{"a":{"type":"integer","minimum":0,"maximum":100},"b":{"type":"integer","minimum":0,"maximum":100}},
  "required":["a","b"],"additionalProperties":false}}}])";

class Templates : public LlamaEngine {
 protected:
  static void SetUpTestSuite() {}
  static void TearDownTestSuite() {}
  void SetUp() override {
    if (!std::filesystem::exists(kModel)) {
      GTEST_SKIP() << "no " << kModel << ": run `make models` to test the real engine";
    }
  }
  void TearDown() override { engine_.reset(); }
  void open(const char* chat_template) {
    auto opened = open_llama_engine({.model_file = kModel,
                                     .model_id = "small",
                                     .slots = 2,
                                     .context_tokens = 1024,
                                     .threads = 1,
                                     .chat_template = chat_template});
    ASSERT_TRUE(opened) << opened.error().message;
    engine_ = std::move(*opened);
  }
};

TEST_F(Templates, ToolsTheTemplatesWay) {
  open(kWithTools);
  for (const std::string choice :
       {R"("required")", R"({"type":"function","function":{"name":"add"}})"}) {
    const v1::Assign whole =
        assign("r", body("What is 3 plus 4?",
                         R"("temperature":0,"max_tokens":100,"parallel_tool_calls":false,)" +
                             kTool + R"(,"tool_choice":)" + choice));
    const Got got = run(whole);
    ASSERT_EQ(got.failure_message, "");
    ASSERT_EQ(got.finish_reason, "tool_calls") << got.text;
    ASSERT_EQ(got.calls.size(), 1u);
    EXPECT_EQ(got.calls[0].name(), "add");
    const json arguments = json::parse(got.calls[0].arguments(), nullptr, false);
    ASSERT_TRUE(arguments.is_object()) << got.calls[0].arguments();
    EXPECT_LE(arguments["a"].get<int>(), 100);
    for (std::size_t k = 1; k < got.tokens.size(); k += choice.front() == '{' ? 7 : 1) {
      const v1::ChoiceProgress& before = got.progress_after[k - 1];
      const Got rest = run(resume(whole, got, k));
      std::string joined;
      std::string name;
      for (const auto& call : before.tool_calls()) joined += call.arguments(), name += call.name();
      for (const auto& call : rest.calls) joined += call.arguments(), name += call.name();
      ASSERT_EQ(joined, got.calls[0].arguments()) << k;
      ASSERT_EQ(name, "add") << k;
      ASSERT_EQ(rest.finish_reason, "tool_calls") << k;
    }
  }
}

TEST_F(Templates, AutoAnswersOrCalls) {
  open(kWithTools);
  const Got got = run(body("Say hello.", R"("temperature":0,"max_tokens":24,)" + kTool));
  EXPECT_EQ(got.failure_message, "");
  EXPECT_FALSE(got.text.empty() && got.calls.empty());
}

TEST_F(Templates, ThinkingIsNoText) {
  open(kThinking);
  got_.clear();
  const v1::Assign whole = assign("r", body("What is 2+2?", R"("temperature":0,"max_tokens":24)"));
  engine_->start(whole);
  std::string reasoning;
  std::uint32_t reasoning_tokens = 0;
  std::string text;
  while (!engine_->idle()) {
    v1::Step out;
    engine_->step(out);
    for (const v1::Output& output : out.outputs()) {
      reasoning += output.reasoning();
      reasoning_tokens += output.reasoning_tokens();
      text += output.text();
      EXPECT_EQ(output.failure().message(), "");
    }
  }
  EXPECT_EQ(text, "") << "the prompt began a thought, and this model doesn't end it";
  EXPECT_FALSE(reasoning.empty());
  EXPECT_GT(reasoning_tokens, 0u);

  // A thought that another model had is over; the answer goes on as text.
  v1::Assign after = whole;
  v1::ChoiceProgress& progress = *after.add_resume();
  progress.set_reasoning("Two and two are four.");
  progress.set_text("It is");
  const Got rest = run(after);
  EXPECT_FALSE(rest.text.empty());
}

TEST_F(Templates, JsonIsNotThoughtAbout) {
  open(kThinking);
  const Got got = run(
      body("A number.", R"("temperature":0,"max_tokens":40,"response_format":{"type":"json_schema",
    "json_schema":{"name":"x","schema":{"type":"object","properties":{"n":{"type":"integer","minimum":0,"maximum":9}},
    "required":["n"]}}})"));
  EXPECT_EQ(got.finish_reason, "stop") << got.failure_message;
  EXPECT_TRUE(json::parse(got.text, nullptr, false).is_object()) << got.text;
}

}  // namespace
}  // namespace waystation::engine
