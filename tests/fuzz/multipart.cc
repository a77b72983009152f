// An upload's body, whole and in pieces.
//
//   input   two characters that say how it is cut, the Content-Type up to a line feed, the body
#include "front/multipart.h"

#include <algorithm>
#include <string>

#include "base/utf8.h"
#include "front/upload_form.h"
#include "fuzz/fuzz.h"

namespace waystation::fuzz {
namespace {

using namespace waystation::front;

// Writes down what it is told, however the data is cut, and asks the form.
class Notes final : public PartSink {
 public:
  Status on_part(const Part& part) override {
    REQUIRE(!open_, "a part in a part");
    REQUIRE(part.is_file || part.filename.empty(), part.filename);
    REQUIRE(part.filename.find_first_of("/\\") == std::string::npos, part.filename);
    open_ = true;
    text += "part " + part.name + "|" + part.filename + "|" + part.content_type + "\n";
    return form.on_part(part);
  }
  Status on_data(std::string_view bytes) override {
    REQUIRE(open_ && !bytes.empty(), "data of no part, or none");
    text += bytes;
    return form.on_data(bytes);
  }
  Status on_part_end() override {
    REQUIRE(open_, "an end without a part");
    open_ = false;
    text += "\nend\n";
    return form.on_part_end();
  }

  std::string text;
  std::string content;
  UploadForm form{[this](std::string_view bytes) { content += bytes; }};

 private:
  bool open_ = false;
};

// All that there is to say of a body; `seed` 0: in one piece.
std::string read(std::string_view boundary, std::string_view body, std::uint64_t seed) {
  Notes notes;
  Multipart parser(boundary, notes);
  Status status;
  const auto feed = [&](std::string_view piece) {
    status = parser.feed(piece);
    return status.has_value();
  };
  if (seed == 0) {
    feed(body);
  } else {
    in_pieces(body, seed, feed);
  }
  if (status) status = parser.finish();
  if (status) status = notes.form.finish();
  if (!status) {
    require_sayable(status.error());
    // A field that is too long is refused at some piece of it.
    const bool at_some_piece = status.error().message.ends_with("is too long");
    return status.error().message + (at_some_piece ? "" : "\n" + notes.text);
  }
  const std::string& name = notes.form.filename();
  REQUIRE(!name.empty() && name.size() <= 255 && is_utf8(name), name);
  return "good\n" + notes.text + "content " + notes.content + " name " + name + " purpose " +
         notes.form.purpose();
}

void check(Input& input) {
  const std::uint64_t seed = 1 + input.u16();
  std::string content_type(input.line());
  std::erase_if(content_type, [](unsigned char c) { return c < 0x20 && c != '\t'; });
  const auto boundary = multipart_boundary(content_type);
  if (!boundary) return require_sayable(boundary.error());
  const std::string whole = read(*boundary, input.rest(), 0);
  const std::string pieces = read(*boundary, input.rest(), seed);
  REQUIRE(whole == pieces, whole + "\n--- but in pieces ---\n" + pieces);
}

}  // namespace
}  // namespace waystation::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace waystation::fuzz;
  be_quiet();
  Input input(data, size);
  check(input);
  return 0;
}
