// The body of a call to an upstream, made from the client's: only what must change is changed, and
// values are copied without being understood. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "message/proto/link.pb.h"
#include "upstream/options.h"

namespace waystation::upstream {

enum class Kind { kChat, kCompletion, kEmbedding };

struct Body {
  Kind kind = Kind::kChat;
  bool stream = false;
  std::string text;     // JSON
  std::string resumed;  // the beginning of the answer that the upstream goes on from; may be empty
};

// One member of a JSON object, as text; `key` without its quotes, escapes as they are.
struct Member {
  std::string_view key;
  std::string_view value;
};

// The members of the object that `json` is. kInvalidArgument when it isn't an object. Values are
// skipped over, not checked.
Result<std::vector<Member>> split_object(std::string_view json);

// "/chat/completions", "/completions", "/embeddings".
std::string_view path_of(Kind kind);

// The call for `assign`. Errors: kUpstream when the answer has begun and `options` say that it
// can't be continued there; kInvalidArgument when the envelope isn't a request that upstreams know.
Result<Body> make_body(const v1::Assign& assign, const Options& options);

}  // namespace waystation::upstream
