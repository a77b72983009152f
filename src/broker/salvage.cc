#include "broker/salvage.h"

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "ledger/salvage.h"

namespace waystation::broker {
namespace {

class RequestRepair final : public journal::LogRepair {
 public:
  Status use(const journal::Checkpoint& checkpoint) override {
    base_.Clear();
    if (!base_.ParseFromString(checkpoint.state)) {
      return Error{Code::kCorruption, "it can't be parsed"};
    }
    ledger::Ledger ledger{ledger::Limits{}};
    if (Status restored = ledger.restore(base_); !restored) return restored;
    if (ledger.index() != checkpoint.index) {
      return Error{Code::kCorruption, "it is of another record"};
    }
    return {};
  }

  void use_nothing(LogIndex index) override {
    base_ = ledger::Ledger{ledger::Limits{}}.snapshot();
    base_.set_index(index.value);
  }

  // A `Forgotten` of no request.
  std::string filler(TimeMs time_ms) const override {
    v1::Record record;
    record.set_time_ms(time_ms);
    record.mutable_forgotten();
    return record.SerializeAsString();
  }

  Status begin(const IsLost& is_lost, Emit emit) override {
    auto begun = ledger::Salvage::begin(
        base_, is_lost, [emit = std::move(emit)](LogIndex, const v1::Record& record) {
          return emit(record.SerializeAsString(), record.time_ms());
        });
    if (!begun) return begun.error();
    salvage_.emplace(std::move(*begun));
    return {};
  }

  void hole(std::uint64_t records) override { salvage_->hole(records); }

  Result<bool> take(std::string_view bytes) override {
    if (!record_.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return false;
    if (Status taken = salvage_->take(record_); !taken) return taken.error();
    return true;
  }

  Status finish() override { return salvage_->finish(); }

  journal::Checkpoint base() const override {
    return {LogIndex{base_.index()}, salvage_->base().SerializeAsString()};
  }
  journal::Checkpoint last() const override {
    const ledger::Ledger& ledger = salvage_->ledger();
    return {ledger.index(), ledger.snapshot().SerializeAsString()};
  }

  void tell(std::ostream& out, const journal::SalvageOptions& options,
            const journal::SalvageCounts& counts) const override {
    using Fate = ledger::Affected::Fate;
    std::size_t failed = 0;
    std::size_t unknown = 0;
    std::size_t unproven = 0;
    for (const auto& [id, affected] : salvage_->affected()) {
      out << "request " << id.to_string() << ": ";
      switch (affected.fate) {
        case Fate::kFailed:
          ++failed;
          out << "has failed, lost_in_salvage: " << affected.why << "\n";
          break;
        case Fate::kUnknown:
          ++unknown;
          out << "is gone: its acceptance is lost (" << affected.records_dropped
              << " records about it are left out)\n";
          break;
        case Fate::kUnproven:
          ++unproven;
          out << "goes on, though an answer of it may be lost\n";
          break;
      }
    }
    const auto& ledger = salvage_->ledger();
    out << (options.dry_run ? "would keep " : "kept ") << counts.kept << " records, of "
        << counts.read << " that can be read; " << counts.lost << " are lost, "
        << salvage_->records_dropped() << " more make no sense without them\n"
        << "requests: " << ledger.counts().queued + ledger.counts().running << " go on, "
        << ledger.counts().retained << " have ended; of these " << failed << " as lost_in_salvage; "
        << unproven << " may be answered a second time; " << unknown << " are gone\n";
    if (counts.lost > 0) {
      out << "a request that was accepted, ended or deleted within a lost range is as it was "
             "before; one that was accepted and ended there leaves no trace\n";
    }
  }

 private:
  v1::LedgerSnapshot base_;
  std::optional<ledger::Salvage> salvage_;
  v1::Record record_;
};

}  // namespace

Status salvage(journal::FileSystem& file_system, const journal::SalvageOptions& options,
               std::ostream& out) {
  RequestRepair repair;
  return journal::salvage(file_system, options, repair, out);
}

}  // namespace waystation::broker
