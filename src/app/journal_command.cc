// `waystation journal` and `waystation keys`.
#include <google/protobuf/util/json_util.h>

#include <boost/json.hpp>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <memory>
#include <optional>
#include <random>
#include <system_error>

#include "app/commands.h"
#include "app/paths.h"
#include "base/clock.h"
#include "broker/salvage.h"
#include "guard/keys.h"
#include "journal/inspect.h"
#include "journal/log_scan.h"
#include "journal/posix_file_system.h"
#include "journal/salvage.h"
#include "message/proto/records.pb.h"
#include "queue/record.h"
#include "queue/record_json.h"
#include "queue/salvage.h"

namespace waystation::app {
namespace {

// A server's data folder stands for the journal of requests in it.
std::string journal_dir(const std::string& given) {
  const std::filesystem::path inner = std::filesystem::path(given) / "journal";
  return std::filesystem::is_directory(inner) ? inner.string() : given;
}

bool is_named_queues(const std::string& dir) {
  std::string name = std::filesystem::path(dir).lexically_normal().filename().string();
  if (name.empty()) name = std::filesystem::path(dir).lexically_normal().parent_path().filename();
  return name == "queues";
}

// The journal of queues has records of its own kind (docs/formats/queue.md). The first record that
// can be read tells, whatever its folder is called; without one the name must do.
bool is_of_queues(journal::FileSystem& files, const std::string& dir) {
  const auto listing = journal::list_journal(files, dir);
  if (!listing) return is_named_queues(dir);
  std::optional<bool> found;
  const auto look = [&found](LogIndex, TimeMs, std::string_view bytes) -> Status {
    v1::Record record;
    if (queue::decode(bytes)) {
      found = true;
    } else if (record.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
      found = false;
    }
    return found ? Status(Error{Code::kCancelled, "seen enough"}) : Status();
  };
  const auto skip = [](const journal::LostRange&) { return Status(); };
  (void)journal::read_leftover(files, dir, *listing, {}, std::nullopt, {look, skip});
  return found.value_or(is_named_queues(dir));
}

// Everything that is a journal in what was named.
Status verify_all(journal::FileSystem& files, const std::string& given) {
  const std::string dir = journal_dir(given);
  if (const Status good = journal::verify(files, dir, std::cout); !good || dir == given)
    return good;
  const std::filesystem::path queues = std::filesystem::path(given) / "queues";
  if (!std::filesystem::is_directory(queues)) return {};
  return journal::verify(files, queues.string(), std::cout);
}

std::string uuid_of(const std::string& raw) {
  const auto id = RequestId::from_bytes(raw);
  return id ? id->to_string() : std::string();
}

// A record as JSON, with ids as clients know them. Prompts and answers are left out unless asked
// for.
std::string record_json(std::string_view bytes, bool with_text) {
  v1::Record record;
  if (!record.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return "{\"unreadable\":true}";
  }
  std::string id;
  std::string letter;  // that it was made of
  boost::json::array forgotten;
  switch (record.body_case()) {
    case v1::Record::kAccepted:
      if (!with_text) record.mutable_accepted()->mutable_envelope()->clear_data();
      letter = uuid_of(record.accepted().requeue_of());
      break;
    case v1::Record::kLeased:
      id = uuid_of(record.leased().request());
      break;
    case v1::Record::kAppended:
      id = uuid_of(record.appended().request());
      for (v1::Event& event : *record.mutable_appended()->mutable_events()) {
        if (!with_text) event.clear_text();
      }
      break;
    case v1::Record::kAttemptEnded:
      id = uuid_of(record.attempt_ended().request());
      break;
    case v1::Record::kSettled:
      id = uuid_of(record.settled().request());
      break;
    case v1::Record::kCarried:
      id = uuid_of(record.carried().request());
      for (v1::Event& event : *record.mutable_carried()->mutable_events()) {
        if (!with_text) event.clear_text();
      }
      if (!with_text && record.carried().has_envelope()) {
        record.mutable_carried()->mutable_envelope()->clear_data();
      }
      break;
    case v1::Record::kErased:
      id = uuid_of(record.erased().request());
      break;
    case v1::Record::kDiscarded:
      id = uuid_of(record.discarded().request());
      break;
    case v1::Record::kForgotten:
      for (const std::string& raw : record.forgotten().requests()) {
        forgotten.emplace_back(uuid_of(raw));
      }
      break;
    default:
      break;
  }
  std::string text;
  google::protobuf::util::JsonPrintOptions print;
  print.preserve_proto_field_names = true;
  if (!google::protobuf::util::MessageToJsonString(record, &text, print).ok()) {
    return "{\"unreadable\":true}";
  }
  boost::json::value json = boost::json::parse(text);
  for (auto& [key, body] : json.as_object()) {
    if (!body.is_object()) continue;
    if (!id.empty()) body.as_object()["request"] = id;
    if (!letter.empty()) body.as_object()["requeue_of"] = letter;
    if (!forgotten.empty()) body.as_object()["requests"] = forgotten;
  }
  return boost::json::serialize(json);
}

// Into a folder of another name first, so that an interrupted run leaves nothing that looks whole.
Status run_salvage(journal::FileSystem& files, const std::string& dir, std::string to,
                   bool dry_run) {
  if (to.empty() && !dry_run) {
    return Error{Code::kInvalidArgument, "name the new folder with --to, or use --dry-run", "to"};
  }
  while (to.size() > 1 && to.ends_with('/')) to.pop_back();
  std::error_code error;
  if (!dry_run && std::filesystem::exists(to) && !std::filesystem::is_empty(to, error)) {
    return Error{Code::kInvalidArgument, to + " is there and not empty; name a new folder", "to"};
  }
  const auto whole = [&error](const std::string& path) {
    return std::filesystem::weakly_canonical(path, error).string() + "/";
  };
  if (!dry_run && whole(to).starts_with(whole(dir))) {
    return Error{Code::kInvalidArgument,
                 to + " lies in " + dir + ", which salvage doesn't change; name a folder elsewhere",
                 "to"};
  }
  const std::string partial = to + ".partial";
  if (!dry_run && std::filesystem::exists(partial)) {
    return Error{Code::kInvalidArgument,
                 partial + " is left of an interrupted salvage; remove it first", "to"};
  }
  std::random_device random;
  journal::SalvageOptions options{.dir = dir, .to = partial, .dry_run = dry_run};
  options.new_journal_id = std::uint64_t{random()} << 32 | random() | 1;
  const Status saved = is_of_queues(files, dir) ? queue::salvage(files, options, std::cout)
                                                : broker::salvage(files, options, std::cout);
  if (!saved && !dry_run) std::filesystem::remove_all(partial, error);
  if (!saved || dry_run) return saved;
  std::filesystem::rename(partial, to, error);
  if (error)
    return Error{Code::kIo, partial + " can't be renamed to " + to + ": " + error.message()};
  std::cout << "saved in " << to << "\nnext: keep " << dir << " under another name, and give " << to
            << " its name; then start the server\n";
  return {};
}

int finish(const Status& status) {
  return status ? 0 : fail(status.error());
}

}  // namespace

Run add_journal(CLI::App& parser) {
  struct Command {
    std::string dir, to;
    std::uint64_t from = 1, limit = UINT64_MAX;
    bool with_text = false;
    bool dry_run = false;
  };
  auto command = std::make_shared<Command>();
  parser.require_subcommand(1);
  auto* verify = parser.add_subcommand("verify", "Check every byte; changes nothing");
  auto* inspect =
      parser.add_subcommand("inspect", "Print records, one JSON line each; changes nothing");
  auto* salvage =
      parser.add_subcommand("salvage", "Make a new journal of all that a damaged one still holds");
  for (auto* sub : {verify, inspect, salvage}) {
    sub->add_option("DIR", command->dir,
                    "The server's data folder, or a journal folder in it (journal, queues)")
        ->required()
        ->check(CLI::ExistingDirectory);
  }
  inspect->add_option("--from", command->from, "First record to print")->capture_default_str();
  inspect->add_option("--limit", command->limit, "Records to print at most");
  inspect->add_flag("--with-text", command->with_text, "Print prompts and answers too");
  salvage->add_option("--to", command->to, "The new journal folder; the old one isn't changed");
  salvage->add_flag("--dry-run", command->dry_run, "Only tell what is lost and what can be saved");
  parser.footer(
      "Examples:\n"
      "  waystation journal verify data\n"
      "  waystation journal inspect data --from 100 --limit 20\n"
      "  waystation journal inspect data/queues\n"
      "  waystation journal salvage data --dry-run\n"
      "  waystation journal salvage data --to journal-saved\n"
      "  waystation journal salvage data/queues --to queues-saved");
  return [command, verify, inspect] {
    journal::PosixFileSystem files;
    const std::string dir = journal_dir(command->dir);
    if (verify->parsed()) return finish(verify_all(files, command->dir));
    if (inspect->parsed()) {
      const bool of_queues = is_of_queues(files, dir);
      return finish(journal::inspect(
          files, dir, {LogIndex{command->from}, command->limit},
          [&](std::string_view record) {
            return of_queues ? queue::record_json(record, command->with_text)
                             : record_json(record, command->with_text);
          },
          std::cout));
    }
    return finish(run_salvage(files, dir, command->to, command->dry_run));
  };
}

Run add_keys(CLI::App& parser) {
  struct Command {
    std::string file, tenant;
  };
  auto command = std::make_shared<Command>();
  parser.require_subcommand(1);
  auto* add =
      parser.add_subcommand("add", "Make a key, print it once, and keep its SHA-256 in FILE");
  add->add_option("FILE", command->file, "The key file; made when it isn't there")->required();
  add->add_option("--tenant", command->tenant,
                  "Whose key it is; tenants never see each other's requests")
      ->required();
  parser.footer("Example:\n  waystation keys add keys --tenant alice");
  return [command] {
    const auto key = guard::add_key(command->file, command->tenant, SystemClock().wall_ms());
    if (!key) return fail(key.error());
    std::printf("%s\n", key->c_str());
    std::fprintf(stderr,
                 "This key is shown only now. Use it as: Authorization: Bearer KEY\n"
                 "A running server reads the file again within a second or two. To take a "
                 "key back, remove its line.\n");
    return 0;
  };
}

}  // namespace waystation::app
