#include "upstream/answer.h"

#include <algorithm>
#include <array>
#include <boost/json.hpp>
#include <optional>
#include <utility>

#include "upstream/fields.h"
#include "upstream/verdict.h"

namespace waystation::upstream {
namespace {

namespace json = boost::json;

constexpr std::uint32_t kToolCallsMax = 1024;

Error broken(std::string what) {
  return Error{Code::kUnavailable, "sent an answer that can't be read: " + std::move(what)};
}

void read_chat_logprobs(const json::object& from, v1::Output& out) {
  const json::array* content = array_at(from, "content");
  if (content == nullptr) return;
  for (const json::value& item : *content) {
    const json::object* token = item.if_object();
    if (token == nullptr) continue;
    v1::TokenLogprob& logprob = *out.add_logprobs();
    logprob.set_token(token_bytes(*token));
    logprob.set_logprob(static_cast<float>(number_at(*token, "logprob")));
    const json::array* top = array_at(*token, "top_logprobs");
    if (top == nullptr) continue;
    for (const json::value& other : *top) {
      const json::object* candidate = other.if_object();
      if (candidate == nullptr) continue;
      v1::TokenCandidate& into = *logprob.add_top();
      into.set_token(token_bytes(*candidate));
      into.set_logprob(static_cast<float>(number_at(*candidate, "logprob")));
    }
  }
}

// The old shape: three lists beside each other.
void read_legacy_logprobs(const json::object& from, v1::Output& out) {
  const json::array* tokens = array_at(from, "tokens");
  if (tokens == nullptr) return;
  const json::array* values = array_at(from, "token_logprobs");
  const json::array* tops = array_at(from, "top_logprobs");
  for (std::size_t i = 0; i < tokens->size(); ++i) {
    v1::TokenLogprob& logprob = *out.add_logprobs();
    if (const json::string* text = (*tokens)[i].if_string()) logprob.set_token(std::string(*text));
    if (values != nullptr && i < values->size()) {
      logprob.set_logprob(static_cast<float>(number_of((*values)[i])));
    }
    if (tops == nullptr || i >= tops->size()) continue;
    const json::object* top = (*tops)[i].if_object();
    if (top == nullptr) continue;
    for (const auto& [token, value] : *top) {
      v1::TokenCandidate& into = *logprob.add_top();
      into.set_token(std::string(token));
      into.set_logprob(static_cast<float>(number_of(value)));
    }
  }
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
               std::string id_seed)
    : kind_(kind),
      resumed_(std::move(resumed)),
      id_seed_(std::move(id_seed)),
      stripping_(!resumed_.empty() && (echo == Echo::kStrip ||
                                       (echo == Echo::kAuto && resumed_.size() >= kEchoBytesMin))),
      choices_(std::max<std::uint32_t>(1, choices)),
      untaken_finishes_(choices_.size()) {}

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
  read_usage(root);
  return read_choices(root, true);
}

Status Answer::on_document(std::string_view text) {
  Document document;
  if (Status ok = document.parse(text); !ok) return ok;
  const json::object& root = document.root();
  if (const json::value* error = root.if_contains("error"); error != nullptr && !error->is_null()) {
    return error_sent(*error);
  }
  heard_ = true;
  read_usage(root);
  if (Status ok = kind_ == Kind::kEmbedding ? read_embeddings(root) : read_choices(root, false);
      !ok) {
    return ok;
  }
  return end();
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
  const json::array* choices = array_at(root, "choices");
  if (choices == nullptr) {
    // Some servers send events of their own in between; a whole answer must have choices.
    return streamed ? Status() : broken("it has no choices");
  }
  for (std::size_t i = 0; i < choices->size(); ++i) {
    const json::object* choice = (*choices)[i].if_object();
    if (choice == nullptr) return broken("a choice that is no object");
    if (Status ok = read_choice(*choice, i, streamed); !ok) return ok;
  }
  return {};
}

Status Answer::read_choice(const json::object& from, std::size_t position, bool streamed) {
  const auto index = static_cast<std::uint32_t>(
      number_at(from, "index", streamed ? 0.0 : static_cast<double>(position)));
  if (index >= choices_.size()) {
    return broken("choice " + std::to_string(index) + " of " + std::to_string(choices_.size()));
  }
  Choice& choice = choices_[index];
  if (kind_ == Kind::kChat) {
    const json::object* delta = object_at(from, streamed ? "delta" : "message");
    if (delta != nullptr) {
      std::string_view reasoning = string_at(*delta, "reasoning_content");
      if (reasoning.empty()) reasoning = string_at(*delta, "reasoning");
      if (!reasoning.empty()) {
        pending_of(choice).mutable_reasoning()->append(reasoning);
        begun_ = true;
      }
      add_text(choice, string_at(*delta, "content"));
      add_text(choice, string_at(*delta, "refusal"));
      if (const json::array* calls = array_at(*delta, "tool_calls")) {
        if (Status ok = read_tool_calls(*calls, index); !ok) return ok;
      }
    }
    if (const json::object* logprobs = object_at(from, "logprobs")) {
      read_chat_logprobs(*logprobs, pending_of(choice));
    }
  } else {
    add_text(choice, string_at(from, "text"));
    if (const json::object* logprobs = object_at(from, "logprobs")) {
      read_legacy_logprobs(*logprobs, pending_of(choice));
    }
  }
  std::string_view reason = string_at(from, "finish_reason");
  if (reason.empty() && !streamed) reason = "stop";
  if (!reason.empty() && choice.finish_reason.empty()) {
    choice.finish_reason = reason;
    ++finished_count_;
    begun_ = true;
  }
  return {};
}

Status Answer::read_tool_calls(const json::array& calls, std::uint32_t index_of_choice) {
  Choice& choice = choices_[index_of_choice];
  for (std::size_t i = 0; i < calls.size(); ++i) {
    const json::object* call = calls[i].if_object();
    if (call == nullptr) return broken("a tool call that is no object");
    const auto index =
        static_cast<std::uint32_t>(number_at(*call, "index", static_cast<double>(i)));
    if (index >= kToolCallsMax) return broken("a tool call with index " + std::to_string(index));
    if (index >= choice.tools.size()) choice.tools.resize(index + 1);
    ToolSeen& seen = choice.tools[index];
    const json::object* function = object_at(*call, "function");
    const std::string_view id = string_at(*call, "id");
    const std::string_view name = function != nullptr ? string_at(*function, "name") : "";
    const std::string_view arguments = function != nullptr ? string_at(*function, "arguments") : "";
    auto& pending = *pending_of(choice).mutable_tool_calls();
    v1::ToolCallDelta* delta = nullptr;
    if (!pending.empty() && pending.rbegin()->index() == index) {
      delta = &*pending.rbegin();
    } else {
      delta = pending.Add();
      delta->set_index(index);
    }
    if (!seen.id) {
      std::string made =
          id_seed_.substr(0, 16) + std::to_string(index_of_choice) + "_" + std::to_string(index);
      delta->set_id(id.empty() ? "call_" + made : std::string(id));
      seen.id = true;
    }
    if (!seen.name && !name.empty()) {
      delta->set_name(std::string(name));
      seen.name = true;
    }
    delta->mutable_arguments()->append(arguments);
    begun_ = true;
  }
  return {};
}

void Answer::add_text(Choice& choice, std::string_view text) {
  if (text.empty()) return;
  begun_ = true;
  if (!stripping_ || &choice != &choices_.front()) {
    pending_of(choice).mutable_text()->append(text);
    return;
  }
  held_ += text;
  const std::size_t common = std::min(held_.size(), resumed_.size());
  if (std::string_view(held_).substr(0, common) != std::string_view(resumed_).substr(0, common)) {
    release_held();
  } else if (held_.size() >= resumed_.size()) {
    held_.erase(0, resumed_.size());
    release_held();
  }
}

// What was held back is no echo, or what follows one.
void Answer::release_held() {
  if (!std::exchange(stripping_, false)) return;
  if (!held_.empty()) pending_of(choices_.front()).mutable_text()->append(held_);
  held_.clear();
}

void Answer::read_usage(const json::object& root) {
  const json::object* usage = object_at(root, "usage");
  if (usage == nullptr) return;
  has_usage_ = true;
  const auto count = [](const json::object& from, const char* name) {
    return static_cast<std::uint32_t>(std::clamp(number_at(from, name), 0.0, 4294967295.0));
  };
  usage_.set_prompt_tokens(count(*usage, "prompt_tokens"));
  usage_.set_completion_tokens(count(*usage, "completion_tokens"));
  if (const json::object* details = object_at(*usage, "prompt_tokens_details")) {
    usage_.set_cached_prompt_tokens(count(*details, "cached_tokens"));
  }
  if (const json::object* details = object_at(*usage, "completion_tokens_details")) {
    usage_.set_reasoning_tokens(count(*details, "reasoning_tokens"));
  }
}

Status Answer::read_embeddings(const json::object& root) {
  const json::array* data = array_at(root, "data");
  if (data == nullptr || data->empty()) return broken("it has no data");
  v1::Output& output = pending_of(choices_.front());
  std::vector<std::string> vectors(data->size());
  for (std::size_t i = 0; i < data->size(); ++i) {
    const json::object* item = (*data)[i].if_object();
    if (item == nullptr) return broken("an embedding that is no object");
    const double index = number_at(*item, "index", static_cast<double>(i));
    if (index < 0 || index >= static_cast<double>(vectors.size())) {
      return broken("an embedding with an index out of range");
    }
    auto vector = read_vector(*item);
    if (!vector) return broken(vector.error().message);
    std::string& place = vectors[static_cast<std::size_t>(index)];
    if (!place.empty()) return broken("two embeddings with one index");
    place = std::move(*vector);
  }
  for (std::string& vector : vectors) output.add_embeddings(std::move(vector));
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
    if (last && has_usage_) *output.mutable_usage() = usage_;
  }
}

}  // namespace waystation::upstream
