#include "engine/llama/parser.h"

#include "engine/llama/own_tools.h"
#include "engine/llama/parsers.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>
#include <openssl/sha.h>

namespace waystation::engine {
namespace {

// Splits "<think>…</think>answer". The white space around the tags belongs to neither.
class ThinkParser final : public AnswerParser {
 public:
  explicit ThinkParser(const AnswerFormat& format)
      : start_(format.think_start),
        end_(format.think_end),
        state_(format.begins_thinking ? State::kThinking : State::kBegin) {}

  void push(std::string_view text, Delta& out) override {
    held_ += text;
    if (state_ == State::kBegin) begin();
    if (state_ == State::kThinking) think(out);
    if (state_ == State::kAfter) skip_blank();
    if (state_ == State::kText) out.text += std::exchange(held_, {});
  }

  void finish(Delta& out) override {
    (state_ == State::kThinking ? out.reasoning : out.text) += std::exchange(held_, {});
  }

  bool in_text() const override { return state_ == State::kText; }
  bool in_reasoning() const override { return state_ == State::kThinking; }
  std::uint32_t calls() const override { return 0; }

 private:
  enum class State { kBegin, kThinking, kAfter, kText };

  void begin() {
    const std::size_t first = held_.find_first_not_of(kBlank);
    const std::string_view rest =
        first == std::string::npos ? std::string_view() : std::string_view(held_).substr(first);
    if (!start_.empty() && rest.starts_with(start_)) {
      held_.erase(0, first + start_.size());
      state_ = State::kThinking;
    } else if (start_.empty() || !start_.starts_with(rest)) {
      state_ = State::kText;
    }
  }

  void think(Delta& out) {
    if (!thought_) {  // the line break after the tag
      const std::size_t first = held_.find_first_not_of(kBlank);
      held_.erase(0, first);
      if (held_.empty()) return;
      thought_ = true;
    }
    const std::size_t at = held_.find(end_);
    if (at != std::string::npos) {
      std::string_view thought = std::string_view(held_).substr(0, at);
      while (!thought.empty() && kBlank.contains(thought.back())) thought.remove_suffix(1);
      out.reasoning += thought;
      held_.erase(0, at + end_.size());
      state_ = State::kAfter;
      return;
    }
    // White space before the end tag isn't thought, so it waits as well.
    std::size_t keep = begun(held_, end_);
    while (keep < held_.size() && kBlank.contains(held_[held_.size() - keep - 1])) ++keep;
    out.reasoning += held_.substr(0, held_.size() - keep);
    held_.erase(0, held_.size() - keep);
  }

  void skip_blank() {
    held_.erase(0, held_.find_first_not_of(kBlank));
    if (!held_.empty()) state_ = State::kText;
  }

  std::string start_;
  std::string end_;
  State state_;
  bool thought_ = false;
  std::string held_;
};

}  // namespace

v1::ToolCallDelta& Delta::call(std::uint32_t index) {
  const auto found = std::ranges::find(tool_calls, index, &v1::ToolCallDelta::index);
  if (found != tool_calls.end()) return *found;
  v1::ToolCallDelta& made = tool_calls.emplace_back();
  made.set_index(index);
  return made;
}

std::size_t begun(std::string_view text, std::string_view word) {
  for (std::size_t n = std::min(word.size() - 1, text.size()); n > 0; --n) {
    if (text.ends_with(word.substr(0, n))) return n;
  }
  return 0;
}

std::unique_ptr<AnswerParser> make_answer_parser(const AnswerFormat& format, std::string id_seed) {
  if (format.kind == AnswerFormat::Kind::kOwnTools)
    return make_own_tools_parser(std::move(id_seed));
  if (format.kind == AnswerFormat::Kind::kTemplate) {
    return make_template_parser(format, std::move(id_seed));
  }
  if (format.plain()) return nullptr;
  return std::make_unique<ThinkParser>(format);
}

Result<std::string> text_as_written(const AnswerFormat& format, const v1::ChoiceProgress& progress,
                                    std::size_t echo_bytes) {
  std::string out;
  const bool thinks = !format.think_end.empty() && format.kind != AnswerFormat::Kind::kOwnTools;
  const bool answers = progress.text().size() > echo_bytes || progress.tool_calls_size() > 0;
  if (thinks && !progress.reasoning().empty()) {
    if (!format.begins_thinking) out += format.think_start + "\n";
    out += progress.reasoning();
    if (answers) out += "\n" + format.think_end + "\n\n";
  } else if (thinks && format.begins_thinking && answers) {
    out += format.think_end + "\n\n";
  }
  if (progress.text().size() > echo_bytes) out += progress.text().substr(echo_bytes);
  if (progress.tool_calls_size() == 0) return out;
  if (format.kind != AnswerFormat::Kind::kOwnTools) {
    return Error{Code::kUpstream,
                 "another model was writing a tool call, and this one's format for "
                 "calls is its own: nobody can go on from there"};
  }
  for (int i = 0; i < progress.tool_calls_size(); ++i) {
    const v1::ToolCallDelta& call = progress.tool_calls(i);
    out += call_head(call.name()) + call.arguments();
    if (i + 1 < progress.tool_calls_size()) out += "}" + std::string(kCallEnd);
  }
  return out;
}

std::string tool_call_id(std::string_view seed, std::uint32_t index) {
  const std::string text = fmt::format("{}/{}", seed, index);
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest);
  std::string id = "call_";
  for (int i = 0; i < 12; ++i) id += fmt::format("{:02x}", digest[i]);
  return id;
}

}  // namespace waystation::engine
