#include "message/envelope.h"

#include <charconv>

#include "base/ids.h"
#include "base/utf8.h"

namespace waystation::message {
namespace {

constexpr int kTypeMajorMax = 1;

Error bad(std::string param, std::string message) {
  return Error{Code::kInvalidArgument, std::move(message), std::move(param)};
}

// "1.0" → 1; -1 when it isn't of the form <number>.<number>.
int major_of(std::string_view version) {
  int major = -1;
  const auto [end, ec] = std::from_chars(version.data(), version.data() + version.size(), major);
  if (ec != std::errc() || end == version.data() + version.size() || *end != '.') return -1;
  return major;
}

}  // namespace

Result<int> type_major_version(std::string_view type) {
  const std::size_t at = type.rfind(".v");
  int major = -1;
  if (at != std::string_view::npos && at > 0) {
    const char* const last = type.data() + type.size();
    const auto [end, ec] = std::from_chars(type.data() + at + 2, last, major);
    if (ec != std::errc() || end != last || major < 1) major = -1;
  }
  if (major < 0) {
    return bad("type", "the envelope's type '" + utf8_prefix(type, 100) +
                           "' doesn't end in a version such as '.v1'");
  }
  return major;
}

Status check_envelope(const v1::Envelope& envelope) {
  if (envelope.specversion().empty()) return bad("specversion", "the envelope has no specversion");
  if (major_of(envelope.specversion()) != 1) {
    return bad("specversion", "the envelope's specversion is '" + envelope.specversion() +
                                  "'; this version of Waystation reads 1.x only");
  }
  if (envelope.type().empty()) return bad("type", "the envelope has no type");
  if (envelope.source().empty()) return bad("source", "the envelope has no source");
  auto major = type_major_version(envelope.type());
  if (!major) return major.error();
  if (*major > kTypeMajorMax) {
    return bad("type", "messages of type '" + envelope.type() +
                           "' need a newer version of Waystation; this one knows up to .v" +
                           std::to_string(kTypeMajorMax));
  }
  if (!envelope.id().empty() && !RequestId::parse(envelope.id())) {
    return bad("id", "the envelope's id is not a UUID");
  }
  if (!envelope.compression().empty() && envelope.compression() != "zstd") {
    return bad("compression", "the envelope's data is compressed with '" + envelope.compression() +
                                  "'; this version of Waystation reads zstd only");
  }
  return {};
}

}  // namespace waystation::message
