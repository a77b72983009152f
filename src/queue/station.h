// Queues at work: the ledger, its journal, those who consume, the clock. One lock around the
// ledger; who calls does the work (a few microseconds), one thread of the station's own opens the
// gate after each sync and keeps the time. Everything that a caller or a consumer gets to see waits
// until the records that it depends on are durable.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "base/executor.h"
#include "base/meter.h"
#include "base/result.h"
#include "journal/journal.h"
#include "queue/ledger.h"

namespace waystation::queue {

// Called once, on any thread and without a lock of the station.
template <typename T>
using Done = std::move_only_function<void(Result<T>)>;

// Something that is left things in bursts, and told after each burst to send them.
class Sink {
 public:
  virtual ~Sink() = default;
  virtual void kick() = 0;  // without a lock of the station
};

class Consumer : public Sink {
 public:
  // Both under the station's lock: take note and return.
  virtual void deliver(Taken taken) = 0;
  virtual bool has_room() const = 0;  // if not: it calls Station::resume() when it has
  // It gets nothing more: its queue is gone, or the station ends. Without a lock.
  virtual void on_closed(const Error& why) = 0;
};

struct Subscription {
  std::uint64_t window = 256;  // messages at once that it has and that are not settled
  TimeMs lease_ms = 0;         // 0: as the queue says
  std::uint64_t batch_messages_max = 256;
  std::uint64_t batch_bytes_max = 1u << 20;
};
struct Subscribed {
  ConsumerId consumer;
  QueueId queue;
};

enum class Action { kAck, kNack, kExtend, kTerminate };
struct Settle {
  Action action = Action::kAck;
  std::uint64_t lease = 0;
  Ranges ranges = {};       // none: all that it holds
  TimeMs ms = 0;            // nack: the delay; extend: from now on
  std::string reason = {};  // nack, terminate
};

struct DeadMessage {
  DeadEntry entry;
  Result<std::string> payload = std::string();
};

// The payloads that a durable record holds. kNotFound, kCorruption.
Result<PayloadPtr> read_payload(const journal::Journal& journal, LogIndex index);

class Station {
 public:
  struct Options {
    Limits limits;
    std::uint64_t backlog_bytes_max = 128u << 20;  // not yet durable: more is refused
    std::uint64_t checkpoint_bytes = 256u << 20;   // of records between two checkpoints
    std::uint64_t segment_bytes = 64u << 20;       // of the journal, to know when to carry
  };
  struct Deps {
    Clock& clock;
    Executor& background;  // disk work; ended before the journal is
    Meter& meter;
  };

  Station(Options options, Deps deps);
  ~Station();  // stops

  journal::Callbacks journal_callbacks();
  // Recovers, makes the new epoch durable, starts the thread. Once.
  Status start(journal::Journal& journal);
  // Nothing more is taken or given. Idempotent.
  void stop();
  // Whether it takes messages; if not, why.
  Status accepting() const;

  // ---- From here on any thread. kUnavailable: the journal failed, or the server ends ----

  // Ledger::publish. `sink` is kicked after `done`.
  void publish(const std::string& tenant, const std::string& name, Publication publication,
               Done<Receipt> done, std::shared_ptr<Sink> sink = nullptr);

  // Makes the queue when it isn't there.
  Result<Subscribed> subscribe(const std::string& tenant, const std::string& name,
                               const Subscription& how, std::shared_ptr<Consumer> consumer);
  void resume(ConsumerId consumer);
  // Its leases end; `counts` as failed attempts.
  void unsubscribe(ConsumerId consumer, bool counts);
  // One delivery, tied to nobody, of what is there now or comes within `wait_ms`. None: lease 0.
  void lease(const std::string& tenant, const std::string& name, const Subscription& how,
             TimeMs wait_ms, Done<Taken> done);
  // Gives when the lease ends now (extend), else 0.
  void settle(QueueId queue, Settle settle, Done<TimeMs> done,
              std::shared_ptr<Sink> sink = nullptr);
  void settle(const std::string& tenant, const std::string& name, Settle settle, Done<TimeMs> done);

