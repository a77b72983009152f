// The tables of a configuration file that have no flag: [[upstream]] and [fallback].
#pragma once

#include "app/serve_options.h"
#include "app/toml_table.h"

namespace waystation::app {

// Add to options.upstreams and options.fallback.
Status read_upstreams(const Place& place, const toml::node& node, ServeOptions& options);
Status read_fallback(const Place& place, const toml::node& node, ServeOptions& options);

}  // namespace waystation::app
