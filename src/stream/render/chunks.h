// What the renderers of APIs with chunks share. For this folder's sources only. Pure.
#pragma once

#include <string>
#include <string_view>

#include "stream/render/renderer.h"

namespace waystation::stream {

// {"id":"<prefix><id>","object":…,"created":…,"model":… without the closing brace.
std::string object_head(const RenderIdentity& identity, std::string_view prefix,
                        std::string_view object);

// A string, or null when it is empty.
void append_text_or_null(std::string& out, std::string_view text);

// Ends with "[DONE]", or with an error.
class ChunkRenderer : public Renderer {
 public:
  void on_ending(FrameSink& out, const Ending& ending) override;
  void on_error(FrameSink& out, const Error& error) override;
};

}  // namespace waystation::stream
