// `waystation serve`: reads the options, joins the parts, and waits for the signal to end.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <sstream>
#include <thread>

#include "app/application_data.h"
#include "app/commands.h"
#include "app/open_journal.h"
#include "app/paths.h"
#include "app/queues.h"
#include "app/serve_options.h"
#include "base/crash_point.h"
#include "base/log.h"
#include "base/thread_executor.h"
#include "base/thread_name.h"
#include "broker/broker.h"
#include "engine/scripted/scripted_options.h"
#include "front/server.h"
#include "guard/keys.h"
#include "journal/file_journal.h"
#include "journal/posix_file_system.h"
#include "link/grpc/grpc_server.h"
#include "link/transport_mux.h"
#include "upstream/pool.h"
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
  // Calls `each_second` while it waits.
  int wait(const std::function<void()>& each_second) {
    std::unique_lock lock(mutex_);
    while (
        !given_.wait_for(lock, std::chrono::seconds(1), [this] { return status_.has_value(); })) {
      lock.unlock();
      each_second();
      lock.lock();
    }
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
          name_this_thread("broker");
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

// A stuck worker (stopped, or hanging in its engine) doesn't end by itself, and only its end lets
// the supervisor start the next. Never anything but a child of ours.
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

// What the options name, read and checked before anything is started.
struct Inputs {
  front::Listen listen;
  std::unique_ptr<guard::KeyFile> keys;  // null: no keys are asked for
  std::string join_token;
  std::vector<ModelFile> models;
  std::string scripted_name;  // empty: no scripted workers
  std::string socket;         // of local workers
};

Status read_secrets(const ServeOptions& options, Inputs& inputs) {
  if (!options.api_key_file.empty()) {
    auto keys = guard::KeyFile::open(options.api_key_file);
    if (!keys) return keys.error();
    inputs.keys = std::move(*keys);
  } else if (!inputs.listen.is_loopback()) {
    return Error{
        Code::kInvalidArgument,
        "listening on " + inputs.listen.host +
            ", which other machines can reach, needs --api-key-file FILE; make a key with: "
            "waystation keys add FILE --tenant NAME",
        "listen"};
  }
  if (!options.join_token_file.empty()) {
    auto token = read_secret(options.join_token_file, "--join-token-file");
    if (!token) return token.error();
    inputs.join_token = std::move(*token);
  } else if (!options.link_listen.empty()) {
    return Error{
        Code::kInvalidArgument,
        "--link-listen needs --join-token-file FILE, so that not everybody can join as a worker; "
        "make one with: openssl rand -hex 32 > FILE",
        "link-listen"};
  }
  return {};
}

Result<Inputs> read_inputs(const ServeOptions& options) {
  Inputs inputs;
  auto listen = front::parse_listen(options.listen);
  if (!listen) return listen.error();
  inputs.listen = std::move(*listen);
  if (const Status read = read_secrets(options, inputs); !read) return read.error();
  auto models = models_of(options);
  if (!models) return models.error();
  inputs.models = std::move(*models);
  if (options.scripted_given) {
    const auto scripted = engine::parse_scripted_options(options.scripted);
    if (!scripted) return scripted.error();
    inputs.scripted_name = scripted->name;
  }
  if (const Status made = make_folder(options.data); !made) return made.error();
  auto socket = make_socket_path(options.data);
  if (!socket) return socket.error();
  inputs.socket = std::move(*socket);
  return inputs;
}

broker::Config broker_config(const ServeOptions& options, const Inputs& inputs) {
  broker::Config config;
  config.limits.live_requests_max = options.queue_max;
  config.limits.retain_ms = static_cast<TimeMs>(options.retain_hours * kHourMs);
  config.limits.idempotency_ttl_ms = static_cast<TimeMs>(options.idempotency_ttl_hours * kHourMs);
  config.link.join_token = inputs.join_token;
  // A dead worker is noticed at once, by its connection; only a stuck one takes this long, and one
  // that a busy machine gives no time isn't to be taken for it.
  config.link.lease_ms = 10'000;
  config.journal_bytes_max = options.journal_bytes_max;
  config.version = WAYSTATION_VERSION;
  config.callers_help = true;
  for (const ModelFile& model : inputs.models) config.expected_models.push_back(model.name);
  if (!inputs.scripted_name.empty()) config.expected_models.push_back(inputs.scripted_name);
  for (const upstream::Options& upstream : options.upstreams) {
    for (const upstream::ModelRoute& model : upstream.models) {
      config.expected_models.push_back(model.name);
    }
  }
  config.fallbacks = options.fallback;
  config.block_on_dead = options.on_dead == "block";
  return config;
}

front::Options front_options_of(const ServeOptions& options, const front::Listen& listen,
                                const std::string& instance) {
  front::Options front;
  front.instance = instance;
  front.listen = listen;
  front.threads = std::clamp(static_cast<int>(std::thread::hardware_concurrency()) / 2, 1, 8);
  front.body_bytes_max = options.body_bytes_max;
  front.file_bytes_max = options.file_bytes_max;
  front.connections_max = options.connections_max;
  front.header_timeout_ms = options.header_timeout_ms;
  front.body_timeout_ms = options.body_timeout_ms;
  front.idle_timeout_ms = options.idle_timeout_ms;
  front.cors_origins = options.cors_origins;
  front.check_host = options.api_key_file.empty();
  front.allowed_hosts = options.allow_hosts;
  front.cache = options.cache == "on";
  front.cache_ttl_ms = static_cast<std::int64_t>(options.cache_ttl_seconds * 1000);
  return front;
}

// The command lines of all local workers: --workers for each model, then the scripted ones.
std::vector<std::vector<std::string>> worker_commands(const ServeOptions& options,
                                                      const Inputs& inputs) {
  const int llama_workers = options.workers * static_cast<int>(inputs.models.size());
  const int cores = options.threads > 0
                        ? options.threads
                        : std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  const int threads = std::max(1, cores / std::max(1, llama_workers));
  const std::vector<std::string> common{own_executable(), "worker",
                                        "--connect",      "unix:" + inputs.socket,
                                        "--local-parent", std::to_string(::getpid()),
                                        "--log-level",    options.log_level};
  std::vector<std::vector<std::string>> commands;
  const auto add = [&](std::vector<std::string> own) {
    std::vector<std::string> command = common;
    command.insert(command.end(), {"--name", "local-" + std::to_string(commands.size())});
    command.insert(command.end(), own.begin(), own.end());
    commands.push_back(std::move(command));
  };
  for (const ModelFile& model : inputs.models) {
    for (int i = 0; i < options.workers; ++i) {
      add({model.embeds ? "--embed-model" : "--model", model.path, "--model-name", model.name,
           "--threads", std::to_string(threads), "--slots", std::to_string(options.slots),
           "--context", std::to_string(options.context)});
    }
  }
  if (options.scripted_given) {
    for (int i = 0; i < options.workers; ++i) add({"--scripted", options.scripted});
  }
  return commands;
}

// Null when there are none.
Result<std::unique_ptr<worker::Supervisor>> start_workers(
    const std::vector<std::vector<std::string>>& commands, Meter& meter,
    std::function<void(int, const std::string&)> on_given_up) {
  if (commands.empty()) return std::unique_ptr<worker::Supervisor>();
  worker::SupervisorOptions options;
  options.workers = static_cast<int>(commands.size());
  options.command = [commands](int index) { return commands[static_cast<std::size_t>(index)]; };
  options.on_given_up = std::move(on_given_up);
  return worker::Supervisor::start(options, meter);
}

std::string shown_host(const front::Listen& listen) {
  return listen.host.find(':') == std::string::npos ? listen.host : "[" + listen.host + "]";
}

// Ends in the order in which the parts need each other; see docs/ARCHITECTURE.md.
void shut_down(const ServeOptions& options, broker::Broker& broker, BrokerThread& loop,
               front::Server& front, std::unique_ptr<worker::Supervisor>& supervisor,
               link::GrpcLinkServer& link, upstream::Pool& upstreams, ApplicationData& data) {
  WS_LOG(info, "draining grace_s={}", options.grace_seconds);
  broker.drain();
  broker.wait_drained(std::chrono::seconds(options.grace_seconds));
  data.stop_batches();
  loop.stop();
  front.stop(1000);
  data.stop_store();
  if (supervisor) supervisor->stop(1000);
  link.stop();
  upstreams.stop();
  WS_LOG(info, "ended");
}

int run_serve(const ServeOptions& options) {
  if (const Status good = init_logging(options.log_level); !good) return fail(good.error());
  if (const char* at = std::getenv("WAYSTATION_CRASH_AT")) {  // for tests; see docs/testing.md
    if (const Status armed = arm_crash_point(at); !armed) return fail(armed.error());
    WS_LOG(warn, "this process will be killed crash_at={}", at);
  }
  std::signal(SIGXFSZ, SIG_IGN);  // a file-size limit is to look like a full disk, not end us
  EndSignal end;
  worker::SignalWatch signals([&end](int) { end.give(0); });

  const auto inputs = read_inputs(options);
  if (!inputs) return fail(inputs.error());

  SystemClock clock;
  watch::PrometheusMeter meter(clock, WAYSTATION_VERSION);
  std::mt19937_64 random{std::random_device{}()};
  // Of this run of the server, for others to tell whether a request has passed it.
  const std::string instance = RequestId::make(clock.wall_ms(), random(), random()).to_string();
  ThreadExecutor background(2, "background");
  ThreadExecutor disk(2, "disk");  // uploads, whose syncs are not to delay replays
  broker::Broker broker(broker_config(options, *inputs),
                        {clock, background, meter, [&random] { return random(); }, kill_child});
  journal::PosixFileSystem files;
  if (options.durability == "none") {
    WS_LOG(warn, "durability=none: everything is lost when this process ends");
  }
  journal::FileJournal::Options file;
  file.segment_bytes_max = options.segment_bytes;
  auto journal =
      open_journal(options, "journal", std::move(file), files, meter, broker.journal_callbacks());
  if (!journal) return fail(journal.error());
  auto data = ApplicationData::open(options, disk, clock);  // after the journal has the folder
  if (!data) return fail(data.error());
  broker.set_composer(data->composer());
  auto queues = Queues::open(options, files, background, clock, meter, inputs->keys.get());
  if (!queues) return fail(queues.error());
  const BackgroundEnd background_end{background};
  const BackgroundEnd disk_end{disk};
  std::vector<std::string> link_addresses{"unix:" + inputs->socket};
  if (!options.link_listen.empty()) link_addresses.push_back(options.link_listen);
  link::TransportMux workers(broker);  // outlives the transports, which tell it of their end
  link::GrpcLinkServer link(
      {.addresses = link_addresses, .tls = {options.link_cert, options.link_key, options.link_ca}});
  auto upstreams = upstream::make_pool(
      {.upstreams = options.upstreams, .version = WAYSTATION_VERSION, .instance = instance}, clock,
      meter);
  if (!upstreams) return fail(upstreams.error());
  link::ServerEvents& link_events = workers.add(link);
  link::ServerEvents& upstream_events = workers.add(**upstreams);
  if (const Status started = broker.start(**journal, workers); !started)
    return fail(started.error());
  BrokerThread loop(broker);
  if (const Status started = link.start(link_events); !started) return fail(started.error());
  (*upstreams)->start(upstream_events);
  if (const Status started = data->start(broker, clock, meter); !started)
    return fail(started.error());

  if (const Status started = (*queues)->start(); !started) return fail(started.error());
  front::Parts parts = data->parts();
  parts.queues = &(*queues)->station();
  front::Server front(
      front_options_of(options, inputs->listen, instance), broker, inputs->keys.get(),
      [&meter] { return meter.render(); }, clock, meter, parts);
  const auto port = front.start();
  if (!port) return fail(port.error());
  WS_LOG(info, "listening url=http://{}:{}", shown_host(inputs->listen), *port);

  const auto commands = worker_commands(options, *inputs);
  auto supervisor = start_workers(commands, meter, [&](int index, const std::string& reason) {
    WS_LOG(error, "local worker can't run worker=local-{} reason=\"{}\"", index, reason);
    if (!broker.health().ready) end.give(78);
  });
  if (!supervisor) return fail(supervisor.error());
  if (!*supervisor && options.upstreams.empty()) {
    WS_LOG(
        warn,
        "no local worker: give a model with --model FILE.gguf ('make models' fetches a small one)");
  }

  const int status = end.wait([&inputs] {
    if (inputs->keys) inputs->keys->refresh();
  });
  shut_down(options, broker, loop, front, *supervisor, link, **upstreams, *data);
  (*queues)->stop();
  return status;
}

}  // namespace

Run add_serve(CLI::App& parser) {
  auto options = std::make_shared<ServeOptions>();
  add_serve_options(parser, *options);
  parser.footer(
      "Examples:\n"
      "  waystation serve                                   the small model of 'make models'\n"
      "  waystation serve --model a.gguf --model b.gguf --workers 2\n"
      "  waystation serve --scripted tokens=64,interval-ms=20 --workers 4\n"
      "  waystation serve --upstream https://api.example.com/v1 --upstream-model big "
      "--upstream-key-env KEY\n"
      "  waystation serve --config docs/waystation.toml\n"
      "  waystation serve --listen 0.0.0.0:8080 --api-key-file keys");
  return [options, &parser] {
    if (const Status finished = finish_serve_options(parser, *options); !finished) {
      return fail(finished.error());
    }
    return run_serve(*options);
  };
}

}  // namespace waystation::app
