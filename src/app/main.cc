// The `waystation` command.
#include <cstdio>
#include <utility>
#include <vector>

#include "app/commands.h"

int main(int argc, char** argv) {
  CLI::App parser{
      "Waystation: a message backbone for systems built on language models.\n"
      "Kill any process at any moment: nothing that was accepted is lost."};
  parser.name("waystation");
  parser.set_version_flag("--version", WAYSTATION_VERSION);
  parser.require_subcommand(1);
  parser.footer(
      "Examples:\n"
      "  waystation serve --model models/SmolLM2-135M-Instruct.Q4_1.gguf\n"
      "  waystation chat\n"
      "  waystation doctor\n"
      "  waystation journal verify data/journal\n"
      "\nwaystation COMMAND --help shows a command's options.");

  using Add = waystation::app::Run (*)(CLI::App&);
  const std::vector<std::pair<CLI::App*, Add>> commands{
      {parser.add_subcommand("serve", "Run the server and its local workers"),
       waystation::app::add_serve},
      {parser.add_subcommand("worker", "Run a worker that joins a server"),
       waystation::app::add_worker},
      {parser.add_subcommand("chat", "Chat in the terminal; survives restarts of the server"),
       waystation::app::add_chat},
      {parser.add_subcommand("journal", "Look into a server's journal, check it, save what is left"),
       waystation::app::add_journal},
      {parser.add_subcommand("doctor", "Check whether a server can run well on this machine"),
       waystation::app::add_doctor},
      {parser.add_subcommand("keys", "Make API keys"), waystation::app::add_keys},
  };
  std::vector<waystation::app::Run> runs;
  for (const auto& [command, add] : commands) runs.push_back(add(*command));
  CLI11_PARSE(parser, argc, argv);
  for (std::size_t i = 0; i < commands.size(); ++i) {
    if (commands[i].first->parsed()) return runs[i]();
  }
  return 64;
}
