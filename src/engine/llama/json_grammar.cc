#include "engine/llama/json_grammar.h"

#include <exception>
#include <list>
#include <sstream>
#include <string_view>

#include <fmt/format.h>
#include <json-schema-to-grammar.h>

namespace waystation::engine {
namespace {

// Rules of llama-common's, and what we want instead. Numbers may have an exponent that no double
// can hold; half a surrogate pair is no character.
struct Instead {
  std::string_view name;     // of the rule, or empty
  std::string_view content;  // of the rule, or empty
  std::string_view wanted;
};
constexpr Instead kInstead[] = {
    {"space", "", R"(" "?)"},
    {"", R"(("-"? integral-part) ("." decimal-part)? ([eE] [-+]? integral-part)?)",
     R"(("-"? integral-part) ("." decimal-part)? ([eE] [-+]? [0-9] [0-9]?)?)"},
    {"char", "",
     R"([^"\\\x7F\x00-\x1F\uD800-\uDFFF] | [\\] (["\\bfnrt] | "u" ([0-9a-cA-CefEF] [0-9a-fA-F]{3} | [dD] [0-7] [0-9a-fA-F]{2})))"},
};

std::string tidy(const std::string& grammar, bool space) {
  std::string out;
  std::istringstream lines(grammar);
  for (std::string line; std::getline(lines, line);) {
    const std::size_t at = line.find(" ::= ");
    if (at != std::string::npos) {
      const std::string_view name = std::string_view(line).substr(0, at);
      const std::string_view content = std::string_view(line).substr(at + 5);
      for (const Instead& one : kInstead) {
        if (!space && one.name == "space") continue;  // templates want more between their tags
        if (one.name.empty() ? content == one.content : name == one.name) {
          line = fmt::format("{} ::= {}", name, one.wanted);
          break;
        }
      }
    }
    out += line;
    out += '\n';
  }
  return out;
}

class Writer final : public GrammarWriter {
 public:
  explicit Writer(const common_grammar_builder& builder) : builder_(builder) {}

  std::string rule(const std::string& name, const std::string& rule) override {
    return builder_.add_rule(name, rule);
  }

  std::string schema(const std::string& name, const std::string& normal_schema) override {
    documents_.push_back(common_chat_schema_from_json(common_json::parse(normal_schema)));
    return builder_.add_schema(name, *documents_.back().root);
  }

 private:
  const common_grammar_builder& builder_;
  std::list<common_chat_schema_document> documents_;  // rules are made from them as it goes
};

}  // namespace

Result<std::string> make_grammar(const std::function<void(GrammarWriter&)>& write,
                                 const std::string& param) {
  try {
    return tidy(build_grammar([&write](const common_grammar_builder& builder) {
                  Writer writer(builder);
                  write(writer);
                }),
                true);
  } catch (const std::exception& error) {
    return Error{Code::kInvalidArgument,
                 fmt::format("{} can't be enforced: {}", param, error.what()), param};
  }
}

Result<std::string> grammar_of_schema(const std::string& normal_schema, const std::string& param) {
  return make_grammar(
      [&normal_schema](GrammarWriter& writer) {
        writer.rule("root", writer.schema("json", normal_schema));
      },
      param);
}

std::string plain_json_grammar(const std::string& grammar) {
  return tidy(grammar, false);
}

std::string grammar_literal(const std::string& text) {
  return gbnf_format_literal(text);
}

}  // namespace waystation::engine
