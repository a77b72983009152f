#include "app/serve_options.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <iomanip>
#include <set>
#include <sstream>
#include <utility>

#include "app/config.h"
#include "app/paths.h"
#include "engine/llama/gguf_file.h"

namespace waystation::app {
namespace {

constexpr char kSmallModel[] = "models/SmolLM2-135M-Instruct.Q4_1.gguf";

// Beside the current folder, or beside the source tree that this program was built in.
std::vector<std::string> usual_places() {
  const auto build = std::filesystem::path(own_executable()).parent_path();
  return {kSmallModel, (build / "../.." / kSmallModel).lexically_normal().string()};
}

// A number from `low` to `high`. CLI11's own ranges let NaN pass, and a negative number wrap.
CLI::Validator within(double low, double high) {
  std::ostringstream words;
  words << std::setprecision(15) << "must be a number from " << low << " to " << high;
  return {[=, words = words.str()](std::string& text) {
            double number = 0;
            const bool read = CLI::detail::lexical_cast(text, number);
            return read && number >= low && number <= high ? std::string() : words;
          },
          ""};
}

constexpr double kCountMax = 1e9;
constexpr double kBytesMax = 1e15;
constexpr double kHoursMax = 24 * 366 * 100;

// They belong to the --upstream before them, so their order matters.
void add_upstream_options(CLI::App& parser) {
  const auto add = [&parser](const char* name, const char* text) {
    parser
        .add_option_function<std::vector<std::string>>(
            name, [](const std::vector<std::string>&) {}, text)
        ->allow_extra_args(false)
        ->type_name("TEXT");
  };
  add("--upstream", "URL of an OpenAI-compatible server that answers as well (repeatable)");
  add("--upstream-model", "Its model: NAME or NAME=THEIR_NAME (repeatable)");
  add("--upstream-key-env", "Environment variable that holds its key");
}

Result<std::vector<upstream::Options>> upstreams_of_flags(CLI::App& parser) {
  std::vector<upstream::Options> upstreams;
  std::map<const CLI::Option*, std::size_t> seen;
  std::map<std::string, int> names;
  for (const CLI::Option* option : parser.parse_order()) {
    const std::string name = option->get_lnames().empty() ? "" : option->get_lnames().front();
    if (name != "upstream" && !name.starts_with("upstream-")) continue;
    const std::string value = option->results().at(seen[option]++);
    if (name == "upstream") {
      upstream::Options& added = upstreams.emplace_back();
      added.url = value;
      added.name = upstream_name_of(value);
      const int same = ++names[added.name];
      if (same > 1) added.name += "-" + std::to_string(same);
      continue;
    }
    if (upstreams.empty()) {
      return Error{Code::kInvalidArgument,
                   "--" + name + " '" + value + "' belongs to an --upstream URL before it", name};
    }
    if (name == "upstream-model") {
      const auto equals = value.find('=');
      upstreams.back().models.push_back(
          {value.substr(0, equals), equals == std::string::npos ? "" : value.substr(equals + 1)});
    } else {
      auto key = read_key(value, upstreams.back().name);
      if (!key) return key.error();
      upstreams.back().key = std::move(*key);
    }
  }
  return upstreams;
}

// Who answers.
void add_model_options(CLI::App& parser, ServeOptions& o) {
  parser.add_option("--model", o.models,
                    "Model to serve: FILE.gguf or NAME=FILE.gguf (repeatable)");
  parser.add_option("--embed-model", o.embed_models,
                    "Model to make embeddings with: FILE.gguf or NAME=FILE.gguf (repeatable)");
  parser.add_option("--workers", o.workers, "Local workers for each model")
      ->capture_default_str()
      ->check(CLI::Range(0, 256));
  parser.add_option("--slots", o.slots, "Requests at once in one local worker")
      ->capture_default_str()
      ->check(CLI::Range(1, 1024));
  parser
      .add_option("--context", o.context,
                  "Tokens per slot, prompt and answer together; 0: all that the model can")
      ->capture_default_str();
  parser.add_option("--threads", o.threads, "Threads that all local workers share; 0: all cores")
      ->capture_default_str()
      ->check(CLI::Range(0, 4096));
  parser.add_option("--scripted", o.scripted,
                    "Serve the scripted engine, for tests and load: \"tokens=64,interval-ms=20\"");
}

// Who may call, and from where.
void add_access_options(CLI::App& parser, ServeOptions& o) {
  parser.add_option("--api-key-file", o.api_key_file, "API keys (see: waystation keys)");
  parser.add_option("--link-listen", o.link_listen, "Take remote workers at HOST:PORT");
  parser.add_option("--join-token-file", o.join_token_file, "Secret that remote workers must know");
  parser.add_option("--link-cert", o.link_cert, "TLS certificate for --link-listen (PEM)");
  parser.add_option("--link-key", o.link_key, "TLS key for --link-listen (PEM)");
  parser.add_option("--link-ca", o.link_ca,
                    "Authority that remote workers' certificates must have");
  parser.add_option(
      "--queue-listen", o.queue_listen,
      "Serve people's queues over gRPC at HOST:PORT; loopback unless there are API keys");
  parser.add_option("--queue-cert", o.queue_cert, "TLS certificate for --queue-listen (PEM)");
  parser.add_option("--queue-key", o.queue_key, "TLS key for --queue-listen (PEM)");
  parser.add_option("--cors-origin", o.cors_origins,
                    "Origin that browsers may call from (repeatable)");
  parser.add_option("--allow-host", o.allow_hosts,
                    "Without API keys: name that clients may call the server by, beside localhost "
                    "(repeatable)");
}

void add_limit_options(CLI::App& parser, ServeOptions& o) {
  parser.add_option("--queue-max", o.queue_max, "Requests queued and running at most")
      ->capture_default_str()
      ->check(within(1, kCountMax));
  parser.add_option("--body-bytes-max", o.body_bytes_max, "Largest request body")
      ->capture_default_str()
      ->check(within(1, kBytesMax));
  parser.add_option("--file-bytes-max", o.file_bytes_max, "Largest uploaded file")
      ->capture_default_str()
      ->check(within(1, kBytesMax));
  parser.add_option("--store-bytes-max", o.store_bytes_max, "All uploaded files together")
      ->capture_default_str()
      ->check(within(1, kBytesMax));
  parser.add_option("--batch-hours", o.batch_hours, "For tests: completion window of batches")
      ->group("");
  parser.add_option("--connections-max", o.connections_max, "Open HTTP connections at most")
      ->capture_default_str()
      ->check(within(1, kCountMax));
  const CLI::Range milliseconds(1, 24 * 3600 * 1000);
  parser
      .add_option("--header-timeout-ms", o.header_timeout_ms,
                  "A request's header must come within this")
      ->capture_default_str()
      ->check(milliseconds);
  parser.add_option("--body-timeout-ms", o.body_timeout_ms, "And its body within this")
      ->capture_default_str()
      ->check(milliseconds);
  parser
      .add_option("--idle-timeout-ms", o.idle_timeout_ms,
                  "Connections without a request are closed after this")
      ->capture_default_str()
      ->check(milliseconds);
}

// What is kept, and for how long.
void add_storage_options(CLI::App& parser, ServeOptions& o) {
  parser.add_option("--durability", o.durability, "disk: synced; os: written; none: memory only")
      ->capture_default_str()
      ->check(CLI::IsMember({"disk", "os", "none"}));
  parser
      .add_option("--journal-bytes-max", o.journal_bytes_max,
                  "Above this size the oldest ended requests are forgotten")
      ->capture_default_str()
      ->check(within(1, kBytesMax));
  parser.add_option("--segment-bytes", o.segment_bytes, "Size of one journal file")
      ->capture_default_str()
      ->check(CLI::Range(std::uint64_t{64} << 10, std::uint64_t{1} << 30));
  parser.add_option("--retain-hours", o.retain_hours, "Ended requests are kept this long")
      ->capture_default_str()
      ->check(within(0, kHoursMax));
  parser
      .add_option("--idempotency-ttl-hours", o.idempotency_ttl_hours,
                  "An Idempotency-Key binds this long")
      ->capture_default_str()
      ->check(within(1e-6, kHoursMax));
  parser.add_option("--response-days", o.response_days, "Stored responses are kept this long")
      ->capture_default_str()
      ->check(within(0, kHoursMax / 24));
}

// What becomes of conversations and of requests that were asked before.
void add_behaviour_options(CLI::App& parser, ServeOptions& o) {
  parser
      .add_option("--conversation-busy", o.conversation_busy,
                  "A turn of a conversation that has one in flight: queue it, or refuse it")
      ->capture_default_str()
      ->check(CLI::IsMember({"queue", "refuse"}));
  parser
      .add_option("--on-dead", o.on_dead,
                  "A conversation whose request used up its attempts: skip it and go on, or block "
                  "until it is requeued or discarded")
      ->capture_default_str()
      ->check(CLI::IsMember({"skip", "block"}));
  parser.add_option("--cache", o.cache, "Give the answers of equal deterministic requests again")
      ->capture_default_str()
      ->check(CLI::IsMember({"on", "off"}));
  parser
      .add_option("--cache-ttl-seconds", o.cache_ttl_seconds,
                  "Answers older than this are made anew")
      ->capture_default_str()
      ->check(within(0, kHoursMax * 3600));
}

}  // namespace

void add_serve_options(CLI::App& parser, ServeOptions& options) {
  ServeOptions& o = options;
  parser.add_option("--listen", o.listen, "Address for HTTP; loopback unless there are API keys")
      ->capture_default_str();
  parser.add_option("--data", o.data, "Folder for the journal")->capture_default_str();
  add_model_options(parser, o);
  add_access_options(parser, o);
  add_storage_options(parser, o);
  add_limit_options(parser, o);
  add_behaviour_options(parser, o);
  parser
      .add_option("--grace-seconds", o.grace_seconds,
                  "On SIGTERM, wait this long for running answers")
      ->capture_default_str()
      ->check(within(0, 86400));
  parser.add_option("--config", o.config,
                    "Read options and upstreams from FILE.toml; flags win over it");
  add_upstream_options(parser);
  parser.add_option("--log-level", o.log_level, "debug, info, warn, error or off")
      ->capture_default_str();
}

Status finish_serve_options(CLI::App& parser, ServeOptions& options) {
  auto from_flags = upstreams_of_flags(parser);
  if (!from_flags) return from_flags.error();
  if (!options.config.empty()) {
    if (Status loaded = load_config(options.config, parser, options); !loaded) return loaded;
  }
  for (upstream::Options& given : *from_flags) {
    std::erase_if(options.upstreams,
                  [&given](const upstream::Options& other) { return other.name == given.name; });
    options.upstreams.push_back(std::move(given));
  }
  for (const upstream::Options& upstream : options.upstreams) {
    if (Status good = upstream::check_options(upstream); !good) return good;
  }
  const bool any_port = options.listen.ends_with(":0");
  if (!options.queue_listen.empty() && options.queue_listen == options.listen && !any_port) {
    return Error{Code::kInvalidArgument,
                 "--queue-listen and --listen are both " + options.listen + "; give each its port",
                 "queue-listen"};
  }
  options.scripted_given = parser.get_option("--scripted")->count() > 0;
  return {};
}

Result<std::string> read_key(const std::string& variable, const std::string& upstream) {
  const char* value = variable.empty() ? "" : std::getenv(variable.c_str());
  if (value == nullptr || (*value == '\0' && !variable.empty())) {
    return Error{Code::kInvalidArgument,
                 "the key of the upstream '" + upstream +
                     "' is to be in the environment variable " + variable + ", which isn't set",
                 "key_env"};
  }
  return std::string(value);
}

std::string upstream_name_of(const std::string& url) {
  const auto parts = upstream::parse_url(url);
  return parts ? parts->authority : url;
}

Result<std::vector<ModelFile>> models_of(const ServeOptions& options) {
  std::vector<ModelFile> models;
  std::set<std::string> names;
  std::vector<std::pair<std::string, bool>> wanted;
  for (const std::string& given : options.models) wanted.emplace_back(given, false);
  for (const std::string& given : options.embed_models) wanted.emplace_back(given, true);
  for (const auto& [given, embeds] : wanted) {
    const auto equals = given.find('=');
    const bool named = equals != std::string::npos && !std::filesystem::exists(given);
    ModelFile model{named ? given.substr(0, equals) : model_name_of(given),
                    named ? given.substr(equals + 1) : given, embeds};
    if (!names.insert(model.name).second) {
      return Error{Code::kInvalidArgument,
                   "two models are called '" + model.name +
                       "'; name one of them with --model NAME=FILE or "
                       "--embed-model NAME=FILE",
                   embeds ? "embed-model" : "model"};
    }
    models.push_back(std::move(model));
  }
  if (models.empty() && !options.scripted_given && options.link_listen.empty() &&
      options.upstreams.empty()) {
    for (const std::string& place : usual_places()) {
      if (models.empty() && std::filesystem::exists(place)) {
        models.push_back({model_name_of(place), place, false});
      }
    }
  }
  for (const ModelFile& model : models) {
    if (const Status good = engine::check_gguf(model.path); !good) return good.error();
  }
  return models;
}

}  // namespace waystation::app
