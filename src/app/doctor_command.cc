// `waystation doctor`: looks at the machine with the options that `serve` would get.
#include <sys/resource.h>

#include <cstdio>
#include <filesystem>
#include <memory>
#include <sstream>

#include "app/commands.h"
#include "app/doctor.h"
#include "app/doctor_system.h"
#include "app/paths.h"
#include "app/serve_options.h"
#include "base/clock.h"
#include "base/log.h"
#include "engine/llama/machine.h"
#include "front/options.h"
#include "journal/checkpoint_store.h"
#include "journal/log_scan.h"
#include "journal/posix_file_system.h"

namespace waystation::app {
namespace {

std::string who(pid_t pid) {
  const std::string command = command_of(pid);
  return "process " + std::to_string(pid) + (command.empty() ? "" : " (" + command + ")");
}

// What there is to say of the model files; the memory that they need is judged later.
std::vector<ModelNeed> look_at_models(const ServeOptions& options, std::vector<Finding>& findings) {
  std::vector<ModelNeed> needs;
  const auto models = models_of(options);
  if (!models) {
    findings.push_back({"model", Level::kBad, models.error().message,
                        "give a GGUF file with --model, or run: make models"});
    return needs;
  }
  for (const ModelFile& model : *models) {
    const auto facts = engine::read_gguf_facts(model.path);
    if (!facts) {
      findings.push_back({"model " + model.name, Level::kBad, facts.error().message,
                          "fetch the file again, and compare its checksum"});
      continue;
    }
    const std::uint64_t context = options.context > 0 ? options.context : facts->context_trained;
    ModelNeed& need = needs.emplace_back();
    need.name = model.name;
    need.file_bytes = facts->file_bytes;
    need.workers = static_cast<std::uint64_t>(std::max(options.workers, 0));
    need.cache_bytes = model.embeds ? 0 : facts->cache_bytes_per_token * context * options.slots;
    std::string what = model.path + ": " + facts->architecture + ", whole";
    if (facts->context_trained > 0 && context > facts->context_trained) {
      findings.push_back(
          {"model " + model.name, Level::kNote,
           what + "; trained for " + std::to_string(facts->context_trained) + " tokens",
           "--context " + std::to_string(context) + " is more than it was made for"});
      continue;
    }
    findings.push_back({"model " + model.name, Level::kGood, what});
  }
  const bool others =
      options.scripted_given || !options.upstreams.empty() || !options.link_listen.empty();
  if (models->empty() && !others) {
    findings.push_back({"model", Level::kNote, "none is named, and the small one isn't there",
                        "give one with --model FILE.gguf, or run: make models"});
  }
  return needs;
}

void look_at_disk(const ServeOptions& options, std::vector<Finding>& findings) {
  const std::string folder = existing_part_of(options.data);
  if (options.durability == "none") {
    findings.push_back(
        {"disk", Level::kNote, "--durability none keeps nothing",
         "everything is lost when the server ends; use disk for anything that counts"});
    return;
  }
  if (const auto sync = measure_sync_ms(folder); sync) {
    findings.push_back(judge_sync(*sync));
  } else {
    findings.push_back({"disk", Level::kBad, sync.error().message,
                        "name a folder with --data that this user may write to"});
  }
  if (const auto free = free_bytes_of(folder); free) {
    findings.push_back(judge_room(folder, *free, options.journal_bytes_max));
  } else {
    findings.push_back({"room", Level::kBad, free.error().message, "look at the disk"});
  }
}

// What a start would check: the newest checkpoint and all after it. Gives the newest record's time.
TimeMs look_at_journal(const std::string& dir, std::vector<Finding>& findings) {
  if (!std::filesystem::is_directory(dir)) {
    findings.push_back({"journal", Level::kGood, "none yet in " + dir});
    return 0;
  }
  const auto bad = [&](const std::string& what) {
    findings.push_back(
        {"journal", Level::kBad, what,
         "restore a backup, or: waystation journal salvage " + dir + " --to NEW_DIR"});
    return TimeMs{0};
  };
  journal::PosixFileSystem files;
  const auto listing = journal::list_journal(files, dir);
  if (!listing) return bad(listing.error().message);
  LogIndex checkpoint;
  for (const LogIndex index : listing->checkpoints) {
    if (journal::read_checkpoint(files, journal::path_in(dir, journal::checkpoint_name(index)),
                                 index)) {
      checkpoint = index;
    }
  }
  if (listing->segments.empty() && listing->checkpoints.empty()) {
    findings.push_back({"journal", Level::kGood, "none yet in " + dir});
    return 0;
  }
  if (listing->segments.empty() || listing->segments.front().value > checkpoint.value + 1) {
    return bad("records after " + std::to_string(checkpoint.value) + " are missing in " + dir);
  }
  const LogIndex covered = listing->checkpoints.empty() ? LogIndex{} : listing->checkpoints.back();
  const auto log = journal::scan_log(files, dir, *listing, {checkpoint.value + 1}, covered);
  if (!log) return bad(log.error().message);
  if (!log->damages.empty()) {
    const journal::Damage& damage = log->damages.front();
    return bad(damage.path + " is damaged at byte " + std::to_string(damage.offset) + ": " +
               damage.reason);
  }
  findings.push_back({"journal", Level::kGood,
                      "sound: " + std::to_string(log->last.value) + " records, checked from " +
                          std::to_string(checkpoint.value + 1) +
                          " on (journal verify checks all)"});
  return log->segments.back().last_time_ms;
}

// A server of ours that runs is no fault, if it is the one that has both.
void look_at_use(const ServeOptions& options, std::vector<Finding>& findings, TimeMs& newest_ms) {
  const std::string dir = options.data + "/journal";
  const auto holder = lock_holder(dir + "/LOCK");
  const auto listen = front::parse_listen(options.listen);
  if (!listen) {
    findings.push_back({"port", Level::kBad, listen.error().message, "write --listen HOST:PORT"});
  }
  const PortUse port = listen ? look_at_port(listen->host, listen->port) : PortUse{};
  const bool ours = holder && port.taken && port.pid == holder;
  if (holder) {
    findings.push_back({"data folder", ours ? Level::kNote : Level::kBad,
                        options.data + " is in use by " + who(*holder),
                        ours ? "this server runs already" : "stop it, or use another --data"});
    findings.push_back({"journal", Level::kGood, "not checked: it is being written"});
  } else {
    findings.push_back({"data folder", Level::kGood, options.data + " is free"});
    newest_ms = look_at_journal(dir, findings);
  }
  if (!listen) return;
  if (!port.error.empty()) {
    findings.push_back({"port", Level::kBad, options.listen + ": " + port.error,
                        "use another --listen HOST:PORT"});
  } else if (port.taken) {
    findings.push_back(
        {"port", ours ? Level::kNote : Level::kBad,
         options.listen + " is taken by " +
             (port.pid ? who(*port.pid) : "a process that this user can't see"),
         ours ? "this server runs already" : "stop it, or use another --listen HOST:PORT"});
  } else {
    findings.push_back({"port", Level::kGood, options.listen + " is free"});
  }
}

std::vector<Finding> look(const ServeOptions& options) {
  std::vector<Finding> findings;
  const auto features = cpu_features();
  const auto needed = engine::cpu_features_needed();
  findings.push_back(judge_cpu(features, needed));
  const bool uses_amx = std::ranges::count(needed, "amx_int8") > 0;
  findings.push_back(judge_amx(try_amx(features), uses_amx));
  const auto needs = look_at_models(options, findings);
  findings.push_back(judge_memory(needs, available_memory_bytes()));
  look_at_disk(options, findings);
  TimeMs newest_ms = 0;
  look_at_use(options, findings, newest_ms);
  rlimit files{};
  ::getrlimit(RLIMIT_NOFILE, &files);
  findings.push_back(judge_open_files(files.rlim_cur, files.rlim_max,
                                      static_cast<std::uint64_t>(options.connections_max)));
  findings.push_back(judge_clock(SystemClock().wall_ms(), newest_ms, clock_is_synchronised()));
  return findings;
}

}  // namespace

Run add_doctor(CLI::App& parser) {
  auto options = std::make_shared<ServeOptions>();
  auto json = std::make_shared<bool>(false);
  add_serve_options(parser, *options);
  parser.add_flag("--json", *json, "Print one JSON object");
  parser.footer(
      "Takes the options of serve, and checks what such a server would need. Exit status 0: it "
      "can\n"
      "run here; 1: something is to mend.\n\n"
      "Examples:\n"
      "  waystation doctor\n"
      "  waystation doctor --data /var/lib/waystation --model big.gguf --slots 16\n"
      "  waystation doctor --config docs/waystation.toml --json");
  return [options, json, &parser] {
    if (const Status finished = finish_serve_options(parser, *options); !finished) {
      return fail(finished.error());
    }
    if (const Status quiet = init_logging("error"); !quiet) return fail(quiet.error());
    const std::vector<Finding> findings = look(*options);
    const std::string shown = *json ? as_json(findings) : as_text(findings);
    std::fputs(shown.c_str(), stdout);
    return all_well(findings) ? 0 : 1;
  };
}

}  // namespace waystation::app
