// Numbers of the journal on this machine's disk: journal_bench [DIR] (default: a folder in the
// working directory). Prints the raw write+sync loop beside FileJournal, then opening and scanning.
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <filesystem>
#include <mutex>

#include "base/log.h"
#include "journal/file_journal.h"
#include "journal/posix_file_system.h"

namespace waystation::journal {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

void fail(const Error& error) {
  std::fprintf(stderr, "%s\n", error.message.c_str());
  std::exit(1);
}

// Writes `in_flight` records of 1 KiB at once, syncs, again.
double raw_rate(const std::string& dir, int in_flight, double for_seconds) {
  PosixFileSystem files;
  auto file = files.open(dir + "/raw", OpenMode::kCreate);
  if (!file || !(*file)->allocate(64u << 20) || !(*file)->sync()) std::exit(1);
  const std::string group(static_cast<std::size_t>(in_flight) * 1024, 'x');
  std::uint64_t offset = 0;
  std::uint64_t records = 0;
  const auto start = Clock::now();
  while (seconds_since(start) < for_seconds) {
    if (offset + group.size() > (64u << 20)) {
      file = files.open(dir + "/raw", OpenMode::kCreate);
      if (!file || !(*file)->allocate(64u << 20) || !(*file)->sync()) std::exit(1);
      offset = 0;
    }
    if (!(*file)->write_at(offset, group) || !(*file)->sync_data()) std::exit(1);
    offset += group.size();
    records += static_cast<std::uint64_t>(in_flight);
  }
  return static_cast<double>(records) / seconds_since(start);
}

struct Bench {
  std::string dir;
  PosixFileSystem files;
  std::unique_ptr<Meter> meter = make_null_meter();
  std::mutex mutex;
  std::condition_variable changed;
  LogIndex durable;

  std::unique_ptr<FileJournal> open() {
    FileJournal::Options options;
    options.dir = dir + "/journal";
    options.file_system = &files;
    options.meter = meter.get();
    options.callbacks.on_durable = [this](LogIndex index) {
      std::lock_guard lock(mutex);
      durable = index;
      changed.notify_one();
    };
    options.callbacks.on_failure = fail;
    auto opened = FileJournal::open(std::move(options));
    if (!opened) fail(opened.error());
    return std::move(*opened);
  }
  void wait(std::uint64_t index) {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return durable.value >= index; });
  }
  void clean() { std::filesystem::remove_all(dir + "/journal"); }

  // Never more than `in_flight` records of 1 KiB, each its own append, not yet durable.
  double append_rate(int in_flight, double for_seconds) {
    clean();
    durable = {};
    auto journal = open();
    const std::string record(1024, 'x');
    std::uint64_t last = 0;
    const auto start = Clock::now();
    while (seconds_since(start) < for_seconds) {
      std::uint64_t now = 0;
      {
        std::unique_lock lock(mutex);
        changed.wait(lock,
                     [&] { return durable.value + static_cast<std::uint64_t>(in_flight) > last; });
        now = durable.value;
      }
      while (last < now + static_cast<std::uint64_t>(in_flight))
        last = journal->append({record}, 1).value;
    }
    wait(last);
    return static_cast<double>(last) / seconds_since(start);
  }

  void open_and_scan(std::uint64_t records, std::size_t record_bytes, bool checkpoint) {
    clean();
    durable = {};
    {
      auto journal = open();
      const std::string record(record_bytes, 'x');
      for (std::uint64_t i = 1; i <= records; ++i) {
        journal->append({record}, 1);
        if (i % 20'000 == 0) wait(i);
      }
      wait(records);
      if (checkpoint && !journal->write_checkpoint({{records}, "state"})) std::exit(1);
    }
    auto start = Clock::now();
    auto journal = open();
    const double opening = seconds_since(start);
    start = Clock::now();
    std::uint64_t bytes = 0;
    const auto scanned = journal->scan({1}, {}, [&](LogIndex, std::string_view r) -> Status {
      bytes += r.size();
      return {};
    });
    if (!scanned || bytes != records * record_bytes) std::exit(1);
    const double scanning = seconds_since(start);
    start = Clock::now();
    constexpr std::uint64_t kReads = 100'000;
    for (std::uint64_t i = 0; i < kReads; ++i) {
      if (!journal->read({i * 7919 % records + 1})) std::exit(1);
    }
    const double reading = seconds_since(start);
    std::printf("%llu records of %zu B%s: open %.3f s, scan %.2f M/s, random reads %.0f k/s\n",
                static_cast<unsigned long long>(records), record_bytes,
                checkpoint ? " with a checkpoint" : "", opening,
                static_cast<double>(records) / scanning / 1e6, kReads / reading / 1e3);
  }
};

int run(const std::string& parent) {
  const std::string dir = parent + "/journal-bench-data";
  std::filesystem::create_directories(dir);
  Bench bench;
  bench.dir = dir;
  for (const int in_flight : {1, 16, 64, 256, 1024}) {
    const double raw = raw_rate(dir, in_flight, 2);
    const double ours = bench.append_rate(in_flight, 2);
    std::printf("1 KiB durable, %4d in flight: raw loop %8.0f/s, FileJournal %8.0f/s (%.2fx)\n",
                in_flight, raw, ours, ours / raw);
  }
  bench.open_and_scan(1'000'000, 100, false);
  bench.open_and_scan(1'000'000, 100, true);
  std::filesystem::remove_all(dir);
  return 0;
}

}  // namespace
}  // namespace waystation::journal

int main(int argc, char** argv) {
  spdlog::set_level(spdlog::level::warn);
  return waystation::journal::run(argc > 1 ? argv[1] : ".");
}
