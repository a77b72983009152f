// A worker process for worker_grpc_test: worker_test_program ADDRESS SCRIPTED-OPTIONS PARENT-PID.
#include <cstdio>
#include <cstdlib>

#include "base/clock.h"
#include "engine/scripted/scripted_engine.h"
#include "link/grpc/grpc_client.h"
#include "worker/worker.h"

int main(int argc, char** argv) {
  using namespace waystation;
  if (argc != 4) return 64;
  const auto scripted = engine::parse_scripted_options(argv[2]);
  if (!scripted) return 64;
  const SystemClock clock;
  const auto engine = engine::make_scripted_engine(*scripted, clock);
  worker::WorkerOptions options;
  options.name = "test";
  options.connect = [&](link::WorkerEvents& events) {
    return link::connect_grpc({.address = argv[1]}, events);
  };
  options.exit_on_loss = true;
  options.parent_pid = std::atoi(argv[3]);
  const Status ended = worker::run_worker(options, *engine);
  if (ended) return 0;
  std::fprintf(stderr, "%s\n", ended.error().message.c_str());
  return exit_code(ended.error().code);
}
