#include "engine/llama/control_text.h"

#include <algorithm>
#include <utility>

#include <common.h>

namespace waystation::engine {
namespace {

bool is_user_text(const message::ChatMessage& message) {
  return message.role == "user" || message.role == "tool";
}

// Letters and digits alone: templates write those as they are, also inside of JSON.
std::string unused_mark(const std::vector<message::ChatMessage>& messages) {
  std::string mark = "Waystation0mark0";
  const auto has_it = [&mark](const message::ChatMessage& message) {
    return message.content.contains(mark);
  };
  while (std::ranges::any_of(messages, has_it)) mark += "0mark0";
  return mark;
}

}  // namespace

ControlText::ControlText(const llama_vocab* vocab) {
  for (llama_token token = 0; token < llama_vocab_n_tokens(vocab); ++token) {
    // Those that llama.cpp looks for.
    const int kind = llama_vocab_get_attr(vocab, token);
    if ((kind & (LLAMA_TOKEN_ATTR_CONTROL | LLAMA_TOKEN_ATTR_UNKNOWN)) == 0) continue;
    std::string text = llama_vocab_get_text(vocab, token);
    if (text.size() < 2) continue;
    begins_[static_cast<unsigned char>(text[0])] = true;
    texts_.push_back(std::move(text));
  }
}

std::size_t ControlText::find(std::string_view text, std::size_t from) const {
  for (; from < text.size(); ++from) {
    if (!begins_[static_cast<unsigned char>(text[from])]) continue;
    const std::string_view rest = text.substr(from);
    if (std::ranges::any_of(texts_, [rest](const auto& one) { return rest.starts_with(one); })) {
      return from;
    }
  }
  return std::string_view::npos;
}

std::string ControlText::mark(std::vector<message::ChatMessage>& messages) const {
  std::string mark;
  for (message::ChatMessage& message : messages) {
    if (!is_user_text(message) || find(message.content, 0) == std::string_view::npos) continue;
    if (mark.empty()) mark = unused_mark(messages);
    std::string marked;
    std::size_t done = 0;
    const std::string& text = message.content;
    for (std::size_t at = find(text, 0); at != std::string_view::npos; at = find(text, at + 1)) {
      std::size_t behind = at + 1;
      while (behind < text.size() && (text[behind] & 0xC0) == 0x80) ++behind;
      marked += text.substr(done, behind - done) + mark;
      done = behind;
    }
    message.content = marked + text.substr(done);
  }
  return mark;
}

std::vector<llama_token> tokens_of_marked(const llama_vocab* vocab, std::string_view text,
                                          const std::string& mark) {
  std::vector<llama_token> tokens;
  bool first = true;
  while (first || !text.empty()) {
    const std::size_t end = mark.empty() ? text.size() : std::min(text.find(mark), text.size());
    const auto piece = common_tokenize(vocab, std::string(text.substr(0, end)), first, true);
    tokens.insert(tokens.end(), piece.begin(), piece.end());
    text.remove_prefix(std::min(end + mark.size(), text.size()));
    first = false;
  }
  return tokens;
}

}  // namespace waystation::engine
