// Looks at this machine for `waystation doctor`. Changes nothing but for a small file that is
// written, synced and removed again to measure the disk. Linux only.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "app/doctor.h"
#include "base/result.h"

namespace waystation::app {

// The "flags" (or "Features") of the first CPU in /proc/cpuinfo.
std::vector<std::string> cpu_features();

// Executes one AMX instruction in a child process, whose death tells.
Amx try_amx(const std::vector<std::string>& features);

// What new processes may still take: of the machine and of this control group.
std::uint64_t available_memory_bytes();

// The nearest folder that is there: where `path` would be made.
std::string existing_part_of(const std::string& path);

// Writes 4 KiB and syncs, 21 times; the median. kIo, kPermissionDenied.
Result<double> measure_sync_ms(const std::string& folder);

Result<std::uint64_t> free_bytes_of(const std::string& folder);

// Who holds the lock file; nothing when nobody does, or it isn't there.
std::optional<pid_t> lock_holder(const std::string& lock_file);

// "waystation serve" of a process; empty when it can't be seen.
std::string command_of(pid_t pid);

// Whether an address can be listened at. `pid`: who does, when that can be seen.
struct PortUse {
  bool taken = false;
  std::optional<pid_t> pid;
  std::string error;  // another reason why it can't be used
};
PortUse look_at_port(const std::string& host, std::uint16_t port);

bool clock_is_synchronised();

}  // namespace waystation::app
