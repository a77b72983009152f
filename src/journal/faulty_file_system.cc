#include "journal/faulty_file_system.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"

namespace waystation::journal {
namespace {

constexpr std::uint64_t kSectorBytes = 512;

std::string parent_of(const std::string& path) {
  return path.substr(0, path.rfind('/'));
}

Error io_error(const std::string& what) {
  return {Code::kIo, "injected: " + what};
}

}  // namespace

class FaultyFile final : public File {
 public:
  using Fs = FaultyFileSystem;
  FaultyFile(Fs& fs, std::string path, std::shared_ptr<Fs::Inode> inode)
      : fs_(fs), path_(std::move(path)), inode_(std::move(inode)), generation_(fs.generation_) {}

  Status write_at(std::uint64_t offset, std::string_view data) override {
    const auto asked = fs_.ask(Fs::Op::kWrite, path_);
    std::lock_guard lock(fs_.mutex_);
    if (auto alive = check_alive(); !alive) return alive;
    auto fault = Fs::Fault::kIo;
    auto allowed = fs_.check(Fs::Op::kWrite, path_, asked, &fault);
    if (!allowed && fault == Fs::Fault::kIo) return allowed;
    if (!allowed) data = data.substr(0, data.size() / 2);
    change({.offset = offset, .data = std::string(data)});
    return allowed;
  }

  Result<std::size_t> read_at(std::uint64_t offset, char* out, std::size_t size) const override {
    const auto asked = fs_.ask(Fs::Op::kRead, path_);
    std::lock_guard lock(fs_.mutex_);
    if (auto alive = check_alive(); !alive) return alive.error();
    if (auto allowed = fs_.check(Fs::Op::kRead, path_, asked); !allowed) return allowed.error();
    if (offset >= inode_->current.size()) return std::size_t{0};
    const std::size_t n = std::min<std::size_t>(size, inode_->current.size() - offset);
    std::memcpy(out, inode_->current.data() + offset, n);
    return n;
  }

  Status sync_data() override {
    std::function<void()> hook;
    {
      std::lock_guard lock(fs_.mutex_);
      hook = fs_.sync_hook_;
    }
    if (hook) hook();
    return sync_as(Fs::Op::kSyncData);
  }
  Status sync() override { return sync_as(Fs::Op::kSync); }

  Status allocate(std::uint64_t size) override {
    const auto asked = fs_.ask(Fs::Op::kAllocate, path_);
    std::lock_guard lock(fs_.mutex_);
    if (auto alive = check_alive(); !alive) return alive;
    if (auto allowed = fs_.check(Fs::Op::kAllocate, path_, asked); !allowed) return allowed;
    if (size > inode_->current.size()) change({.resize = true, .offset = size, .data = {}});
    return {};
  }

  Status truncate(std::uint64_t size) override {
    const auto asked = fs_.ask(Fs::Op::kTruncate, path_);
    std::lock_guard lock(fs_.mutex_);
    if (auto alive = check_alive(); !alive) return alive;
    if (auto allowed = fs_.check(Fs::Op::kTruncate, path_, asked); !allowed) return allowed;
    change({.resize = true, .offset = size, .data = {}});
    return {};
  }

  Result<std::uint64_t> size() const override {
    std::lock_guard lock(fs_.mutex_);
    if (auto alive = check_alive(); !alive) return alive.error();
    return inode_->current.size();
  }

 private:
  Status check_alive() const {
    return generation_ == fs_.generation_ ? Status() : io_error("the process was killed");
  }
  void change(Fs::Change change) {
    Fs::apply(inode_->current, change);
    inode_->pending.push_back(std::move(change));
  }
  Status sync_as(Fs::Op op) {
    const auto asked = fs_.ask(op, path_);
    std::lock_guard lock(fs_.mutex_);
    if (auto alive = check_alive(); !alive) return alive;
    auto allowed = fs_.check(op, path_, asked);
    if (allowed) {
      for (const Fs::Change& change : inode_->pending) Fs::apply(inode_->durable, change);
    }
    inode_->pending.clear();  // after a failure nobody will ever write them
    return allowed;
  }

  Fs& fs_;
  const std::string path_;
  const std::shared_ptr<Fs::Inode> inode_;
  const std::uint64_t generation_;
};

class FaultyLock final : public FileLock {
 public:
  FaultyLock(FaultyFileSystem& fs, std::string path)
      : fs_(fs), path_(std::move(path)), generation_(fs.generation_) {}
  ~FaultyLock() override {
    std::lock_guard lock(fs_.mutex_);
    if (generation_ == fs_.generation_) fs_.locks_.erase(path_);
  }

