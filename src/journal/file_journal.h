// The journal in files of this machine.
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/executor.h"
#include "base/meter.h"
#include "journal/checkpoint_store.h"
#include "journal/file_system.h"
#include "journal/format.h"
#include "journal/journal.h"
#include "journal/log_reader.h"
#include "journal/segment_writer.h"

namespace waystation::journal {

struct Recovered;

// One folder, one process. Owns one thread, the journal's, which alone writes the log: it takes
// what is queued, writes it in one call, syncs once and reports. (With Options::executor that is
// the thread.) The destructor writes and reports what is still queued; so what the callbacks touch
// must outlive the journal.
class FileJournal final : public Journal {
 public:
  struct Options {
    std::string dir;
    Durability durability = Durability::kDisk;     // kNone is MemoryJournal's
    std::uint64_t segment_bytes_max = 64u << 20;   // larger only for a batch that is larger
    std::size_t compress_above_bytes = 16u << 10;  // payloads from this size on
    Callbacks callbacks;
    FileSystem* file_system = nullptr;  // required; outlives the journal
    Meter* meter = nullptr;             // required; outlives the journal
    std::uint64_t new_journal_id = 0;   // 0: random. Set it for reproducible bytes
    // Where the log is written, in place of a thread of its own: one task at a time, none of which
    // may run once the journal is gone. So the simulator decides when. With durability kDisk only.
    Executor* executor = nullptr;
  };

  // Recovers what is there (see docs/formats/journal.md) and starts the thread. kBusy: another
  // process has the folder (the message names its pid). kCorruption: the log is damaged; the
  // message says where, and with which tool to go on. kIo, kPermissionDenied: the operating
  // system's reason.
  static Result<std::unique_ptr<FileJournal>> open(Options options);
  ~FileJournal() override;

  LogIndex next_index() const override { return next_index_; }
  // A batch is at most 1 GiB. Does nothing after a failure (the index returned never gets durable).
  LogIndex append(std::vector<std::string> records, TimeMs now_ms) override;
  std::uint64_t backlog_bytes() const override { return backlog_bytes_; }
  LogIndex durable_index() const override { return {durable_index_}; }
  Result<std::string> read(LogIndex index) const override;
  Status scan(LogIndex from, LogIndex to, const Visitor& visit) const override;
  // Refuses an index that isn't durable, or is older than the newest checkpoint's. A failure to
  // write a checkpoint doesn't stop the journal.
  Status write_checkpoint(const Checkpoint& checkpoint) override;
  Result<std::optional<Checkpoint>> newest_checkpoint() const override;
  std::vector<SegmentInfo> segments() const override;
  // Keeps what the older of the two checkpoints needs, so it removes nothing before there are two.
  Status remove_below(LogIndex index) override;

 private:
  struct Pending {
    LogIndex base;
    std::vector<std::string> records;
    TimeMs time_ms = 0;
    std::uint64_t bytes = 0;
  };
  struct Orders {  // from other threads
    bool sync = false;
    bool stop = false;
  };
  struct Metrics {
    explicit Metrics(Meter& meter);
    Histogram& sync_seconds;
    Counter& bytes;
    Counter& records;
    Counter& batches;
    Counter& failures;
  };

  FileJournal(Options options, std::unique_ptr<FileLock> lock,
              std::unique_ptr<CheckpointStore> checkpoints, Recovered recovered);

  // All on the journal's thread.
  void run();
  void step();
  Orders gather(Status& done);
  std::size_t take(Status& done);
  Status encode(std::vector<Pending>& batches);  // into the group
  void write_out(Status done, Orders orders);
  Status flush();  // the group: write, sync, tell
  Status sync_to(LogIndex last);
  Status roll(std::uint64_t batch_bytes);
  Status write_closing_mark();
  void fail(Error error);

  const Options options_;
  const std::unique_ptr<FileLock> lock_;
  const std::unique_ptr<CheckpointStore> checkpoints_;
  Metrics metrics_;
  LogReader reader_;
  const std::uint64_t journal_id_;

  LogIndex next_index_;  // owner's thread
  std::atomic<std::uint64_t> durable_index_;
  std::atomic<std::uint64_t> backlog_bytes_{0};
  std::atomic<bool> failed_{false};

  // Between the threads.
  std::mutex mutex_;
  std::condition_variable wake_;    // for the journal's thread
  std::condition_variable synced_;  // for write_checkpoint()
  std::vector<Pending> queue_;
  bool sync_wanted_ = false;
  bool stopping_ = false;
  LogIndex
      synced_index_;  // written under mutex_ by the journal's thread, which also reads it freely

  // The journal's thread.
  BatchEncoder encoder_;
  std::unique_ptr<SegmentWriter> writer_;
  std::uint32_t previous_crc_;
  TimeMs last_time_ms_;
  bool appended_ = false;       // since the start
  std::size_t last_taken_ = 0;  // appends of the last group
  std::vector<Pending> taken_;  // empty between two takes
  // The group being gathered.
  std::string group_;
  LogIndex group_last_;
  std::uint64_t group_backlog_ = 0;
  std::uint64_t group_records_ = 0;
  std::uint64_t group_batches_ = 0;

  std::thread thread_;
};

}  // namespace waystation::journal
