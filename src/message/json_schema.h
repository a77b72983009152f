// JSON schemas that an answer has to follow: what can be kept, in a form that grammars are made of.
// Pure.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace waystation::message {

enum class SchemaUse {
  kExact,  // all that the schema says is kept, or it is refused
  kLoose,  // what can't be kept is left out: more is allowed than the schema says
};

// Rewrites a schema so that what a grammar can say, says all of it. Whatever validates against the
// result validates against the schema (kExact); it may say less (objects have no members but those
// that are named, bounds may be narrower). The result has, of keywords: type (one of the seven),
// properties, required, additionalProperties, items, prefixItems, minItems, maxItems, minLength,
// maxLength, pattern (anchored; of classes, groups and repetitions alone), format ("uuid"), minimum
// and maximum (integers, both or none), enum, const, anyOf, $ref to "#/$defs/<prefix><number>".
// kLoose keeps titles and descriptions too. kInvalidArgument with `param` = where the keyword
// stands, as in "response_format.json_schema.schema.properties.age.multipleOf".
Result<std::string> normal_json_schema(std::string_view schema, std::string_view param,
                                       SchemaUse use, std::string_view prefix = "r");

// Whether an answer can be made to follow the schema.
Status check_json_schema(std::string_view schema, std::string_view param);

}  // namespace waystation::message
