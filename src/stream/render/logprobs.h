// Log probabilities in the two forms that OpenAI's APIs have. Pure.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "message/proto/records.pb.h"

namespace waystation::stream {

// A number of a token or a vector as JSON, the shortest that reads back as the same float. Not
// finite: -9999, which OpenAI uses for "very unlikely".
void append_float(std::string& out, float value);

// {"token":…,"logprob":…,"bytes":[…],"top_logprobs":[…]}, as in chat's `logprobs.content`.
void append_chat_logprob(std::string& out, const v1::TokenLogprob& token);

// The events' own lists, joined by commas, without brackets.
void append_chat_logprobs(std::string& out, const v1::Event& event);

// The legacy form is lists side by side: {"tokens","token_logprobs","top_logprobs","text_offset"}.
class LegacyLogprobs {
 public:
  // `offset`: where the token's text begins in the choice's, in characters; moved past it.
  void add(const v1::TokenLogprob& token, std::size_t& offset);
  bool empty() const { return tokens_.empty(); }
  std::size_t bytes() const { return tokens_.size() + logprobs_.size() + top_.size(); }
  void append_json(std::string& out) const;

 private:
  std::string tokens_;  // JSON lists without their brackets
  std::string logprobs_;
  std::string top_;
  std::string offsets_;
};

}  // namespace waystation::stream
