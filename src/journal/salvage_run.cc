#include "journal/salvage_run.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "journal/checkpoint_store.h"
#include "journal/salvage.h"

namespace waystation::journal {
namespace {

// One run.
class Run {
 public:
  Run(FileSystem& file_system, const SalvageOptions& options, LogRepair& repair, std::ostream& out)
      : file_system_(file_system), options_(options), repair_(repair), out_(out) {}

  Status run() {
    const auto listing = list_journal(file_system_, options_.dir);
    if (!listing) return listing.error();
    if (listing->segments.empty()) {
      return Error{Code::kNotFound, options_.dir + " holds no segments"};
    }
    if (Status found = find_base(*listing); !found) return found;
    first_ = listing->segments.front();
    const LogIndex before{first_.value - 1};
    if (base_ < before) {
      out_ << "damage: the records 1.." << before.value
           << " aren't there, and no checkpoint that can be read stands for them; what came of "
              "them is lost\n";
      repair_.use_nothing(before);
      base_ = before;
      counts_.lost += before.value;
    }
    if (!options_.dry_run) {
      copy_ = std::make_unique<LogCopy>(LogCopy::Options{
          &file_system_, options_.to, options_.new_journal_id, first_, options_.segment_bytes});
    }
    const auto read =
        read_leftover(file_system_, options_.dir, *listing, base_, journal_id_,
                      {[this](LogIndex index, TimeMs time_ms, std::string_view record) {
                         return on_record(index, time_ms, record);
                       },
                       [this](const LostRange& range) { return on_lost(range); }});
    if (!read) return read.error();
    if (read->torn_bytes > 0) {
      out_ << "torn tail: " << read->torn_bytes << " bytes that were never durable are left out\n";
    }
    return finish();
  }

 private:
  // The newest checkpoint that can be used.
  Status find_base(const Listing& listing) {
    for (auto at = listing.checkpoints.rbegin(); at != listing.checkpoints.rend(); ++at) {
      const std::string path = path_in(options_.dir, checkpoint_name(*at));
      auto stored = read_checkpoint(file_system_, path, *at);
      if (!stored && stored.error().code != Code::kCorruption) return stored.error();
      std::string wrong = stored ? "" : stored.error().message;
      if (stored) {
        const Status used = repair_.use(stored->checkpoint);
        if (used) {
          journal_id_ = stored->journal_id;
          base_ = *at;
          return {};
        }
        wrong = "checkpoint " + path + ": " + used.error().message;
      }
      out_ << "damage: " << wrong << "; it isn't used\n";
    }
    repair_.use_nothing({});
    return {};
  }

  Status write(std::string record, TimeMs time_ms) {
    ++counts_.kept;
    last_time_ms_ = time_ms;
    return copy_ ? copy_->append(std::move(record), time_ms) : Status();
  }

  // From here on records change the state.
  Status begin() {
    if (std::exchange(begun_, true)) return {};
    return repair_.begin(
        [this](LogIndex index) {
          // What is still needed of a segment that isn't there is lost too.
          return index < first_ || std::ranges::any_of(lost_, [&](const auto& range) {
                   return range.first <= index && index <= range.second;
                 });
        },
        [this](std::string record, TimeMs time_ms) { return write(std::move(record), time_ms); });
  }

  Status on_record(LogIndex index, TimeMs time_ms, std::string_view bytes) {
    ++counts_.read;
    // What the checkpoint knows already is kept for its content, under its number.
    if (index <= base_) return write(std::string(bytes), time_ms);
    if (Status begun = begin(); !begun) return begun;
    const auto taken = repair_.take(bytes);
    if (!taken) return taken.error();
    if (*taken) return {};
    out_ << "damage: record " << index.value << " can't be parsed; it is left out\n";
    ++counts_.lost;
    repair_.hole(1);
    return {};
  }

  Status on_lost(const LostRange& range) {
    counts_.lost += range.records();
    out_ << "damage: " << range.path << " at byte " << range.from_byte << " to " << range.to_byte
         << ": " << range.reason << "; ";
    if (range.records() == 0) {
      out_ << "no record is lost\n";
      return {};
    }
    out_ << "lost: " << (range.records() == 1 ? "record " : "records ") << range.first.value;
    if (range.records() > 1) out_ << ".." << range.last.value;
    out_ << "\n";
    const LogIndex covered = std::min(range.last, base_);
    if (range.first <= base_) {
      lost_.emplace_back(range.first, covered);
      for (std::uint64_t i = range.first.value; i <= covered.value; ++i) {
        if (Status wrote = write(repair_.filler(last_time_ms_), last_time_ms_); !wrote) {
          return wrote;
        }
        --counts_.kept;
      }
    }
    if (range.last <= base_) return {};
    if (Status begun = begin(); !begun) return begun;
    repair_.hole(range.last.value - std::max(range.first.value - 1, base_.value));
    return {};
  }

  Status finish() {
    if (Status begun = begin(); !begun) return begun;
    if (Status finished = repair_.finish(); !finished) return finished;
    if (copy_) {
      if (Status finished = copy_->finish(); !finished) return finished;
      if (Status written = write_checkpoints(); !written) return written;
    }
    repair_.tell(out_, options_, counts_);
    return {};
  }

  Status write_checkpoints() {
    CheckpointStore store(file_system_, options_.to);
    store.set_journal_id(options_.new_journal_id);
    if (base_.value > 0) {
      if (Status wrote = store.write(repair_.base()); !wrote) return wrote;
    }
    return store.write(repair_.last());
  }

  FileSystem& file_system_;
  const SalvageOptions& options_;
  LogRepair& repair_;
  std::ostream& out_;
  std::optional<std::uint64_t> journal_id_;  // what a checkpoint says
  LogIndex base_;                            // records that the state stands for
  LogIndex first_;
  std::unique_ptr<LogCopy> copy_;  // null: a dry run
  bool begun_ = false;
  std::vector<std::pair<LogIndex, LogIndex>> lost_;  // up to the base
  TimeMs last_time_ms_ = 0;
  SalvageCounts counts_;
};

}  // namespace

Status salvage(FileSystem& file_system, const SalvageOptions& options, LogRepair& repair,
               std::ostream& out) {
  const auto lock = file_system.lock(path_in(options.dir, kLockName));
  if (!lock) return lock.error();
  if (!options.dry_run) {
    if (auto made = file_system.make_dir(options.to); !made) return made;
    const auto there = file_system.list(options.to);
    if (!there) return there.error();
    if (!there->empty()) {
      return Error{Code::kInvalidArgument, options.to + " is not empty; name a new folder", "to"};
    }
  }
  return Run(file_system, options, repair, out).run();
}

}  // namespace waystation::journal
