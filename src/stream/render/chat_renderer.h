// OpenAI's chat completions: "chat.completion.chunk" and "chat.completion". See renderer.h.
#pragma once

#include <memory>

#include "stream/render/renderer.h"

namespace waystation::stream {

// One event is one chunk.
std::unique_ptr<Renderer> make_chat_renderer(const RenderIdentity& identity);
std::unique_ptr<Collector> make_chat_collector(const RenderIdentity& identity);

}  // namespace waystation::stream
