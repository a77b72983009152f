// Bodies of files on the disk, named by their content: FOLDER/blobs/ab/abcd… (SHA-256). A blob is
// written under FOLDER/tmp, synced, and moved to its name once it is wanted; who wants it counts
// the references (files.h). All of this is disk work: not for a thread that others wait for.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

struct evp_md_ctx_st;

namespace waystation::store {

// A blob that is being written. Removes what it wrote unless it was kept. One thread at a time.
class BlobWriter {
 public:
  // Makes a file with a name of its own in `tmp_folder`.
  static Result<std::unique_ptr<BlobWriter>> create(const std::string& tmp_folder);
  ~BlobWriter();
  BlobWriter(const BlobWriter&) = delete;
  BlobWriter& operator=(const BlobWriter&) = delete;

  // kUnavailable: the disk is full; kIo.
  Status write(std::string_view bytes);
  // Everything is on the disk; the hash is known. Nothing can be written after it.
  Status finish();

  std::uint64_t bytes() const { return bytes_; }
  const std::string& hash() const { return hash_; }  // 64 hexadecimal digits
  const std::string& path() const { return path_; }
  // The file was moved: it is no longer this writer's.
  void release() { path_.clear(); }

 private:
  BlobWriter(std::string path, int fd);
  Status flush();

  std::string path_;
  int fd_;
  evp_md_ctx_st* digest_;
  std::string buffer_;
  std::uint64_t bytes_ = 0;
  std::string hash_;
};

// A blob that is being read; stays readable when it is removed meanwhile. Moves between threads.
class BlobReader {
 public:
  static Result<std::unique_ptr<BlobReader>> open(const std::string& path);
  ~BlobReader();
  BlobReader(const BlobReader&) = delete;
  BlobReader& operator=(const BlobReader&) = delete;

  // Appends up to `bytes_max` bytes from where it stands. False at the end.
  Result<bool> read(std::string& out, std::size_t bytes_max);
  // Exactly `size` bytes from `offset` on; read() stands where it stood. kCorruption: too short.
  Result<std::string> read_at(std::uint64_t offset, std::size_t size) const;

 private:
  explicit BlobReader(int fd) : fd_(fd) {}
  const int fd_;
};

// Where blobs lie. Stateless; any thread.
class Blobs {
 public:
  explicit Blobs(std::string folder) : folder_(std::move(folder)) {}

  // Makes the folders and removes what writers of an earlier run left behind.
  Status prepare() const;
  std::string path(const std::string& hash) const;
  std::string tmp_folder() const { return folder_ + "/tmp"; }
  // Moves a finished blob to its name, durably. The same content may be there already.
  Status keep(BlobWriter& writer) const;
  void remove(const std::string& hash) const;
  // Removes every blob for which `is_wanted` is false; gives how many those were.
  template <typename IsWanted>
  std::size_t sweep(IsWanted is_wanted) const {
    std::size_t removed = 0;
    for (const std::string& hash : list()) {
      if (is_wanted(hash)) continue;
      remove(hash);
      ++removed;
    }
    return removed;
  }

 private:
  std::vector<std::string> list() const;
  const std::string folder_;
};

}  // namespace waystation::store
