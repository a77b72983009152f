#include "upstream/answer.h"

#include <algorithm>
#include <array>
#include <boost/json.hpp>
#include <optional>
#include <utility>

#include "upstream/answer_parts.h"
#include "upstream/fields.h"
#include "upstream/verdict.h"

namespace waystation::upstream {
namespace {

namespace json = boost::json;

constexpr std::uint32_t kToolCallsMax = 1024;

Error broken(std::string what) {
  return Error{Code::kUnavailable, "sent an answer that can't be used: " + std::move(what)};
}

// A piece of a tool call as it came.
struct ToolPiece {
  std::uint32_t index = 0;
  std::string_view id;
  std::string_view name;
  std::string_view arguments;
};

Result<ToolPiece> read_tool_call(const json::object& from, std::size_t position) {
  auto index = index_in(from, "index", position, kToolCallsMax);
  if (!index) return index.error();
  auto id = text_in(from, "id");
  if (!id) return id.error();
  auto function = object_in(from, "function");
  if (!function) return function.error();
  ToolPiece piece{*index, *id, {}, {}};
  if (*function == nullptr) return piece;
  auto name = text_in(**function, "name");
  auto arguments = text_in(**function, "arguments");
  if (!name) return within("function.", name.error());
  if (!arguments) return within("function.", arguments.error());
  piece.name = *name;
  piece.arguments = *arguments;
  return piece;
}

// Parses into a buffer of the thread's, so that a chunk costs no allocation.
class Document {
 public:
  Status parse(std::string_view text) {
    json::parse_options options;
    options.max_depth = 64;
    json::error_code ec;
    json::parser parser(json::storage_ptr(), options, temporary_.data(), temporary_.size());
    parser.reset(json::storage_ptr(&memory_));
    const std::size_t used = parser.write_some(text, ec);
    if (!ec && used < text.size()) ec = json::error::extra_data;
    if (ec) return broken("no JSON (" + ec.message() + " near byte " + std::to_string(used) + ")");
    value_.emplace(parser.release());  // moved, since both use memory_
    if (!value_->is_object()) return broken("a JSON value that is no object");
    return {};
  }
  const json::object& root() const { return value_->get_object(); }

