// `waystation serve`: reads the options, joins the parts, and waits for the signal to end.
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <sstream>
#include <thread>

#include "app/commands.h"
#include "app/paths.h"
#include "app/serve_options.h"
#include "base/log.h"
#include "base/thread_executor.h"
#include "broker/broker.h"
#include "engine/scripted/scripted_options.h"
#include "front/server.h"
#include "guard/keys.h"
#include "journal/file_journal.h"
#include "journal/memory_journal.h"
#include "journal/posix_file_system.h"
#include "link/grpc/grpc_server.h"
#include "watch/prometheus_meter.h"
#include "worker/signals.h"
#include "worker/supervisor.h"

namespace waystation::app {
namespace {

constexpr TimeMs kHourMs = 3600 * 1000;

// Why the server should end, for the main thread to wait for.
class EndSignal {
 public:
  void give(int exit_status) {
    std::lock_guard lock(mutex_);
    if (!status_) status_ = exit_status;
    given_.notify_all();
  }
  int wait() {
    std::unique_lock lock(mutex_);
    given_.wait(lock, [this] { return status_.has_value(); });
    return *status_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable given_;
  std::optional<int> status_;
};

// The loop of the broker on a thread of its own, ended and joined on destruction.
class BrokerThread {
 public:
  explicit BrokerThread(broker::Broker& broker)
      : broker_(broker), thread_([this] {
          while (broker_.turn(std::chrono::milliseconds(20))) {
          }
        }) {}
  ~BrokerThread() { stop(); }
  void stop() {
    if (!thread_.joinable()) return;
    broker_.stop();
    thread_.join();
  }

