// What the engine asks of a machine and a model file, without loading the model.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/result.h"

namespace waystation::engine {

// The CPU features that the engine was compiled for, as /proc/cpuinfo spells them. A CPU without
// one of them ends a worker at its first instruction of that kind.
std::vector<std::string> cpu_features_needed();

struct GgufFacts {
  std::string architecture;
  std::uint64_t file_bytes = 0;
  std::uint64_t context_trained = 0;        // tokens; 0: it doesn't say
  std::uint64_t cache_bytes_per_token = 0;  // keys and values of one token; 0: it doesn't say
};

// Reads a model file's header and checks that all tensors it names are within the file. Errors:
// those of check_gguf, and kCorruption for a header that can't be read or a file that is cut off.
Result<GgufFacts> read_gguf_facts(const std::filesystem::path& file);

}  // namespace waystation::engine
