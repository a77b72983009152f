#include "store/files.h"

#include <openssl/rand.h>

#include <array>
#include <chrono>
#include <limits>
#include <set>

#include "base/check.h"
#include "base/log.h"
#include "base/utf8.h"

namespace waystation::store {
namespace {

constexpr std::string_view kColumns =
    "id, tenant, filename, purpose, bytes, hash, created_ms, expires_ms";
constexpr auto kExpiryInterval = std::chrono::minutes(1);
constexpr int kExpiredAtOnce = 256;

FileRow row_of(const Rows& rows) {
  FileRow file;
  file.id = rows.text(0);
  file.tenant = rows.text(1);
  file.filename = rows.text(2);
  file.purpose = rows.text(3);
  file.bytes = static_cast<std::uint64_t>(rows.integer(4));
  file.hash = rows.text(5);
  file.created_ms = rows.integer(6);
  if (!rows.is_null(7)) file.expires_ms = rows.integer(7);
  return file;
}

Error no_such_file(const std::string& id) {
  return {Code::kNotFound, "there is no file '" + utf8_prefix(id, 100) + "'", "file_id"};
}

}  // namespace

std::string make_object_id(std::string_view prefix) {
  std::array<unsigned char, 16> raw;
  CHECK(RAND_bytes(raw.data(), raw.size()) == 1);
  static constexpr char kHex[] = "0123456789abcdef";
  std::string out(prefix);
  for (const unsigned char byte : raw) {
    out.push_back(kHex[byte >> 4]);
    out.push_back(kHex[byte & 15]);
  }
  return out;
}

std::vector<Migration> files_schema() {
  return {{"files.1",
           "CREATE TABLE blobs (hash TEXT PRIMARY KEY, bytes INTEGER NOT NULL,"
           "  refs INTEGER NOT NULL) WITHOUT ROWID;"
           "CREATE TABLE files (seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,"
           "  tenant TEXT NOT NULL, filename TEXT NOT NULL, purpose TEXT NOT NULL,"
           "  bytes INTEGER NOT NULL, hash TEXT NOT NULL REFERENCES blobs (hash),"
           "  created_ms INTEGER NOT NULL, expires_ms INTEGER);"
           "CREATE INDEX files_tenant ON files (tenant, seq);"
           "CREATE INDEX files_hash ON files (hash);"
           "CREATE INDEX files_expires ON files (expires_ms) WHERE expires_ms IS NOT NULL"}};
}

// ---- uploads ------------------------------------------------------------------------------------

Upload::~Upload() {
  files_.incoming_bytes_ -= counted_;
}

Status Upload::open() {
  auto writer = BlobWriter::create(files_.blobs_.tmp_folder());
  if (!writer) return writer.error();
  writer_ = std::move(*writer);
  return {};
}

Status Upload::write(std::string_view bytes) {
  if (!writer_) {
    if (Status s = open(); !s) return s;
  }
  const FilesOptions& options = files_.options_;
  if (is_bounded_ && writer_->bytes() + bytes.size() > options.file_bytes_max) {
    return Error{Code::kTooLarge,
                 "the file is over " + std::to_string(options.file_bytes_max) +
                     " bytes, which is "
                     "the most that this server takes",
                 "file"};
  }
  counted_ += bytes.size();
  const std::uint64_t all = files_.stored_bytes_ + (files_.incoming_bytes_ += bytes.size());
  if (is_bounded_ && all > options.store_bytes_max) {
    return Error{Code::kTooLarge,
                 "the store is full: all files together may have " +
                     std::to_string(options.store_bytes_max) +
                     " bytes; delete some, or raise --store-bytes-max",
                 "file"};
  }
  return writer_->write(bytes);
}

Status Upload::finish() {
  if (!writer_) {
    if (Status s = open(); !s) return s;
  }
  return writer_->finish();
}

// ---- Files --------------------------------------------------------------------------------------

Files::Files(FilesOptions options, Database& database, Executor& disk, Clock& clock)
    : options_(std::move(options)),
      database_(database),
      disk_(disk),
      clock_(clock),
      blobs_(options_.folder) {}

Status Files::start() {
  if (Status s = blobs_.prepare(); !s) return s;
  Status swept = database_.call<void>([this](Sql& sql) -> Status {
    if (Status s = sql.run("DELETE FROM blobs WHERE refs <= 0"); !s) return s;
    std::set<std::string, std::less<>> wanted;
    std::uint64_t bytes = 0;
    auto rows = sql.query("SELECT hash, bytes FROM blobs");
    if (!rows) return rows.error();
    while (rows->next()) {
      wanted.insert(rows->text(0));
      bytes += static_cast<std::uint64_t>(rows->integer(1));
    }
    if (!rows->status()) return rows->status();
    stored_bytes_ = bytes;
    const std::size_t removed =
        blobs_.sweep([&wanted](const std::string& hash) { return wanted.contains(hash); });
    if (removed > 0) WS_LOG(info, "store: contents without a file removed count={}", removed);
    return {};
  });
  if (!swept) return swept;
  expire();
  return database_.every(kExpiryInterval, [this] { expire(); });
}

UploadPtr Files::begin_upload(bool is_bounded) {
  return UploadPtr(new Upload(*this, is_bounded));
}

// The blob gets one reference more, and its file is where it belongs.
Status Files::keep(Sql& sql, Upload& upload) {
  const std::string& hash = upload.writer_->hash();
  const std::uint64_t bytes = upload.bytes();
  CHECK(!hash.empty());
  // A row without references may have lost its file already.
  if (Status s = sql.run("UPDATE blobs SET refs = refs + 1 WHERE hash = ? AND refs > 0", hash); !s)
    return s;
  if (sql.changes() > 0) return {};
  if (Status s = blobs_.keep(*upload.writer_); !s) return s;
  stored_bytes_ += bytes;
  return sql.run(
      "INSERT INTO blobs (hash, bytes, refs) VALUES (?, ?, 1)"
      " ON CONFLICT (hash) DO UPDATE SET refs = 1",
      hash, bytes);
}

Result<FileRow> Files::add_in(Sql& sql, Upload& upload, const FileMeta& meta) {
  if (Status s = keep(sql, upload); !s) return s.error();
  FileRow file;
  file.id = make_object_id("file-");
  file.tenant = meta.tenant;
  file.filename = meta.filename;
  file.purpose = meta.purpose;
  file.bytes = upload.bytes();
  file.hash = upload.writer_->hash();
  file.created_ms = clock_.wall_ms();
  if (meta.expires_after_s) {
    file.expires_ms = file.created_ms + *meta.expires_after_s * 1000;
  } else if (meta.purpose == "batch" || meta.purpose == "batch_output") {
    file.expires_ms = file.created_ms + options_.batch_ttl_ms;
  }
  Status inserted = sql.run(
      "INSERT INTO files (id, tenant, filename, purpose, bytes, hash, created_ms, expires_ms)"
      " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
      file.id, file.tenant, file.filename, file.purpose, file.bytes, file.hash, file.created_ms,
      file.expires_ms);
  if (!inserted) return inserted.error();
  return file;
}

Status Files::add(UploadPtr upload, FileMeta meta, Done<FileRow> done) {
  auto is_new = std::make_shared<bool>(false);
  return database_.post<FileRow>(
      [this, upload, meta = std::move(meta), is_new](Sql& sql) -> Result<FileRow> {
        auto rows = sql.query("SELECT count(*) FROM files WHERE tenant = ?", meta.tenant);
        if (!rows) return rows.error();
        if (rows->next() && static_cast<std::size_t>(rows->integer(0)) >= options_.files_max) {
          return Error{Code::kTooLarge,
                       "there are " + std::to_string(options_.files_max) +
                           " files already, which is the most; delete some",
                       "file"};
        }
        return add_in(sql, *upload, meta);
      },
      [this, upload, done = std::move(done)](Result<FileRow> file) mutable {
        // Not committed, but perhaps moved to its name already.
        if (!file) drop_unreferenced({upload->writer_->hash()});
        done(std::move(file));
      });
}

Result<FileRow> Files::get_in(Sql& sql, const std::string& tenant, const std::string& id) const {
  auto rows = sql.query(
      "SELECT " + std::string(kColumns) +
          " FROM files WHERE id = ? AND tenant = ? AND (expires_ms IS NULL OR expires_ms > ?)",
      id, tenant, clock_.wall_ms());
  if (!rows) return rows.error();
  if (rows->next()) return row_of(*rows);
  if (!rows->status()) return rows->status().error();
  return no_such_file(id);
}

Status Files::get(std::string tenant, std::string id, Done<FileRow> done) {
  return database_.post<FileRow>([this, tenant = std::move(tenant),
                                  id = std::move(id)](Sql& sql) { return get_in(sql, tenant, id); },
                                 std::move(done));
}

Status Files::list(std::string tenant, std::string purpose, PageQuery query, Done<FilePage> done) {
  return database_.post<FilePage>(
      [this, tenant = std::move(tenant), purpose = std::move(purpose),
       query = std::move(query)](Sql& sql) -> Result<FilePage> {
        std::int64_t after = query.ascending ? 0 : std::numeric_limits<std::int64_t>::max();
        if (!query.after.empty()) {
          auto rows =
              sql.query("SELECT seq FROM files WHERE id = ? AND tenant = ?", query.after, tenant);
          if (!rows) return rows.error();
          if (!rows->next()) {
            return Error{Code::kInvalidArgument,
                         "'after' names no file: '" + utf8_prefix(query.after, 100) + "'", "after"};
          }
          after = rows->integer(0);
        }
        const std::string sql_text =
            "SELECT " + std::string(kColumns) +
            " FROM files WHERE tenant = ? AND (? = '' OR purpose = ?)"
            " AND (expires_ms IS NULL OR expires_ms > ?)" +
            (query.ascending ? " AND seq > ? ORDER BY seq" : " AND seq < ? ORDER BY seq DESC") +
            " LIMIT ?";
        auto rows =
            sql.query(sql_text, tenant, purpose, purpose, clock_.wall_ms(), after, query.limit + 1);
        if (!rows) return rows.error();
        FilePage page;
        while (rows->next()) {
          if (page.files.size() == query.limit) {
            page.has_more = true;
            break;
          }
          page.files.push_back(row_of(*rows));
        }
        if (!rows->status()) return rows->status().error();
        return page;
      },
      std::move(done));
}

Status Files::remove(std::string tenant, std::string id, Done<FileRow> done) {
  return database_.post<FileRow>(
      [this, tenant = std::move(tenant), id = std::move(id)](Sql& sql) -> Result<FileRow> {
        auto file = get_in(sql, tenant, id);
        if (!file) return file;
        if (Status s = sql.run("DELETE FROM files WHERE id = ?", id); !s) return s.error();
        if (Status s = release_reference(sql, file->hash); !s) return s.error();
        return file;
      },
      [this, done = std::move(done)](Result<FileRow> file) mutable {
        if (file) drop_unreferenced({file->hash});
        done(std::move(file));
      });
}

Result<std::unique_ptr<BlobReader>> Files::open(const FileRow& file) const {
  return open(file.hash);
}
Result<std::unique_ptr<BlobReader>> Files::open(const std::string& hash) const {
  return BlobReader::open(blobs_.path(hash));
}

// ---- references ---------------------------------------------------------------------------------

Status Files::add_reference(Sql& sql, const std::string& hash) const {
  return sql.run("UPDATE blobs SET refs = refs + 1 WHERE hash = ?", hash);
}

Status Files::release_reference(Sql& sql, const std::string& hash) const {
  return sql.run("UPDATE blobs SET refs = refs - 1 WHERE hash = ?", hash);
}

// A work of its own, so that its removal is committed before the content is gone: the row first,
// the file once that is durable, and only if no row came back meanwhile.
void Files::drop_unreferenced(std::vector<std::string> hashes) {
  struct Dropped {
    std::vector<std::string> hashes;
  };
  (void)database_.post<Dropped>(
      [this, hashes = std::move(hashes)](Sql& sql) -> Result<Dropped> {
        Dropped dropped;
        for (const std::string& hash : hashes) {
          if (Status s = sql.run("DELETE FROM blobs WHERE hash = ? AND refs <= 0", hash); !s)
            return s.error();
          auto rows = sql.query("SELECT 1 FROM blobs WHERE hash = ?", hash);
          if (!rows) return rows.error();
          if (!rows->next()) dropped.hashes.push_back(hash);
        }
        return dropped;
      },
      [this](Result<Dropped> dropped) {
        if (!dropped || dropped->hashes.empty()) return;
        (void)database_.post<void>(
            [this, hashes = std::move(dropped->hashes)](Sql& sql) -> Status {
              for (const std::string& hash : hashes) {
                auto rows = sql.query("SELECT 1 FROM blobs WHERE hash = ?", hash);
                if (!rows) return rows.error();
                if (!rows->next()) blobs_.remove(hash);
              }
              auto rows = sql.query("SELECT coalesce(sum(bytes), 0) FROM blobs");
              if (!rows) return rows.error();
              if (rows->next()) stored_bytes_ = static_cast<std::uint64_t>(rows->integer(0));
              return {};
            },
            [](const Status&) {});
      });
}

void Files::expire() {
  (void)database_.post<std::vector<std::string>>(
      [this](Sql& sql) -> Result<std::vector<std::string>> {
        std::vector<std::string> ids, hashes;
        {
          auto rows = sql.query(
              "SELECT id, hash FROM files WHERE expires_ms IS NOT NULL AND expires_ms <= ? LIMIT ?",
              clock_.wall_ms(), kExpiredAtOnce);
          if (!rows) return rows.error();
          while (rows->next()) {
            ids.push_back(rows->text(0));
            hashes.push_back(rows->text(1));
          }
          if (!rows->status()) return rows->status().error();
        }
        for (std::size_t i = 0; i < ids.size(); ++i) {
          if (Status s = sql.run("DELETE FROM files WHERE id = ?", ids[i]); !s) return s.error();
          if (Status s = release_reference(sql, hashes[i]); !s) return s.error();
        }
        return hashes;
      },
      [this](Result<std::vector<std::string>> hashes) {
        if (!hashes || hashes->empty()) return;
        const bool is_full = hashes->size() == kExpiredAtOnce;
        drop_unreferenced(std::move(*hashes));
        if (is_full) expire();
      });
}

}  // namespace waystation::store
