#include "journal/file_journal.h"

#include <algorithm>
#include <chrono>
#include <random>
#include <utility>

#include "base/check.h"
#include "base/crash_point.h"
#include "base/log.h"
#include "base/thread_name.h"
#include "journal/recovery.h"

namespace waystation::journal {
namespace {

// A group is written when it gets this large, so that its first batches needn't wait for a long
// queue.
constexpr std::size_t kGroupBytesMax = 8u << 20;

// How often in a row the thread gives way without a new append coming before it goes on.
constexpr int kGatherYields = 16;

// By how many appends more than twice the last group the next may have.
constexpr std::size_t kGroupGrowth = 16;

std::uint64_t random_id() {
  std::random_device device;
  std::uint64_t id = 0;
  while (id == 0) id = std::uint64_t{device()} << 32 | device();
  return id;
}

}  // namespace

FileJournal::Metrics::Metrics(Meter& meter)
    : sync_seconds(meter.histogram(
          "waystation_journal_sync_seconds", "Time of one fdatasync of the journal",
          {.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5})),
      bytes(meter.counter("waystation_journal_bytes_total", "Bytes written to the journal")),
      records(meter.counter("waystation_journal_records_total", "Records made durable")),
      batches(meter.counter("waystation_journal_batches_total", "Batches (appends) made durable")),
      failures(meter.counter("waystation_journal_failures_total",
                             "Failed writes or syncs; after one the journal is stopped")) {}

Result<std::unique_ptr<FileJournal>> FileJournal::open(Options options) {
  CHECK(options.file_system != nullptr && options.meter != nullptr);
  if (options.durability == Durability::kNone) {
    return Error{Code::kInvalidArgument, "durability none keeps nothing in files", "durability"};
  }
  CHECK(options.executor == nullptr || options.durability == Durability::kDisk);
  FileSystem& file_system = *options.file_system;
  while (options.dir.size() > 1 && options.dir.ends_with('/')) options.dir.pop_back();
  if (auto made = file_system.make_dir(options.dir); !made) return made.error();
  auto lock = file_system.lock(path_in(options.dir, kLockName));
  if (!lock) return lock.error();
  if (options.new_journal_id == 0) options.new_journal_id = random_id();
  options.segment_bytes_max =
      std::max<std::uint64_t>(options.segment_bytes_max, kSegmentHeaderBytes + kBatchHeaderBytes);

  auto checkpoints = std::make_unique<CheckpointStore>(file_system, options.dir);
  auto recovered = recover(file_system, options.dir, options.segment_bytes_max,
                           options.new_journal_id, *checkpoints);
  if (!recovered) return recovered.error();
  WS_LOG(info,
         "journal open dir={} records_to={} checkpoint={} segments={} batches_resynced={} "
         "torn_bytes_cut={}",
         options.dir, recovered->last.value, checkpoints->newest_index().value,
         recovered->segments.size(), recovered->batches_copied, recovered->torn_bytes);
  return std::unique_ptr<FileJournal>(new FileJournal(
      std::move(options), std::move(*lock), std::move(checkpoints), std::move(*recovered)));
}

FileJournal::FileJournal(Options options, std::unique_ptr<FileLock> lock,
                         std::unique_ptr<CheckpointStore> checkpoints, Recovered recovered)
    : options_(std::move(options)),
      lock_(std::move(lock)),
      checkpoints_(std::move(checkpoints)),
      metrics_(*options_.meter),
      reader_(std::move(recovered.segments)),
      journal_id_(recovered.journal_id),
      next_index_{recovered.last.value + 1},
      durable_index_(recovered.last.value),
      synced_index_(recovered.last),
      encoder_(options_.compress_above_bytes),
      writer_(std::move(recovered.writer)),
      previous_crc_(recovered.previous_crc),
      last_time_ms_(recovered.last_time_ms) {
  if (options_.executor != nullptr) return;
  thread_ = std::thread([this] {
    name_this_thread("journal");
    run();
  });
}

FileJournal::~FileJournal() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  if (thread_.joinable()) {
    thread_.join();
  } else {
    Status done;
    take(done);
    write_out(std::move(done), {.stop = true});
  }
}

