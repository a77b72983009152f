// The form that uploads a file: its fields are checked as they come, its file's content is handed
// on. Pure.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "front/multipart.h"

namespace waystation::front {

// What is shown and logged of a file's name must be text: without control characters, cut to a
// length, "upload" when nothing is left or it isn't UTF-8.
std::string safe_filename(std::string name);

class UploadForm final : public PartSink {
 public:
  // `on_file` gets the file's content in pieces, none of them empty.
  explicit UploadForm(std::function<void(std::string_view)> on_file)
      : on_file_(std::move(on_file)) {}

  Status on_part(const Part& part) override;
  Status on_data(std::string_view bytes) override;
  Status on_part_end() override;

  // All parts have come: kInvalidArgument for a field that is missing or wrong. What is below is
  // good after that.
  Status finish();
  const std::string& filename() const { return filename_; }
  const std::string& purpose() const { return *fields_[kPurpose].value; }
  std::optional<std::int64_t> expires_after_s() const { return expires_after_s_; }

 private:
  struct Field {
    const char* name;
    std::optional<std::string> value;
  };
  enum { kPurpose, kAnchor, kSeconds };

  Status check_purpose() const;

  const std::function<void(std::string_view)> on_file_;
  Field fields_[3] = {
      {"purpose", {}}, {"expires_after[anchor]", {}}, {"expires_after[seconds]", {}}};
  Field* field_ = nullptr;  // whose data comes
  bool in_file_ = false;
  bool has_file_ = false;
  std::string filename_;
  std::optional<std::int64_t> expires_after_s_;
};

}  // namespace waystation::front
