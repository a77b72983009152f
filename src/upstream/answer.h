// What an upstream answers, made into outputs of the link: the chunks of a stream one by one, or
// one whole document. Pure; one thread.
//
//   Answer answer(Kind::kChat, choices, …);
//   answer.feed(bytes)…           // of a stream, cut anywhere; or on_document(body), once
//   answer.take(outputs)          // whenever something is to be sent on
//   answer.end()                  // the stream is over: was it whole?
//   answer.take(outputs)          // the last one, with its finish reason and the usage
#pragma once

#include <boost/json/fwd.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "message/proto/link.pb.h"
#include "message/sse.h"
#include "upstream/body.h"
#include "upstream/options.h"

namespace waystation::upstream {

class Answer {
 public:
  // `resumed`: the beginning of choice 0, which may be echoed. `id_seed`: hexadecimal digits for
  // the ids of tool calls that came without one.
  // `event_bytes_max`: of one event of the stream.
  Answer(Kind kind, std::uint32_t choices, std::string resumed, Echo echo, std::string id_seed,
         std::size_t event_bytes_max = 4u << 20);

  // The next bytes of a stream of events, in pieces of any size. Errors as on_event, and
  // kUnavailable for an event that is too large; nothing may be fed after one.
  Status feed(std::string_view bytes);

  // The data of one event. "[DONE]" ends the stream. Errors: kUnavailable when it isn't what the
  // API describes, saying which field; an error that the upstream sent, with its message.
  Status on_event(std::string_view data);

  // The whole answer of a call that wasn't streamed. Complete afterwards. Errors as on_event; then
  // nothing of it is taken.
  Status on_document(std::string_view json);

  // The stream has ended, as it should or not. kUnavailable unless every choice has finished.
  Status end();

  // [DONE] came.
  bool done() const { return done_; }
  // Every choice has its finish reason: what may still come is the usage.
  bool finished() const { return finished_count_ == choices_.size(); }
  // Something came that another attempt would have to go on from.
  bool has_begun() const { return begun_; }
  // The upstream said how many tokens it was. Otherwise the outputs have counts of our own: one
  // token for each event that brought something, or for kBytesPerToken bytes of a document.
  bool has_usage() const { return usage_.has_value(); }

  // Appends what came since the last call, one output a choice at most, without fences. The last
  // choice's finish waits for end().
  void take(std::vector<v1::Output>& out);

 private:
  struct ToolSeen {
    bool id = false;
    bool name = false;
  };
  struct Choice {
    v1::Output pending;
    bool has_pending = false;
    std::string finish_reason;
    bool finish_taken = false;
    std::vector<ToolSeen> tools;  // by index
  };

  Status read_document(std::string_view text);
  Status read_choices(const boost::json::object& root, bool streamed);
  Status read_choice(const boost::json::object& from, std::size_t position, bool streamed);
  Status read_message(const boost::json::object& from, std::uint32_t index_of_choice,
                      std::size_t& bytes);
  Status read_tool_calls(const boost::json::array& calls, std::uint32_t index_of_choice,
                         std::size_t& bytes);
  Status read_vectors(const boost::json::object& root);
  Status read_finish(const boost::json::object& from, Choice& choice, bool streamed);
  void note_usage(const boost::json::object& root);
  // Gives the bytes that are not held back.
  std::size_t add_text(Choice& choice, std::string_view text);
  void release_held();
  v1::Output& pending_of(Choice& choice);

  const Kind kind_;
  const std::string resumed_;
  const std::string id_seed_;
  bool stripping_;    // choice 0 may still be echoing
  std::string held_;  // what looks like the echo's beginning so far
  std::vector<Choice> choices_;
  std::size_t finished_count_ = 0;
  std::size_t untaken_finishes_;
  bool started_taken_ = false;
  bool heard_ = false;  // anything valid came
  bool begun_ = false;
  bool done_ = false;
  bool complete_ = false;
  std::optional<v1::Usage> usage_;
  const std::size_t event_bytes_max_;
  message::SseParser sse_;
  std::vector<message::SseFrame> frames_;  // reused
  std::string joined_;                     // reused
};

}  // namespace waystation::upstream
