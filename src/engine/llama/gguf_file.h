// A model file before llama.cpp sees it: is it there, is it GGUF, and which one is it.
#pragma once

#include <filesystem>
#include <string>

#include "base/result.h"

namespace waystation::engine {

// Refuses what llama.cpp would only complain about in many lines: a missing or unreadable file
// (kNotFound, kIo), or one that isn't GGUF (kInvalidArgument).
Status check_gguf(const std::filesystem::path& file);

// "sha256:<hex>" of the whole file. Reading a large model takes seconds, so the answer is kept in
// `cache_dir` under the file's path, and holds while its size and modification time stay the same.
// An empty `cache_dir` keeps nothing; one that can't be written only costs time.
Result<std::string> gguf_fingerprint(const std::filesystem::path& file,
                                     const std::filesystem::path& cache_dir);

}  // namespace waystation::engine