 private:
  FaultyFileSystem& fs_;
  const std::string path_;
  const std::uint64_t generation_;
};

std::optional<FaultyFileSystem::Fault> FaultyFileSystem::ask(Op op, const std::string& path) const {
  Watch watch;
  {
    std::lock_guard lock(mutex_);
    watch = watch_;
  }
  return watch ? watch(op, path) : std::nullopt;
}

Status FaultyFileSystem::check(Op op, const std::string& path, std::optional<Fault> asked,
                               Fault* fault) {
  ++counts_[op];
  const auto planned = faults_.find(op);
  if (planned != faults_.end() && --planned->second.first == 0) {
    asked = planned->second.second;
    faults_.erase(planned);
  }
  if (!asked) return {};
  const Fault what = *asked;
  if (fault != nullptr) *fault = what;
  if (what == Fault::kNoSpace) return io_error("no space left for " + path);
  if (what == Fault::kShortWrite) return io_error("short write to " + path);
  return io_error("input/output error at " + path);
}

void FaultyFileSystem::apply(std::string& content, const Change& change) {
  if (change.resize) {
    content.resize(change.offset, '\0');
    return;
  }
  const std::uint64_t end = change.offset + change.data.size();
  if (content.size() < end) content.resize(end, '\0');
  std::memcpy(content.data() + change.offset, change.data.data(), change.data.size());
}

Result<std::unique_ptr<File>> FaultyFileSystem::open(const std::string& path, OpenMode mode) {
  const auto asked = ask(Op::kOpen, path);
  std::lock_guard lock(mutex_);
  if (auto allowed = check(Op::kOpen, path, asked); !allowed) return allowed.error();
  auto found = names_.find(path);
  if (mode != OpenMode::kCreate) {
    if (found == names_.end())
      return Error{Code::kNotFound, "can't open " + path + ": no such file"};
  } else if (found == names_.end()) {
    found = names_.emplace(path, std::make_shared<Inode>()).first;
    pending_names_.push_back({.erase = {}, .set = path, .inode = found->second});
  } else {
    apply(found->second->current, {.resize = true, .offset = 0, .data = {}});
    found->second->pending.push_back({.resize = true, .offset = 0, .data = {}});
  }
  return std::make_unique<FaultyFile>(*this, path, found->second);
}

Status FaultyFileSystem::rename(const std::string& from, const std::string& to) {
  const auto asked = ask(Op::kRename, to);
  std::lock_guard lock(mutex_);
  if (auto allowed = check(Op::kRename, to, asked); !allowed) return allowed;
  const auto found = names_.find(from);
  if (found == names_.end()) return Error{Code::kNotFound, "can't rename " + from};
  auto inode = found->second;
  names_.erase(found);
  names_[to] = inode;
  pending_names_.push_back({.erase = from, .set = to, .inode = std::move(inode)});
  return {};
}

Status FaultyFileSystem::remove(const std::string& path) {
  const auto asked = ask(Op::kRemove, path);
  std::lock_guard lock(mutex_);
  if (auto allowed = check(Op::kRemove, path, asked); !allowed) return allowed;
  if (names_.erase(path) == 0) return Error{Code::kNotFound, "can't remove " + path};
  pending_names_.push_back({.erase = path, .set = {}, .inode = nullptr});
  return {};
}

Status FaultyFileSystem::sync_dir(const std::string& dir) {
  const auto asked = ask(Op::kSyncDir, dir);
  std::lock_guard lock(mutex_);
  if (auto allowed = check(Op::kSyncDir, dir, asked); !allowed) return allowed;
  std::erase_if(pending_names_, [&](const NameChange& change) {
    if (parent_of(change.set.empty() ? change.erase : change.set) != dir) return false;
    if (!change.erase.empty()) durable_names_.erase(change.erase);
    if (!change.set.empty()) durable_names_[change.set] = change.inode;
    return true;
  });
  return {};
}

Result<std::vector<std::string>> FaultyFileSystem::list(const std::string& dir) {
  std::lock_guard lock(mutex_);
  if (!dirs_.contains(dir)) return Error{Code::kNotFound, "can't list " + dir + ": no such folder"};
  std::vector<std::string> found;
  for (const auto& [path, inode] : names_) {
    if (parent_of(path) == dir) found.push_back(path.substr(dir.size() + 1));
  }
  return found;
}

Status FaultyFileSystem::make_dir(const std::string& dir) {
  std::lock_guard lock(mutex_);
  dirs_.insert(dir);
  return {};
}

Result<std::unique_ptr<FileLock>> FaultyFileSystem::lock(const std::string& path) {
  std::lock_guard guard(mutex_);
  if (!locks_.insert(path).second) return Error{Code::kBusy, path + " is held by process 1"};
  return std::make_unique<FaultyLock>(*this, path);
}

void FaultyFileSystem::fail(Op op, int n, Fault fault) {
  std::lock_guard lock(mutex_);
  faults_[op] = {n, fault};
}

void FaultyFileSystem::clear_faults() {
  std::lock_guard lock(mutex_);
  faults_.clear();
}

std::uint64_t FaultyFileSystem::count(Op op) const {
  std::lock_guard lock(mutex_);
  const auto found = counts_.find(op);
  return found == counts_.end() ? 0 : found->second;
}

void FaultyFileSystem::on_sync_data(std::function<void()> hook) {
  std::lock_guard lock(mutex_);
  sync_hook_ = std::move(hook);
}

void FaultyFileSystem::watch(Watch watch) {
  std::lock_guard lock(mutex_);
  watch_ = std::move(watch);
}

std::unique_ptr<FaultyFileSystem> FaultyFileSystem::clone() const {
  std::lock_guard lock(mutex_);
  auto copy = std::make_unique<FaultyFileSystem>();
  std::map<const Inode*, std::shared_ptr<Inode>> copies;
  const auto copied = [&](const std::shared_ptr<Inode>& inode) {
    if (inode == nullptr) return inode;
    auto& made = copies[inode.get()];
    if (made == nullptr) made = std::make_shared<Inode>(*inode);
    return made;
  };
  for (const auto& [path, inode] : names_) copy->names_[path] = copied(inode);
  for (const auto& [path, inode] : durable_names_) copy->durable_names_[path] = copied(inode);
  for (const NameChange& change : pending_names_) {
    copy->pending_names_.push_back({change.erase, change.set, copied(change.inode)});
  }
  copy->dirs_ = dirs_;
  return copy;
}

void FaultyFileSystem::kill() {
  std::lock_guard lock(mutex_);
  ++generation_;
  locks_.clear();
  faults_.clear();
}

void FaultyFileSystem::crash(std::uint64_t seed) {
  kill();
  std::lock_guard lock(mutex_);
  std::mt19937_64 random(seed);
  lose_names(random);
  // Sometimes all or nothing of the unsynced content survives, mostly a part.
  constexpr double kKeep[] = {0, 0.1, 0.5, 0.9, 1};
  const double keep = kKeep[random() % std::size(kKeep)];
  for (const auto& [path, inode] : names_) lose_content(*inode, keep, random);
}

void FaultyFileSystem::lose_names(std::mt19937_64& random) {
  for (const NameChange& change : pending_names_) {
    if (random() % 2 == 0) continue;
    if (!change.erase.empty()) durable_names_.erase(change.erase);
    if (!change.set.empty()) durable_names_[change.set] = change.inode;
  }
  pending_names_.clear();
  names_ = durable_names_;
}

void FaultyFileSystem::lose_content(Inode& inode, double keep, std::mt19937_64& random) {
  std::bernoulli_distribution kept(keep);
  for (const Change& change : inode.pending) {
    if (change.resize) {
      if (kept(random)) apply(inode.durable, change);
      continue;
    }
    for (std::uint64_t at = 0; at < change.data.size();) {
      const std::uint64_t to_boundary = kSectorBytes - (change.offset + at) % kSectorBytes;
      const std::uint64_t n = std::min<std::uint64_t>(to_boundary, change.data.size() - at);
      if (kept(random)) {
        apply(inode.durable, {.offset = change.offset + at, .data = change.data.substr(at, n)});
      }
      at += n;
    }
  }
  inode.pending.clear();
  inode.current = inode.durable;
}

std::vector<std::string> FaultyFileSystem::paths() const {
  std::lock_guard lock(mutex_);
  std::vector<std::string> found;
  for (const auto& [path, inode] : names_) found.push_back(path);
  return found;
}

std::string FaultyFileSystem::contents(const std::string& path) const {
  std::lock_guard lock(mutex_);
  const auto found = names_.find(path);
  CHECK(found != names_.end());
  return found->second->current;
}

void FaultyFileSystem::set_contents(const std::string& path, std::string bytes) {
  std::lock_guard lock(mutex_);
  auto inode = std::make_shared<Inode>();
  inode->current = inode->durable = std::move(bytes);
  names_[path] = inode;
  durable_names_[path] = inode;
  dirs_.insert(parent_of(path));
}

void FaultyFileSystem::flip_bit(const std::string& path, std::uint64_t byte, int bit) {
  std::lock_guard lock(mutex_);
  const auto found = names_.find(path);
  CHECK(found != names_.end() && byte < found->second->current.size());
  const auto flip = [&](std::string& content) {
    if (byte < content.size()) content[byte] = static_cast<char>(content[byte] ^ (1 << bit));
  };
  flip(found->second->current);
  flip(found->second->durable);
}

}  // namespace waystation::journal
