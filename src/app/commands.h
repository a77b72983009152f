// The subcommands of `waystation`. Each adds its options to the parser; the returned function runs
// it and gives the process' exit status.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>

namespace waystation::app {

using Run = std::function<int()>;

Run add_serve(CLI::App& parser);
Run add_worker(CLI::App& parser);
Run add_chat(CLI::App& parser);
Run add_journal(CLI::App& parser);
Run add_doctor(CLI::App& parser);
Run add_keys(CLI::App& parser);

}  // namespace waystation::app
