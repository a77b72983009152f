#include "ledger/attempts.h"

#include <algorithm>

namespace waystation::ledger {

// What an event says of the tokens used.
void add_usage(const v1::Event& event, v1::Usage& usage) {
  switch (event.kind()) {
    case v1::EVENT_KIND_START:
      if (event.has_usage()) usage = event.usage();
      break;
    case v1::EVENT_KIND_DELTA:
      usage.set_completion_tokens(usage.completion_tokens() +
                                  static_cast<std::uint32_t>(event.token_ids_size()) +
                                  event.text_tokens());
      usage.set_reasoning_tokens(usage.reasoning_tokens() + event.reasoning_tokens());
      break;
    case v1::EVENT_KIND_FINISH:
      if (event.has_usage()) usage = event.usage();
      break;
    default:
      break;
  }
}

std::string what_broke(const Request& request) {
  for (auto at = request.attempts.rbegin() + 1; at < request.attempts.rend(); ++at) {
    if (at->outcome() == "returned") continue;
    return at->outcome() == "server_restart" ? "the server was restarted" : at->detail();
  }
  return "";
}

v1::Usage usage_of_all(const Request& request, v1::Usage usage) {
  const v1::Attempt& attempt = request.attempts.back();
  if (!attempt.has_kept()) return usage;
  const v1::Usage& kept = attempt.kept();
  if (kept.prompt_tokens() > 0) {
    usage.set_prompt_tokens(kept.prompt_tokens());
    usage.set_cached_prompt_tokens(kept.cached_prompt_tokens());
  } else {
    usage.set_prompt_tokens(usage.prompt_tokens() -
                            std::min(usage.prompt_tokens(), kept.completion_tokens()));
    usage.set_cached_prompt_tokens(std::min(usage.cached_prompt_tokens(), usage.prompt_tokens()));
  }
  usage.set_completion_tokens(kept.completion_tokens() + usage.completion_tokens());
  usage.set_reasoning_tokens(kept.reasoning_tokens() + usage.reasoning_tokens());
  return usage;
}

}  // namespace waystation::ledger
