#include "journal/posix_file_system.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

#include "base/descriptor.h"

namespace waystation::journal {
namespace {

Error os_error(const std::string& what, const std::string& path, int error) {
  Code code = Code::kIo;
  if (error == ENOENT) code = Code::kNotFound;
  if (error == EACCES || error == EPERM) code = Code::kPermissionDenied;
  std::string message =
      "can't " + what + " " + path + ": " + std::generic_category().message(error);
  if (error == ENOSPC || error == EDQUOT) message += "; free some space and start again";
  return Error{code, std::move(message)};
}

class PosixFile final : public File {
 public:
  PosixFile(Descriptor fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {}

  Status write_at(std::uint64_t offset, std::string_view data) override {
    ssize_t written = 0;
    do {
      written = ::pwrite(fd_.get(), data.data(), data.size(), static_cast<off_t>(offset));
    } while (written < 0 && errno == EINTR);  // nothing was written
    if (written < 0) return os_error("write", path_, errno);
    if (static_cast<std::size_t>(written) != data.size()) {
      return Error{Code::kIo, "short write to " + path_ + ": " + std::to_string(written) + " of " +
                                  std::to_string(data.size()) +
                                  " bytes; is the disk full? free some space and start again"};
    }
    return {};
  }

  Result<std::size_t> read_at(std::uint64_t offset, char* out, std::size_t size) const override {
    std::size_t got = 0;
    while (got < size) {
      const ssize_t n = ::pread(fd_.get(), out + got, size - got, static_cast<off_t>(offset + got));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return os_error("read", path_, errno);
      if (n == 0) break;
      got += static_cast<std::size_t>(n);
    }
    return got;
  }

  Status sync_data() override {
    if (::fdatasync(fd_.get()) != 0) return os_error("sync", path_, errno);
    return {};
  }

  Status sync() override {
    if (::fsync(fd_.get()) != 0) return os_error("sync", path_, errno);
    return {};
  }

  Status allocate(std::uint64_t size) override {
    // Some file systems have no fallocate; there the size alone is set, and space is found as
    // needed.
    if (::fallocate(fd_.get(), 0, 0, static_cast<off_t>(size)) == 0) return {};
    if (errno != EOPNOTSUPP) return os_error("reserve space for", path_, errno);
    const auto now = this->size();
    if (!now) return now.error();
    return *now >= size ? Status() : truncate(size);
  }

  Status truncate(std::uint64_t size) override {
    if (::ftruncate(fd_.get(), static_cast<off_t>(size)) != 0) {
      return os_error("set the size of", path_, errno);
    }
    return {};
  }

  Result<std::uint64_t> size() const override {
    struct stat facts {};
    if (::fstat(fd_.get(), &facts) != 0) return os_error("look at", path_, errno);
    return static_cast<std::uint64_t>(facts.st_size);
  }

 private:
  Descriptor fd_;
  std::string path_;
};

class PosixLock final : public FileLock {
 public:
  explicit PosixLock(Descriptor fd) : fd_(std::move(fd)) {}

 private:
  Descriptor fd_;  // closing it lets the lock go
};

}  // namespace

Result<std::unique_ptr<File>> PosixFileSystem::open(const std::string& path, OpenMode mode) {
  int flags = O_CLOEXEC;
  if (mode == OpenMode::kRead) flags |= O_RDONLY;
  if (mode == OpenMode::kModify) flags |= O_RDWR;
  if (mode == OpenMode::kCreate) flags |= O_RDWR | O_CREAT | O_TRUNC;
  Descriptor fd(::open(path.c_str(), flags, 0640));
  if (fd.get() < 0) return os_error("open", path, errno);
  return std::make_unique<PosixFile>(std::move(fd), path);
}

Status PosixFileSystem::rename(const std::string& from, const std::string& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) return os_error("rename to", to, errno);
  return {};
}

Status PosixFileSystem::remove(const std::string& path) {
  if (::unlink(path.c_str()) != 0) return os_error("remove", path, errno);
  return {};
}

Status PosixFileSystem::sync_dir(const std::string& dir) {
  const Descriptor fd(::open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd.get() < 0) return os_error("open", dir, errno);
  if (::fsync(fd.get()) != 0) return os_error("sync", dir, errno);
  return {};
}

Result<std::vector<std::string>> PosixFileSystem::list(const std::string& dir) {
  std::error_code error;
  std::vector<std::string> names;
  auto it = std::filesystem::directory_iterator(dir, error);
  for (; !error && it != std::filesystem::directory_iterator(); it.increment(error)) {
    std::error_code ignored;
    if (it->is_regular_file(ignored)) names.push_back(it->path().filename().string());
  }
  if (error) return os_error("list", dir, error.value());
  return names;
}

Status PosixFileSystem::make_dir(const std::string& dir) {
  std::error_code error;
  std::vector<std::filesystem::path> missing;
  for (auto path = std::filesystem::absolute(dir, error).lexically_normal();
       !error && !std::filesystem::exists(path); path = path.parent_path()) {
    missing.push_back(path);
  }
  std::filesystem::create_directories(dir, error);
  if (error) return os_error("make the folder", dir, error.value());
  for (const auto& path : missing) {
    if (auto synced = sync_dir(path.parent_path().string()); !synced) return synced;
  }
  return {};
}

Result<std::unique_ptr<FileLock>> PosixFileSystem::lock(const std::string& path) {
  Descriptor fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0640));
  if (fd.get() < 0) return os_error("open", path, errno);
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return os_error("lock", path, errno);
    char text[32] = {};
    const ssize_t n = ::pread(fd.get(), text, sizeof text - 1, 0);
    std::string holder(text, n > 0 ? static_cast<std::size_t>(n) : 0);
    while (!holder.empty() && holder.back() == '\n') holder.pop_back();
    return Error{Code::kBusy,
                 path + " is held by process " + (holder.empty() ? "?" : holder) +
                     ", so the folder is in use; stop that process or use another folder"};
  }
  // For people, and for the refusal above.
  const std::string pid = std::to_string(::getpid()) + "\n";
  if (::ftruncate(fd.get(), 0) != 0 ||
      ::pwrite(fd.get(), pid.data(), pid.size(), 0) != static_cast<ssize_t>(pid.size())) {
    return os_error("write the pid to", path, errno);
  }
  return std::make_unique<PosixLock>(std::move(fd));
}

}  // namespace waystation::journal
