#include "stream/render/chat_renderer.h"

#include <algorithm>
#include <string>
#include <vector>

#include "message/json.h"
#include "stream/render/chunks.h"
#include "stream/render/logprobs.h"

namespace waystation::stream {
namespace {

using message::append_json_string;

std::string chat_head(const RenderIdentity& identity, std::string_view object) {
  std::string out = object_head(identity, "chatcmpl-", object);
  out += ",\"service_tier\":\"";
  out += tier_name(identity.priority);
  out += "\",\"choices\":[";
  return out;
}

void append_logprobs(std::string& out, std::string_view items) {
  if (items.empty()) {
    out += "null";
    return;
  }
  out += "{\"content\":[";
  out += items;
  out += "],\"refusal\":null}";
}

class ChatRenderer final : public ChunkRenderer {
 public:
  explicit ChatRenderer(const RenderIdentity& identity)
      : head_(chat_head(identity, "chat.completion.chunk")),
        include_usage_(identity.include_usage),
        numbered_(identity.numbered) {}

  void on_event(FrameSink& out, Sequence sequence, const v1::Event& event) override {
    chunk_ = head_;
    if (event.kind() == v1::EVENT_KIND_USAGE) {
      chunk_ += "],\"usage\":" + usage_json(event.usage());
    } else {
      append_choice(event);
      chunk_ += include_usage_ ? "],\"usage\":null" : "]";
    }
    if (numbered_) chunk_ += ",\"sequence_number\":" + std::to_string(sequence);
    chunk_ += "}";
    out.frame("chat.completion.chunk", chunk_);
  }

 private:
  void append_choice(const v1::Event& event) {
    chunk_ += "{\"index\":" + std::to_string(event.choice()) + ",\"delta\":{";
    if (event.kind() == v1::EVENT_KIND_START) {
      chunk_ += "\"role\":\"assistant\",\"content\":\"\"";
    } else {
      append_delta(event);
    }
    chunk_ += "},\"logprobs\":";
    logprobs_.clear();
    append_chat_logprobs(logprobs_, event);
    append_logprobs(chunk_, logprobs_);
    chunk_ += ",\"finish_reason\":";
    append_text_or_null(chunk_, event.finish_reason());
    chunk_ += "}";
  }

  // What is new; nothing when the engine holds text back. A finish may bring the last of it.
  void append_delta(const v1::Event& event) {
    const std::size_t empty = chunk_.size();
    if (!event.reasoning().empty()) {
      chunk_ += "\"reasoning_content\":";
      append_json_string(chunk_, event.reasoning());
    }
    if (!event.text().empty()) {
      if (chunk_.size() > empty) chunk_ += ",";
      chunk_ += "\"content\":";
      append_json_string(chunk_, event.text());
    }
    if (event.tool_calls_size() == 0) return;
    if (chunk_.size() > empty) chunk_ += ",";
    chunk_ += "\"tool_calls\":[";
    for (const v1::ToolCallDelta& call : event.tool_calls()) {
      if (&call != &event.tool_calls(0)) chunk_ += ",";
      append_call(call);
    }
    chunk_ += "]";
  }

  // The first piece of a call has its id and name, the others only arguments.
  void append_call(const v1::ToolCallDelta& call) {
    chunk_ += "{\"index\":" + std::to_string(call.index());
    if (!call.id().empty()) {
      chunk_ += ",\"id\":";
      append_json_string(chunk_, call.id());
      chunk_ += ",\"type\":\"function\"";
    }
    chunk_ += ",\"function\":{";
    if (!call.name().empty()) {
      chunk_ += "\"name\":";
      append_json_string(chunk_, call.name());
      chunk_ += ",";
    }
    chunk_ += "\"arguments\":";
    append_json_string(chunk_, call.arguments());
    chunk_ += "}}";
  }

  const std::string head_;  // up to and with "choices":[
  const bool include_usage_;
  const bool numbered_;
  std::string chunk_;  // the same memory for every chunk
  std::string logprobs_;
};

class ChatCollector final : public Collector {
 public:
  explicit ChatCollector(const RenderIdentity& identity)
      : head_(chat_head(identity, "chat.completion")), choices_(std::max(identity.choices, 1u)) {}

