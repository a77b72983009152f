#include <optional>
#include <utility>

#include "engine/llama/own_tools.h"
#include "engine/llama/parsers.h"

namespace waystation::engine {
namespace {

constexpr std::string_view kMark = "<tool_call";  // kCallStart without its end

bool continues_word(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

// Reads a fixed sequence of JSON's pieces with white space between them.
class Cursor {
 public:
  enum class State { kGood, kShort, kWrong };

  explicit Cursor(std::string_view text) : text_(text) {}

  Cursor& expect(std::string_view word) {
    if (state_ != State::kGood) return *this;
    skip_blank();
    const std::string_view rest = text_.substr(at_);
    if (rest.starts_with(word)) {
      at_ += word.size();
    } else {
      state_ = word.starts_with(rest) ? State::kShort : State::kWrong;
    }
    return *this;
  }

  // Up to the next quote.
  Cursor& name(std::string& out) {
    if (state_ != State::kGood) return *this;
    const std::size_t end = text_.find('"', at_);
    if (end == std::string_view::npos) {
      state_ = State::kShort;
      return *this;
    }
    out = text_.substr(at_, end - at_);
    at_ = end + 1;
    return *this;
  }

  void skip_blank() {
    const std::size_t next = text_.find_first_not_of(kBlank, at_);
    at_ = next == std::string_view::npos ? text_.size() : next;
  }

  State state() const { return state_; }
  std::size_t at() const { return at_; }

 private:
  std::string_view text_;
  std::size_t at_ = 0;
  State state_ = State::kGood;
};

class OwnToolsParser final : public AnswerParser {
 public:
  explicit OwnToolsParser(std::string id_seed) : id_seed_(std::move(id_seed)) {}

  void push(std::string_view text, Delta& out) override {
    held_ += text;
    while (step(out)) {
    }
  }

  void finish(Delta& out) override {
    // An unfinished head is neither call nor text.
    if (state_ == State::kText && calls_ == 0) out.text += held_;
    held_.clear();
  }

  bool in_text() const override { return state_ == State::kText && calls_ == 0; }
  bool in_reasoning() const override { return false; }
  std::uint32_t calls() const override { return calls_; }

 private:
  enum class State { kText, kHead, kArguments, kTail };

  // Goes on as far as one state reaches. False: more text is needed.
  bool step(Delta& out) {
    switch (state_) {
      case State::kText:
        return read_text(out);
      case State::kHead:
        return read_head(out);
      case State::kArguments:
        return read_arguments(out);
      case State::kTail:
        return read_tail(out);
    }
    return false;
  }

  bool read_text(Delta& out) {
    std::size_t at = held_.find(kMark, seen_);
    while (at != std::string::npos && at + kMark.size() < held_.size() &&
           continues_word(held_[at + kMark.size()])) {
      seen_ = at + kMark.size();
      at = held_.find(kMark, seen_);
    }
    const bool found = at != std::string::npos;
    std::size_t keep = found ? at : held_.size() - begun(held_, kMark);
    const bool call = found && at + kMark.size() < held_.size();
    // White space before a call isn't text, so it waits.
    while (keep > 0 && kBlank.contains(held_[keep - 1])) --keep;
    say(keep, out);
    if (call) state_ = State::kHead;
    return call;
  }

  // Between calls there is no text.
  void say(std::size_t bytes, Delta& out) {
    if (calls_ == 0) out.text += held_.substr(0, bytes);
    held_.erase(0, bytes);
    seen_ -= std::min(seen_, bytes);
  }

  bool read_head(Delta& out) {
    std::string name;
    Cursor cursor(held_);
    cursor.expect(kCallStart).expect("{").expect("\"name\"").expect(":").expect("\"").name(name);
    cursor.expect(",").expect("\"arguments\"").expect(":").expect("{");
    if (cursor.state() == Cursor::State::kShort) return false;
    if (cursor.state() == Cursor::State::kWrong) {  // written without the grammar: text
      state_ = State::kText;
      seen_ = held_.find(kMark) + kMark.size();
      return true;
    }
    v1::ToolCallDelta& call = out.call(calls_);
    call.set_id(tool_call_id(id_seed_, calls_));
    call.set_name(name);
    ++calls_;
    held_.erase(0, cursor.at() - 1);
    depth_ = 0;
    in_string_ = escaped_ = false;
    state_ = State::kArguments;
    return true;
  }

  bool read_arguments(Delta& out) {
    std::size_t at = 0;
    bool over = false;
    while (at < held_.size() && !over) {
      const char c = held_[at++];
      if (in_string_) {
        in_string_ = escaped_ || c != '"';
        escaped_ = !escaped_ && c == '\\';
      } else if (c == '"') {
        in_string_ = true;
      } else if (c == '{' || c == '[') {
        ++depth_;
      } else if (c == '}' || c == ']') {
        over = --depth_ == 0;
      }
    }
    if (at > 0) out.call(calls_ - 1).mutable_arguments()->append(held_, 0, at);
    held_.erase(0, at);
    if (over) state_ = State::kTail;
    return over;
  }

  bool read_tail(Delta&) {
    Cursor cursor(held_);
    cursor.expect("}").expect(kCallEnd);
    if (cursor.state() == Cursor::State::kShort) return false;
    if (cursor.state() == Cursor::State::kGood) held_.erase(0, cursor.at());
    seen_ = 0;
    state_ = State::kText;
    return true;
  }

  std::string id_seed_;
  State state_ = State::kText;
  std::uint32_t calls_ = 0;
  std::string held_;
  std::size_t seen_ = 0;  // of held_: no call begins before
  // Of the arguments.
  int depth_ = 0;
  bool in_string_ = false;
  bool escaped_ = false;
};

}  // namespace

std::unique_ptr<AnswerParser> make_own_tools_parser(std::string id_seed) {
  return std::make_unique<OwnToolsParser>(std::move(id_seed));
}

}  // namespace waystation::engine
