// The worked example of docs/formats/journal.md is what the code writes.
#include <cstdio>
#include <fstream>
#include <sstream>

#include "journal/test_support.h"

namespace waystation::journal {
namespace {

// Sixteen bytes a line: "0030  57 53 …".
std::string hex_dump(std::string_view bytes) {
  std::string out;
  char text[32];
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    if (i % 16 == 0) {
      std::snprintf(text, sizeof text, "%s%04zx ", i == 0 ? "" : "\n", i);
      out += text;
    }
    std::snprintf(text, sizeof text, " %02x", static_cast<unsigned char>(bytes[i]));
    out += text;
  }
  return out + "\n";
}

TEST_F(JournalTest, TheDocumentedExampleIsWhatTheCodeWrites) {
  open();
  append_durably({"hello", "world!"}, 1'700'000'000'000);
  append_durably({"驿"}, 1'700'000'000'250);
  close();
  std::string bytes = disk_.contents(segment_path(1));
  bytes.resize(bytes.find_last_not_of('\0') + 1);

  std::ifstream file(std::string(WS_SOURCE_DIR) + "/docs/formats/journal.md");
  std::stringstream text;
  text << file.rdbuf();
  const std::string page = text.str();
  const std::string fence = "```hex\n";
  const std::size_t begin = page.find(fence);
  ASSERT_NE(begin, std::string::npos);
  const std::size_t end = page.find("```", begin + fence.size());
  EXPECT_EQ(page.substr(begin + fence.size(), end - begin - fence.size()), hex_dump(bytes));
}

}  // namespace
}  // namespace waystation::journal
