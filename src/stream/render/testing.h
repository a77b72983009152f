// What the tests of renderers share.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "stream/render/renderer.h"

namespace waystation::stream {

inline RenderIdentity test_identity(std::string api) {
  RenderIdentity out;
  out.id = RequestId::parse("0190f0c2-1111-7222-8333-444444444444").value();
  out.api = std::move(api);
  out.model = "org/model";
  out.accepted_ms = 1'700'000'000'999;
  return out;
}

inline v1::Event test_event(v1::EventKind kind, std::string text = "", std::string finish = "",
                            std::uint32_t choice = 0) {
  v1::Event out;
  out.set_kind(kind);
  out.set_text(std::move(text));
  out.set_finish_reason(std::move(finish));
  out.set_choice(choice);
  return out;
}

inline v1::TokenLogprob& add_logprob(v1::Event& event, std::string token, float logprob) {
  v1::TokenLogprob& out = *event.add_logprobs();
  out.set_token(std::move(token));
  out.set_logprob(logprob);
  return out;
}

inline void add_candidate(v1::TokenLogprob& token, std::string other, float logprob) {
  v1::TokenCandidate& out = *token.add_top();
  out.set_token(std::move(other));
  out.set_logprob(logprob);
}

inline Ending test_ending() {
  Ending out;
  out.state = v1::REQUEST_STATE_COMPLETED;
  out.finish_reason = "stop";
  out.usage.set_prompt_tokens(3);
  out.usage.set_completion_tokens(2);
  return out;
}

// Keeps frames.
struct KeptFrames final : FrameSink {
  void frame(std::string_view name, std::string_view data) override {
    names.emplace_back(name);
    datas.emplace_back(data);
  }
  std::vector<std::string> names;
  std::vector<std::string> datas;
};

// The data of the one frame that an event makes.
inline std::string one_frame(Renderer& renderer, Sequence sequence, const v1::Event& event) {
  KeptFrames frames;
  renderer.on_event(frames, sequence, event);
  return frames.datas.size() == 1 ? frames.datas[0]
                                  : std::to_string(frames.datas.size()) + " frames";
}

}  // namespace waystation::stream
