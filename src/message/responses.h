// OpenAI's Responses request as a value, and as the chat body that a model hears. Pure.
//
// What a parameter does (honoured, ignored, refused) is in docs/openai.md.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "message/response_items.h"

namespace waystation::message {

struct ResponseRequest {
  std::string model;
  std::vector<Item> input;           // may hold item references
  std::string instructions;          // of this response only, not of those that follow it
  std::string previous_response_id;  // as sent
  std::string conversation;          // its id
  bool store = true;
  bool background = false;
  bool stream = false;
  std::string service_tier;  // as Generation's
  // The members of the response object that show how it was asked for: JSON, `"background":…,…`.
  std::string parameters;
  // The chat body without its messages.
  std::string options;
};

// Parses and checks a body. `id`: of the request to be made; the new items' ids come from it.
// Errors: kInvalidArgument with `param`.
Result<ResponseRequest> parse_response_request(std::string_view body, RequestId id);

// The chat body: instructions, `earlier` items, then the request's own, in which no reference may
// be left. For a turn of a conversation it is only a part, which is put together when the turn
// comes.
Result<std::string> response_chat_body(const ResponseRequest& request,
                                       const std::vector<Item>& earlier);

// A refusal of the chat body, said in the words of the Responses API.
Error as_response_error(Error error);

// `metadata` of a body, checked: JSON, "{}" when it is absent.
Result<std::string> parse_metadata(std::string_view body);

}  // namespace waystation::message
