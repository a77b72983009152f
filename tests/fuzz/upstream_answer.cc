// What an upstream answers: server-sent events, whole and in pieces, and what they mean; a whole
// document; a refusal.
//
//   input   two characters that say how it is cut, a letter, then the bytes
//   letter  c  a stream of a chat                  C  its whole answer
//           t  a stream of completions, 2 choices  T  their whole answer
//           p  a stream of a chat that goes on     E  embeddings
//           s  a small limit of an event           x  a refusal: status line, then its body
#include "upstream/answer.h"

#include <string>
#include <vector>

#include "fuzz/fuzz.h"
#include "message/sse.h"
#include "upstream/verdict.h"

namespace waystation::fuzz {
namespace {

using namespace waystation::upstream;

constexpr std::size_t kSmallEvent = 64;
constexpr char kResumed[] = "Once upon a time there was";

Answer answer_of(char letter) {
  const Kind kind = letter == 't' || letter == 'T' ? Kind::kCompletion
                    : letter == 'E'                ? Kind::kEmbedding
                                                   : Kind::kChat;
  return Answer(kind, kind == Kind::kCompletion ? 2 : 1, letter == 'p' ? kResumed : "", Echo::kAuto,
                "0123456789abcdef0123", letter == 's' ? kSmallEvent : 4u << 20);
}

std::string shown(const std::vector<v1::Output>& outputs) {
  std::string text;
  for (const v1::Output& output : outputs) text += output.ShortDebugString() + "\n";
  return text;
}

void append(std::string& text, const Status& status) {
  if (status) return;
  require_sayable(status.error());
  text += std::string(code_name(status.error().code)) + ": " + status.error().message + "\n";
}

void require_outputs(const std::vector<v1::Output>& outputs) {
  bool started = false;
  std::vector<bool> finished(2);
  for (const v1::Output& output : outputs) {
    REQUIRE(output.choice() < finished.size(), shown(outputs));
    REQUIRE(!output.started() || !started, shown(outputs));
    started = started || output.started();
    REQUIRE(started, shown(outputs));
    REQUIRE(!finished[output.choice()], shown(outputs));
    finished[output.choice()] = !output.finish_reason().empty();
    v1::Output again;  // it goes through the link and into the journal
    REQUIRE(again.ParseFromString(output.SerializeAsString()), shown(outputs));
  }
}

// What is taken at the end is the same however the stream is cut; `seed` 0: not at all.
std::string read_stream(char letter, std::string_view stream, std::uint64_t seed) {
  Answer answer = answer_of(letter);
  Status status;
  const auto feed = [&](std::string_view piece) {
    status = answer.feed(piece);
    return status.has_value();
  };
  if (seed == 0) {
    feed(stream);
  } else {
    in_pieces(stream, seed, feed);
  }
  std::string text;
  append(text, status);
  if (status) status = answer.end();
  append(text, status);
  std::vector<v1::Output> outputs;
  answer.take(outputs);
  require_outputs(outputs);
  return text + shown(outputs) + (answer.done() ? "done" : "") +
         (answer.has_begun() ? "begun" : "");
}

// Taken as it comes, it is the same text, and each choice ends once.
std::string text_of(const std::vector<v1::Output>& outputs, std::uint32_t choice) {
  std::string text;
  for (const v1::Output& output : outputs) {
    if (output.choice() != choice) continue;
    text += output.reasoning() + "|" + output.text();
    for (const auto& call : output.tool_calls()) text += call.name() + call.arguments();
    text += output.finish_reason();
  }
  std::erase(text, '|');
  return text;
}

void check_taking(char letter, std::string_view stream, std::uint64_t seed) {
  Answer at_end = answer_of(letter);
  Answer bit_by_bit = answer_of(letter);
  std::vector<v1::Output> all;
  std::vector<v1::Output> bits;
  Status status = at_end.feed(stream);
  if (status) status = at_end.end();
  if (!status) return;
  at_end.take(all);
  in_pieces(stream, seed, [&](std::string_view piece) {
    const Status fed = bit_by_bit.feed(piece);
    REQUIRE(fed, fed.error().message);
    bit_by_bit.take(bits);
    return true;
  });
  REQUIRE(bit_by_bit.end(), "it was whole");
  bit_by_bit.take(bits);
  require_outputs(bits);
  std::uint64_t tokens[2] = {};
  for (const v1::Output& output : all) tokens[0] += output.text_tokens();
  for (const v1::Output& output : bits) tokens[1] += output.text_tokens();
  REQUIRE(tokens[0] == tokens[1], shown(bits));
  for (std::uint32_t choice = 0; choice < 2; ++choice) {
    // Reasoning and text change places when they come together, so only their sum is compared.
    REQUIRE(text_of(all, choice).size() == text_of(bits, choice).size(), shown(all) + shown(bits));
  }
}

void check_frames(std::string_view stream, std::uint64_t seed) {
  for (const std::size_t limit : {std::size_t{4u << 20}, kSmallEvent}) {
    message::SseParser whole(limit);
    message::SseParser pieces(limit);
    std::vector<message::SseFrame> frames;
    std::vector<message::SseFrame> others;
    const bool fits = whole.feed(stream, frames);
    bool also_fits = true;
    in_pieces(stream, seed, [&](std::string_view piece) {
      also_fits = pieces.feed(piece, others);
      return also_fits;
    });
    REQUIRE(fits == also_fits && frames.size() == others.size(), stream);
    for (std::size_t i = 0; i < frames.size(); ++i) {
      REQUIRE(frames[i].id == others[i].id && frames[i].event == others[i].event &&
                  frames[i].data == others[i].data,
              frames[i].data);
      REQUIRE(frames[i].data.size() <= limit, frames[i].data);
    }
  }
}

void check_document(char letter, std::string_view document) {
  Answer answer = answer_of(letter);
  const Status status = answer.on_document(document);
  std::vector<v1::Output> outputs;
  answer.take(outputs);
  if (!status) {
    require_sayable(status.error());
    REQUIRE(!answer.has_begun(), "a part of a document was taken");
    for (const v1::Output& output : outputs) {
      REQUIRE(output.text().empty() && output.finish_reason().empty(), shown(outputs));
    }
    return;
  }
  require_outputs(outputs);
  REQUIRE(answer.finished() && !outputs.empty(), shown(outputs));
}

void check_refusal(Input& input) {
  Refusal refusal;
  refusal.status = 400 + input.u8();
  refusal.retry_after = input.line();
  refusal.retry_after_ms = input.line();
  refusal.body = input.rest();
  const Verdict verdict = judge("other", refusal, 1'800'000'000'000);
  REQUIRE(verdict.pause_ms >= 0, std::to_string(verdict.pause_ms));
  if (verdict.error.message.empty()) {
    REQUIRE(verdict.pause_ms > 0, "neither an error nor a pause");
    return;
  }
  require_sayable(verdict.error);
}

}  // namespace
}  // namespace waystation::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace waystation::fuzz;
  be_quiet();
  Input input(data, size);
  const std::uint64_t seed = 1 + input.u16();
  const char letter = static_cast<char>(input.u8());
  if (letter == 'x') {
    check_refusal(input);
  } else if (letter == 'C' || letter == 'T' || letter == 'E') {
    check_document(letter, input.rest());
  } else {
    check_frames(input.rest(), seed);
    const std::string whole = read_stream(letter, input.rest(), 0);
    const std::string pieces = read_stream(letter, input.rest(), seed);
    REQUIRE(whole == pieces, whole + "\n--- but in pieces ---\n" + pieces);
    check_taking(letter, input.rest(), seed);
  }
  return 0;
}
