#include "sim/disk.h"

#include <utility>

namespace waystation::sim {
namespace {

using Op = Disk::Fs::Op;
using Fault = Disk::Fs::Fault;

bool changes_something(Op op, const std::string& path) {
  if (op == Op::kOpen) return path.ends_with(".tmp");  // only opened to be created
  return op != Op::kRead;
}

const char* name_of(Op op) {
  switch (op) {
    case Op::kOpen:
      return "open";
    case Op::kRead:
      return "read";
    case Op::kWrite:
      return "write";
    case Op::kSyncData:
      return "fdatasync";
    case Op::kSync:
      return "fsync";
    case Op::kAllocate:
      return "fallocate";
    case Op::kTruncate:
      return "truncate";
    case Op::kRename:
      return "rename";
    case Op::kRemove:
      return "unlink";
    case Op::kSyncDir:
      return "fsync of folder";
  }
  return "?";
}

}  // namespace

Disk::Disk(Scheduler& scheduler, History& history, Dice dice, Micros slowness,
           std::function<void()> on_death)
    : scheduler_(scheduler),
      history_(history),
      dice_(dice),
      slowness_(slowness),
      on_death_(std::move(on_death)),
      files_(std::make_unique<Fs>()) {
  files_->watch([this](Op op, const std::string& path) { return before(op, path); });
}

std::optional<Fault> Disk::before(Op op, const std::string& path) {
  if (observed_) return std::nullopt;
  if (dead_) return Fault::kIo;
  if (changes_something(op, path) && writing_) {
    writing_ = false;  // what others do meanwhile is not the journal's thread
    scheduler_.run_until(scheduler_.now() + dice_.between(1, slowness_));
    writing_ = true;
    if (dead_) return Fault::kIo;
  }
  if (die_at_ > 0 && --die_at_ == 0) {
    history_.note(std::string("disk: the server dies before ") + name_of(op) + " of " + path);
    dead_ = true;
    on_death_();
    return Fault::kIo;
  }
  if (op == Op::kOpen)
    failed_.erase(path);  // only a new file is opened by a name that is written to
  if (!changes_something(op, path)) return std::nullopt;
  if (on_change_) on_change_();
  i8_not_tried_again(op, path);
  if (fail_at_ == 0 || --fail_at_ > 0) return std::nullopt;
  const Fault faults[] = {Fault::kIo, Fault::kNoSpace, Fault::kShortWrite};
  history_.note(std::string("disk: ") + name_of(op) + " of " + path + " fails");
  if (path.contains(".segment")) failed_.insert(path);
  return faults[dice_.below(3)];
}

// I8: after a failed write or sync, nothing is written to the same file again.
void Disk::i8_not_tried_again(Op op, const std::string& path) {
  const bool writes = op == Op::kWrite || op == Op::kSyncData || op == Op::kSync;
  if (writes && failed_.contains(path)) {
    history_.violated("I8", std::string(name_of(op)) + " of " + path + " after one that failed");
  }
}

void Disk::after_kill() {
  files_->kill();
  dead_ = false;
  die_at_ = fail_at_ = 0;
  failed_.clear();
}

void Disk::after_power_cut() {
  files_->crash(dice_.next());
  dead_ = false;
  die_at_ = fail_at_ = 0;
  failed_.clear();
}

void Disk::calm() {
  die_at_ = fail_at_ = 0;
  slowness_ = 2 * kMs;
}

}  // namespace waystation::sim
