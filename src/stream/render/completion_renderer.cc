#include "stream/render/completion_renderer.h"

#include <algorithm>
#include <string>
#include <vector>

#include "message/json.h"
#include "stream/render/chunks.h"
#include "stream/render/logprobs.h"

namespace waystation::stream {
namespace {

using message::append_json_string;

std::string completion_head(const RenderIdentity& identity) {
  return object_head(identity, "cmpl-", "text_completion") + ",\"choices\":[";
}

void append_choice(std::string& out, std::size_t index, std::string_view text,
                   const LegacyLogprobs& logprobs, std::string_view finish_reason) {
  out += "{\"index\":" + std::to_string(index) + ",\"text\":";
  append_json_string(out, text);
  out += ",\"logprobs\":";
  if (logprobs.empty()) {
    out += "null";
  } else {
    logprobs.append_json(out);
  }
  out += ",\"finish_reason\":";
  append_text_or_null(out, finish_reason);
  out += "}";
}

class CompletionRenderer final : public ChunkRenderer {
 public:
  explicit CompletionRenderer(const RenderIdentity& identity)
      : head_(completion_head(identity)),
        include_usage_(identity.include_usage),
        numbered_(identity.numbered) {}

  bool needs_start() const override { return true; }

  void on_event(FrameSink& out, Sequence sequence, const v1::Event& event) override {
    chunk_ = head_;
    if (event.kind() == v1::EVENT_KIND_USAGE) {
      chunk_ += "],\"usage\":" + usage_json(event.usage());
    } else {
      if (event.choice() >= offsets_.size()) offsets_.resize(event.choice() + 1);
      LegacyLogprobs logprobs;
      for (const v1::TokenLogprob& token : event.logprobs()) {
        logprobs.add(token, offsets_[event.choice()]);
      }
      append_choice(chunk_, event.choice(), event.text(), logprobs, event.finish_reason());
      chunk_ += include_usage_ ? "],\"usage\":null" : "]";
    }
    if (numbered_) chunk_ += ",\"sequence_number\":" + std::to_string(sequence);
    chunk_ += "}";
    out.frame("text_completion", chunk_);
  }

 private:
  const std::string head_;
  const bool include_usage_;
  const bool numbered_;
  std::vector<std::size_t> offsets_;  // of the next token, by choice
  std::string chunk_;
};

class CompletionCollector final : public Collector {
 public:
  explicit CompletionCollector(const RenderIdentity& identity)
      : head_(completion_head(identity)), choices_(std::max(identity.choices, 1u)) {}

  void add(const v1::Event& event) override {
    if (event.kind() == v1::EVENT_KIND_USAGE) return;
    if (event.choice() >= choices_.size()) choices_.resize(event.choice() + 1);
    Choice& choice = choices_[event.choice()];
    choice.text += event.text();
    for (const v1::TokenLogprob& token : event.logprobs()) {
      choice.logprobs.add(token, choice.offset);
    }
    if (!event.finish_reason().empty()) choice.finish_reason = event.finish_reason();
    bytes_ += event.ByteSizeLong();
  }

  std::size_t bytes() const override { return bytes_; }

  Result<std::string> answer(const Ending& ending) const override {
    if (ending.state != v1::REQUEST_STATE_COMPLETED) return error_of(ending);
    std::string out = head_;
    for (std::size_t i = 0; i < choices_.size(); ++i) {
      const Choice& choice = choices_[i];
      if (i > 0) out += ",";
      append_choice(out, i, choice.text, choice.logprobs,
                    choice.finish_reason.empty() ? ending.finish_reason : choice.finish_reason);
    }
    out += "],\"usage\":" + usage_json(ending.usage) + "}";
    return out;
  }

 private:
  struct Choice {
    std::string text;
    LegacyLogprobs logprobs;
    std::size_t offset = 0;
    std::string finish_reason;
  };

  const std::string head_;
  std::vector<Choice> choices_;
  std::size_t bytes_ = 0;
};

}  // namespace

std::unique_ptr<Renderer> make_completion_renderer(const RenderIdentity& identity) {
  return std::make_unique<CompletionRenderer>(identity);
}

std::unique_ptr<Collector> make_completion_collector(const RenderIdentity& identity) {
  return std::make_unique<CompletionCollector>(identity);
}

}  // namespace waystation::stream
