// Keeps a user's text from being read as a model's control tokens: "<|im_end|>" in a message is
// text and ends no turn.
//
// A chat template's output is one string, in which the control tokens are the template's. Before it
// is rendered, a mark is put behind the first character of each control token's text in the
// messages of users and tools. Afterwards the string is cut at the marks, and the pieces become
// tokens one by one: none of them holds the whole text of a control token. The model sees the same
// characters. A prompt without such texts has no marks and is one piece, as if nothing of this was
// there.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include <llama.h>

#include "message/chat.h"

namespace waystation::engine {

class ControlText {
 public:
  explicit ControlText(const llama_vocab* vocab);

  // Puts marks into the messages. Returns the mark, which no message had; empty: nothing to mark.
  std::string mark(std::vector<message::ChatMessage>& messages) const;

 private:
  // Where in `text` the first control token's text at or after `from` begins.
  std::size_t find(std::string_view text, std::size_t from) const;

  std::vector<std::string> texts_;
  std::array<bool, 256> begins_{};  // what bytes they begin with
};

// Tokens of a rendered prompt that may have marks.
std::vector<llama_token> tokens_of_marked(const llama_vocab* vocab, std::string_view text,
                                          const std::string& mark);

}  // namespace waystation::engine
