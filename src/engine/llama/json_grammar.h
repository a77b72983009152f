// Grammars that hold an answer to a JSON schema. What a schema may say: message/json_schema.h.
#pragma once

#include <functional>
#include <string>

#include "base/result.h"

namespace waystation::engine {

// Writes rules into a grammar.
class GrammarWriter {
 public:
  virtual ~GrammarWriter() = default;
  // Adds "name ::= rule" and returns the name under which it stands.
  virtual std::string rule(const std::string& name, const std::string& rule) = 0;
  // Adds the rules for a normal schema's values and returns the name of theirs. Throws what
  // llama-common throws.
  virtual std::string schema(const std::string& name, const std::string& normal_schema) = 0;
};

// GBNF. `write` has to add the rule "root". White space between JSON's tokens is at most one space:
// small models would write it without end. kInvalidArgument when llama-common can't convert a
// schema.
Result<std::string> make_grammar(const std::function<void(GrammarWriter&)>& write,
                                 const std::string& param);

// A grammar of exactly one JSON value.
Result<std::string> grammar_of_schema(const std::string& normal_schema, const std::string& param);

// A grammar of llama-common's with numbers that doubles hold and strings that are characters.
std::string plain_json_grammar(const std::string& grammar);

// `text` as a literal.
std::string grammar_literal(const std::string& text);

}  // namespace waystation::engine
