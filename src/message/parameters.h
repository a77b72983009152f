// The parameters that OpenAI's APIs share, read into a Generation. For this folder's sources only.
// docs/openai.md has the table of what is honoured, ignored and refused. Pure.
#pragma once

#include "message/fields.h"
#include "message/generation.h"

namespace waystation::message {

// `model`: required, not empty.
Result<std::string> parse_model(const fields::Object& body);

// max_tokens under either of its names; larger than any context is as large as can be.
Result<std::optional<std::uint32_t>> parse_token_limit(const fields::Object& body,
                                                       const char* name);

// temperature, top_p, top_k, min_p, penalties, seed, stop, max_tokens, logit_bias, n, service_tier.
Status parse_generation(const fields::Object& body, Generation& out);

// stream, stream_options.
Status parse_stream(const fields::Object& body, Generation& out);

// What is kept but changes no answer: metadata, user, safety_identifier, prompt_cache_key, store.
// Only checked for its form.
Status check_labels(const fields::Object& body);

// Parameters of other servers that change what an answer looks like; ignoring one would break what
// its sender relies on.
Status refuse_foreign(const fields::Object& body);

}  // namespace waystation::message
