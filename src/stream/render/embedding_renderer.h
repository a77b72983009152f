// OpenAI's embeddings: a list of vectors. The API has no stream; events are lists of the vectors
// that came with them. See renderer.h.
#pragma once

#include <memory>

#include "stream/render/renderer.h"

namespace waystation::stream {

std::unique_ptr<Renderer> make_embedding_renderer(const RenderIdentity& identity);
std::unique_ptr<Collector> make_embedding_collector(const RenderIdentity& identity);

}  // namespace waystation::stream