 private:
  static thread_local std::array<unsigned char, 16 << 10> buffer_;
  static thread_local std::array<unsigned char, 4 << 10> temporary_;
  json::monotonic_resource memory_{buffer_.data(), buffer_.size()};
  std::optional<json::value> value_;
};

thread_local std::array<unsigned char, 16 << 10> Document::buffer_;
thread_local std::array<unsigned char, 4 << 10> Document::temporary_;

}  // namespace

Answer::Answer(Kind kind, std::uint32_t choices, std::string resumed, Echo echo,
               std::string id_seed, std::size_t event_bytes_max)
    : kind_(kind),
      resumed_(std::move(resumed)),
      id_seed_(std::move(id_seed)),
      stripping_(!resumed_.empty() && (echo == Echo::kStrip ||
                                       (echo == Echo::kAuto && resumed_.size() >= kEchoBytesMin))),
      choices_(std::max<std::uint32_t>(1, choices)),
      untaken_finishes_(choices_.size()),
      event_bytes_max_(event_bytes_max),
      sse_(event_bytes_max) {}

Status Answer::feed(std::string_view bytes) {
  frames_.clear();
  const bool fits = sse_.feed(bytes, frames_);
  for (const message::SseFrame& frame : frames_) {
    if (done_) return {};
    if (Status ok = on_event(frame.data); !ok) return ok;
  }
  if (!fits && !done_) {
    return Error{Code::kUnavailable,
                 "sent an event of more than " + std::to_string(event_bytes_max_) + " bytes"};
  }
  return {};
}

Status Answer::on_event(std::string_view data) {
  if (complete_) return {};
  if (data == "[DONE]") {
    done_ = true;
    return {};
  }
  Document document;
  if (Status ok = document.parse(data); !ok) return ok;
  const json::object& root = document.root();
  if (const json::value* error = root.if_contains("error"); error != nullptr && !error->is_null()) {
    return error_sent(*error);
  }
  heard_ = true;
  note_usage(root);
  if (Status ok = read_choices(root, true); !ok) return broken(ok.error().message);
  return {};
}

Status Answer::on_document(std::string_view text) {
  Status ok = read_document(text);
  if (ok) ok = end();
  if (ok) return {};
  // A part of a document is no beginning of an answer.
  for (Choice& choice : choices_) choice = {};
  finished_count_ = 0;
  begun_ = false;
  return ok;
}

Status Answer::read_document(std::string_view text) {
  Document document;
  if (Status ok = document.parse(text); !ok) return ok;
  const json::object& root = document.root();
  if (const json::value* error = root.if_contains("error"); error != nullptr && !error->is_null()) {
    return error_sent(*error);
  }
  heard_ = true;
  note_usage(root);
  Status ok = kind_ == Kind::kEmbedding ? read_vectors(root) : read_choices(root, false);
  if (!ok) return broken(ok.error().message);
  return {};
}

Status Answer::end() {
  if (!finished()) {
    return Error{Code::kUnavailable,
                 heard_ ? "ended its answer without a finish reason" : "answered with nothing"};
  }
  release_held();
  complete_ = true;
  return {};
}

v1::Output& Answer::pending_of(Choice& choice) {
  choice.has_pending = true;
  return choice.pending;
}

Status Answer::read_choices(const json::object& root, bool streamed) {
  auto found = array_in(root, "choices");
  if (!found) return found.error();
  // Some servers send events of their own in between; a whole answer must have choices.
  if (*found == nullptr && streamed) return {};
  if (*found == nullptr || ((*found)->empty() && !streamed)) {
    return Error{Code::kUnavailable, "it has no choices"};
  }
  const json::array& choices = **found;
  for (std::size_t i = 0; i < choices.size(); ++i) {
    const json::object* choice = choices[i].if_object();
    if (choice == nullptr) {
      return Error{Code::kUnavailable, "choices[" + std::to_string(i) + "] is no object"};
    }
    if (Status ok = read_choice(*choice, i, streamed); !ok) {
      return within(place_in("choices", i), ok.error());
    }
  }
  return {};
}

Status Answer::read_choice(const json::object& from, std::size_t position, bool streamed) {
  auto index = index_in(from, "index", streamed ? 0 : position, choices_.size());
  if (!index) return index.error();
  Choice& choice = choices_[*index];
  // The choice is over, perhaps for the link too, where an output after the last one is an error.
  if (!choice.finish_reason.empty()) return {};
  std::size_t bytes = 0;
  const json::object* logprobs = object_at(from, "logprobs");
  if (kind_ == Kind::kChat) {
    const char* const name = streamed ? "delta" : "message";
    auto message = object_in(from, name);
    if (!message) return message.error();
    if (*message == nullptr && !streamed) return Error{Code::kUnavailable, "message is missing"};
    if (*message != nullptr) {
      Status ok = read_message(**message, *index, bytes);
      if (!ok) return within(std::string(name) + ".", ok.error());
    }
    if (logprobs != nullptr) read_chat_logprobs(*logprobs, pending_of(choice));
  } else {
    auto text = text_in(from, "text");
    if (!text) return text.error();
    const bool is_missing = text->data() == nullptr;  // and not just empty
    if (is_missing && !streamed) return Error{Code::kUnavailable, "text is missing"};
    bytes = add_text(choice, *text);
    if (logprobs != nullptr) read_legacy_logprobs(*logprobs, pending_of(choice));
  }
  if (bytes > 0) {
    v1::Output& pending = pending_of(choice);
    const std::size_t tokens = streamed ? 1 : (bytes + kBytesPerToken - 1) / kBytesPerToken;
    pending.set_text_tokens(pending.text_tokens() + static_cast<std::uint32_t>(tokens));
  }
  return read_finish(from, choice, streamed);
}

Status Answer::read_finish(const json::object& from, Choice& choice, bool streamed) {
  auto theirs = text_in(from, "finish_reason");
  if (!theirs) return theirs.error();
  if (theirs->empty() && streamed) return {};
  auto reason = finish_reason_of(theirs->empty() ? "stop" : *theirs);
  if (!reason) return reason.error();
  choice.finish_reason = *reason;
  ++finished_count_;
  begun_ = true;
  return {};
}

Status Answer::read_message(const json::object& from, std::uint32_t index_of_choice,
                            std::size_t& bytes) {
  Choice& choice = choices_[index_of_choice];
  auto reasoning = text_in(from, "reasoning_content");
  if (reasoning && reasoning->empty()) reasoning = text_in(from, "reasoning");
  if (!reasoning) return reasoning.error();
  if (!reasoning->empty()) {
    pending_of(choice).mutable_reasoning()->append(*reasoning);
    bytes += reasoning->size();
    begun_ = true;
  }
  auto content = content_in(from, "content", joined_);
  if (!content) return content.error();
  bytes += add_text(choice, *content);
  auto refusal = text_in(from, "refusal");
  if (!refusal) return refusal.error();
  bytes += add_text(choice, *refusal);
  auto calls = array_in(from, "tool_calls");
  if (!calls) return calls.error();
  return *calls == nullptr ? Status() : read_tool_calls(**calls, index_of_choice, bytes);
}

Status Answer::read_tool_calls(const json::array& calls, std::uint32_t index_of_choice,
                               std::size_t& bytes) {
  Choice& choice = choices_[index_of_choice];
  for (std::size_t i = 0; i < calls.size(); ++i) {
    const json::object* call = calls[i].if_object();
    if (call == nullptr) {
      return Error{Code::kUnavailable, "tool_calls[" + std::to_string(i) + "] is no object"};
    }
    auto piece = read_tool_call(*call, i);
    if (!piece) return within(place_in("tool_calls", i), piece.error());
    if (piece->index >= choice.tools.size()) choice.tools.resize(piece->index + 1);
    ToolSeen& seen = choice.tools[piece->index];
    auto& pending = *pending_of(choice).mutable_tool_calls();
    v1::ToolCallDelta* delta = nullptr;
    if (!pending.empty() && pending.rbegin()->index() == piece->index) {
      delta = &*pending.rbegin();
    } else {
      delta = pending.Add();
      delta->set_index(piece->index);
    }
    if (!seen.id) {
      const std::string made = "call_" + id_seed_.substr(0, 16) + std::to_string(index_of_choice) +
                               "_" + std::to_string(piece->index);
      delta->set_id(piece->id.empty() ? made : std::string(piece->id));
      seen.id = true;
    }
    if (!seen.name && !piece->name.empty()) {
      delta->set_name(std::string(piece->name));
      seen.name = true;
    }
    delta->mutable_arguments()->append(piece->arguments);
    bytes += 1 + piece->arguments.size();
    begun_ = true;
  }
  return {};
}

std::size_t Answer::add_text(Choice& choice, std::string_view text) {
  if (text.empty()) return 0;
  begun_ = true;
  if (!stripping_ || &choice != &choices_.front()) {
    pending_of(choice).mutable_text()->append(text);
    return text.size();
  }
  held_ += text;
  const std::size_t common = std::min(held_.size(), resumed_.size());
  const bool differs =
      std::string_view(held_).substr(0, common) != std::string_view(resumed_).substr(0, common);
  if (!differs && held_.size() < resumed_.size()) return 0;
  if (!differs) held_.erase(0, resumed_.size());
  const std::size_t released = held_.size();
  release_held();
  return released;
}

// What was held back is no echo, or what follows one.
void Answer::release_held() {
  if (!std::exchange(stripping_, false)) return;
  if (!held_.empty()) pending_of(choices_.front()).mutable_text()->append(held_);
  held_.clear();
}

void Answer::note_usage(const json::object& root) {
  const json::object* usage = object_at(root, "usage");
  if (usage == nullptr) return;
  if (auto counts = read_usage(*usage, kind_ != Kind::kEmbedding)) usage_ = std::move(*counts);
}

Status Answer::read_vectors(const json::object& root) {
  auto vectors = read_embeddings(root);
  if (!vectors) return vectors.error();
  v1::Output& output = pending_of(choices_.front());
  for (std::string& vector : *vectors) output.add_embeddings(std::move(vector));
  choices_.front().finish_reason = "stop";
  finished_count_ = choices_.size();
  begun_ = true;
  return {};
}

void Answer::take(std::vector<v1::Output>& out) {
  for (std::size_t i = 0; i < choices_.size(); ++i) {
    Choice& choice = choices_[i];
    const bool first = heard_ && !started_taken_;
    const bool last = untaken_finishes_ == 1;
    const bool finishes =
        !choice.finish_reason.empty() && !choice.finish_taken && (!last || complete_);
    if (!choice.has_pending && !finishes && !first) continue;
    v1::Output& output = out.emplace_back(std::move(choice.pending));
    choice.pending.Clear();
    choice.has_pending = false;
    output.set_choice(static_cast<std::uint32_t>(i));
    if (first) {
      output.set_started(true);
      started_taken_ = true;
    }
    if (!finishes) continue;
    choice.finish_taken = true;
    --untaken_finishes_;
    output.set_finish_reason(choice.finish_reason);
    output.set_more(!last);
    if (last && usage_) *output.mutable_usage() = *usage_;
  }
}

}  // namespace waystation::upstream
