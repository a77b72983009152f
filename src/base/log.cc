#include "base/log.h"

#include <spdlog/sinks/stdout_sinks.h>

namespace waystation {

Status init_logging(std::string_view level) {
  const auto parsed = spdlog::level::from_str(std::string(level));
  if (parsed == spdlog::level::off && level != "off") {
    return Error{Code::kInvalidArgument,
                 "unknown log level '" + std::string(level) + "'; use debug, info, warn, error or off",
                 "log-level"};
  }
  auto logger = std::make_shared<spdlog::logger>("waystation",
                                                 std::make_shared<spdlog::sinks::stderr_sink_mt>());
  logger->set_pattern("%Y-%m-%dT%H:%M:%S.%eZ %l %v", spdlog::pattern_time_type::utc);
  logger->set_level(parsed);
  logger->flush_on(spdlog::level::info);
  spdlog::set_default_logger(std::move(logger));
  return {};
}

}  // namespace waystation
