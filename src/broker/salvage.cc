#include "broker/salvage.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "journal/checkpoint_store.h"
#include "journal/salvage.h"
#include "ledger/salvage.h"

namespace waystation::broker {
namespace {

using journal::LostRange;

// The newest checkpoint that can be used.
struct Base {
  std::optional<std::uint64_t> journal_id;
  v1::LedgerSnapshot state;
  LogIndex index;  // {}: none
};

Result<Base> find_base(journal::FileSystem& file_system, const std::string& dir,
                       const journal::Listing& listing, std::ostream& out) {
  Base base;
  for (auto at = listing.checkpoints.rbegin(); at != listing.checkpoints.rend(); ++at) {
    const std::string path = journal::path_in(dir, journal::checkpoint_name(*at));
    auto stored = journal::read_checkpoint(file_system, path, *at);
    if (!stored && stored.error().code != Code::kCorruption) return stored.error();
    std::string wrong = stored ? "" : stored.error().message;
    if (stored && !base.state.ParseFromString(stored->checkpoint.state)) {
      wrong = "checkpoint " + path + " can't be parsed";
    }
    if (wrong.empty()) {
      ledger::Ledger ledger{ledger::Limits{}};
      const Status restored = ledger.restore(base.state);
      if (!restored) wrong = "checkpoint " + path + ": " + restored.error().message;
      if (restored && ledger.index() != *at) wrong = "checkpoint " + path + " is of another record";
    }
    if (wrong.empty()) {
      base.journal_id = stored->journal_id;
      base.index = *at;
      return base;
    }
    out << "damage: " << wrong << "; it isn't used\n";
    base.state.Clear();
  }
  return base;
}

// What a record that is lost below the checkpoint becomes: it keeps its number and says nothing.
std::string filler(TimeMs time_ms) {
  v1::Record record;
  record.set_time_ms(time_ms);
  record.mutable_forgotten();
  return record.SerializeAsString();
}

// One run.
class Run {
 public:
  Run(journal::FileSystem& file_system, const SalvageOptions& options, std::ostream& out)
      : file_system_(file_system), options_(options), out_(out) {}

