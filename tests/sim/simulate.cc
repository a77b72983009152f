// Runs seeds of the simulator.
//
//   simulate --seeds 500 --first-seed 1     so many, one after the other
//   simulate --seed 77 --trace              one, with everything that happens in it
//   simulate --minutes 5                    fresh ones until the time is up
//   simulate --seed 77 --cuts 4             at each change of the disk, 4 ways to lose power there
//
// Ends with 1 at the first seed that breaks an invariant, having printed how to see it again.
#include <unistd.h>

#include <chrono>
#include <cinttypes>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>

#include "base/log.h"
#include "sim/world.h"

namespace waystation::sim {
namespace {

struct Options {
  std::uint64_t first = 0;
  std::uint64_t count = 100;
  double minutes = 0;
  bool trace = false;
  bool hashes = false;
  int cuts = 0;
};

// A CHECK or a crash in the code under test is a finding like any other.
volatile std::uint64_t running_seed = 0;
const char* program_name = "simulate";

void on_crash(int signal) {
  char text[256];
  const int size =
      std::snprintf(text, sizeof text,
                    "\nseed %" PRIu64 " ends the program\nreplay: %s --seed %" PRIu64 " --trace\n",
                    std::uint64_t{running_seed}, program_name, std::uint64_t{running_seed});
  if (::write(STDOUT_FILENO, text, static_cast<std::size_t>(size)) < 0) _exit(2);
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

int usage() {
  std::fprintf(stderr,
               "usage: simulate [--seed S] [--first-seed S] [--seeds N] [--minutes M] [--cuts N] "
               "[--trace] [--hashes]\n");
  return 64;
}

void print_failure(const char* program, std::uint64_t seed, const Outcome& outcome) {
  std::printf("\nseed %" PRIu64 " breaks %s: %s\n\nthe last that happened:\n", seed,
              outcome.violation->invariant.c_str(), outcome.violation->what.c_str());
  for (const std::string& line : outcome.last_lines) std::printf("  %s\n", line.c_str());
  std::printf("\nreplay: %s --seed %" PRIu64 " --trace\n", program, seed);
}

int run(const char* program, const Options& options) {
  using Clock = std::chrono::steady_clock;
  const auto began = Clock::now();
  const auto seconds = [&] { return std::chrono::duration<double>(Clock::now() - began).count(); };
  std::uint64_t done = 0, steps = 0, records = 0, requests = 0, restarts = 0;
  for (; options.minutes > 0 ? seconds() < options.minutes * 60 : done < options.count; ++done) {
    const std::uint64_t seed = options.first + done;
    running_seed = seed;
    const Outcome outcome =
        World(seed, {.trace = options.trace, .power_cuts_a_change = options.cuts}).run();
    if (options.hashes) std::printf("%" PRIu64 " %016" PRIx64 "\n", seed, outcome.history_hash);
    if (outcome.violation) {
      print_failure(program, seed, outcome);
      std::printf("(after %" PRIu64 " seeds)\n", done + 1);
      return 1;
    }
    steps += outcome.steps;
    records += outcome.records;
    requests += outcome.requests;
    restarts += static_cast<std::uint64_t>(outcome.restarts);
  }
  std::printf("%" PRIu64 " seeds from %" PRIu64 " hold: %" PRIu64 " requests, %" PRIu64
              " records, %" PRIu64 " restarts, %" PRIu64 " steps; %.0f seeds a second\n",
              done, options.first, requests, records, restarts, steps,
              static_cast<double>(done) / seconds());
  return 0;
}

int main(int argc, char** argv) {
  Options options;
  options.first = std::random_device{}();
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--trace") {
      options.trace = true;
    } else if (name == "--hashes") {
      options.hashes = true;
    } else if (i + 1 == argc) {
      return usage();
    } else if (name == "--seed") {
      options.first = std::strtoull(argv[++i], nullptr, 10);
      options.count = 1;
    } else if (name == "--first-seed") {
      options.first = std::strtoull(argv[++i], nullptr, 10);
    } else if (name == "--seeds") {
      options.count = std::strtoull(argv[++i], nullptr, 10);
    } else if (name == "--cuts") {
      options.cuts = std::atoi(argv[++i]);
    } else if (name == "--minutes") {
      options.minutes = std::strtod(argv[++i], nullptr);
    } else {
      return usage();
    }
  }
  program_name = argv[0];
  for (const int signal : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE}) std::signal(signal, on_crash);
  spdlog::set_level(spdlog::level::off);
  return run(argv[0], options);
}

}  // namespace
}  // namespace waystation::sim

int main(int argc, char** argv) {
  return waystation::sim::main(argc, argv);
}
