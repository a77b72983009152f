#include "stream/render/chat_renderer.h"

#include "message/json.h"
#include "message/openai.h"
#include "message/sse.h"

namespace waystation::stream {
namespace {

using message::append_json_string;

// {"id":…,"object":…,"created":…,"model":…
std::string object_head(const ChatIdentity& identity, std::string_view object) {
  std::string out = "{\"id\":\"chatcmpl-" + identity.id.to_string() + "\",\"object\":\"";
  out += object;
  out += "\",\"created\":" + std::to_string(identity.accepted_ms / 1000) + ",\"model\":";
  append_json_string(out, identity.model);
  return out;
}

}  // namespace

ChatRenderer::ChatRenderer(const ChatIdentity& identity, bool numbered)
    : head_(object_head(identity, "chat.completion.chunk") + ",\"choices\":"),
      include_usage_(identity.include_usage),
      numbered_(numbered) {}

void ChatRenderer::append_chunk(std::string& out, Sequence sequence, const v1::Event& event) const {
  out += head_;
  if (event.kind() == v1::EVENT_KIND_USAGE) {
    out += "[],\"usage\":";
    out += usage_json(event.usage());
  } else {
    append_choice(out, event);
    if (include_usage_) out += ",\"usage\":null";
  }
  if (numbered_) {
    out += ",\"sequence_number\":";
    out += std::to_string(sequence);
  }
  out += "}";
}

void ChatRenderer::append_choice(std::string& out, const v1::Event& event) const {
  out += "[{\"index\":";
  out += std::to_string(event.choice());
  out += ",\"delta\":";
  switch (event.kind()) {
    case v1::EVENT_KIND_START:
      out += "{\"role\":\"assistant\",\"content\":\"\"}";
      break;
    case v1::EVENT_KIND_FINISH:
      // A finish may bring the last text with it.
      if (event.text().empty()) {
        out += "{}";
        break;
      }
      [[fallthrough]];
    default:
      out += "{\"content\":";
      append_json_string(out, event.text());
      out += "}";
  }
  out += ",\"logprobs\":null,\"finish_reason\":";
  if (event.kind() == v1::EVENT_KIND_FINISH) {
    append_json_string(out, event.finish_reason());
  } else {
    out += "null";
  }
  out += "}]";
}

void ChatCollector::add(const v1::Event& event) {
  text_ += event.text();
}

std::string ChatCollector::completion(const ChatIdentity& identity, const Ending& ending) const {
  std::string out = object_head(identity, "chat.completion");
  out += ",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":";
  append_json_string(out, text_);
  out += ",\"refusal\":null},\"logprobs\":null,\"finish_reason\":";
  if (ending.finish_reason.empty()) {
    out += "null";
  } else {
    append_json_string(out, ending.finish_reason);
  }
  out += "}],\"usage\":";
  out += usage_json(ending.usage);
  out += "}";
  return out;
}

std::string_view state_name(v1::RequestState state) {
  switch (state) {
    case v1::REQUEST_STATE_QUEUED:
      return "queued";
    case v1::REQUEST_STATE_RUNNING:
      return "running";
    case v1::REQUEST_STATE_COMPLETED:
      return "completed";
    case v1::REQUEST_STATE_FAILED:
      return "failed";
    case v1::REQUEST_STATE_CANCELLED:
      return "cancelled";
    case v1::REQUEST_STATE_EXPIRED:
      return "expired";
    case v1::REQUEST_STATE_DEAD:
      return "dead";
    default:
      return "unknown";
  }
}

bool is_terminal(v1::RequestState state) {
  return state >= v1::REQUEST_STATE_COMPLETED;
}

Error error_of(const Ending& ending) {
  const auto or_else = [&](const char* otherwise) {
    return ending.failure.message().empty() ? std::string(otherwise) : ending.failure.message();
  };
  Error error{Code::kInternal, "", ending.failure.param()};
  switch (ending.state) {
    case v1::REQUEST_STATE_CANCELLED:
      error.code = Code::kCancelled;
      error.message = or_else("the request was cancelled");
      break;
    case v1::REQUEST_STATE_EXPIRED:
      error.code = Code::kExpired;
      error.message = or_else("the request's deadline passed before it was answered");
      break;
    case v1::REQUEST_STATE_DEAD:
      error.code = Code::kDead;
      error.message = or_else("the request used up its attempts");
      break;
    default:
      error.code = code_from_name(ending.failure.code());
      error.message = or_else("the request failed");
  }
  return error;
}

void append_terminal_frame(std::string& out, const Ending& ending) {
  const std::string_view state = state_name(ending.state);
  std::string data = "{\"state\":\"";
  data += state;
  data += "\",\"sequence_number\":" + std::to_string(ending.sequence);
  if (ending.state != v1::REQUEST_STATE_COMPLETED) {
    data += ",\"error\":" + message::openai_error_object(error_of(ending));
  }
  data += "}";
  message::append_sse_frame(out, ending.sequence, "waystation.request." + std::string(state), data);
}

std::string usage_json(const v1::Usage& usage) {
  const std::uint64_t total =
      std::uint64_t{usage.prompt_tokens()} + std::uint64_t{usage.completion_tokens()};
  return "{\"prompt_tokens\":" + std::to_string(usage.prompt_tokens()) +
         ",\"completion_tokens\":" + std::to_string(usage.completion_tokens()) +
         ",\"total_tokens\":" + std::to_string(total) +
         ",\"prompt_tokens_details\":{\"cached_tokens\":" +
         std::to_string(usage.cached_prompt_tokens()) + "}}";
}

}  // namespace waystation::stream
