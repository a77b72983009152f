// The configuration file of `serve` (docs/waystation.toml): every option by its flag's name, and
// what has no flag: [[upstream]] tables and [fallback].
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "app/serve_options.h"
#include "base/result.h"

namespace waystation::app {

// Reads the file into the options that `parser` knows, but for those that the command line has
// given, and into options.upstreams and options.fallback. Errors: kNotFound, kInvalidArgument with
// "FILE:LINE: …": an unknown key (with the nearest known one), a value of the wrong type or out of
// range.
Status load_config(const std::string& path, CLI::App& parser, ServeOptions& options);

// The value of an environment variable that holds an upstream's key; empty when none is named.
// kInvalidArgument when it isn't set.
Result<std::string> read_key(const std::string& variable, const std::string& upstream);

// How an upstream is called when nobody named it: its host, with the port where one is given.
std::string upstream_name_of(const std::string& url);

}  // namespace waystation::app