  Status run() {
    const auto listing = journal::list_journal(file_system_, options_.dir);
    if (!listing) return listing.error();
    if (listing->segments.empty()) {
      return Error{Code::kNotFound, options_.dir + " holds no segments"};
    }
    auto base = find_base(file_system_, options_.dir, *listing, out_);
    if (!base) return base.error();
    const LogIndex before{listing->segments.front().value - 1};
    first_ = LogIndex{before.value + 1};
    base_ = std::move(*base);
    if (base_.index < before) {
      out_ << "damage: the records 1.." << before.value
           << " aren't there, and no checkpoint that can be read stands for them; the requests of "
              "that time are lost\n";
      base_.state = ledger::Ledger{ledger::Limits{}}.snapshot();
      base_.state.set_index(before.value);
      base_.index = before;
      lost_records_ += before.value;
    }
    if (!options_.dry_run) {
      copy_ = std::make_unique<journal::LogCopy>(journal::LogCopy::Options{
          &file_system_, options_.to, options_.new_journal_id, first_, options_.segment_bytes});
    }
    const auto read =
        journal::read_leftover(file_system_, options_.dir, *listing, base_.index, base_.journal_id,
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
  Status write(std::string record, TimeMs time_ms) {
    ++written_;
    last_time_ms_ = time_ms;
    return copy_ ? copy_->append(std::move(record), time_ms) : Status();
  }

  // From here on records change the state.
  Status begin() {
    if (salvage_) return {};
    auto begun = ledger::Salvage::begin(
        base_.state,
        [this](LogIndex index) {
          // What is still needed of a segment that isn't there is lost too.
          return index < first_ || std::ranges::any_of(lost_, [&](const auto& range) {
                   return range.first <= index && index <= range.second;
                 });
        },
        [this](LogIndex, const v1::Record& record) {
          return write(record.SerializeAsString(), record.time_ms());
        });
    if (!begun) return begun.error();
    salvage_.emplace(std::move(*begun));
    return {};
  }

  Status on_record(LogIndex index, TimeMs time_ms, std::string_view bytes) {
    ++read_;
    // What the checkpoint knows already is kept for its events, under its number.
    if (index <= base_.index) return write(std::string(bytes), time_ms);
    if (Status begun = begin(); !begun) return begun;
    if (!record_.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
      out_ << "damage: record " << index.value << " can't be parsed; it is left out\n";
      ++lost_records_;
      salvage_->hole(1);
      return {};
    }
    return salvage_->take(record_);
  }

  Status on_lost(const LostRange& range) {
    lost_records_ += range.records();
    out_ << "damage: " << range.path << " at byte " << range.from_byte << " to " << range.to_byte
         << ": " << range.reason << "; ";
    if (range.records() == 0) {
      out_ << "no record is lost\n";
      return {};
    }
    out_ << "lost: " << (range.records() == 1 ? "record " : "records ") << range.first.value;
    if (range.records() > 1) out_ << ".." << range.last.value;
    out_ << "\n";
    const LogIndex covered = std::min(range.last, base_.index);
    if (range.first <= base_.index) {
      lost_.emplace_back(range.first, covered);
      for (std::uint64_t i = range.first.value; i <= covered.value; ++i) {
        if (Status wrote = write(filler(last_time_ms_), last_time_ms_); !wrote) return wrote;
        --written_;
      }
    }
    if (range.last <= base_.index) return {};
    if (Status begun = begin(); !begun) return begun;
    salvage_->hole(range.last.value - std::max(range.first.value - 1, base_.index.value));
    return {};
  }

  Status finish() {
    if (Status begun = begin(); !begun) return begun;
    if (Status finished = salvage_->finish(); !finished) return finished;
    if (copy_) {
      if (Status finished = copy_->finish(); !finished) return finished;
      if (Status written = write_checkpoints(); !written) return written;
    }
    tell();
    return {};
  }

  Status write_checkpoints() {
    journal::CheckpointStore store(file_system_, options_.to);
    store.set_journal_id(options_.new_journal_id);
    if (base_.index.value > 0) {
      if (Status wrote = store.write({base_.index, salvage_->base().SerializeAsString()}); !wrote) {
        return wrote;
      }
    }
    const ledger::Ledger& ledger = salvage_->ledger();
    return store.write({ledger.index(), ledger.snapshot().SerializeAsString()});
  }

  void tell() {
    using Fate = ledger::Affected::Fate;
    std::size_t failed = 0;
    std::size_t unknown = 0;
    std::size_t unproven = 0;
    for (const auto& [id, affected] : salvage_->affected()) {
      out_ << "request " << id.to_string() << ": ";
      switch (affected.fate) {
        case Fate::kFailed:
          ++failed;
          out_ << "has failed, lost_in_salvage: " << affected.why << "\n";
          break;
        case Fate::kUnknown:
          ++unknown;
          out_ << "is gone: its acceptance is lost (" << affected.records_dropped
               << " records about it are left out)\n";
          break;
        case Fate::kUnproven:
          ++unproven;
          out_ << "goes on, though an answer of it may be lost\n";
          break;
      }
    }
    const auto& ledger = salvage_->ledger();
    out_ << (options_.dry_run ? "would keep " : "kept ") << written_ << " records, of " << read_
         << " that can be read; " << lost_records_ << " are lost, " << salvage_->records_dropped()
         << " more make no sense without them\n"
         << "requests: " << ledger.counts().queued + ledger.counts().running << " go on, "
         << ledger.counts().retained << " have ended; of these " << failed
         << " as lost_in_salvage; " << unproven << " may be answered a second time; " << unknown
         << " are gone\n";
    if (lost_records_ > 0) {
      out_ << "a request that was accepted, ended or deleted within a lost range is as it was "
              "before; "
              "one that was accepted and ended there leaves no trace\n";
    }
  }

  journal::FileSystem& file_system_;
  const SalvageOptions& options_;
  std::ostream& out_;
  Base base_;
  LogIndex first_;
  std::unique_ptr<journal::LogCopy> copy_;  // null: a dry run
  std::optional<ledger::Salvage> salvage_;
  std::vector<std::pair<LogIndex, LogIndex>> lost_;  // up to the checkpoint
  v1::Record record_;
  TimeMs last_time_ms_ = 0;
  std::uint64_t read_ = 0;
  std::uint64_t written_ = 0;
  std::uint64_t lost_records_ = 0;
};

}  // namespace

Status salvage(journal::FileSystem& file_system, const SalvageOptions& options, std::ostream& out) {
  const auto lock = file_system.lock(journal::path_in(options.dir, journal::kLockName));
  if (!lock) return lock.error();
  if (!options.dry_run) {
    if (auto made = file_system.make_dir(options.to); !made) return made;
    const auto there = file_system.list(options.to);
    if (!there) return there.error();
    if (!there->empty()) {
      return Error{Code::kInvalidArgument, options.to + " is not empty; name a new folder", "to"};
    }
  }
  return Run(file_system, options, out).run();
}

}  // namespace waystation::broker
