// From what a model writes to what a client gets: text, reasoning, tool calls.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "message/proto/records.pb.h"

namespace waystation::engine {

// What a piece of the model's text added to the answer.
struct Delta {
  std::string text;
  std::string reasoning;
  std::vector<v1::ToolCallDelta> tool_calls;  // one entry a call, joined

  bool empty() const { return text.empty() && reasoning.empty() && tool_calls.empty(); }
  // The entry of call `index`.
  v1::ToolCallDelta& call(std::uint32_t index);
};

// How the model's text is to be read. Plain: all of it is the answer.
struct AnswerFormat {
  enum class Kind { kPlain, kOwnTools, kTemplate };
  Kind kind = Kind::kPlain;

  // Thinking stands between these; empty: the model doesn't think.
  std::string think_start;
  std::string think_end;
  bool begins_thinking = false;  // the prompt ends with think_start

  // kTemplate: what llama-common made for the template.
  std::string template_parser;  // serialised
  int template_format = 0;      // common_chat_format
  std::string generation_prompt;
  bool parses_reasoning = false;

  bool plain() const { return kind == Kind::kPlain && think_end.empty(); }
};

// Reads one answer as it comes. A pure function of the text pushed: the same text, in any cut,
// gives the same joined deltas, so that a resumed answer goes on where it was.
class AnswerParser {
 public:
  virtual ~AnswerParser() = default;
  // `text`: whole characters.
  virtual void push(std::string_view text, Delta& out) = 0;
  // The answer is over.
  virtual void finish(Delta& out) = 0;
  // What comes next is text of the answer, as far as is known.
  virtual bool in_text() const = 0;
  virtual bool in_reasoning() const = 0;
  virtual std::uint32_t calls() const = 0;  // tool calls begun
};

// Null for a plain format. `id_seed`: ids of tool calls are a function of it and the call's index.
std::unique_ptr<AnswerParser> make_answer_parser(const AnswerFormat& format, std::string id_seed);

// What the model would have written to give the client what `progress` holds, without its first
// `echo_bytes` of text. kUpstream when that can't be known: a call in a template's own format.
Result<std::string> text_as_written(const AnswerFormat& format, const v1::ChoiceProgress& progress,
                                    std::size_t echo_bytes);

// "call_" and 24 hexadecimal digits.
std::string tool_call_id(std::string_view seed, std::uint32_t index);

}  // namespace waystation::engine
