#include "stream/render/renderer.h"

#include <array>

#include "message/openai.h"
#include "message/sse.h"
#include "stream/render/chat_renderer.h"
#include "stream/render/completion_renderer.h"
#include "stream/render/embedding_renderer.h"
#include "stream/render/responses_renderer.h"

namespace waystation::stream {
namespace {

struct Row {
  std::string_view api;
  std::unique_ptr<Renderer> (*make_renderer)(const RenderIdentity&);
  std::unique_ptr<Collector> (*make_collector)(const RenderIdentity&);
};

constexpr std::array kApis{
    Row{"chat.completions", make_chat_renderer, make_chat_collector},
    Row{"completions", make_completion_renderer, make_completion_collector},
    Row{"embeddings", make_embedding_renderer, make_embedding_collector},
    Row{"responses", make_responses_renderer, make_responses_collector},
};

const Row* row_of(std::string_view api) {
  if (api.empty()) return &kApis[0];  // accepted before envelopes said it: there was chat alone
  for (const Row& row : kApis) {
    if (row.api == api) return &row;
  }
  return nullptr;
}

}  // namespace

std::unique_ptr<Renderer> make_renderer(const RenderIdentity& identity) {
  const Row* row = row_of(identity.api);
  return row == nullptr ? nullptr : row->make_renderer(identity);
}

std::unique_ptr<Collector> make_collector(const RenderIdentity& identity) {
  const Row* row = row_of(identity.api);
  return row == nullptr ? nullptr : row->make_collector(identity);
}

StatusAndBody status_and_body(const Result<std::string>& answer) {
  if (answer) return {200, *answer};
  return {http_status(answer.error().code), message::openai_error_body(answer.error())};
}

void ApiFrames::frame(std::string_view name, std::string_view data) {
  if (named_ && !name.empty()) {
    out_ += "event: ";
    out_ += name;
    out_ += "\n";
  }
  message::append_sse_data(out_, data);
}

void NumberedFrames::frame(std::string_view name, std::string_view data) {
  if (name.empty()) return;
  last_ = out_.size();
  out_ += "event: ";
  out_ += name;
  out_ += "\n";
  message::append_sse_data(out_, data);
}

void NumberedFrames::end_event(Sequence sequence) {
  if (last_ == std::string::npos) return;
  out_.insert(last_, "id: " + std::to_string(sequence) + "\n");
  last_ = std::string::npos;
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
  Error error{Code::kInternal, "", ending.failure.param(),
              static_cast<int>(ending.failure.retry_after_ms())};
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

std::string_view tier_name(std::int32_t priority) {
  if (priority < 0) return "flex";
  return priority > 0 ? "priority" : "default";
}

std::string usage_json(const v1::Usage& usage) {
  const std::uint64_t total =
      std::uint64_t{usage.prompt_tokens()} + std::uint64_t{usage.completion_tokens()};
  return "{\"prompt_tokens\":" + std::to_string(usage.prompt_tokens()) +
         ",\"completion_tokens\":" + std::to_string(usage.completion_tokens()) +
         ",\"total_tokens\":" + std::to_string(total) +
         ",\"prompt_tokens_details\":{\"cached_tokens\":" +
         std::to_string(usage.cached_prompt_tokens()) +
         "},\"completion_tokens_details\":{\"reasoning_tokens\":" +
         std::to_string(usage.reasoning_tokens()) + "}}";
}

}  // namespace waystation::stream
