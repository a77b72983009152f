// Logging: key=value lines on stderr, with the request id where there is one, never with prompts or
// answers. WS_LOG(info, "worker joined worker={} slots={}", name, slots);
#pragma once

#include <spdlog/spdlog.h>

#include "base/result.h"

#define WS_LOG(level, ...) ::spdlog::level(__VA_ARGS__)

namespace waystation {

// Sets format and level ("debug", "info", "warn", "error"). Once, at the start of main. Refuses an
// unknown level.
Status init_logging(std::string_view level);

}  // namespace waystation