  void add(const v1::Event& event) override {
    if (event.kind() == v1::EVENT_KIND_USAGE) return;
    if (event.choice() >= choices_.size()) choices_.resize(event.choice() + 1);
    Choice& choice = choices_[event.choice()];
    choice.text += event.text();
    choice.reasoning += event.reasoning();
    if (event.logprobs_size() > 0) {
      if (!choice.logprobs.empty()) choice.logprobs += ",";
      append_chat_logprobs(choice.logprobs, event);
    }
    for (const v1::ToolCallDelta& delta : event.tool_calls()) add_call(choice, delta);
    if (!event.finish_reason().empty()) choice.finish_reason = event.finish_reason();
    bytes_ += event.ByteSizeLong();
  }

  std::size_t bytes() const override { return bytes_; }

  Result<std::string> answer(const Ending& ending) const override {
    if (ending.state != v1::REQUEST_STATE_COMPLETED) return error_of(ending);
    std::string out = head_;
    for (std::size_t i = 0; i < choices_.size(); ++i) {
      if (i > 0) out += ",";
      append_choice(out, i, ending);
    }
    out += "],\"usage\":" + usage_json(ending.usage) + "}";
    return out;
  }

 private:
  struct Choice {
    std::string text;
    std::string reasoning;
    std::string logprobs;  // JSON, joined by commas
    std::vector<v1::ToolCallDelta> calls;
    std::string finish_reason;
  };

  static void add_call(Choice& choice, const v1::ToolCallDelta& delta) {
    const auto is_it = [&](const v1::ToolCallDelta& call) { return call.index() == delta.index(); };
    const auto found = std::find_if(choice.calls.begin(), choice.calls.end(), is_it);
    if (found == choice.calls.end()) {
      choice.calls.push_back(delta);
      return;
    }
    if (found->id().empty()) found->set_id(delta.id());
    if (found->name().empty()) found->set_name(delta.name());
    found->mutable_arguments()->append(delta.arguments());
  }

  void append_choice(std::string& out, std::size_t index, const Ending& ending) const {
    const Choice& choice = choices_[index];
    out += "{\"index\":" + std::to_string(index) + ",\"message\":{\"role\":\"assistant\",";
    out += "\"content\":";
    if (choice.text.empty() && !choice.calls.empty()) {
      out += "null";
    } else {
      append_json_string(out, choice.text);
    }
    out += ",\"refusal\":null";
    if (!choice.reasoning.empty()) {
      out += ",\"reasoning_content\":";
      append_json_string(out, choice.reasoning);
    }
    if (!choice.calls.empty()) append_calls(out, choice.calls);
    out += "},\"logprobs\":";
    append_logprobs(out, choice.logprobs);
    out += ",\"finish_reason\":";
    append_text_or_null(out,
                        choice.finish_reason.empty() ? ending.finish_reason : choice.finish_reason);
    out += "}";
  }

  static void append_calls(std::string& out, const std::vector<v1::ToolCallDelta>& calls) {
    out += ",\"tool_calls\":[";
    for (const v1::ToolCallDelta& call : calls) {
      if (&call != &calls.front()) out += ",";
      out += "{\"id\":";
      append_json_string(out, call.id());
      out += ",\"type\":\"function\",\"function\":{\"name\":";
      append_json_string(out, call.name());
      out += ",\"arguments\":";
      append_json_string(out, call.arguments());
      out += "}}";
    }
    out += "]";
  }

  const std::string head_;
  std::vector<Choice> choices_;
  std::size_t bytes_ = 0;
};

}  // namespace

std::unique_ptr<Renderer> make_chat_renderer(const RenderIdentity& identity) {
  return std::make_unique<ChatRenderer>(identity);
}

std::unique_ptr<Collector> make_chat_collector(const RenderIdentity& identity) {
  return std::make_unique<ChatCollector>(identity);
}

}  // namespace waystation::stream
