// `waystation doctor`: what was found on this machine, and what it means for a server. The checks
// that look are in doctor_system.h; these judge and know nothing of the system.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/ids.h"

namespace waystation::app {

enum class Level {
  kGood,
  kNote,  // works, but slower or smaller than it could
  kBad,   // a server won't start, or won't work
};

struct Finding {
  std::string name;  // "disk"
  Level level = Level::kGood;
  std::string what;       // what is
  std::string mend = {};  // what to do; empty when it is good
};

// `features`: of this CPU. `needed`: what the engine was compiled for.
Finding judge_cpu(const std::vector<std::string>& features, const std::vector<std::string>& needed);

// How the CPU's AMX behaves; some machines announce it and end whoever uses it.
enum class Amx { kAbsent, kWorks, kIllegal };
Finding judge_amx(Amx amx, bool engine_uses_it);

// What one model needs.
struct ModelNeed {
  std::string name;
  std::uint64_t file_bytes = 0;
  std::uint64_t cache_bytes = 0;  // of all slots of one worker, full
  std::uint64_t workers = 1;
};
Finding judge_memory(const std::vector<ModelNeed>& models, std::uint64_t available_bytes);

// The median of several syncs.
Finding judge_sync(double median_ms);

// `wanted`: what the journal may grow to.
Finding judge_room(const std::string& folder, std::uint64_t free_bytes, std::uint64_t wanted_bytes);

Finding judge_open_files(std::uint64_t limit, std::uint64_t hard_limit, std::uint64_t connections);

// `newest_ms`: of the newest record in the journal; 0: none. `synchronised`: by a time service.
Finding judge_clock(TimeMs now_ms, TimeMs newest_ms, bool synchronised);

// One line a finding and a verdict, for people, or one JSON object.
std::string as_text(const std::vector<Finding>& findings);
std::string as_json(const std::vector<Finding>& findings);
bool all_well(const std::vector<Finding>& findings);

}  // namespace waystation::app
