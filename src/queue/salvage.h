// Makes records that the ledger can apply of what is left of a damaged log of queues
// (docs/formats/queue.md, "Salvage"). Pure, like the ledger.
//
// Nothing that is there is thrown away for want of its end: a message whose settlement may be lost
// is delivered again, unless a later message of its lane shows that its turn was over; then it is a
// dead letter, for somebody to decide.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <ostream>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "journal/salvage_run.h"
#include "queue/ledger.h"

namespace waystation::queue {

// Numbers of records below are those of the new log. One thread.
class Salvage final : public journal::LogRepair {
 public:
  Salvage() { use_nothing({}); }

  Status use(const journal::Checkpoint& checkpoint) override;
  void use_nothing(LogIndex index) override;
  std::string filler(TimeMs time_ms) const override;
  Status begin(const IsLost& is_lost, Emit emit) override;
  void hole(std::uint64_t records) override;
  Result<bool> take(std::string_view record) override;
  Status finish() override;
  journal::Checkpoint base() const override { return base_; }
  journal::Checkpoint last() const override { return {ledger_->index(), ledger_->snapshot()}; }
  void tell(std::ostream& out, const journal::SalvageOptions& options,
            const journal::SalvageCounts& counts) const override;

  const Ledger& ledger() const { return *ledger_; }

  // What the damage did to one queue.
  struct Affected {
    Ranges lost;                         // messages whose payload is nowhere
    std::set<MessageId> turn_over;       // dead letters: what became of them is lost
    std::uint64_t messages_unknown = 0;  // of a queue whose creation is lost
    std::uint64_t records_dropped = 0;
  };
  const std::map<QueueId, Affected>& affected() const { return affected_; }
  // Messages that are delivered, though they may have been settled in a hole.
  std::uint64_t doubtful(const Queue& queue) const;

 private:
  Status write(Body body);
  Status write(Record& record);
  // For each kind: makes it fit, or leaves it out.
  Status fit(Record& record, Started& body);
  Status fit(Record& record, Created& body);
  Status fit(Record& record, Configured& body);
  Status fit(Record& record, Deleted& body);
  Status fit(Record& record, Published& body);
  Status fit(Record& record, Carried& body);
  Status fit(Record& record, Settled& body);
  Status fit(Record& record, Returned& body);
  Status fit(Record& record, Died& body);
  Status fit(Record& record, Revived& body);
  template <typename OutcomeBody>
  Status fit_outcome(Record& record, OutcomeBody& body);

  const Queue* find(QueueId id) const;
  // A record that makes no sense any more.
  Status drop(QueueId queue);
  // Messages that were published within a hole: they keep their numbers, and nothing else.
  Status fill_gap(const Queue& queue, MessageId end);
  Status clear_the_lanes(const Queue& queue, const Ranges& ranges);
  // They have been heard of since the hole.
  void note_proof(const Queue& queue, const Ranges& ranges);

  journal::Checkpoint base_;
  std::unique_ptr<Ledger> ledger_;
  Emit emit_;
  // Of the checkpoint: their payloads' record is lost. Queue and first message.
  std::set<std::pair<QueueId, MessageId>> without_payload_;
  // By lane ("": none), the messages that were there at the last hole and haven't been heard of
  // since.
  std::map<QueueId, std::map<std::string, std::set<MessageId>>> doubtful_;
  std::map<QueueId, Affected> affected_;
  std::uint64_t records_missing_ = 0;
};

// As journal::salvage().
Status salvage(journal::FileSystem& file_system, const journal::SalvageOptions& options,
               std::ostream& out);

}  // namespace waystation::queue
