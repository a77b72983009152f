// Files that clients upload and that batches make: rows in the database, bodies as blobs. Nobody
// sees another tenant's.
//
// A blob has a row with its references: one for each file of that content, one for each batch that
// reads it. Row and file change on the database's thread only. A blob's file is there before its
// row is committed, and is removed after its row is gone; what a crash leaves between the two is
// removed at the next start.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/executor.h"
#include "base/result.h"
#include "store/blobs.h"
#include "store/database.h"

namespace waystation::store {

std::vector<Migration> files_schema();

struct FilesOptions {
  std::string folder;                             // DATA/store
  std::uint64_t file_bytes_max = 200 << 20;       // of one file
  std::uint64_t store_bytes_max = 20ull << 30;    // of all files' contents
  std::size_t files_max = 100'000;                // of one tenant
  TimeMs batch_ttl_ms = 30LL * 24 * 3600 * 1000;  // of files for and of batches
};

struct FileRow {
  std::string id;  // "file-…"
  std::string tenant;
  std::string filename;
  std::string purpose;
  std::uint64_t bytes = 0;
  std::string hash;
  TimeMs created_ms = 0;
  std::optional<TimeMs> expires_ms;
};

// What is said of a file when it is made.
struct FileMeta {
  std::string tenant;
  std::string filename;
  std::string purpose;
  std::optional<std::int64_t> expires_after_s;  // unset: by the purpose
};

// One page of a list, and where in it to begin.
struct PageQuery {
  std::size_t limit = 20;
  bool ascending = false;  // the newest first
  std::string after = {};  // an id; empty: from the beginning
};
struct FilePage {
  std::vector<FileRow> files;
  bool has_more = false;
};

class Files;

// The content of a file that is coming in. Counts towards the store's bound while it lives.
class Upload {
 public:
  ~Upload();
  // Disk work. kTooLarge: over a bound (the message says which); kUnavailable: the disk is full.
  Status write(std::string_view bytes);
  // Syncs it; then it can be handed to Files.
  Status finish();
  std::uint64_t bytes() const { return writer_ ? writer_->bytes() : 0; }

 private:
  friend class Files;
  Upload(Files& files, bool is_bounded) : files_(files), is_bounded_(is_bounded) {}
  Status open();

  Files& files_;
  const bool is_bounded_;
  std::uint64_t counted_ = 0;
  std::unique_ptr<BlobWriter> writer_;
};
using UploadPtr = std::shared_ptr<Upload>;

// Any thread, unless said otherwise. Outlives its uploads. It has work in the Database, which is to
// be stopped before this is destroyed.
class Files {
 public:
  // `disk`: where handlers have their disk work done.
  Files(FilesOptions options, Database& database, Executor& disk, Clock& clock);

  // Once, before anything else: makes the folders, removes what a crash left behind, and has
  // expired files removed from now on. Waits.
  Status start();

  const FilesOptions& options() const { return options_; }
  Executor& disk() { return disk_; }

  // `is_bounded` false: what the server makes itself (results of batches) always has room.
  UploadPtr begin_upload(bool is_bounded = true);
  // The upload is finished. kTooLarge: the tenant has too many files.
  Status add(UploadPtr upload, FileMeta meta, Done<FileRow> done);
  // kNotFound also for another tenant's, and for expired ones.
  Status get(std::string tenant, std::string id, Done<FileRow> done);
  // `purpose` empty: all. kInvalidArgument: `after` isn't known.
  Status list(std::string tenant, std::string purpose, PageQuery query, Done<FilePage> done);
  Status remove(std::string tenant, std::string id, Done<FileRow> done);
  // Disk work.
  Result<std::unique_ptr<BlobReader>> open(const FileRow& file) const;
  Result<std::unique_ptr<BlobReader>> open(const std::string& hash) const;

  // Within a Work of another part of the store (batches): on the database's thread.
  Result<FileRow> add_in(Sql& sql, Upload& upload, const FileMeta& meta);
  Result<FileRow> get_in(Sql& sql, const std::string& tenant, const std::string& id) const;
  Status add_reference(Sql& sql, const std::string& hash) const;
  // Call drop_unreferenced with the hash once this is committed.
  Status release_reference(Sql& sql, const std::string& hash) const;
  void drop_unreferenced(std::vector<std::string> hashes);

  // Removes what has expired; called by itself once a minute.
  void expire();

 private:
  friend class Upload;
  Status keep(Sql& sql, Upload& upload);

  const FilesOptions options_;
  Database& database_;
  Executor& disk_;
  Clock& clock_;
  const Blobs blobs_;
  std::atomic<std::uint64_t> stored_bytes_ = 0;    // of blobs with a row
  std::atomic<std::uint64_t> incoming_bytes_ = 0;  // of uploads
};

// "file-…", "batch_…": a prefix and 32 hexadecimal digits that nobody can guess.
std::string make_object_id(std::string_view prefix);

}  // namespace waystation::store
