#include "batch/line_file.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <fstream>

namespace waystation::batch {
namespace {

class LineFileTest : public testing::Test {
 protected:
  LineFileTest() {
    char name[] = "/tmp/ws_lines_test.XXXXXX";
    ::close(::mkstemp(name));
    path_ = name;
  }
  ~LineFileTest() override { ::unlink(path_.c_str()); }

  // "number:text number:text…"; "!" for a line over the bound.
  std::string lines(const std::string& content, std::size_t line_bytes_max = 100) {
    std::ofstream(path_, std::ios::binary | std::ios::trunc) << content;
    LineFile file(std::move(store::BlobReader::open(path_).value()), line_bytes_max);
    std::string out;
    for (;;) {
      const auto line = file.next();
      if (!line) return "error";
      if (!*line) return out;
      const bool fits = (*line)->size <= line_bytes_max;
      EXPECT_TRUE(!fits || file.read(**line).value() == file.text());
      out += std::to_string((*line)->number) + ":" + (fits ? file.text() : "!") + " ";
    }
  }

  std::string path_;
};

TEST_F(LineFileTest, Lines) {
  EXPECT_EQ(lines(""), "");
  EXPECT_EQ(lines("\n\n"), "");
  EXPECT_EQ(lines("a"), "1:a ");
  EXPECT_EQ(lines("a\n"), "1:a ");
  EXPECT_EQ(lines("a\nb"), "1:a 2:b ");
  EXPECT_EQ(lines("a\n\n \t\r\nb\n"), "1:a 4:b ");
  EXPECT_EQ(lines("a\r\nb\r\n"), "1:a\r 2:b\r ");
  EXPECT_EQ(lines("\xef\xbb\xbf{}\nb"), "1:{} 2:b ");
}

TEST_F(LineFileTest, LinesOverTheBound) {
  EXPECT_EQ(lines("12345\n123456\n12", 5), "1:12345 2:! 3:12 ");
  EXPECT_EQ(lines("123456", 5), "1:! ");
}

TEST_F(LineFileTest, LinesLargerThanWhatIsReadAtOnce) {
  const std::string large(700'000, 'x');
  EXPECT_EQ(lines("a\n" + large + "\nb\n", 1 << 20), "1:a 2:" + large + " 3:b ");
  std::string many, expected;
  for (int i = 1; i <= 100'000; ++i) {
    many += "line\n";
    expected += std::to_string(i) + ":line ";
  }
  EXPECT_EQ(lines(many), expected);
}

}  // namespace
}  // namespace waystation::batch
