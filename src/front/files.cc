// /v1/files. An upload goes to the disk as it comes: a piece is read, written, and only then is the
// next one read, so a file of any size takes little memory. The disk's work is done elsewhere than
// on the loop.
#include "store/files.h"

#include "base/executor.h"
#include "front/deps.h"
#include "front/handlers.h"
#include "front/multipart.h"
#include "front/on_loop.h"
#include "front/paging.h"
#include "front/upload_form.h"
#include "message/json.h"

namespace waystation::front {
namespace {

using store::FileRow;

constexpr std::size_t kReadBytes = 256 << 10;
constexpr std::size_t kFilesPageMax = 10'000;

Result<store::Files*> files_of(const Deps& deps) {
  if (deps.parts.files != nullptr) return deps.parts.files;
  return Error{Code::kUnavailable, "this server keeps no files"};
}

void append_file(std::string& out, const FileRow& file) {
  out += "{\"id\":" + message::json_string(file.id) +
         ",\"object\":\"file\",\"bytes\":" + std::to_string(file.bytes) +
         ",\"created_at\":" + std::to_string(file.created_ms / 1000);
  if (file.expires_ms) out += ",\"expires_at\":" + std::to_string(*file.expires_ms / 1000);
  out += ",\"filename\":" + message::json_string(file.filename) +
         ",\"purpose\":" + message::json_string(file.purpose) + ",\"status\":\"processed\"}";
}

Response file_response(const FileRow& file) {
  Response response;
  append_file(response.body, file);
  return response;
}

// ---- upload -------------------------------------------------------------------------------------

class FileUpload final : public BodySink,
                         public Activity,
                         public std::enable_shared_from_this<FileUpload> {
 public:
  FileUpload(store::Files& files, ExchangePtr exchange, std::string_view boundary)
      : files_(files),
        exchange_(std::move(exchange)),
        form_([this](std::string_view bytes) { to_write_ += bytes; }),
        parser_(boundary, form_),
        upload_(files.begin_upload()) {}

  // ---- BodySink
  bool on_body(std::string_view piece) override {
    if (Status s = parser_.feed(piece); !s) {
      fail(s.error());
      return false;
    }
    if (to_write_.empty()) return true;
    auto bytes = std::make_shared<std::string>(std::exchange(to_write_, {}));
    on_disk([bytes](store::Upload& upload) { return upload.write(*bytes); },
            [](FileUpload& self) { self.exchange_->resume_body(); });
    return false;
  }
  void on_body_end() override {
    if (Status s = parser_.finish(); !s) return fail(s.error());
    if (Status s = form_.finish(); !s) return fail(s.error());
    on_disk([](store::Upload& upload) { return upload.finish(); },
            [](FileUpload& self) { self.add(); });
  }
  void on_body_failed() override { let_go(); }

  // ---- Activity
  void on_sent() override {}
  void on_tick(std::int64_t) override {}
  void on_gone() override { let_go(); }
  void on_stop() override {
    fail({Code::kUnavailable, "the server is shutting down; try again in a moment", "", 1000});
  }

 private:
  // Runs `work` where the disk may be waited for, then `next` on the loop; its error is the answer.
  template <typename Work, typename Next>
  void on_disk(Work work, Next next) {
    files_.disk().run([self = shared_from_this(), upload = upload_, work, next] {
      const Status done = work(*upload);
      self->exchange_->loop()->post([self, done, next] {
        if (!self->exchange_->is_open()) return self->let_go();
        if (!done) return self->fail(done.error());
        next(*self);
      });
    });
  }

  void add() {
    store::FileMeta meta;
    meta.tenant = exchange_->request().tenant;
    meta.filename = form_.filename();
    meta.purpose = form_.purpose();
    meta.expires_after_s = form_.expires_after_s();
    const Status posted =
        files_.add(upload_, std::move(meta),
                   value_on_loop<FileRow>(exchange_, [exchange = exchange_](const FileRow& file) {
                     exchange->reply(file_response(file));
                   }));
    if (!posted) return fail(posted.error());
    upload_.reset();
  }

  void fail(const Error& error) {
    let_go();
    exchange_->reply(error);
  }

  // What was written is removed where that may take its time.
  void let_go() {
    if (!upload_) return;
    files_.disk().run([upload = std::exchange(upload_, nullptr)] {});
  }

  store::Files& files_;
  const ExchangePtr exchange_;
  UploadForm form_;
  Multipart parser_;
  store::UploadPtr upload_;
  std::string to_write_;
};

// ---- content ------------------------------------------------------------------------------------

class FileDownload final : public Activity, public std::enable_shared_from_this<FileDownload> {
 public:
  FileDownload(store::Files& files, ExchangePtr exchange, FileRow file)
      : files_(files), exchange_(std::move(exchange)), file_(std::move(file)) {}

