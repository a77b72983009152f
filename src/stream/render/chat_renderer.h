// Makes the stored events of a chat request into what its client sees: OpenAI's stream, OpenAI's
// whole answer, and the frames of /v1/requests/{id}/events. Pure: the same events give the same
// bytes, live or replayed, on any server of the same renderer version. A change of any byte that an
// already stored request would show is a new version.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/ids.h"
#include "base/result.h"
#include "message/proto/records.pb.h"
#include "stream/reader.h"

namespace waystation::stream {

inline constexpr int kRendererVersion = 1;

// What a renderer must know of a request; all of it is fixed at acceptance.
struct ChatIdentity {
  RequestId id;
  std::string model;
  TimeMs accepted_ms = 0;
  bool include_usage = false;  // the client asked for usage in its stream
};

// Any thread; const after construction.
class ChatRenderer {
 public:
  // `numbered`: every chunk carries its `sequence_number`.
  ChatRenderer(const ChatIdentity& identity, bool numbered);

  // Appends the chat.completion.chunk of one event: a JSON object without line breaks.
  void append_chunk(std::string& out, Sequence sequence, const v1::Event& event) const;

 private:
  void append_choice(std::string& out, const v1::Event& event) const;

  std::string head_;  // up to and with "choices":
  bool include_usage_;
  bool numbered_;
};

// Collects the events of a request, in order, into one chat.completion.
class ChatCollector {
 public:
  void add(const v1::Event& event);
  std::size_t text_bytes() const { return text_.size(); }
  // The whole answer as JSON. `usage` and `finish_reason` come from the ending.
  std::string completion(const ChatIdentity& identity, const Ending& ending) const;

 private:
  std::string text_;
};

// "queued", "running", "completed", "failed", "cancelled", "expired", "dead".
std::string_view state_name(v1::RequestState state);
bool is_terminal(v1::RequestState state);

// Why a request that didn't complete ended: the code that its HTTP status comes from. Only for
// endings other than completed.
Error error_of(const Ending& ending);

// The last frame of /v1/requests/{id}/events.
void append_terminal_frame(std::string& out, const Ending& ending);

// {"prompt_tokens":…,"completion_tokens":…,"total_tokens":…,"prompt_tokens_details":{…}}
std::string usage_json(const v1::Usage& usage);

}  // namespace waystation::stream
