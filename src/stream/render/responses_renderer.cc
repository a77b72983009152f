#include "stream/render/responses_renderer.h"

#include <utility>

#include "message/json.h"
#include "message/response_items.h"
#include "stream/render/logprobs.h"

namespace waystation::stream {
namespace {

using message::append_json_string;
using message::json_string;

constexpr std::string_view kBackground = "\"background\":true";

class NoFrames final : public FrameSink {
 public:
  void frame(std::string_view, std::string_view) override {}
};

std::string default_echo(const std::string& model) {
  return "\"background\":false,\"model\":" + json_string(model) +
         R"(,"metadata":{},"instructions":null,"previous_response_id":null,)"
         R"("parallel_tool_calls":true,"temperature":1,"top_p":1,"text":{"format":{"type":"text"}},)"
         R"("tool_choice":"auto","tools":[],"truncation":"disabled")";
}

std::string logprobs_members(const v1::Event& event) {
  std::string out;
  append_chat_logprobs(out, event);
  return out;
}

std::string usage_of(const v1::Usage& usage) {
  const std::uint64_t total =
      std::uint64_t{usage.prompt_tokens()} + std::uint64_t{usage.completion_tokens()};
  return "{\"input_tokens\":" + std::to_string(usage.prompt_tokens()) +
         ",\"input_tokens_details\":{\"cached_tokens\":" +
         std::to_string(usage.cached_prompt_tokens()) + ",\"cache_write_tokens\":0}" +
         ",\"output_tokens\":" + std::to_string(usage.completion_tokens()) +
         ",\"output_tokens_details\":{\"reasoning_tokens\":" +
         std::to_string(usage.reasoning_tokens()) + "},\"total_tokens\":" + std::to_string(total) +
         "}";
}

// The Responses API knows a closed set of codes.
std::string_view response_error_code(Code code) {
  switch (code) {
    case Code::kInvalidArgument:
    case Code::kContextLengthExceeded:
      return "invalid_prompt";
    case Code::kQueueFull:
      return "rate_limit_exceeded";
    default:
      return "server_error";
  }
}

std::string text_part(std::string_view text, std::string_view logprobs) {
  return "{\"type\":\"output_text\",\"text\":" + json_string(text) +
         ",\"annotations\":[],\"logprobs\":[" + std::string(logprobs) + "]}";
}

std::string reasoning_part(std::string_view text) {
  return "{\"type\":\"reasoning_text\",\"text\":" + json_string(text) + "}";
}

bool is_cut_short(const Ending& ending) {
  return ending.state == v1::REQUEST_STATE_COMPLETED && ending.finish_reason == "length";
}

}  // namespace

ResponsesRenderer::ResponsesRenderer(const RenderIdentity& identity)
    : identity_(identity),
      echo_(identity.echo.empty() ? default_echo(identity.model) : identity.echo),
      background_(echo_.starts_with(kBackground)) {}

// ---- Frames -----------------------------------------------------------------------------------

std::string ResponsesRenderer::head(std::string_view type) {
  return "{\"type\":\"" + std::string(type) + "\",\"sequence_number\":" + std::to_string(next_++);
}

std::string ResponsesRenderer::item_head(std::string_view type, std::size_t index, bool in_part) {
  std::string out = head(type) + ",\"item_id\":\"" + pieces_[index].id +
                    "\",\"output_index\":" + std::to_string(index);
  if (in_part) out += ",\"content_index\":0";
  return out;
}

void ResponsesRenderer::send(FrameSink& out, std::string_view type, std::string_view data) {
  out.frame(type, data);
}

void ResponsesRenderer::send_response(FrameSink& out, std::string_view type,
                                      const std::string& response) {
  send(out, type, head(type) + ",\"response\":" + response + "}");
}

void ResponsesRenderer::begin(FrameSink& out) {
  if (std::exchange(begun_, true)) return;
  const std::string response = response_so_far(background_ ? "queued" : "in_progress");
  send_response(out, "response.created", response);
  if (background_) send_response(out, "response.queued", response);
}

void ResponsesRenderer::start(FrameSink& out) {
  begin(out);
  if (std::exchange(started_, true)) return;
  send_response(out, "response.in_progress", response_so_far("in_progress"));
}

void ResponsesRenderer::on_event(FrameSink& out, Sequence, const v1::Event& event) {
  if (event.kind() == v1::EVENT_KIND_USAGE || event.choice() != 0) return;
  start(out);
  if (!event.reasoning().empty()) add_reasoning(out, event.reasoning());
  if (!event.text().empty() || event.logprobs_size() > 0) add_text(out, event);
  for (const v1::ToolCallDelta& delta : event.tool_calls()) add_call(out, delta);
  if (event.kind() != v1::EVENT_KIND_FINISH) return;
  cut_short_ = event.finish_reason() == "length";
  if (pieces_.empty()) open(out, Kind::kMessage);  // an empty answer is an answer
  close_all(out);
}

void ResponsesRenderer::on_ending(FrameSink& out, const Ending& ending) {
  begin(out);
  const char* type = "response.failed";
  if (ending.state == v1::REQUEST_STATE_COMPLETED) {
    type = is_cut_short(ending) ? "response.incomplete" : "response.completed";
  }
  send_response(out, type, response(ending));
}

void ResponsesRenderer::on_error(FrameSink& out, const Error& error) {
  const std::string param = error.param.empty() ? "null" : json_string(error.param);
  send(out, "error",
       head("error") + ",\"code\":" + json_string(code_name(error.code)) +
           ",\"message\":" + json_string(error.message) + ",\"param\":" + param + "}");
}

// ---- Items ------------------------------------------------------------------------------------

void ResponsesRenderer::announce(FrameSink& out, std::size_t index) {
  const Piece& piece = pieces_[index];
  send(out, "response.output_item.added",
       head("response.output_item.added") + ",\"output_index\":" + std::to_string(index) +
           ",\"item\":" + item(piece, "in_progress") + "}");
  if (piece.kind == Kind::kCall) return;
  const std::string part = piece.kind == Kind::kMessage ? text_part("", "") : reasoning_part("");
  send(out, "response.content_part.added",
       item_head("response.content_part.added", index, true) + ",\"part\":" + part + "}");
}

// The item of this kind that takes what comes now; a new one when the last is of another kind.
std::size_t ResponsesRenderer::open(FrameSink& out, Kind kind) {
  if (!pieces_.empty() && pieces_.back().kind == kind && !pieces_.back().closed) {
    return pieces_.size() - 1;
  }
  close_texts(out);
  const std::size_t index = pieces_.size();
  const char* prefix = kind == Kind::kMessage ? "msg" : "rs";
  Piece piece{.kind = kind};
  piece.id = message::item_id(prefix, identity_.id, std::to_string(index));
  pieces_.push_back(std::move(piece));
  announce(out, index);
  return index;
}

std::size_t ResponsesRenderer::open_call(FrameSink& out, const v1::ToolCallDelta& delta) {
  for (std::size_t i = 0; i < pieces_.size(); ++i) {
    if (pieces_[i].kind == Kind::kCall && pieces_[i].call_index == delta.index()) return i;
  }
  close_texts(out);
  const std::size_t index = pieces_.size();
  Piece piece{.kind = Kind::kCall};
  piece.id = message::item_id("fc", identity_.id, std::to_string(index));
  piece.call_id = delta.id();
  piece.name = delta.name();
  piece.call_index = delta.index();
  pieces_.push_back(std::move(piece));
  announce(out, index);
  return index;
}

void ResponsesRenderer::add_reasoning(FrameSink& out, std::string_view text) {
  const std::size_t index = open(out, Kind::kReasoning);
  pieces_[index].text += text;
  bytes_ += text.size();
  constexpr std::string_view kType = "response.reasoning_text.delta";
  send(out, kType, item_head(kType, index, true) + ",\"delta\":" + json_string(text) + "}");
}

void ResponsesRenderer::add_text(FrameSink& out, const v1::Event& event) {
  const std::size_t index = open(out, Kind::kMessage);
  Piece& piece = pieces_[index];
  piece.text += event.text();
  const std::string logprobs = logprobs_members(event);
  if (!logprobs.empty() && !piece.logprobs.empty()) piece.logprobs += ",";
  piece.logprobs += logprobs;
  bytes_ += event.text().size() + logprobs.size();
  constexpr std::string_view kType = "response.output_text.delta";
  send(out, kType,
       item_head(kType, index, true) + ",\"delta\":" + json_string(event.text()) +
           ",\"logprobs\":[" + logprobs + "]}");
}

void ResponsesRenderer::add_call(FrameSink& out, const v1::ToolCallDelta& delta) {
  const std::size_t index = open_call(out, delta);
  if (delta.arguments().empty()) return;
  pieces_[index].text += delta.arguments();
  bytes_ += delta.arguments().size();
  constexpr std::string_view kType = "response.function_call_arguments.delta";
  send(out, kType,
       item_head(kType, index, false) + ",\"delta\":" + json_string(delta.arguments()) + "}");
}

void ResponsesRenderer::close(FrameSink& out, std::size_t index) {
  Piece& piece = pieces_[index];
  if (piece.closed) return;
  const std::string text = json_string(piece.text);
  if (piece.kind == Kind::kCall) {
    constexpr std::string_view kType = "response.function_call_arguments.done";
    send(out, kType,
         item_head(kType, index, false) + ",\"name\":" + json_string(piece.name) +
             ",\"arguments\":" + text + "}");
  } else {
    const bool is_message = piece.kind == Kind::kMessage;
    const std::string_view type =
        is_message ? "response.output_text.done" : "response.reasoning_text.done";
    std::string data = item_head(type, index, true) + ",\"text\":" + text;
    if (is_message) data += ",\"logprobs\":[" + piece.logprobs + "]";
    send(out, type, data + "}");
    send(out, "response.content_part.done",
         item_head("response.content_part.done", index, true) + ",\"part\":" +
             (is_message ? text_part(piece.text, piece.logprobs) : reasoning_part(piece.text)) +
             "}");
  }
  // Cut off by the limit while it was being made, it stays incomplete.
  piece.closed = !cut_short_;
  send(out, "response.output_item.done",
       head("response.output_item.done") + ",\"output_index\":" + std::to_string(index) +
           ",\"item\":" + item(piece, cut_short_ ? "incomplete" : "completed") + "}");
}

// Of calls, more may come at any time, so they stay open until the end.
void ResponsesRenderer::close_texts(FrameSink& out) {
  for (std::size_t i = 0; i < pieces_.size(); ++i) {
    if (pieces_[i].kind != Kind::kCall) close(out, i);
  }
}

void ResponsesRenderer::close_all(FrameSink& out) {
  for (std::size_t i = 0; i < pieces_.size(); ++i) close(out, i);
}

std::string ResponsesRenderer::item(const Piece& piece, std::string_view status) const {
  const bool is_new = status == "in_progress";
  std::string out = "{\"id\":\"" + piece.id + "\",\"type\":";
  switch (piece.kind) {
    case Kind::kReasoning:
      out += "\"reasoning\",\"summary\":[],\"content\":[";
      if (!is_new) out += reasoning_part(piece.text);
      out += "],\"status\":\"" + std::string(status) + "\"}";
      return out;
    case Kind::kMessage:
      out += "\"message\",\"status\":\"" + std::string(status) +
             "\",\"role\":\"assistant\",\"content\":[";
      if (!is_new) out += text_part(piece.text, piece.logprobs);
      return out + "]}";
    case Kind::kCall:
      break;
  }
  return out + "\"function_call\",\"status\":\"" + std::string(status) +
         "\",\"call_id\":" + json_string(piece.call_id) + ",\"name\":" + json_string(piece.name) +
         ",\"arguments\":" + json_string(is_new ? "" : piece.text) + "}";
}

// ---- The object -------------------------------------------------------------------------------

std::string ResponsesRenderer::output(std::string_view open_status) const {
  std::string out = "[";
  for (const Piece& piece : pieces_) {
    if (&piece != &pieces_.front()) out += ",";
    out += item(piece, piece.closed ? "completed" : open_status);
  }
  return out + "]";
}

std::string ResponsesRenderer::object(std::string_view status, std::string_view error,
                                      std::string_view incomplete, std::string_view usage,
                                      std::string_view open_status) const {
  std::string out =
      "{\"id\":\"" + message::response_id(identity_.id) +
      "\",\"object\":\"response\",\"created_at\":" + std::to_string(identity_.id.time_ms() / 1000) +
      ",\"status\":\"";
  out += status;
  out += "\",\"error\":";
  out += error;
  out += ",\"incomplete_details\":";
  out += incomplete;
  out += ",\"output\":" + output(open_status);
  if (!usage.empty()) {
    out += ",\"usage\":";
    out += usage;
  }
  return out + "," + echo_ + "}";
}

std::string ResponsesRenderer::response_so_far(std::string_view status) const {
  return object(status, "null", "null", "", "in_progress");
}

std::string ResponsesRenderer::output(const Ending&) const {
  return output("incomplete");
}

std::string ResponsesRenderer::response(const Ending& ending) const {
  if (ending.state == v1::REQUEST_STATE_COMPLETED) {
    const bool cut = is_cut_short(ending);
    return object(cut ? "incomplete" : "completed", "null",
                  cut ? "{\"reason\":\"max_output_tokens\"}" : "null", usage_of(ending.usage),
                  "incomplete");
  }
  if (ending.state == v1::REQUEST_STATE_CANCELLED) {
    return object("cancelled", "null", "null", "", "incomplete");
  }
  const Error error = error_of(ending);
  return object("failed",
                "{\"code\":\"" + std::string(response_error_code(error.code)) +
                    "\",\"message\":" + json_string(error.message) + "}",
                "null", "", "incomplete");
}

void ResponsesCollector::add(const v1::Event& event) {
  NoFrames none;
  renderer_.on_event(none, 0, event);
}

std::unique_ptr<Renderer> make_responses_renderer(const RenderIdentity& identity) {
  return std::make_unique<ResponsesRenderer>(identity);
}

std::unique_ptr<Collector> make_responses_collector(const RenderIdentity& identity) {
  return std::make_unique<ResponsesCollector>(identity);
}

Result<std::string> ResponsesCollector::answer(const Ending& ending) const {
  if (ending.state != v1::REQUEST_STATE_COMPLETED) return error_of(ending);
  return renderer_.response(ending);
}

}  // namespace waystation::stream
