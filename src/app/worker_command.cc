// `waystation worker`: one engine, joined to a server.
#include <unistd.h>

#include <chrono>
#include <memory>
#include <thread>

#include "app/commands.h"
#include "app/paths.h"
#include "base/log.h"
#include "engine/llama/embedding_engine.h"
#include "engine/llama/llama_engine.h"
#include "engine/scripted/scripted_engine.h"
#include "link/grpc/grpc_client.h"
#include "worker/supervisor.h"
#include "worker/worker.h"

namespace waystation::app {
namespace {

// As often as a screen shows something new. Each report costs the server half a millisecond of the
// cores that the model computes on (docs/performance.md).
constexpr std::chrono::milliseconds kReportEvery{14};

struct WorkerCommand {
  std::string connect;
  std::string model;
  std::string embed_model;
  std::string model_name;
  std::string scripted;
  bool scripted_given = false;
  std::string name;
  std::uint32_t slots = 8;
  std::uint32_t context = 4096;
  int threads = 0;
  std::string join_token_file;
  std::string cert, key, ca;
  int local_parent = 0;
  std::string log_level = "info";
};

Result<std::unique_ptr<engine::Engine>> make_engine(const WorkerCommand& command,
                                                    const Clock& clock) {
  if (command.scripted_given) {
    auto options = engine::parse_scripted_options(command.scripted);
    if (!options) return options.error();
    return engine::make_scripted_engine(*options, clock);
  }
  engine::LlamaOptions options;
  const bool embeds = !command.embed_model.empty();
  options.model_file = embeds ? command.embed_model : command.model;
  options.model_id = command.model_name;
  options.slots = command.slots;
  options.context_tokens = command.context;
  options.threads = command.threads > 0 ? static_cast<std::uint32_t>(command.threads)
                                        : std::max(1u, std::thread::hardware_concurrency());
  options.cache_dir = cache_folder();
  options.report_every = kReportEvery;
  return embeds ? engine::open_embedding_engine(options) : engine::open_llama_engine(options);
}

int run_worker_command(const WorkerCommand& command) {
  if (const Status good = init_logging(command.log_level); !good) return fail(good.error());
  if (command.local_parent > 0) {
    if (const Status alive = worker::die_with_parent(command.local_parent); !alive) {
      return fail(alive.error());
    }
  }
  const int engines =
      int{!command.model.empty()} + int{!command.embed_model.empty()} + int{command.scripted_given};
  if (engines != 1) {
    return fail(Error{Code::kInvalidArgument,
                      "give one of --model FILE.gguf, --embed-model FILE.gguf "
                      "and --scripted SPEC; for several models start several "
                      "workers"});
  }
  worker::WorkerOptions options;
  if (!command.join_token_file.empty()) {
    auto token = read_secret(command.join_token_file, "--join-token-file");
    if (!token) return fail(token.error());
    options.join_token = std::move(*token);
  }
  SystemClock clock;
  auto engine = make_engine(command, clock);
  if (!engine) {
    fail(engine.error());
    return worker::kDontRestartExit;  // its supervisor can't mend a bad model
  }
  options.name = command.name.empty() ? "worker-" + std::to_string(::getpid()) : command.name;
  options.version = WAYSTATION_VERSION;
  options.exit_on_loss = command.local_parent > 0;
  options.parent_pid = command.local_parent;
  options.connect = [&command](link::WorkerEvents& events) {
    return link::connect_grpc(
        {.address = command.connect, .tls = {command.cert, command.key, command.ca}}, events);
  };
  const Status ended = worker::run_worker(options, **engine);
  if (!ended) {
    WS_LOG(error, "worker ends reason=\"{}\"", ended.error().message);
    return exit_code(ended.error().code);
  }
  return 0;
}

}  // namespace

Run add_worker(CLI::App& parser) {
  auto command = std::make_shared<WorkerCommand>();
  WorkerCommand& c = *command;
  parser.add_option("--connect", c.connect, "The server: unix:PATH or HOST:PORT")->required();
  parser.add_option("--model", c.model, "Model to run: FILE.gguf");
  parser.add_option("--embed-model", c.embed_model, "Model to make embeddings with: FILE.gguf");
  parser.add_option("--model-name", c.model_name, "How clients call it; default: the file's name");
  auto* scripted = parser.add_option("--scripted", c.scripted,
                                     "Run the scripted engine: \"tokens=64,interval-ms=20\"");
  parser.add_option("--name", c.name, "This worker's name in logs and requests");
  parser.add_option("--slots", c.slots, "Requests at once")
      ->capture_default_str()
      ->check(CLI::Range(1, 1024));
  parser
      .add_option("--context", c.context,
                  "Tokens per slot, prompt and answer together; 0: all that the model can")
      ->capture_default_str();
  parser.add_option("--threads", c.threads, "Threads; 0: all cores")
      ->capture_default_str()
      ->check(CLI::Range(0, 4096));
  parser.add_option("--join-token-file", c.join_token_file, "The secret of --link-listen's server");
  parser.add_option("--cert", c.cert, "This worker's TLS certificate (PEM)");
  parser.add_option("--key", c.key, "This worker's TLS key (PEM)");
  parser.add_option("--ca", c.ca, "Authority that signed the server's certificate; turns TLS on");
  parser.add_option("--local-parent", c.local_parent, "Die with this process")->group("");
  parser.add_option("--log-level", c.log_level, "debug, info, warn, error or off")
      ->capture_default_str();
  parser.footer(
      "Examples:\n"
      "  waystation worker --connect gpu-front:7070 --join-token-file token --model big.gguf\n"
      "  waystation worker --connect unix:data/link.sock --model small.gguf --slots 4");
  return [command, scripted] {
    command->scripted_given = scripted->count() > 0;
    return run_worker_command(*command);
  };
}

}  // namespace waystation::app
