// Reads records out of the segments, by number or in order.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "journal/journal.h"
#include "journal/segment.h"

namespace waystation::journal {

// Knows the segments and keeps the last few decoded batches. Any thread; readers work on what they
// found when they began, so segments may be added and removed meanwhile.
class LogReader {
 public:
  explicit LogReader(std::vector<std::shared_ptr<Segment>> segments);

  // `durable` bounds what is read: the caller's newest durable record.
  Result<std::string> read(LogIndex index, LogIndex durable) const;
  Status scan(LogIndex from, LogIndex to, LogIndex durable, const Visitor& visit) const;

  void add(std::shared_ptr<Segment> segment);
  // The first segment if all of its records are below `limit` and others come after it.
  std::shared_ptr<Segment> first_below(LogIndex limit) const;
  void forget_first();
  std::vector<SegmentInfo> infos(LogIndex durable) const;

 private:
  struct Batch;
  using Segments = std::vector<std::shared_ptr<Segment>>;

  Segments segments() const;
  std::shared_ptr<const Batch> cached(LogIndex index) const;
  void keep(std::shared_ptr<const Batch> batch) const;
  Result<std::shared_ptr<const Batch>> load(Segment& segment, LogIndex index, LogIndex last) const;

  mutable std::mutex mutex_;
  Segments segments_;
  mutable std::vector<std::shared_ptr<const Batch>> cache_;  // newest last
};

// What to tell a person about damage at a place. `record`: the first one that can't be read.
Error corruption_at(const std::string& path, std::uint64_t offset, LogIndex record,
                    const std::string& reason);

}  // namespace waystation::journal
