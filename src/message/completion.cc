#include "message/completion.h"

#include <boost/json.hpp>

#include "message/parameters.h"
#include "message/token_input.h"

namespace waystation::message {
namespace {

using fields::bad;
using fields::Object;

constexpr std::int64_t kLogprobsMax = 5;
// OpenAI's: without it a completion is short, whatever room the context has.
constexpr std::uint32_t kMaxTokensDefault = 16;

Status parse_choices(const Object& body, CompletionRequest& out) {
  out.n = out.choices;
  auto best_of = fields::integer(body, "best_of", "best_of", 1, kChoicesMax);
  if (!best_of) return best_of.error();
  if (*best_of && **best_of != out.n) {
    return bad("best_of", "must be the same as n: answers are not made to be thrown away");
  }
  const std::uint64_t choices = std::uint64_t{out.n} * out.prompts.size();
  if (choices > kPromptChoicesMax) {
    return bad(out.n > 1 ? "n" : "prompt", "asks for more than " +
                                               std::to_string(kPromptChoicesMax) +
                                               " choices in one request (prompts times n)");
  }
  out.choices = static_cast<std::uint32_t>(choices);
  return {};
}

}  // namespace

Result<CompletionRequest> parse_completion_request(std::string_view body) {
  auto document = fields::parse_body(body);
  if (!document) return document.error();
  const Object& object = document->get_object();
  CompletionRequest out;
  auto model = parse_model(object);
  if (!model) return model.error();
  out.model = std::move(*model);
  auto prompts = parse_inputs(object, "prompt", kPromptChoicesMax, true);
  if (!prompts) return prompts.error();
  out.prompts = std::move(*prompts);
  if (auto status = parse_generation(object, out); !status) return status.error();
  if (!out.max_tokens) out.max_tokens = kMaxTokensDefault;
  if (auto status = parse_choices(object, out); !status) return status.error();
  if (auto status = parse_stream(object, out); !status) return status.error();
  auto echo = fields::flag(object, "echo", "echo");
  if (!echo) return echo.error();
  out.echo = *echo;
  auto logprobs = fields::integer(object, "logprobs", "logprobs", 0, kLogprobsMax);
  if (!logprobs) return logprobs.error();
  if (*logprobs) out.logprobs = static_cast<std::uint32_t>(**logprobs);
  auto suffix = fields::text(object, "suffix", "suffix");
  if (!suffix) return suffix.error();
  if (!suffix->empty()) return bad("suffix", "is not supported: the model only goes on at the end");
  if (auto status = check_labels(object); !status) return status.error();
  if (auto status = refuse_foreign(object); !status) return status.error();
  return out;
}

}  // namespace waystation::message