LogIndex FileJournal::append(std::vector<std::string> records, TimeMs now_ms) {
  CHECK(!records.empty());
  const LogIndex base = next_index_;
  next_index_.value += records.size();
  if (failed_) return base;
  const std::uint64_t bytes = raw_bytes_of(records) + kBatchHeaderBytes;
  CHECK(bytes <= kBatchBytesMax);
  backlog_bytes_ += bytes;
  bool first = false;
  {
    std::lock_guard lock(mutex_);
    first = queue_.empty();
    queue_.push_back({base, std::move(records), now_ms, bytes});
  }
  if (first && options_.executor != nullptr) {
    options_.executor->run([this] { step(); });
  } else if (first) {
    wake_.notify_one();
  }
  return base;
}

void FileJournal::run() {
  for (bool stop = false; !stop;) {
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return stopping_ || sync_wanted_ || !queue_.empty(); });
    }
    Status done;
    const Orders orders = gather(done);
    stop = orders.stop;
    write_out(std::move(done), orders);
  }
}

// A round without a thread: the executor calls it after the first append of a group.
void FileJournal::step() {
  Status done;
  take(done);
  write_out(std::move(done), {});
}

void FileJournal::write_out(Status done, Orders orders) {
  if (failed_) return;
  if (done) done = flush();
  if (done && orders.sync) done = sync_to(durable_index());
  if (done && orders.stop) done = write_closing_mark();
  if (!done) fail(std::move(done.error()));
}

// Encodes what is queued; how many appends that was.
std::size_t FileJournal::take(Status& done) {
  {
    std::lock_guard lock(mutex_);
    taken_.swap(queue_);
  }
  const std::size_t count = taken_.size();
  if (count > 0 && !failed_ && done) done = encode(taken_);
  taken_.clear();
  return count;
}

// The answers to the last group often make the next one: its first append must not go alone, with
// the others waiting for a whole sync. So give way for a moment (microseconds) while more are
// likely to come; what is there is encoded meanwhile. A group may be as large as the last one, and
// grow, but not without end.
FileJournal::Orders FileJournal::gather(Status& done) {
  const std::size_t most = 2 * last_taken_ + kGroupGrowth;
  std::size_t appends = 0;
  for (int idle = 0;;) {
    const std::size_t taken = take(done);
    appends += taken;
    idle = taken > 0 ? 0 : idle + 1;
    const bool all_came = taken == 0 && (appends >= last_taken_ || idle > kGatherYields);
    {
      std::lock_guard lock(mutex_);
      if (all_came || appends >= most || sync_wanted_ || stopping_) {
        if (appends > 0) last_taken_ = appends;
        return {.sync = std::exchange(sync_wanted_, false), .stop = stopping_ && queue_.empty()};
      }
    }
    if (taken == 0) std::this_thread::yield();
  }
}

Status FileJournal::encode(std::vector<Pending>& batches) {
  for (Pending& batch : batches) {
    const std::uint64_t batch_bytes = batch.bytes;  // before compression: an upper bound
    const bool used = writer_->offset() > kSegmentHeaderBytes || !group_.empty();
    const bool fits = group_.size() + batch_bytes <= writer_->room();
    if (!fits && used) {
      if (auto flushed = flush(); !flushed) return flushed;
      if (auto rolled = roll(batch_bytes); !rolled) return rolled;
    }
    const std::uint64_t offset = writer_->offset() + group_.size();
    previous_crc_ =
        encoder_.encode({journal_id_, batch.base, synced_index_, batch.time_ms, previous_crc_},
                        batch.records, group_);
    writer_->segment()->add_batch(batch.base, offset);
    last_time_ms_ = batch.time_ms;
    group_last_.value = batch.base.value + batch.records.size() - 1;
    group_backlog_ += batch.bytes;
    group_records_ += batch.records.size();
    ++group_batches_;
    if (group_.size() >= kGroupBytesMax) {
      if (auto flushed = flush(); !flushed) return flushed;
    }
  }
  return {};
}

Status FileJournal::flush() {
  if (group_.empty()) return {};
  crash_point(CrashPoint::kJournalBeforeWrite);
  if (auto wrote = writer_->write(group_); !wrote) return wrote;
  crash_point(CrashPoint::kJournalAfterWrite);
  if (options_.durability == Durability::kDisk) {
    if (auto synced = sync_to(group_last_); !synced) return synced;
  }
  crash_point(CrashPoint::kJournalAfterSync);
  writer_->segment()->last_time_ms = last_time_ms_;
  durable_index_ = group_last_.value;
  backlog_bytes_ -= group_backlog_;
  metrics_.bytes.add(static_cast<double>(group_.size()));
  metrics_.records.add(static_cast<double>(group_records_));
  metrics_.batches.add(static_cast<double>(group_batches_));
  group_.clear();
  if (group_.capacity() > 2 * kGroupBytesMax) group_.shrink_to_fit();
  group_backlog_ = group_records_ = group_batches_ = 0;
  appended_ = true;
  if (options_.callbacks.on_durable) options_.callbacks.on_durable(group_last_);
  return {};
}

