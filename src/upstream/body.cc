#include "upstream/body.h"

#include <algorithm>
#include <boost/json.hpp>
#include <charconv>
#include <optional>

#include "message/chat.h"
#include "message/completion.h"
#include "message/embedding.h"
#include "message/json.h"

namespace waystation::upstream {
namespace {

using message::append_json_string;

bool is_space(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

// Walks over JSON that was checked when the request came in; it must only never run past the end.
class Walker {
 public:
  explicit Walker(std::string_view text) : text_(text) {}

  bool take(char wanted) {
    skip_space();
    if (at_ >= text_.size() || text_[at_] != wanted) return false;
    ++at_;
    return true;
  }

  // The inside of a string.
  std::optional<std::string_view> string() {
    if (!take('"')) return std::nullopt;
    const std::size_t from = at_;
    while (at_ < text_.size() && text_[at_] != '"') at_ += text_[at_] == '\\' ? 2 : 1;
    if (at_ >= text_.size()) return std::nullopt;
    return text_.substr(from, at_++ - from);
  }

  // A value of any kind, without the space around it.
  std::optional<std::string_view> value() {
    skip_space();
    const std::size_t from = at_;
    int depth = 0;
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (c == '"') {
        if (!string()) return std::nullopt;
        if (depth == 0) break;
        continue;
      }
      if (depth == 0 && (c == ',' || c == '}' || c == ']' || is_space(c))) break;
      ++at_;
      if (c == '{' || c == '[') ++depth;
      if ((c == '}' || c == ']') && --depth == 0) break;
    }
    if (at_ == from || depth != 0) return std::nullopt;
    return text_.substr(from, at_ - from);
  }

  bool at_end() {
    skip_space();
    return at_ == text_.size();
  }

 private:
  void skip_space() {
    while (at_ < text_.size() && is_space(text_[at_])) ++at_;
  }

  std::string_view text_;
  std::size_t at_ = 0;
};

// Whether a member has this name, however it is spelled: "mod\u0065l" must not slip through.
bool is_called(const Member& member, std::string_view name) {
  if (member.key.find('\\') == std::string_view::npos) return member.key == name;
  boost::json::error_code ec;
  const auto spelled = boost::json::parse('"' + std::string(member.key) + '"', ec);
  return !ec && spelled.is_string() && std::string_view(spelled.get_string()) == name;
}

const Member* find(const std::vector<Member>& members, std::string_view name) {
  for (const Member& member : members) {
    if (is_called(member, name)) return &member;
  }
  return nullptr;
}

void append_member(std::string& out, std::string_view quoted_key, std::string_view value) {
  if (out.size() > 1) out.push_back(',');
  out.push_back('"');
  out += quoted_key;
  out += "\":";
  out += value;
}

Error cannot_continue(const Options& options, const std::string& why) {
  return Error{Code::kUpstream,
               "the answer had begun, and " + why + " can't be continued by " + options.name};
}

bool has_begun(const v1::ChoiceProgress& choice) {
  return !choice.text().empty() || choice.token_ids_size() > 0 || !choice.reasoning().empty() ||
         choice.tool_calls_size() > 0 || !choice.finish_reason().empty();
}

// The text to go on from; empty when nothing has come yet.
Result<std::string> text_to_resume(const v1::Assign& assign, const Options& options) {
  const auto& choices = assign.resume();
  if (std::none_of(choices.begin(), choices.end(), has_begun)) return std::string();
  if (options.continuation == Continuation::kNone) return cannot_continue(options, "it");
  if (assign.choices() > 1) return cannot_continue(options, "one of several choices");
  const v1::ChoiceProgress& choice = choices.Get(0);
  if (choice.tool_calls_size() > 0) return cannot_continue(options, "a tool call");
  if (!choice.reasoning().empty() && choice.text().empty()) {
    return cannot_continue(options, "the model's thinking");
  }
  return choice.text();
}

// What is left of the client's budget. Where the tokens aren't known, four bytes are taken for one.
std::string remaining_tokens(std::string_view limit, const v1::ChoiceProgress& progress) {
  std::int64_t tokens = 0;
  const auto [end, ec] = std::from_chars(limit.data(), limit.data() + limit.size(), tokens);
  if (ec != std::errc() || end != limit.data() + limit.size()) return std::string(limit);
  const auto used = progress.token_ids_size() > 0
                        ? static_cast<std::int64_t>(progress.token_ids_size())
                        : static_cast<std::int64_t>((progress.text().size() + kBytesPerToken - 1) /
                                                    kBytesPerToken);
  return std::to_string(std::max<std::int64_t>(1, tokens - used));
}

// The conversation with the beginning of the answer as its last message.
std::string with_prefill(std::string_view messages, const std::string& text) {
  std::string out(messages);
  out.pop_back();  // ']'
  while (!out.empty() && is_space(out.back())) out.pop_back();
  if (!out.ends_with('[')) out.push_back(',');
  out += R"({"role":"assistant","content":)";
  append_json_string(out, text);
  out += "}]";
  return out;
}

// A text prompt, or a list of one, with the beginning of the answer at its end.
std::optional<std::string> with_continuation(std::string_view prompt, const std::string& text) {
  Walker walker(prompt);
  const bool listed = walker.take('[');
  const auto inside = walker.string();
  if (!inside || (listed && !walker.take(']')) || !walker.at_end()) return std::nullopt;
  std::string quoted;
  append_json_string(quoted, text);
  return '"' + std::string(*inside) + quoted.substr(1);
}

Result<Kind> kind_of(const v1::Envelope& envelope) {
  if (envelope.type() == message::kChatRequestType) return Kind::kChat;
  if (envelope.type() == message::kCompletionRequestType) return Kind::kCompletion;
  if (envelope.type() == message::kEmbeddingRequestType) return Kind::kEmbedding;
  return Error{Code::kInvalidArgument,
               "upstreams can't answer a request of the type '" + envelope.type() + "'"};
}

std::string their_name(const v1::Assign& assign, const Options& options) {
  const std::string& asked = assign.model().empty() ? assign.envelope().model() : assign.model();
  for (const ModelRoute& model : options.models) {
    if (model.name == asked) return model.theirs.empty() ? model.name : model.theirs;
  }
  return asked;
}

}  // namespace

Result<std::vector<Member>> split_object(std::string_view json) {
  const Error no_object{Code::kInvalidArgument, "the request's body is no JSON object"};
  std::vector<Member> members;
  members.reserve(16);
  Walker walker(json);
  if (!walker.take('{')) return no_object;
  if (walker.take('}')) {
    if (!walker.at_end()) return no_object;
    return members;
  }
  while (true) {
    const auto key = walker.string();
    if (!key || !walker.take(':')) return no_object;
    const auto value = walker.value();
    if (!value) return no_object;
    members.push_back({*key, *value});
    if (walker.take(',')) continue;
    if (!walker.take('}') || !walker.at_end()) return no_object;
    return members;
  }
}

std::string_view path_of(Kind kind) {
  switch (kind) {
    case Kind::kChat:
      return "/chat/completions";
    case Kind::kCompletion:
      return "/completions";
    case Kind::kEmbedding:
      return "/embeddings";
  }
  return "";
}

Result<Body> make_body(const v1::Assign& assign, const Options& options) {
  const v1::Envelope& envelope = assign.envelope();
  auto kind = kind_of(envelope);
  if (!kind) return kind.error();
  if (!envelope.compression().empty()) {
    return Error{Code::kInternal, "a compressed envelope reached an upstream"};
  }
  auto members = split_object(envelope.data());
  if (!members) return members.error();
  auto resumed = text_to_resume(assign, options);
  if (!resumed) return resumed.error();

  Body body{*kind, false, "{", std::move(*resumed)};
  const Member* stream = find(*members, "stream");
  body.stream = *kind != Kind::kEmbedding &&
                (options.always_stream || (stream != nullptr && stream->value == "true"));
  const bool continues = !body.resumed.empty();
  if (continues && *kind == Kind::kCompletion) {
    const Member* echo = find(*members, "echo");
    if (echo != nullptr && echo->value == "true") {
      return cannot_continue(options, "an echoed prompt");
    }
  }
  body.text.reserve(envelope.data().size() + body.resumed.size() + 256);
  append_member(body.text, "model", message::json_string(their_name(assign, options)));
  if (body.stream) {
    append_member(body.text, "stream", "true");
    append_member(body.text, "stream_options", R"({"include_usage":true})");
  }
  const auto replaced = [&](const Member& member) {
    if (is_called(member, "model") || is_called(member, "stream") ||
        is_called(member, "stream_options")) {
      return true;
    }
    const auto is_member = [&member](const std::string& name) { return is_called(member, name); };
    return std::any_of(options.drop.begin(), options.drop.end(), is_member) ||
           (continues && std::any_of(options.continue_flags.begin(), options.continue_flags.end(),
                                     [&](const auto& flag) { return is_member(flag.first); }));
  };
  for (const Member& member : *members) {
    if (replaced(member)) continue;
    if (continues && is_called(member, "messages") && member.value.ends_with(']')) {
      append_member(body.text, "messages", with_prefill(member.value, body.resumed));
    } else if (continues && is_called(member, "prompt")) {
      const auto prompt = with_continuation(member.value, body.resumed);
      if (!prompt) return cannot_continue(options, "a prompt of token ids");
      append_member(body.text, "prompt", *prompt);
    } else if (continues &&
               (is_called(member, "max_tokens") || is_called(member, "max_completion_tokens"))) {
      append_member(body.text, member.key, remaining_tokens(member.value, assign.resume(0)));
    } else {
      append_member(body.text, member.key, member.value);
    }
  }
  if (continues) {
    for (const auto& [name, value] : options.continue_flags) {
      append_member(body.text, name, value);
    }
  }
  body.text.push_back('}');
  return body;
}

}  // namespace waystation::upstream
