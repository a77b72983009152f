#include "engine/llama/first_bytes.h"

#include <string>

#include <common.h>

namespace waystation::engine {

FirstBytes::FirstBytes(const llama_vocab* vocab)
    : of_token(static_cast<std::size_t>(llama_vocab_n_tokens(vocab)), kNone) {
  alone.fill(LLAMA_TOKEN_NULL);
  for (std::size_t i = 0; i < of_token.size(); ++i) {
    const auto token = static_cast<llama_token>(i);
    if (llama_vocab_is_eog(vocab, token)) continue;
    const std::string piece = common_token_to_piece(vocab, token, true);
    if (piece.empty() || piece[0] == 0) continue;
    of_token[i] = static_cast<unsigned char>(piece[0]);
    if (piece.size() == 1) alone[of_token[i]] = token;
  }
}

}  // namespace waystation::engine
