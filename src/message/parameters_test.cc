// The table of parameters in docs/openai.md is what the parsers do: each row is tried.
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <sstream>

#include "message/chat.h"
#include "message/completion.h"
#include "message/embedding.h"

namespace waystation::message {
namespace {

struct Row {
  std::string parameter;
  std::map<std::string, std::string> says;  // api → word
};

std::vector<std::string> cells(const std::string& line) {
  std::vector<std::string> out;
  std::istringstream in(line.substr(1));
  for (std::string cell; std::getline(in, cell, '|');) {
    const std::size_t first = cell.find_first_not_of(' ');
    out.push_back(first == std::string::npos
                      ? ""
                      : cell.substr(first, cell.find_last_not_of(' ') + 1 - first));
  }
  return out;
}

// The first table whose header begins with "parameter" and "chat".
std::vector<Row> table() {
  std::ifstream file(WS_DOCS_DIR "/openai.md");
  std::vector<Row> rows;
  std::vector<std::string> header;
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with('|')) {
      if (!rows.empty()) break;
      header.clear();
      continue;
    }
    const auto row = cells(line);
    if (header.empty()) header = row;
    if (header[0] != "parameter" || header[1] != "chat" || !row[0].starts_with('`')) continue;
    Row out{row[0].substr(1, row[0].size() - 2), {}};
    for (std::size_t i = 1; i < 4; ++i) out.says[header[i]] = row[i];
    rows.push_back(std::move(out));
  }
  return rows;
}

// A value that does something, and what else must be there for it.
struct Example {
  std::string value;
  std::string others = {};
  std::map<std::string, std::string> by_api = {};  // another value for an API
};

const std::string kTool = R"([{"type":"function","function":{"name":"f"}}])";

const std::map<std::string, Example> kExamples{
    {"model", {R"("m")"}},
    {"messages", {R"([{"role":"user","content":"x"}])"}},
    {"prompt", {R"("x")"}},
    {"input", {R"("x")"}},
    {"dimensions", {"8"}},
    {"encoding_format", {R"("base64")"}},
    {"temperature", {"0.5"}},
    {"top_p", {"0.5"}},
    {"top_k", {"5"}},
    {"min_p", {"0.1"}},
    {"seed", {"5"}},
    {"stop", {R"(["x"])"}},
    {"max_completion_tokens", {"5"}},
    {"max_tokens", {"5"}},
    {"presence_penalty", {"1"}},
    {"frequency_penalty", {"1"}},
    {"logit_bias", {R"({"5":1})"}},
    {"n", {"2"}},
    {"best_of", {"2"}},
    {"echo", {"true"}},
    {"suffix", {R"("x")"}},
    {"logprobs", {"true", "", {{"completions", "3"}}}},
    {"top_logprobs", {"3", R"("logprobs":true)"}},
    {"stream", {"true"}},
    {"stream_options", {R"({"include_usage":true})", R"("stream":true)"}},
    {"tools", {kTool}},
    {"tool_choice", {R"("required")", R"("tools":)" + kTool}},
    {"parallel_tool_calls", {"false"}},
    {"functions", {R"([{"name":"f"}])"}},
    {"function_call", {R"("auto")"}},
    {"response_format", {R"({"type":"json_object"})"}},
    {"reasoning_effort", {R"("low")"}},
    {"service_tier", {R"("flex")"}},
    {"metadata", {R"({"a":"b"})"}},
    {"store", {"true"}},
    {"user", {R"("u")"}},
    {"safety_identifier", {R"("u")"}},
    {"prompt_cache_key", {R"("k")"}},
    {"prompt_cache_retention", {R"("24h")"}},
    {"prompt_cache_options", {"{}"}},
    {"prediction", {R"({"type":"content","content":"x"})"}},
    {"modalities", {R"(["audio"])"}},
    {"audio", {R"({"voice":"x"})"}},
    {"web_search_options", {"{}"}},
    {"moderation", {"{}"}},
    {"verbosity", {R"("low")"}},
    {"grammar", {R"("root ::= x")"}},
    {"json_schema", {"{}"}},
    {"guided_json", {"{}"}},
    {"guided_regex", {R"("x")"}},
    {"guided_choice", {R"(["x"])"}},
    {"guided_grammar", {R"("x")"}},
    {"structured_outputs", {"{}"}},
};

// The error of a body with this parameter; empty when it is taken.
Error refusal(const std::string& api, const std::string& parameter, const std::string& value,
              const std::string& others) {
  std::map<std::string, std::string> members{{"model", R"("m")"}};
  if (api == "chat") members["messages"] = R"([{"role":"user","content":"x"}])";
  if (api == "completions") members["prompt"] = R"("x")";
  if (api == "embeddings") members["input"] = R"("x")";
  members[parameter] = value;
  std::string body = "{";
  for (const auto& [name, text] : members) body += "\"" + name + "\":" + text + ",";
  body += others.empty() ? R"("":0})" : others + "}";
  const auto error_of = [](const auto& result) { return result ? Error{} : result.error(); };
  if (api == "chat") return error_of(parse_chat_request(body));
  if (api == "completions") return error_of(parse_completion_request(body));
  return error_of(parse_embedding_request(body));
}

bool is_about(const Error& error, const std::string& parameter) {
  return error.param == parameter || error.param.starts_with(parameter + ".") ||
         error.param.starts_with(parameter + "[");
}

TEST(Parameters, TheTableIsWhatTheParsersDo) {
  const auto rows = table();
  ASSERT_FALSE(rows.empty()) << "no table in " WS_DOCS_DIR "/openai.md";
  for (const Row& row : rows) {
    ASSERT_TRUE(kExamples.contains(row.parameter)) << row.parameter << " has no example here";
    const Example& example = kExamples.at(row.parameter);
    for (const auto& [api, word] : row.says) {
      const std::string at = row.parameter + " of " + api;
      const auto other = example.by_api.find(api);
      const std::string value = other == example.by_api.end() ? example.value : other->second;
      const std::string others = word == "–" ? "" : example.others;
      const Error error = refusal(api, row.parameter, value, others);
      if (word == "refused") {
        EXPECT_TRUE(is_about(error, row.parameter)) << at << ": " << error.message;
      } else if (word == "honoured" || word == "kept") {
        EXPECT_EQ(error.message, "") << at;
        const Error nonsense = refusal(api, row.parameter, R"([[{"x":[]}]])", others);
        EXPECT_TRUE(is_about(nonsense, row.parameter)) << at << " takes nonsense";
      } else if (word == "ignored" || word == "–") {
        EXPECT_EQ(error.message, "") << at;
        EXPECT_EQ(refusal(api, row.parameter, "[[5]]", others).message, "") << at;
      } else {
        ADD_FAILURE() << at << " is '" << word << "', which says nothing";
      }
    }
  }
  EXPECT_EQ(rows.size(), kExamples.size()) << "an example is not in the table";
}

}  // namespace
}  // namespace waystation::message
