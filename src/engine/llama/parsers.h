// The parsers behind make_answer_parser, and what they share.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "engine/llama/parser.h"

namespace waystation::engine {

inline constexpr std::string_view kBlank = " \t\r\n";

// The length of the longest end of `text` that `word` begins with, but isn't all of it.
std::size_t begun(std::string_view text, std::string_view word);

// Text with <tool_call> sections as own_tools.h has them.
std::unique_ptr<AnswerParser> make_own_tools_parser(std::string id_seed);

// What llama-common made of the model's own template. It reads all of the answer again with each
// push.
std::unique_ptr<AnswerParser> make_template_parser(const AnswerFormat& format, std::string id_seed);

}  // namespace waystation::engine
