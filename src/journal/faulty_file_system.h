// A file system in memory that forgets, tears and fails like a real one. For tests.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "journal/file_system.h"

namespace waystation::journal {

// What was not synced is what a crash may lose: of file content any set of 512-byte sectors, of
// names any set of changes. A failed sync loses what it should have synced, although it can still
// be read and later syncs succeed (as on Linux). Any thread.
class FaultyFileSystem final : public FileSystem {
 public:
  enum class Op {
    kOpen,
    kRead,
    kWrite,
    kSyncData,
    kSync,
    kAllocate,
    kTruncate,
    kRename,
    kRemove,
    kSyncDir
  };
  enum class Fault {
    kIo,          // nothing is done
    kNoSpace,     // half of a write is done
    kShortWrite,  // half of a write is done
  };

  Result<std::unique_ptr<File>> open(const std::string& path, OpenMode mode) override;
  Status rename(const std::string& from, const std::string& to) override;
  Status remove(const std::string& path) override;
  Status sync_dir(const std::string& dir) override;
  Result<std::vector<std::string>> list(const std::string& dir) override;
  Status make_dir(const std::string& dir) override;
  Result<std::unique_ptr<FileLock>> lock(const std::string& path) override;

  // The n-th call of this kind from now fails (1 = the next one), once.
  void fail(Op op, int n, Fault fault = Fault::kIo);
  // Forgets the failures that haven't come yet.
  void clear_faults();
  // Calls of this kind so far.
  std::uint64_t count(Op op) const;
  // Called in every sync_data(), before it takes effect and without a lock held.
  void on_sync_data(std::function<void()> hook);
  // Called before every operation, without a lock held; a fault that it gives happens to it.
  using Watch = std::function<std::optional<Fault>(Op op, const std::string& path)>;
  void watch(Watch watch);

  // The process is killed: open files and locks are gone (their users get errors), content stays.
  void kill();
  // The machine loses power: as kill(), and an unsynced subset chosen by `seed` is lost.
  void crash(std::uint64_t seed);
  // What is on it, as it is: also what isn't synced. Without its faults, hooks, locks and handles.
  std::unique_ptr<FaultyFileSystem> clone() const;

  std::vector<std::string> paths() const;
  std::string contents(const std::string& path) const;
  // Replaces content, durably.
  void set_contents(const std::string& path, std::string bytes);
  void flip_bit(const std::string& path, std::uint64_t byte, int bit);

 private:
  friend class FaultyFile;
  friend class FaultyLock;
  struct Change {
    bool resize = false;
    std::uint64_t offset = 0;  // or the new size
    std::string data;
  };
  struct Inode {
    std::string current;
    std::string durable;
    std::vector<Change> pending;
  };
  struct NameChange {
    std::string erase;  // empty: nothing
    std::string set;    // empty: nothing
    std::shared_ptr<Inode> inode;
  };

  // Without mutex_ held: the watch may take its time, and look at other files.
  std::optional<Fault> ask(Op op, const std::string& path) const;
  // All with mutex_ held.
  Status check(Op op, const std::string& path, std::optional<Fault> asked, Fault* fault = nullptr);
  static void apply(std::string& content, const Change& change);
  void lose_names(std::mt19937_64& random);
  static void lose_content(Inode& inode, double keep, std::mt19937_64& random);

  mutable std::mutex mutex_;
  std::map<std::string, std::shared_ptr<Inode>> names_;
  std::map<std::string, std::shared_ptr<Inode>> durable_names_;
  std::vector<NameChange> pending_names_;
  std::set<std::string> dirs_;
  std::set<std::string> locks_;
  std::map<Op, std::uint64_t> counts_;
  std::map<Op, std::pair<int, Fault>> faults_;
  std::function<void()> sync_hook_;
  Watch watch_;
  std::uint64_t generation_ = 0;  // handles of earlier ones are dead
};

}  // namespace waystation::journal
