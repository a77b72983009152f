// The parts of an answer that have a shape of their own. For answer.cc. Pure.
#pragma once

#include <boost/json/object.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "message/proto/link.pb.h"

namespace waystation::upstream {

// Our name of a finish reason: OpenAI's own, or what another API calls the same. kUnavailable for
// any other, since it may mean that the answer was broken off.
Result<std::string_view> finish_reason_of(std::string_view theirs);

// Token counts; nothing unless they are whole numbers that can be true. `completion_needed`: the
// answer is text.
std::optional<v1::Usage> read_usage(const boost::json::object& usage, bool completion_needed);

// Of a choice. What isn't as described is left out: the answer's text is what counts.
void read_chat_logprobs(const boost::json::object& from, v1::Output& out);
// The old shape: three lists beside each other.
void read_legacy_logprobs(const boost::json::object& from, v1::Output& out);

// The vectors of an embeddings answer in their order, as float32 little-endian, from numbers or
// base64. kUnavailable says what is wrong with it.
Result<std::vector<std::string>> read_embeddings(const boost::json::object& root);

}  // namespace waystation::upstream
