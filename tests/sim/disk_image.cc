#include "sim/disk_image.h"

#include <memory>
#include <string>
#include <utility>

#include "base/meter.h"
#include "journal/file_journal.h"
#include "sim/server.h"

namespace waystation::sim {
namespace {

class NeverRuns final : public Executor {
 public:
  void run(Task) override {}
};

struct Examiner {
  journal::FaultyFileSystem& files;
  const Checker& checker;
  const Plan& plan;
  History& history;

  void wrong(const std::string& what, const std::string& damage) const {
    history.violated("I9", "after " + damage + ": " + what);
  }

  // `damaged`: refusing is right too, and so are errors when what is damaged is read.
  void run(std::uint64_t at_least, bool damaged, const std::string& damage) const {
    NeverRuns executor;
    const auto meter = make_null_meter();
    journal::FileJournal::Options options;
    options.dir = kJournalFolder;
    options.segment_bytes_max = plan.segment_bytes;
    options.file_system = &files;
    options.meter = meter.get();
    options.new_journal_id = 1;
    options.executor = &executor;
    const auto journal = journal::FileJournal::open(std::move(options));
    if (!journal) {
      if (!damaged || journal.error().code != Code::kCorruption)
        wrong(journal.error().message, damage);
      return;
    }
    const std::uint64_t last = (*journal)->next_index().value - 1;
    const Book& book = checker.book();
    if (last < at_least) {
      return wrong(
          "only records to " + std::to_string(last) + " are left of " + std::to_string(at_least),
          damage);
    }
    if (last > book.size()) return wrong("there are records that were never written", damage);
    judge(compare_records(**journal, last, book), damaged, damage);
    if (last == 0) return;
    judge(compare_state(**journal, last, book, plan.config.limits), damaged, damage);
  }

  void judge(const Result<std::string>& difference, bool damaged, const std::string& damage) const {
    if (!difference) {
      // Not found: the last group said where something was carried to, or that it was forgotten.
      const Code code = difference.error().code;
      if (!damaged || (code != Code::kCorruption && code != Code::kNotFound)) {
        wrong(difference.error().message, damage);
      }
    } else if (!difference->empty()) {
      wrong(*difference, damage);
    }
  }
};

}  // namespace

void i9_power_cut(const journal::FaultyFileSystem& disk, const Checker& checker, const Plan& plan,
                  History& history, Dice& dice) {
  const auto copy = disk.clone();
  copy->crash(dice.next());
  Examiner{*copy, checker, plan, history}.run(checker.durable(), false, "a power cut");
}

void i9_bit_flip(const journal::FaultyFileSystem& disk, const Checker& checker, const Plan& plan,
                 History& history, Dice& dice) {
  const auto copy = disk.clone();
  const auto paths = copy->paths();
  if (paths.empty()) return;
  const std::string& path = paths[dice.below(paths.size())];
  const std::size_t used = copy->contents(path).find_last_not_of('\0') + 1;  // the rest is room
  if (used == 0) return;
  const std::uint64_t byte = dice.below(used);
  copy->flip_bit(path, byte, static_cast<int>(dice.below(8)));
  Examiner{*copy, checker, plan, history}.run(
      checker.durable_before_last(), true,
      "a flipped bit in byte " + std::to_string(byte) + " of " + path);
}

}  // namespace waystation::sim
