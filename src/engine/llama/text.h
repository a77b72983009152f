// From token pieces to the text of an answer. Pure; owned by one slot, used on its thread.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace waystation::engine {

// Turns bytes that arrive in any cut into valid UTF-8: an unfinished character waits for its rest;
// bytes that can't be part of one become U+FFFD, one for each maximal broken piece (Unicode 15,
// chapter 3.9).
class Utf8Decoder {
 public:
  // Appends to `out` what is certain after `bytes`.
  void push(std::string_view bytes, std::string& out);
  // The input is over: an unfinished character becomes U+FFFD.
  void finish(std::string& out);

 private:
  std::string partial_;  // at most 3 bytes: a valid beginning of a character
};

// Holds back what may be the beginning of a stop string, ends at the first whole one, and tells how
// much of the text each token made certain. The same pieces give the same outputs, so an answer
// that is resumed goes on exactly where it was.
class TextAssembler {
 public:
  // `stops`: none is empty.
  explicit TextAssembler(std::vector<std::string> stops) : stops_(std::move(stops)) {}

  // The text that the next token's bytes made certain; may be empty. Not after stopped().
  std::string push(std::string_view piece);
  // The answer is over without a stop string: returns what was held back.
  std::string finish();
  // A stop string has come; it and what follows it is not part of the text.
  bool stopped() const { return stopped_; }

 private:
  std::string release(std::size_t bytes);

  std::vector<std::string> stops_;
  Utf8Decoder decoder_;
  std::string held_;  // decoded, not yet handed out
  bool stopped_ = false;
};

}  // namespace waystation::engine