 private:
  broker::Broker& broker_;
  std::thread thread_;
};

// A stuck worker (stopped, or hanging in its engine) doesn't end by itself, and only its end lets the
// supervisor start the next. Never anything but a child of ours.
void kill_child(std::int64_t pid) {
  std::ifstream stat("/proc/" + std::to_string(pid) + "/stat");
  std::string line;
  std::getline(stat, line);
  const auto name_end = line.rfind(')');
  if (name_end == std::string::npos) return;
  std::istringstream rest(line.substr(name_end + 1));
  std::string state;
  pid_t parent = 0;
  rest >> state >> parent;
  if (parent != ::getpid()) return;
  WS_LOG(warn, "stuck worker killed pid={}", pid);
  ::kill(static_cast<pid_t>(pid), SIGKILL);
}

// Background work uses the broker and the journal, so it ends before they do.
struct BackgroundEnd {
  ThreadExecutor& background;
  ~BackgroundEnd() { background.stop(); }
};

struct Secrets {
  std::optional<guard::KeyStore> keys;
  std::string join_token;
};

Result<Secrets> read_secrets(const ServeOptions& options, const front::Listen& listen) {
  Secrets secrets;
  if (!options.api_key_file.empty()) {
    auto keys = guard::KeyStore::load(options.api_key_file);
    if (!keys) return keys.error();
    secrets.keys = std::move(*keys);
  } else if (!listen.is_loopback()) {
    return Error{Code::kInvalidArgument,
                 "listening on " + listen.host +
                     ", which other machines can reach, needs --api-key-file FILE; make a key with: "
                     "waystation keys add FILE --tenant NAME",
                 "listen"};
  }
  if (!options.join_token_file.empty()) {
    auto token = read_secret(options.join_token_file, "--join-token-file");
    if (!token) return token.error();
    secrets.join_token = std::move(*token);
  } else if (!options.link_listen.empty()) {
    return Error{Code::kInvalidArgument,
                 "--link-listen needs --join-token-file FILE, so that not everybody can join as a worker; "
                 "make one with: openssl rand -hex 32 > FILE",
                 "link-listen"};
  }
  return secrets;
}

broker::Config broker_config(const ServeOptions& options, const std::string& join_token,
                             const std::vector<ModelFile>& models, const std::string& scripted) {
  broker::Config config;
  config.limits.live_requests_max = options.queue_max;
  config.limits.retain_ms = static_cast<TimeMs>(options.retain_hours * kHourMs);
  config.limits.idempotency_ttl_ms = static_cast<TimeMs>(options.idempotency_ttl_hours * kHourMs);
  config.link.join_token = join_token;
  config.journal_bytes_max = options.journal_bytes_max;
  config.version = WAYSTATION_VERSION;
  for (const ModelFile& model : models) config.expected_models.push_back(model.name);
  if (!scripted.empty()) config.expected_models.push_back(scripted);
  return config;
}

Result<std::unique_ptr<journal::Journal>> open_journal(const ServeOptions& options,
                                                       journal::FileSystem& files, Meter& meter,
                                                       journal::Callbacks callbacks) {
  if (options.durability == "none") {
    WS_LOG(warn, "durability=none: everything is lost when this process ends");
    return std::make_unique<journal::MemoryJournal>(
        journal::MemoryJournal::Options{std::move(callbacks), true});
  }
  journal::FileJournal::Options file;
  file.dir = options.data + "/journal";
  file.durability = options.durability == "os" ? journal::Durability::kOs : journal::Durability::kDisk;
  file.segment_bytes_max = options.segment_bytes;
  file.callbacks = std::move(callbacks);
  file.file_system = &files;
  file.meter = &meter;
  auto opened = journal::FileJournal::open(std::move(file));
  if (!opened) return opened.error();
  return std::unique_ptr<journal::Journal>(std::move(*opened));
}

// The command lines of all local workers: --workers for each model, then the scripted ones.
std::vector<std::vector<std::string>> worker_commands(const ServeOptions& options,
                                                      const std::vector<ModelFile>& models,
                                                      const std::string& socket) {
  const int llama_workers = options.workers * static_cast<int>(models.size());
  const int cores = options.threads > 0 ? options.threads
                                        : std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  const int threads = std::max(1, cores / std::max(1, llama_workers));
  const std::vector<std::string> common{own_executable(), "worker",  "--connect", "unix:" + socket,
                                        "--local-parent", std::to_string(::getpid()),
                                        "--log-level", options.log_level};
  std::vector<std::vector<std::string>> commands;
  const auto add = [&](std::vector<std::string> own) {
    std::vector<std::string> command = common;
    command.insert(command.end(), {"--name", "local-" + std::to_string(commands.size())});
    command.insert(command.end(), own.begin(), own.end());
    commands.push_back(std::move(command));
  };
  for (const ModelFile& model : models) {
    for (int i = 0; i < options.workers; ++i) {
      add({"--model", model.path, "--model-name", model.name, "--threads", std::to_string(threads),
           "--slots", std::to_string(options.slots), "--context", std::to_string(options.context)});
    }
  }
  if (options.scripted_given) {
    for (int i = 0; i < options.workers; ++i) add({"--scripted", options.scripted});
  }
  return commands;
}

// Ends in the order in which the parts need each other; see docs/ARCHITECTURE.md.
void shut_down(const ServeOptions& options, broker::Broker& broker, BrokerThread& loop,
               front::Server& front, std::unique_ptr<worker::Supervisor>& supervisor,
               link::GrpcLinkServer& link) {
  WS_LOG(info, "draining grace_s={}", options.grace_seconds);
  broker.drain();
  broker.wait_drained(std::chrono::seconds(options.grace_seconds));
  loop.stop();
  front.stop(1000);
  if (supervisor) supervisor->stop(1000);
  link.stop();
  WS_LOG(info, "ended");
}

int run_serve(const ServeOptions& options) {
  if (const Status good = init_logging(options.log_level); !good) return fail(good.error());
  std::signal(SIGXFSZ, SIG_IGN);  // a file-size limit is to look like a full disk, not end us
  EndSignal end;
  worker::SignalWatch signals([&end](int) { end.give(0); });

  const auto listen = front::parse_listen(options.listen);
  if (!listen) return fail(listen.error());
  const auto secrets = read_secrets(options, *listen);
  if (!secrets) return fail(secrets.error());
  const auto models = models_of(options);
  if (!models) return fail(models.error());
  std::string scripted_name;
  if (options.scripted_given) {
    const auto scripted = engine::parse_scripted_options(options.scripted);
    if (!scripted) return fail(scripted.error());
    scripted_name = scripted->name;
  }
  if (const Status made = make_folder(options.data); !made) return fail(made.error());
  const auto socket = make_socket_path(options.data);
  if (!socket) return fail(socket.error());

  SystemClock clock;
  watch::PrometheusMeter meter(clock, WAYSTATION_VERSION);
  std::mt19937_64 random{std::random_device{}()};
  ThreadExecutor background(2);
  broker::Broker broker(broker_config(options, secrets->join_token, *models, scripted_name),
                        {clock, background, meter, [&random] { return random(); }, kill_child});
  journal::PosixFileSystem files;
  auto journal = open_journal(options, files, meter, broker.journal_callbacks());
  if (!journal) return fail(journal.error());
  const BackgroundEnd background_end{background};
  std::vector<std::string> link_addresses{"unix:" + *socket};
  if (!options.link_listen.empty()) link_addresses.push_back(options.link_listen);
  link::GrpcLinkServer link({.addresses = link_addresses,
                             .tls = {options.link_cert, options.link_key, options.link_ca}});
  if (const Status started = broker.start(**journal, link); !started) return fail(started.error());
  BrokerThread loop(broker);
  if (const Status started = link.start(broker); !started) return fail(started.error());

  front::Options front_options;
  front_options.listen = *listen;
  front_options.body_bytes_max = options.body_bytes_max;
  front_options.connections_max = options.connections_max;
  front_options.header_timeout_ms = options.header_timeout_ms;
  front_options.body_timeout_ms = options.body_timeout_ms;
  front_options.idle_timeout_ms = options.idle_timeout_ms;
  front_options.cors_origins = options.cors_origins;
  front::Server front(front_options, broker, secrets->keys ? &*secrets->keys : nullptr,
                      [&meter] { return meter.render(); }, clock, meter);
  const auto port = front.start();
  if (!port) return fail(port.error());
  const std::string host = listen->host.find(':') == std::string::npos ? listen->host
                                                                       : "[" + listen->host + "]";
  WS_LOG(info, "listening url=http://{}:{}", host, *port);

  const auto commands = worker_commands(options, *models, *socket);
  std::unique_ptr<worker::Supervisor> supervisor;
  if (!commands.empty()) {
    worker::SupervisorOptions supervised;
    supervised.workers = static_cast<int>(commands.size());
    supervised.command = [&commands](int index) { return commands[static_cast<std::size_t>(index)]; };
    supervised.on_given_up = [&](int index, const std::string& reason) {
      WS_LOG(error, "local worker can't run worker=local-{} reason=\"{}\"", index, reason);
      if (!broker.health().ready) end.give(78);
    };
    auto started = worker::Supervisor::start(supervised, meter);
    if (!started) return fail(started.error());
    supervisor = std::move(*started);
  } else {
    WS_LOG(warn, "no local worker: give a model with --model FILE.gguf ('make models' fetches a small one)");
  }

  const int status = end.wait();
  shut_down(options, broker, loop, front, supervisor, link);
  return status;
}

}  // namespace

Run add_serve(CLI::App& parser) {
  auto options = std::make_shared<ServeOptions>();
  ServeOptions& o = *options;
  parser.add_option("--listen", o.listen, "Address for HTTP; loopback unless there are API keys")
      ->capture_default_str();
  parser.add_option("--data", o.data, "Folder for the journal")->capture_default_str();
  parser.add_option("--model", o.models, "Model to serve: FILE.gguf or NAME=FILE.gguf (repeatable)");
  parser.add_option("--workers", o.workers, "Local workers for each model")
      ->capture_default_str()->check(CLI::Range(0, 256));
  parser.add_option("--slots", o.slots, "Requests at once in one local worker")
      ->capture_default_str()->check(CLI::Range(1, 1024));
  parser.add_option("--context", o.context, "Tokens per slot, prompt and answer together; 0: all that the model can")
      ->capture_default_str();
  parser.add_option("--threads", o.threads, "Threads that all local workers share; 0: all cores")
      ->capture_default_str()->check(CLI::Range(0, 4096));
  auto* scripted = parser.add_option("--scripted", o.scripted,
                    "Serve the scripted engine, for tests and load: \"tokens=64,interval-ms=20\"");
  parser.add_option("--api-key-file", o.api_key_file, "API keys (see: waystation keys)");
  parser.add_option("--link-listen", o.link_listen, "Take remote workers at HOST:PORT");
  parser.add_option("--join-token-file", o.join_token_file, "Secret that remote workers must know");
  parser.add_option("--link-cert", o.link_cert, "TLS certificate for --link-listen (PEM)");
  parser.add_option("--link-key", o.link_key, "TLS key for --link-listen (PEM)");
  parser.add_option("--link-ca", o.link_ca, "Authority that remote workers' certificates must have");
  parser.add_option("--durability", o.durability, "disk: synced; os: written; none: memory only")
      ->capture_default_str()->check(CLI::IsMember({"disk", "os", "none"}));
  parser.add_option("--queue-max", o.queue_max, "Requests queued and running at most")
      ->capture_default_str();
  parser.add_option("--body-bytes-max", o.body_bytes_max, "Largest request body")->capture_default_str();
  parser.add_option("--connections-max", o.connections_max, "Open HTTP connections at most")
      ->capture_default_str();
  const CLI::Range milliseconds(1, 24 * 3600 * 1000);
  parser.add_option("--header-timeout-ms", o.header_timeout_ms, "A request's header must come within this")
      ->capture_default_str()->check(milliseconds);
  parser.add_option("--body-timeout-ms", o.body_timeout_ms, "And its body within this")
      ->capture_default_str()->check(milliseconds);
  parser.add_option("--idle-timeout-ms", o.idle_timeout_ms, "Connections without a request are closed after this")
      ->capture_default_str()->check(milliseconds);
  parser.add_option("--journal-bytes-max", o.journal_bytes_max,
                    "Above this size the oldest ended requests are forgotten")->capture_default_str();
  parser.add_option("--segment-bytes", o.segment_bytes, "Size of one journal file")
      ->capture_default_str()->check(CLI::Range(std::uint64_t{64} << 10, std::uint64_t{1} << 30));
  parser.add_option("--retain-hours", o.retain_hours, "Ended requests are kept this long")
      ->capture_default_str();
  parser.add_option("--idempotency-ttl-hours", o.idempotency_ttl_hours, "An Idempotency-Key binds this long")
      ->capture_default_str();
  parser.add_option("--cors-origin", o.cors_origins, "Origin that browsers may call from (repeatable)");
  parser.add_option("--grace-seconds", o.grace_seconds, "On SIGTERM, wait this long for running answers")
      ->capture_default_str();
  parser.add_option("--log-level", o.log_level, "debug, info, warn, error or off")->capture_default_str();
  parser.footer(
      "Examples:\n"
      "  waystation serve                                   the small model of 'make models'\n"
      "  waystation serve --model a.gguf --model b.gguf --workers 2\n"
      "  waystation serve --scripted tokens=64,interval-ms=20 --workers 4\n"
      "  waystation serve --listen 0.0.0.0:8080 --api-key-file keys");
  return [options, scripted] {
    options->scripted_given = scripted->count() > 0;
    return run_serve(*options);
  };
}

}  // namespace waystation::app
