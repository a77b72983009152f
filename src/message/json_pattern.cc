#include "message/json_pattern.h"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <utility>
#include <vector>

namespace waystation::message {
namespace {

constexpr std::uint32_t kLast = 0x10FFFF;
constexpr int kDepthMax = 32;
constexpr int kRepeatMax = 1000;

using Range = std::pair<std::uint32_t, std::uint32_t>;  // both ends belong to it
using Set = std::vector<Range>;

Set sorted(Set set) {
  std::sort(set.begin(), set.end());
  Set out;
  for (const Range& range : set) {
    if (!out.empty() && range.first <= out.back().second + 1) {
      out.back().second = std::max(out.back().second, range.second);
    } else {
      out.push_back(range);
    }
  }
  return out;
}

Set inverse(const Set& set) {
  Set out;
  std::uint32_t from = 0;
  for (const Range& range : sorted(set)) {
    if (range.first > from) out.emplace_back(from, range.first - 1);
    from = range.second + 1;
  }
  if (from <= kLast) out.emplace_back(from, kLast);
  return out;
}

// Without what a JSON string must escape, and without halves of surrogate pairs.
Set writable(const Set& set) {
  Set blocked = inverse(set);
  for (const Range& range :
       {Range{0, 0x1F}, {'"', '"'}, {'\\', '\\'}, {0x7F, 0x7F}, {0xD800, 0xDFFF}}) {
    blocked.push_back(range);
  }
  return inverse(blocked);
}

const Set kDigits{{'0', '9'}};
const Set kWord{{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
const Set kBlank{{' ', ' '}, {0xA0, 0xA0}};

std::string written(std::uint32_t code) {
  char text[16];
  std::snprintf(text, sizeof text, code > 0xFFFF ? "\\U%08X" : "\\u%04X", code);
  return text;
}

class Pattern {
 public:
  explicit Pattern(std::string_view text) : text_(text) {}

  Result<std::string> plain() {
    take('^');
    std::string out = alternatives(0);
    if (at_ < text_.size() && error_.empty()) fail("has a ')' too many");
    if (out.empty()) fail("matches nothing but the empty string: use maxLength 0");
    if (!error_.empty()) return Error{Code::kInvalidArgument, error_};
    return "^" + out + "$";
  }

 private:
  bool more() const { return at_ < text_.size() && error_.empty(); }
  bool take(char c) {
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  void fail(std::string what) {
    if (error_.empty()) error_ = std::move(what);
  }

  std::string alternatives(int depth) {
    if (depth > kDepthMax) fail("is nested too deep");
    std::string out = sequence(depth);
    while (more() && take('|')) {
      const std::string next = sequence(depth);
      if (out.empty() || next.empty()) fail("has an empty alternative, which can't be enforced");
      out += "|" + next;
    }
    return out;
  }

  std::string sequence(int depth) {
    std::string out;
    while (more() && text_[at_] != '|' && text_[at_] != ')') {
      if (text_[at_] == '$' && depth == 0 && (at_ + 1 == text_.size() || text_[at_ + 1] == '|')) {
        ++at_;
        continue;
      }
      if (text_[at_] == '^' && depth == 0 && at_ > 0 && text_[at_ - 1] == '|') {
        ++at_;
        continue;
      }
      const std::string one = item(depth);
      out += one + repetition();
    }
    return out;
  }

  std::string item(int depth) {
    const char c = text_[at_];
    if (c == '(') return group(depth);
    if (c == '[') return written_set(bracket());
    if (c == '.') {
      ++at_;
      return written_set(inverse({{'\n', '\n'}, {'\r', '\r'}}));
    }
    if (c == '\\') return written_set(escape());
    if (c == '^' || c == '$') fail("has an anchor inside, which can't be enforced");
    if (c == '*' || c == '+' || c == '?' || c == '{') fail("repeats nothing");
    const std::uint32_t code = character();
    return written_set({{code, code}});
  }

  std::string group(int depth) {
    ++at_;
    if (take('?') && !take(':')) fail("has a group of a kind that can't be enforced");
    const std::string inside = alternatives(depth + 1);
    if (!take(')')) fail("has a '(' too many");
    if (inside.empty()) fail("has an empty group, which can't be enforced");
    return "(" + inside + ")";
  }

  std::string repetition() {
    if (!more()) return {};
    std::string out;
    const char c = text_[at_];
    if (c == '*' || c == '+' || c == '?') {
      ++at_;
      out = std::string(1, c);
    } else if (c == '{') {
      out = counts();
    } else {
      return {};
    }
    if (more() && std::string_view("*+?{").find(text_[at_]) != std::string_view::npos) {
      fail("has a repetition of a kind that can't be enforced");
    }
    return out;
  }

  std::string counts() {
    ++at_;
    const std::optional<int> least = integer();
    std::optional<int> most = least;
    if (take(',')) most = more() && text_[at_] == '}' ? kRepeatMax : integer();
    if (!least || !most || !take('}') || *least > *most) {
      fail("has a repetition that can't be enforced");
      return {};
    }
    if (*least > kRepeatMax) fail("repeats too often to be enforced");
    return "{" + std::to_string(*least) + "," + std::to_string(std::min(*most, kRepeatMax)) + "}";
  }

  std::optional<int> integer() {
    int value = 0;
    const auto [end, wrong] =
        std::from_chars(text_.data() + at_, text_.data() + text_.size(), value);
    if (wrong != std::errc() || value < 0) return std::nullopt;
    at_ = static_cast<std::size_t>(end - text_.data());
    return value;
  }

  Set bracket() {
    ++at_;
    const bool negative = take('^');
    Set set;
    while (more() && text_[at_] != ']') {
      const Set low = text_[at_] == '\\' ? escape() : one(character());
      const bool range = at_ + 1 < text_.size() && text_[at_] == '-' && text_[at_ + 1] != ']';
      if (!range) {
        set.insert(set.end(), low.begin(), low.end());
        continue;
      }
      ++at_;
      const Set high = text_[at_] == '\\' ? escape() : one(character());
      if (!single(low) || !single(high) || low[0].first > high[0].first) {
        fail("has a range in [] that goes nowhere");
        return {};
      }
      set.emplace_back(low[0].first, high[0].first);
    }
    if (!take(']')) fail("has a '[' too many");
    return negative ? inverse(set) : set;
  }

  static Set one(std::uint32_t code) { return {{code, code}}; }
  static bool single(const Set& set) { return set.size() == 1 && set[0].first == set[0].second; }

  Set escape() {
    ++at_;
    if (at_ >= text_.size()) {
      fail("ends with a backslash");
      return {};
    }
    const char c = text_[at_++];
    switch (c) {
      case 'd':
        return kDigits;
      case 'D':
        return inverse({{0x80, kLast}, {'0', '9'}});  // other scripts have digits too
      case 'w':
        return kWord;
      case 'W':
        return inverse({{0x80, kLast}, {'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}});
      case 's':
        return {{' ', ' '}};
      case 'S':
        return {{'!', '~'}};
      case 't':
        return one('\t');
      case 'n':
        return one('\n');
      case 'r':
        return one('\r');
      case 'f':
        return one('\f');
      case 'v':
        return one('\v');
      case 'x':
        return one(hexadecimal(2));
      case 'u':
        return one(hexadecimal(4));
      default:
        break;
    }
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (letter || static_cast<unsigned char>(c) >= 0x80) {
      fail(std::string("has \\") + c + ", which can't be enforced");
      return {};
    }
    return one(static_cast<unsigned char>(c));
  }

  std::uint32_t hexadecimal(std::size_t digits) {
    std::uint32_t code = 0;
    const std::string_view text = text_.substr(at_, digits);
    const auto [end, wrong] = std::from_chars(text.data(), text.data() + text.size(), code, 16);
    if (wrong != std::errc() || end != text.data() + digits) fail("has a broken escape");
    at_ += text.size();
    return code;
  }

  // The text is UTF-8.
  std::uint32_t character() {
    const auto lead = static_cast<unsigned char>(text_[at_++]);
    if (lead < 0x80) return lead;
    const int rest = lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : 1;
    std::uint32_t code = lead & (0x3F >> rest);
    for (int i = 0; i < rest && at_ < text_.size(); ++i) {
      code = (code << 6) | (static_cast<unsigned char>(text_[at_++]) & 0x3F);
    }
    return code;
  }

  std::string written_set(const Set& set) {
    const Set kept = writable(set);
    if (kept.empty()) {
      fail("wants a character that a JSON string must escape, which can't be enforced");
      return {};
    }
    std::string out = "[";
    for (const Range& range : kept) {
      out += written(range.first);
      if (range.second > range.first) out += "-" + written(range.second);
    }
    return out + "]";
  }

  std::string_view text_;
  std::size_t at_ = 0;
  std::string error_;
};

}  // namespace

Result<std::string> plain_pattern(std::string_view pattern) {
  return Pattern(pattern).plain();
}

}  // namespace waystation::message
