#include "stream/render/embedding_renderer.h"

#include <bit>
#include <cstring>
#include <string>

#include "message/json.h"
#include "stream/render/chunks.h"
#include "stream/render/logprobs.h"

namespace waystation::stream {
namespace {

static_assert(std::endian::native == std::endian::little, "vectors are stored little-endian");

void append_base64(std::string& out, std::string_view bytes) {
  constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    const std::size_t left = std::min<std::size_t>(bytes.size() - i, 3);
    std::uint32_t group = 0;
    for (std::size_t k = 0; k < 3; ++k) {
      group = group << 8 | (k < left ? static_cast<unsigned char>(bytes[i + k]) : 0u);
    }
    out.push_back(kDigits[group >> 18]);
    out.push_back(kDigits[group >> 12 & 63]);
    out.push_back(left > 1 ? kDigits[group >> 6 & 63] : '=');
    out.push_back(left > 2 ? kDigits[group & 63] : '=');
  }
}

void append_floats(std::string& out, std::string_view bytes) {
  out += "[";
  for (std::size_t i = 0; i + sizeof(float) <= bytes.size(); i += sizeof(float)) {
    float value = 0;
    std::memcpy(&value, bytes.data() + i, sizeof value);
    if (i > 0) out += ",";
    append_float(out, value);
  }
  out += "]";
}

// Appends the event's vectors to a list that has `index` of them already.
void append_vectors(std::string& out, const v1::Event& event, bool base64, std::size_t& index) {
  for (const std::string& vector : event.embeddings()) {
    if (index > 0 && out.back() != '[') out += ",";
    out += "{\"object\":\"embedding\",\"index\":" + std::to_string(index++) + ",\"embedding\":";
    if (base64) {
      out += "\"";
      append_base64(out, vector);
      out += "\"";
    } else {
      append_floats(out, vector);
    }
    out += "}";
  }
}

class EmbeddingRenderer final : public ChunkRenderer {
 public:
  explicit EmbeddingRenderer(const RenderIdentity& identity) : identity_(identity) {}

  bool needs_start() const override { return true; }

  void on_event(FrameSink& out, Sequence sequence, const v1::Event& event) override {
    std::string list = "{\"object\":\"list\",\"data\":[";
    append_vectors(list, event, identity_.base64, index_);
    list += "],\"model\":";
    message::append_json_string(list, identity_.model);
    if (identity_.numbered) list += ",\"sequence_number\":" + std::to_string(sequence);
    list += "}";
    out.frame("embedding.list", list);
  }

 private:
  const RenderIdentity identity_;
  std::size_t index_ = 0;
};

class EmbeddingCollector final : public Collector {
 public:
  explicit EmbeddingCollector(const RenderIdentity& identity) : identity_(identity) {}

  void add(const v1::Event& event) override {
    append_vectors(list_, event, identity_.base64, index_);
  }
  std::size_t bytes() const override { return list_.size(); }

  Result<std::string> answer(const Ending& ending) const override {
    if (ending.state != v1::REQUEST_STATE_COMPLETED) return error_of(ending);
    std::string out = list_ + "],\"model\":";
    message::append_json_string(out, identity_.model);
    const std::string tokens = std::to_string(ending.usage.prompt_tokens());
    out += ",\"usage\":{\"prompt_tokens\":" + tokens + ",\"total_tokens\":" + tokens + "}}";
    return out;
  }

 private:
  const RenderIdentity identity_;
  std::string list_ = "{\"object\":\"list\",\"data\":[";
  std::size_t index_ = 0;
};

}  // namespace

std::unique_ptr<Renderer> make_embedding_renderer(const RenderIdentity& identity) {
  return std::make_unique<EmbeddingRenderer>(identity);
}

std::unique_ptr<Collector> make_embedding_collector(const RenderIdentity& identity) {
  return std::make_unique<EmbeddingCollector>(identity);
}

}  // namespace waystation::stream
