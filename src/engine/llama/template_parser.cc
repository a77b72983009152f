#include <exception>
#include <utility>

#include <chat.h>

#include "engine/llama/parsers.h"

namespace waystation::engine {
namespace {

// Appends what `now` has beyond `before`; nothing when the reading so far was revised.
void append_new(const std::string& before, const std::string& now, std::string& out) {
  if (now.size() > before.size() && now.starts_with(before)) out += now.substr(before.size());
}

class TemplateParser final : public AnswerParser {
 public:
  TemplateParser(const AnswerFormat& format, std::string id_seed) : id_seed_(std::move(id_seed)) {
    params_.format = static_cast<common_chat_format>(format.template_format);
    params_.reasoning_format =
        format.parses_reasoning ? COMMON_REASONING_FORMAT_DEEPSEEK : COMMON_REASONING_FORMAT_NONE;
    params_.generation_prompt = format.generation_prompt;
    if (!format.template_parser.empty()) params_.parser.load(format.template_parser);
  }

  void push(std::string_view text, Delta& out) override {
    raw_ += text;
    read(true, out);
  }

  void finish(Delta& out) override { read(false, out); }

  bool in_text() const override { return known_.tool_calls.empty() && !known_.content.empty(); }
  bool in_reasoning() const override {
    return known_.tool_calls.empty() && known_.content.empty() && !known_.reasoning_content.empty();
  }
  std::uint32_t calls() const override { return told_; }

 private:
  void read(bool partial, Delta& out) {
    common_chat_msg now;
    try {
      now = common_chat_parse(raw_, partial, params_);
    } catch (const std::exception&) {
      return;  // not what the template knows; the next token may make it so
    }
    append_new(known_.reasoning_content, now.reasoning_content, out.reasoning);
    append_new(known_.content, now.content, out.text);
    for (std::size_t i = 0; i < now.tool_calls.size(); ++i) tell(now, i, partial, out);
    keep(std::move(now));
  }

  void tell(const common_chat_msg& now, std::size_t index, bool partial, Delta& out) {
    const common_chat_tool_call& call = now.tool_calls[index];
    const auto number = static_cast<std::uint32_t>(index);
    // A name may still grow until its arguments begin.
    const bool certain = !partial || !call.arguments.empty() || index + 1 < now.tool_calls.size();
    if (number == told_) {
      if (!certain || call.name.empty()) return;
      v1::ToolCallDelta& made = out.call(number);
      made.set_id(tool_call_id(id_seed_, number));
      made.set_name(call.name);
      ++told_;
    }
    if (number >= told_) return;
    const std::string before =
        index < known_.tool_calls.size() ? known_.tool_calls[index].arguments : std::string();
    std::string more;
    append_new(before, call.arguments, more);
    if (!more.empty()) out.call(number).mutable_arguments()->append(more);
  }

  // What was told stays, also when a later reading has less.
  void keep(common_chat_msg now) {
    const auto longer = [](std::string& before, std::string& after) {
      if (after.size() >= before.size() && after.starts_with(before)) before = std::move(after);
    };
    longer(known_.reasoning_content, now.reasoning_content);
    longer(known_.content, now.content);
    for (std::size_t i = 0; i < now.tool_calls.size(); ++i) {
      if (i >= known_.tool_calls.size()) {
        known_.tool_calls.push_back(std::move(now.tool_calls[i]));
      } else {
        longer(known_.tool_calls[i].arguments, now.tool_calls[i].arguments);
      }
    }
  }

  std::string id_seed_;
  common_chat_parser_params params_;
  std::string raw_;
  common_chat_msg known_;
  std::uint32_t told_ = 0;  // calls whose names were told
};

}  // namespace

std::unique_ptr<AnswerParser> make_template_parser(const AnswerFormat& format,
                                                   std::string id_seed) {
  return std::make_unique<TemplateParser>(format, std::move(id_seed));
}

}  // namespace waystation::engine
