// OpenAI's legacy completions: "text_completion", as chunks and whole. See renderer.h.
#pragma once

#include <memory>

#include "stream/render/renderer.h"

namespace waystation::stream {

// One event is one chunk. A token's text_offset counts from the answer's beginning, so a renderer
// must see all events.
std::unique_ptr<Renderer> make_completion_renderer(const RenderIdentity& identity);
std::unique_ptr<Collector> make_completion_collector(const RenderIdentity& identity);

}  // namespace waystation::stream
