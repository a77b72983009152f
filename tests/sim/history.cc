#include "sim/history.h"

#include <cstdio>
#include <utility>

namespace waystation::sim {

void History::note(std::string line) {
  char time[32];
  std::snprintf(time, sizeof time, "%10.3f  ", static_cast<double>(scheduler_.now()) / kMs);
  line.insert(0, time);
  for (const char byte : line) {
    hash_ = (hash_ ^ static_cast<unsigned char>(byte)) * 0x100000001b3;  // FNV-1a
  }
  if (trace_) std::printf("%s\n", line.c_str());
  recent_.push_back(std::move(line));
  if (recent_.size() > kRecentMax) recent_.pop_front();
}

void History::violated(std::string_view invariant, std::string what) {
  if (violation_) return;
  note("VIOLATED " + std::string(invariant) + ": " + what);
  violation_ = Violation{std::string(invariant), std::move(what)};
}

}  // namespace waystation::sim