  void start() {
    files_.disk().run([self = shared_from_this()] {
      auto reader = std::make_shared<Result<std::unique_ptr<store::BlobReader>>>(
          self->files_.open(self->file_));
      self->exchange_->loop()->post([self, reader] {
        if (!self->exchange_->is_open()) return;
        if (!*reader) return self->exchange_->reply(reader->error());
        self->reader_ = std::move(**reader);
        self->begin();
      });
    });
  }

  void on_sent() override { read_next(); }
  void on_tick(std::int64_t) override {}
  void on_gone() override {}
  void on_stop() override { exchange_->abort(); }

 private:
  void begin() {
    Response head;
    // Never to be taken for a page of this server.
    head.content_type = "application/octet-stream";
    head.headers = {{"Content-Disposition", "attachment"}, {"X-Content-Type-Options", "nosniff"}};
    exchange_->begin_stream(std::move(head));
    if (exchange_->request().method == boost::beast::http::verb::head) {
      return exchange_->end_stream(true);
    }
    read_next();
  }

  void read_next() {
    if (std::exchange(reading_, true)) return;
    files_.disk().run([self = shared_from_this()] {
      auto bytes = std::make_shared<std::string>();
      const Result<bool> more = self->reader_->read(*bytes, kReadBytes);
      self->exchange_->loop()->post([self, bytes, more] { self->on_read(*bytes, more); });
    });
  }

  void on_read(const std::string& bytes, const Result<bool>& more) {
    reading_ = false;
    if (!exchange_->is_open()) return;
    if (!more) return exchange_->abort();
    if (!*more) return exchange_->end_stream(true);
    exchange_->stream(bytes);
    if (exchange_->is_open() && exchange_->unsent_bytes() == 0) read_next();
  }

  store::Files& files_;
  const ExchangePtr exchange_;
  const FileRow file_;
  std::unique_ptr<store::BlobReader> reader_;
  bool reading_ = false;
};

// Calls `call(files, tenant)`, whose error is the answer.
template <typename Call>
void with_files(const Deps& deps, const ExchangePtr& exchange, Call call) {
  const auto files = files_of(deps);
  if (!files) return exchange->reply(files.error());
  const Status status = call(**files, exchange->request().tenant);
  if (!status) exchange->reply(status.error());
}

}  // namespace

void handle_file_upload(const Deps& deps, ExchangePtr exchange) {
  with_files(deps, exchange, [&](store::Files& files, const std::string&) -> Status {
    const auto boundary = multipart_boundary(exchange->request().header("Content-Type"));
    if (!boundary) return boundary.error();
    auto upload = std::make_shared<FileUpload>(files, exchange, *boundary);
    exchange->set_activity(upload);
    exchange->read_body(upload);
    return {};
  });
}

void handle_files(const Deps& deps, ExchangePtr exchange) {
  with_files(deps, exchange, [&](store::Files& files, const std::string& tenant) -> Status {
    auto page = page_query(exchange->request(), kFilesPageMax, kFilesPageMax);
    if (!page) return page.error();
    return files.list(
        tenant, exchange->request().query_value("purpose").value_or(""), std::move(*page),
        value_on_loop<store::FilePage>(exchange, [exchange](const store::FilePage& found) {
          exchange->reply(page_response(found.files, found.has_more, append_file));
        }));
  });
}

void handle_file(const Deps& deps, ExchangePtr exchange) {
  with_files(deps, exchange, [&](store::Files& files, const std::string& tenant) {
    return files.get(tenant, exchange->request().params[0],
                     value_on_loop<FileRow>(exchange, [exchange](const FileRow& file) {
                       exchange->reply(file_response(file));
                     }));
  });
}

void handle_file_content(const Deps& deps, ExchangePtr exchange) {
  with_files(deps, exchange, [&](store::Files& files, const std::string& tenant) {
    return files.get(tenant, exchange->request().params[0],
                     value_on_loop<FileRow>(exchange, [exchange, &files](FileRow file) {
                       auto download =
                           std::make_shared<FileDownload>(files, exchange, std::move(file));
                       exchange->set_activity(download);
                       download->start();
                     }));
  });
}

void handle_file_delete(const Deps& deps, ExchangePtr exchange) {
  with_files(deps, exchange, [&](store::Files& files, const std::string& tenant) {
    return files.remove(
        tenant, exchange->request().params[0],
        value_on_loop<FileRow>(exchange, [exchange](const FileRow& file) {
          exchange->reply(Response{.body = "{\"id\":" + message::json_string(file.id) +
                                           ",\"object\":\"file\",\"deleted\":true}"});
        }));
  });
}

}  // namespace waystation::front
