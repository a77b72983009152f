#include "base/crash_point.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <csignal>
#include <cstdint>
#include <string>
#include <vector>

#include "base/nearest.h"

namespace waystation {
namespace detail {

std::atomic<bool> crash_point_armed = false;

}  // namespace detail

namespace {

// In the order of CrashPoint.
constexpr std::array kNames{
    "journal.before_write",  "journal.after_write",      "journal.after_sync",
    "segment.before_rename", "segment.after_rename",     "segment.before_remove",
    "segment.after_remove",  "checkpoint.before_rename", "checkpoint.after_rename",
    "broker.before_release", "broker.after_release",     "store.before_commit",
    "store.after_commit",    "blob.before_rename",       "blob.after_rename",
};
static_assert(kNames.size() == static_cast<std::size_t>(CrashPoint::kBlobAfterRename) + 1);

CrashPoint wanted{};
std::atomic<std::uint64_t> times_left = 0;

Error refusal(std::string message) {
  return {Code::kInvalidArgument, std::move(message), "WAYSTATION_CRASH_AT"};
}

}  // namespace

void detail::crash_point_reached(CrashPoint point) {
  if (point == wanted && times_left.fetch_sub(1) == 1) std::raise(SIGKILL);
}

Status arm_crash_point(std::string_view text) {
  const auto colon = text.find(':');
  const std::string name(text.substr(0, colon));
  const auto at = std::ranges::find(kNames, name);
  if (at == kNames.end()) {
    const std::vector<std::string> known(kNames.begin(), kNames.end());
    std::string all;
    for (const std::string& one : known) all += (all.empty() ? "" : ", ") + one;
    return refusal("there is no crash point '" + name + "'; did you mean '" +
                   nearest_name(name, known) + "'? There are: " + all);
  }
  std::uint64_t count = 0;
  const std::string_view digits = colon == text.npos ? "1" : text.substr(colon + 1);
  const auto [end, ec] = std::from_chars(digits.data(), digits.data() + digits.size(), count);
  if (ec != std::errc() || end != digits.data() + digits.size() || count == 0) {
    return refusal("'" + std::string(digits) + "' is no count of times; say " + name + ":1");
  }
  wanted = static_cast<CrashPoint>(at - kNames.begin());
  times_left = count;
  detail::crash_point_armed = true;
  return {};
}

}  // namespace waystation
