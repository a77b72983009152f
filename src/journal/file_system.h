// What the journal asks of a file system. Injected, so that tests can lose, tear and fail writes.
// Nothing here retries: the caller decides what a failure means.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace waystation::journal {

// An open file. Positioned reads may come from any thread while one thread writes. Closed when
// destroyed.
class File {
 public:
  virtual ~File() = default;

  // Writes all of `data`, or fails. A short write is a failure: bytes of it may be in the file.
  virtual Status write_at(std::uint64_t offset, std::string_view data) = 0;
  // Reads up to `size` bytes; fewer only at the end of the file.
  virtual Result<std::size_t> read_at(std::uint64_t offset, char* out, std::size_t size) const = 0;
  // fdatasync: the content, and what is needed to read it.
  virtual Status sync_data() = 0;
  // fsync: the content and everything about the file, but not its name.
  virtual Status sync() = 0;
  // Reserves space and sets the size to at least `size`; new bytes read as zeros.
  virtual Status allocate(std::uint64_t size) = 0;
  virtual Status truncate(std::uint64_t size) = 0;
  virtual Result<std::uint64_t> size() const = 0;
};

enum class OpenMode {
  kRead,    // an existing file, to read
  kModify,  // an existing file, to read and write
  kCreate,  // a new or emptied file, to read and write
};

// Held until destroyed, or until the process ends.
class FileLock {
 public:
  virtual ~FileLock() = default;
};

// Any thread. Paths are of the operating system; errors are kIo, kNotFound, kPermissionDenied, and
// name the path.
class FileSystem {
 public:
  virtual ~FileSystem() = default;

  virtual Result<std::unique_ptr<File>> open(const std::string& path, OpenMode mode) = 0;
  // Atomic; replaces `to`.
  virtual Status rename(const std::string& from, const std::string& to) = 0;
  virtual Status remove(const std::string& path) = 0;
  // Makes the names in the folder (created, renamed, removed) durable.
  virtual Status sync_dir(const std::string& dir) = 0;
  // The names of the plain files in it, unordered. kNotFound without the folder.
  virtual Result<std::vector<std::string>> list(const std::string& dir) = 0;
  // Makes the folder and its parents; fine if it is there.
  virtual Status make_dir(const std::string& dir) = 0;
  // Locks the file, creating it, and writes this process's pid into it. kBusy names the holder.
  virtual Result<std::unique_ptr<FileLock>> lock(const std::string& path) = 0;
};

}  // namespace waystation::journal
