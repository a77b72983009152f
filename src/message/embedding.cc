#include "message/embedding.h"

#include <boost/json.hpp>
#include <limits>

#include "message/parameters.h"
#include "message/token_input.h"

namespace waystation::message {

Result<EmbeddingRequest> parse_embedding_request(std::string_view body) {
  auto document = fields::parse_body(body);
  if (!document) return document.error();
  const fields::Object& object = document->get_object();
  EmbeddingRequest out;
  auto model = parse_model(object);
  if (!model) return model.error();
  out.model = std::move(*model);
  auto inputs = parse_inputs(object, "input", kEmbeddingInputsMax, false);
  if (!inputs) return inputs.error();
  out.inputs = std::move(*inputs);
  auto dimensions = fields::integer(object, "dimensions", "dimensions", 1, 1 << 20);
  if (!dimensions) return dimensions.error();
  if (*dimensions) out.dimensions = static_cast<std::uint32_t>(**dimensions);
  auto format = fields::one_of(object, "encoding_format", "encoding_format", {"float", "base64"});
  if (!format) return format.error();
  out.base64 = *format == "base64";
  if (auto status = check_labels(object); !status) return status.error();
  return out;
}

}  // namespace waystation::message
