#include "stream/render/chunks.h"

#include "message/json.h"
#include "message/openai.h"

namespace waystation::stream {

std::string object_head(const RenderIdentity& identity, std::string_view prefix,
                        std::string_view object) {
  std::string out = "{\"id\":\"";
  out += prefix;
  out += identity.id.to_string();
  out += "\",\"object\":\"";
  out += object;
  out += "\",\"created\":" + std::to_string(identity.accepted_ms / 1000) + ",\"model\":";
  message::append_json_string(out, identity.model);
  return out;
}

void append_text_or_null(std::string& out, std::string_view text) {
  if (text.empty()) {
    out += "null";
  } else {
    message::append_json_string(out, text);
  }
}

void ChunkRenderer::on_ending(FrameSink& out, const Ending& ending) {
  if (ending.state != v1::REQUEST_STATE_COMPLETED) return on_error(out, error_of(ending));
  out.frame("", "[DONE]");
}

void ChunkRenderer::on_error(FrameSink& out, const Error& error) {
  out.frame("", message::openai_error_body(error));
}

}  // namespace waystation::stream
