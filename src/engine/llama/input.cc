#include "engine/llama/input.h"

#include <common.h>
#include <fmt/format.h>

#include "engine/llama/text.h"

namespace waystation::engine {

Result<std::vector<llama_token>> tokens_of_input(const Model& model,
                                                 const message::TokenInput& input,
                                                 const std::string& param) {
  if (const auto* text = std::get_if<std::string>(&input)) {
    return common_tokenize(model.vocab(), *text, true, false);
  }
  const auto vocabulary = static_cast<std::uint32_t>(llama_vocab_n_tokens(model.vocab()));
  std::vector<llama_token> tokens;
  for (const std::uint32_t id : std::get<std::vector<std::uint32_t>>(input)) {
    if (id >= vocabulary) {
      return Error{Code::kInvalidArgument,
                   fmt::format("{}: the model has no token {}; its ids go from 0 to {}", param, id,
                               vocabulary - 1),
                   param};
    }
    tokens.push_back(static_cast<llama_token>(id));
  }
  return tokens;
}

std::string text_of_input(const Model& model, const message::TokenInput& input) {
  if (const auto* text = std::get_if<std::string>(&input)) return *text;
  Utf8Decoder decoder;
  std::string text;
  for (const std::uint32_t id : std::get<std::vector<std::uint32_t>>(input)) {
    decoder.push(model.piece(static_cast<llama_token>(id)), text);
  }
  decoder.finish(text);
  return text;
}

}  // namespace waystation::engine