  Result<std::vector<QueueInfo>> list(const std::string& tenant);
  Result<QueueInfo> info(const std::string& tenant, const std::string& name);
  void configure(const std::string& tenant, const std::string& name,
                 std::move_only_function<Status(Settings&)> change, Done<QueueInfo> done);
  void remove(const std::string& tenant, const std::string& name, Done<void> done);
  void dead_letters(const std::string& tenant, const std::string& name, MessageId after,
                    std::size_t count_max, Done<std::vector<DeadMessage>> done);
  void revive(const std::string& tenant, const std::string& name, const std::vector<MessageId>& ids,
              Done<std::uint64_t> done);
  void discard(const std::string& tenant, const std::string& name,
               const std::vector<MessageId>& ids, Done<std::uint64_t> done);

 private:
  // Null when it may be seen, else why it never will be.
  using Effect = std::move_only_function<void(const Error* lost)>;
  struct Waiting {
    LogIndex seen;
    Effect effect;
    std::shared_ptr<Sink> sink;
  };
  struct Member {
    QueueId queue;
    Subscription how;
    std::shared_ptr<Consumer> consumer;
    TimeMs once_until_ms = 0;  // not 0: one delivery, or none by then
  };
  struct Line {  // of those who consume a queue
    std::vector<ConsumerId> members;
    std::size_t next = 0;
    bool loading = false;
    TimeMs retry_ms = 0;  // reading failed: again then
  };
  struct Snapshot {
    LogIndex index;
    std::string state;
    LogIndex needed;
  };
  class Turn;
  struct Metrics {
    explicit Metrics(Meter& meter);
    Counter &published, &delivered, &settled, &gone, &refused;
    Gauge &messages, &leased, &dead, &bytes, &memory_bytes;
  };

  TimeMs now_ms() const { return deps_.clock.wall_ms(); }
  Status recover();
  void run();
  void work(Turn& turn);
  void open_gate(Turn& turn, LogIndex durable);
  void fail(Turn& turn, const Error& error);
  void drop_members(Turn& turn, const std::function<bool(const Member&)>& which, const Error& why);
  template <typename T>
  void refuse(Turn& turn, Done<T> done, Error error);
  template <typename T>
  void answer(Turn& turn, Done<T> done, Result<T> result, std::shared_ptr<Sink> sink = nullptr);
  template <typename T>
  std::optional<QueueId> find(Turn& turn, const std::string& tenant, const std::string& name,
                              Done<T>& done);
  void settle(Turn& turn, QueueId queue, Settle settle, Done<TimeMs> done,
              std::shared_ptr<Sink> sink);
  void dispatch(Turn& turn, QueueId queue);
  ConsumerId join(QueueId queue, Member member);
  void leave(ConsumerId consumer);
  void load(QueueId queue);
  void end_waits(Turn& turn);
  void keep_house();
  void write_checkpoint(Snapshot snapshot);
  void carry();
  void show_metrics();

  const Options options_;
  const Deps deps_;
  Metrics metrics_;
  journal::Journal* journal_ = nullptr;

  mutable std::mutex mutex_;  // guards what follows
  Ledger ledger_;
  LogIndex durable_;
  std::deque<Waiting> gate_;
  std::optional<Error> failure_;
  std::unordered_map<ConsumerId, Member> members_;
  std::map<QueueId, Line> lines_;
  std::uint64_t next_consumer_ = 1;
  std::uint64_t since_checkpoint_ = 0;  // bytes of records
  bool checkpointing_ = false;
  std::optional<Snapshot> snapshot_;  // waits until it is durable

  std::mutex wake_mutex_;  // guards what follows
  std::condition_variable wake_;
  LogIndex reported_;  // by the journal
  std::optional<Error> journal_error_;
  bool stopping_ = false;

  std::thread thread_;
};

}  // namespace waystation::queue