// Syncs the file; `last` is the newest record written.
Status FileJournal::sync_to(LogIndex last) {
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  if (auto synced = writer_->sync(); !synced) return synced;
  metrics_.sync_seconds.observe(std::chrono::duration<double>(Clock::now() - start).count());
  {
    std::lock_guard lock(mutex_);
    synced_index_ = last;
  }
  synced_.notify_all();
  return {};
}

Status FileJournal::roll(std::uint64_t batch_bytes) {
  if (synced_index_.value < durable_index_) {
    if (auto synced = sync_to(durable_index()); !synced) return synced;
  }
  if (auto sealed = writer_->seal(); !sealed) return sealed;
  const SegmentHeader header{.journal_id = journal_id_,
                             .first = {durable_index_ + 1},
                             .previous_time_ms = last_time_ms_,
                             .previous_crc = previous_crc_};
  auto next =
      SegmentWriter::begin(*options_.file_system, options_.dir, header,
                           std::max(options_.segment_bytes_max, kSegmentHeaderBytes + batch_bytes));
  if (!next) return next.error();
  if (auto published = (*next)->publish(); !published) return published;
  writer_ = std::move(*next);
  reader_.add(writer_->segment());
  return {};
}

Status FileJournal::write_closing_mark() {
  if (!appended_) return {};
  if (synced_index_.value < durable_index_) {
    if (auto synced = sync_to(durable_index()); !synced) return synced;
  }
  std::string mark;
  const LogIndex durable = durable_index();
  encoder_.encode({journal_id_, {durable.value + 1}, durable, last_time_ms_, previous_crc_}, {},
                  mark);
  if (auto wrote = writer_->write(mark); !wrote) return wrote;
  return writer_->sync();
}

void FileJournal::fail(Error error) {
  {
    std::lock_guard lock(mutex_);
    failed_ = true;
  }
  synced_.notify_all();
  metrics_.failures.add();
  WS_LOG(error, "journal stopped: {}", error.message);
  if (options_.callbacks.on_failure) options_.callbacks.on_failure(std::move(error));
}

Result<std::string> FileJournal::read(LogIndex index) const {
  return reader_.read(index, durable_index());
}

Status FileJournal::scan(LogIndex from, LogIndex to, const Visitor& visit) const {
  return reader_.scan(from, to, durable_index(), visit);
}

Status FileJournal::write_checkpoint(const Checkpoint& checkpoint) {
  if (checkpoint.index.value == 0 || checkpoint.index > durable_index()) {
    return Error{Code::kInvalidArgument, "a checkpoint at record " +
                                             std::to_string(checkpoint.index.value) +
                                             " must wait until that record is durable"};
  }
  {
    // A checkpoint says that its records are on disk; with durability os they may not be yet.
    std::unique_lock lock(mutex_);
    if (synced_index_ < checkpoint.index && !failed_) {
      sync_wanted_ = true;
      wake_.notify_one();
      synced_.wait(lock, [&] { return synced_index_ >= checkpoint.index || failed_; });
    }
    if (failed_) return Error{Code::kUnavailable, "the journal has stopped; restart the server"};
  }
  return checkpoints_->write(checkpoint);
}

Result<std::optional<Checkpoint>> FileJournal::newest_checkpoint() const {
  return checkpoints_->newest();
}

std::vector<SegmentInfo> FileJournal::segments() const {
  return reader_.infos(durable_index());
}

Status FileJournal::remove_below(LogIndex index) {
  if (failed_) return Error{Code::kUnavailable, "the journal has stopped; restart the server"};
  const LogIndex older = checkpoints_->older_index();
  if (older.value == 0) return {};
  const LogIndex limit = std::min(index, LogIndex{older.value + 1});
  // One at a time and in order, so that no crash and no failure leaves a gap.
  while (const auto segment = reader_.first_below(limit)) {
    crash_point(CrashPoint::kSegmentBeforeRemove);
    auto removed = options_.file_system->remove(segment->path());
    if (!removed && removed.error().code != Code::kNotFound) return removed;
    crash_point(CrashPoint::kSegmentAfterRemove);
    if (auto synced = options_.file_system->sync_dir(options_.dir); !synced) return synced;
    reader_.forget_first();
  }
  return {};
}

}  // namespace waystation::journal
