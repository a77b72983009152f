#include "front/upload_form.h"

#include <algorithm>
#include <charconv>

#include "base/utf8.h"

namespace waystation::front {
namespace {

constexpr std::size_t kFieldBytesMax = 1024;
constexpr std::size_t kFilenameBytesMax = 255;
constexpr std::int64_t kExpiresAfterMinS = 3600;
constexpr std::int64_t kExpiresAfterMaxS = 30 * 24 * 3600;
constexpr std::string_view kPurposes[] = {"assistants", "batch",     "fine-tune",
                                          "vision",     "user_data", "evals"};

Error bad_field(const char* name, const std::string& what) {
  return {Code::kInvalidArgument, std::string("the field '") + name + "' " + what, name};
}

}  // namespace

std::string safe_filename(std::string name) {
  std::erase_if(name, [](unsigned char c) { return c < 0x20 || c == 0x7f; });
  name = utf8_prefix(name, kFilenameBytesMax);
  return name.empty() || !is_utf8(name) ? "upload" : name;
}

Status UploadForm::on_part(const Part& part) {
  in_file_ = part.name == "file";
  field_ = nullptr;
  if (in_file_) {
    if (has_file_) return bad_field("file", "may come only once");
    has_file_ = true;
    filename_ = safe_filename(part.filename);
  }
  for (Field& field : fields_) {
    if (field.name == part.name) field_ = &field;
  }
  if (field_ != nullptr) field_->value.emplace();
  return {};
}

Status UploadForm::on_data(std::string_view bytes) {
  if (in_file_) on_file_(bytes);
  if (field_ == nullptr) return {};
  if (field_->value->size() + bytes.size() > kFieldBytesMax) {
    return bad_field(field_->name, "is too long");
  }
  *field_->value += bytes;
  return {};
}

Status UploadForm::on_part_end() {
  return field_ == &fields_[kPurpose] ? check_purpose() : Status{};
}

// At once, before a large file is sent for nothing.
Status UploadForm::check_purpose() const {
  const auto& purpose = fields_[kPurpose].value;
  if (!purpose) return bad_field("purpose", "is missing");
  if (std::ranges::find(kPurposes, *purpose) != std::end(kPurposes)) return {};
  return bad_field("purpose",
                   "must be one of assistants, batch, fine-tune, vision, user_data, evals");
}

Status UploadForm::finish() {
  if (!has_file_) return bad_field("file", "is missing");
  if (Status s = check_purpose(); !s) return s;
  const auto& anchor = fields_[kAnchor].value;
  const auto& seconds = fields_[kSeconds].value;
  if (!anchor && !seconds) return {};
  if (anchor != "created_at") return bad_field("expires_after[anchor]", "must be 'created_at'");
  std::int64_t value = 0;
  const char* end = seconds ? seconds->data() + seconds->size() : nullptr;
  const auto [stop, ec] = seconds ? std::from_chars(seconds->data(), end, value)
                                  : std::from_chars_result{nullptr, std::errc::invalid_argument};
  if (ec != std::errc() || stop != end || value < kExpiresAfterMinS || value > kExpiresAfterMaxS) {
    return bad_field("expires_after[seconds]", "must be a whole number from " +
                                                   std::to_string(kExpiresAfterMinS) + " to " +
                                                   std::to_string(kExpiresAfterMaxS));
  }
  expires_after_s_ = value;
  return {};
}

}  // namespace waystation::front
