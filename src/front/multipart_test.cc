#include "front/multipart.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace waystation::front {
namespace {

// Notes all that it is told, in one line.
class Notes final : public PartSink {
 public:
  Status on_part(const Part& part) override {
    text +=
        "[" + part.name + (part.is_file ? "|" + part.filename : "") + "|" + part.content_type + "]";
    return {};
  }
  Status on_data(std::string_view bytes) override {
    EXPECT_FALSE(bytes.empty());
    text += bytes;
    if (refuse) return Error{Code::kTooLarge, "enough"};
    return {};
  }
  Status on_part_end() override {
    text += ";";
    return {};
  }
  std::string text;
  bool refuse = false;
};

Result<std::string> parse(const std::string& body, std::size_t piece,
                          const std::string& boundary = "B") {
  Notes notes;
  Multipart parser(boundary, notes);
  for (std::size_t at = 0; at < body.size(); at += piece) {
    if (Status s = parser.feed(std::string_view(body).substr(at, piece)); !s) return s.error();
  }
  if (Status s = parser.finish(); !s) return s.error();
  return notes.text;
}

std::string part(const std::string& disposition, const std::string& data) {
  return "--B\r\nContent-Disposition: form-data; " + disposition + "\r\n\r\n" + data + "\r\n";
}

// In one piece, in pieces of each small size, and cut in two at every place.
void expect_everywhere(const std::string& body, const std::string& wanted) {
  for (std::size_t piece = 1; piece <= body.size() + 1; ++piece) {
    const auto got = parse(body, piece);
    ASSERT_TRUE(got) << got.error().message << " piece " << piece;
    ASSERT_EQ(*got, wanted) << "piece " << piece;
  }
  for (std::size_t cut = 0; cut <= body.size(); ++cut) {
    Notes notes;
    Multipart parser("B", notes);
    ASSERT_TRUE(parser.feed(body.substr(0, cut)));
    ASSERT_TRUE(parser.feed(body.substr(cut)));
    ASSERT_TRUE(parser.finish());
    ASSERT_EQ(notes.text, wanted) << "cut " << cut;
  }
}

TEST(Multipart, ReadsFieldsAndFilesAtEverySplit) {
  expect_everywhere(part("name=\"purpose\"", "batch") +
                        "--B  \r\nContent-Type: application/jsonl\r\n"
                        "content-disposition: form-data; name=\"file\"; filename=\"a b.jsonl\"\r\n"
                        "X-Other: 1\r\n\r\n{\"x\":1}\r\n{}\r\n\r\n--B--\r\n",
                    "[purpose|]batch;[file|a b.jsonl|application/jsonl]{\"x\":1}\r\n{}\r\n;");
}

TEST(Multipart, DataThatLooksLikeADelimiterAtEverySplit) {
  const std::string data = "\r\n--\r\n--A\r\n-B--B\r\r\n\r\n-\r\n--";
  expect_everywhere(part("name=a", data) + part("name=b", "") + "--B--", "[a|]" + data + ";[b|];");
}

TEST(Multipart, PreambleAndEpilogueAreSkippedAtEverySplit) {
  expect_everywhere("hello --B\r\nthere\r\n" + part("name=a", "x") + "--B--\r\nbye\r\n--B\r\n",
                    "[a|]x;");
}

TEST(Multipart, ThePaddingAndHeadersThatFitDoSoAtEverySplit) {
  const std::string padding(256, ' ');
  expect_everywhere(
      part("name=a", "x") + "--B" + padding + "\r\n" + part("name=b", "y").substr(5) + "--B--",
      "[a|]x;[b|]y;");
  EXPECT_FALSE(parse("--B" + padding + " \r\n" + part("name=b", "y").substr(5) + "--B--", 1));

  const std::string disposition = "\r\nContent-Disposition: form-data; name=a\r\nX: ";
  const std::string longest =
      "--B" + disposition + std::string(Multipart::kHeaderBytesMax - disposition.size(), 'x');
  for (std::size_t piece = longest.size() - 2; piece < longest.size() + 6; ++piece) {
    const auto got = parse(longest + "\r\n\r\ny\r\n--B--", piece);
    EXPECT_TRUE(got) << piece;
    EXPECT_FALSE(parse(longest + "x\r\n\r\ny\r\n--B--", piece)) << piece;
  }
}

TEST(Multipart, NoPartsAtAll) {
  expect_everywhere("--B--\r\n", "");
}

TEST(Multipart, NamesAndFilenames) {
  const auto name = [](const std::string& disposition) {
    return parse(part(disposition, "x") + "--B--", 1000).value();
  };
  EXPECT_EQ(name(R"(name="a\"b\\c")"), "[a\"b\\c|]x;");
  EXPECT_EQ(name(R"(name="a%22b")"), "[a\"b|]x;");
  EXPECT_EQ(name(R"(name=f; filename="C:\dir\x.txt")"), "[f|x.txt|]x;");
  EXPECT_EQ(name(R"(name=f; filename="../../etc/passwd")"), "[f|passwd|]x;");
  EXPECT_EQ(name(R"(name=f; filename="")"), "[f||]x;");
  EXPECT_EQ(name(R"(filename="a;b"; name=f)"), "[f|a;b|]x;");
  EXPECT_EQ(name("name=\"文件\"; FileName=\"数据.jsonl\""), "[文件|数据.jsonl|]x;");
}

void expect_refused(const std::string& body, const std::string& part_of_message) {
  for (const std::size_t piece : {std::size_t{1}, std::size_t{7}, body.size() + 1}) {
    const auto got = parse(body, piece);
    ASSERT_FALSE(got) << *got;
    EXPECT_EQ(got.error().code, Code::kInvalidArgument);
    EXPECT_NE(got.error().message.find(part_of_message), std::string::npos) << got.error().message;
  }
}

TEST(Multipart, RefusesWhatIsMalformed) {
  expect_refused("", "boundary doesn't occur");
  expect_refused("garbage", "boundary doesn't occur");
  expect_refused("--A\r\n\r\nx\r\n--A--", "boundary doesn't occur");
  expect_refused(part("name=a", "x"), "closing boundary");
  expect_refused(part("name=a", "x") + "--B", "closing boundary");
  expect_refused("--Bxx\r\n", "line break");
  expect_refused("--B\r\n\r\nx\r\n--B--", "no Content-Disposition");
  expect_refused("--B\r\nnonsense\r\n\r\nx\r\n--B--", "no ':'");
  expect_refused("--B\r\nContent-Disposition: attachment; name=a\r\n\r\nx\r\n--B--", "form-data");
  expect_refused("--B\r\nContent-Disposition: form-data\r\n\r\nx\r\n--B--", "form-data");
  expect_refused("--B" + std::string(1000, ' ') + "\r\n", "line break");
}

TEST(Multipart, BoundsHeadersAndParts) {
  expect_refused("--B\r\nContent-Disposition: form-data; name=" + std::string(9000, 'n'),
                 "over 8192");
  std::string many;
  for (std::size_t i = 0; i <= Multipart::kPartsMax; ++i) many += part("name=a", "x");
  expect_refused(many + "--B--", "more than 32 parts");
}

TEST(Multipart, ASinksErrorEndsIt) {
  Notes notes;
  notes.refuse = true;
  Multipart parser("B", notes);
  const Status refused = parser.feed(part("name=a", "x"));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::kTooLarge);
}

TEST(Multipart, Boundaries) {
  EXPECT_EQ(multipart_boundary("multipart/form-data; boundary=abc"), "abc");
  EXPECT_EQ(multipart_boundary("Multipart/Form-Data;charset=utf-8; Boundary=\"a b:c\""), "a b:c");
  EXPECT_FALSE(multipart_boundary("multipart/form-data"));
  EXPECT_FALSE(multipart_boundary("multipart/form-data; boundary="));
  EXPECT_FALSE(multipart_boundary("multipart/form-data; boundary=" + std::string(300, 'x')));
  EXPECT_FALSE(multipart_boundary("application/json"));
  EXPECT_FALSE(multipart_boundary(""));
}

TEST(Multipart, ALoneCarriageReturnIsNoPadding) {
  const std::string body = "--B\r\r\nContent-Disposition: form-data; name=a\r\n\r\nx\r\n--B--";
  for (std::size_t piece = 1; piece <= body.size(); ++piece) EXPECT_FALSE(parse(body, piece));
}

// Random bytes of a small alphabet, in random pieces: the same outcome as in one piece.
TEST(Multipart, RandomInputIsTheSameInAnyPieces) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  const std::vector<std::string> words = {
      "--B", "\r\n", "-",
      "\r",  "\n",   "x",
      "--",  " ",    "Content-Disposition: form-data; name=a\r\n\r\n"};
  for (int round = 0; round < 3000; ++round) {
    std::string body = random() % 2 ? "--B\r\n" : "";
    for (int i = 0; i < 12; ++i) body += words[random() % words.size()];
    if (random() % 2) body += "\r\n--B--";
    const auto whole = parse(body, body.size() + 1);
    const auto pieces = parse(body, 1 + random() % 9);
    ASSERT_EQ(whole.has_value(), pieces.has_value()) << body;
    if (whole) ASSERT_EQ(*whole, *pieces) << body;
  }
}

}  // namespace
}  // namespace waystation::front
