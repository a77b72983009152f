#include "store/files.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>

#include "base/thread_executor.h"
#include "store/batches.h"

namespace waystation::store {
namespace {

namespace fs = std::filesystem;

class FilesTest : public testing::Test {
 protected:
  FilesTest() {
    char name[] = "/tmp/ws_files_test.XXXXXX";
    options_.folder = ::mkdtemp(name);
    open();
  }
  ~FilesTest() override {
    close();
    fs::remove_all(options_.folder);
  }
  void open() {
    std::vector<Migration> schema = files_schema();
    for (Migration& step : batches_schema()) schema.push_back(std::move(step));
    auto database = Database::open({.path = options_.folder + "/store.db"}, schema);
    ASSERT_TRUE(database) << database.error().message;
    database_ = std::move(*database);
    files_ = std::make_unique<Files>(options_, *database_, disk_, clock_);
    ASSERT_TRUE(files_->start());
  }
  void close() {
    if (database_) database_->stop();
    files_.reset();
    database_.reset();
  }
  void reopen() {
    close();
    open();
  }

  template <typename T>
  static Result<T> wait(std::function<Status(Done<T>)> call) {
    std::promise<Result<T>> promise;
    if (Status s = call([&promise](Result<T> r) { promise.set_value(std::move(r)); }); !s)
      return s.error();
    return promise.get_future().get();
  }
  Result<FileRow> upload(const std::string& body, const std::string& tenant = "t",
                         std::optional<std::int64_t> expires_after_s = {}) {
    UploadPtr upload = files_->begin_upload();
    if (Status s = upload->write(body); !s) return s.error();
    if (Status s = upload->finish(); !s) return s.error();
    return wait<FileRow>([&](Done<FileRow> done) {
      return files_->add(upload, {tenant, "name.txt", "user_data", expires_after_s},
                         std::move(done));
    });
  }
  Result<FileRow> get(const std::string& id, const std::string& tenant = "t") {
    return wait<FileRow>([&](Done<FileRow> d) { return files_->get(tenant, id, std::move(d)); });
  }
  Result<FileRow> remove(const std::string& id, const std::string& tenant = "t") {
    auto removed =
        wait<FileRow>([&](Done<FileRow> d) { return files_->remove(tenant, id, std::move(d)); });
    settle();
    return removed;
  }
  Result<FilePage> list(PageQuery query, const std::string& purpose = "") {
    return wait<FilePage>(
        [&](Done<FilePage> d) { return files_->list("t", purpose, query, std::move(d)); });
  }
  std::string content(const FileRow& file) {
    auto reader = files_->open(file);
    if (!reader) return "cannot be opened";
    std::string out;
    while ((*reader)->read(out, 3).value()) {
    }
    return out;
  }
  // What was posted by callbacks is done.
  void settle() {
    for (int i = 0; i < 3; ++i) {
      ASSERT_TRUE(database_->call<void>([](Sql&) -> Status { return {}; }));
    }
  }
  std::size_t files_in(const std::string& folder) {
    std::size_t count = 0;
    for (const auto& entry : fs::recursive_directory_iterator(options_.folder + folder))
      count += entry.is_regular_file() ? 1 : 0;
    return count;
  }

  FilesOptions options_;
  ManualClock clock_;
  ThreadExecutor disk_{1};
  std::unique_ptr<Database> database_;
  std::unique_ptr<Files> files_;
};

TEST_F(FilesTest, KeepsAFileOverARestart) {
  const auto made = upload("hello");
  ASSERT_TRUE(made) << made.error().message;
  EXPECT_EQ(made->hash, "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
  reopen();
  const auto got = get(made->id);
  ASSERT_TRUE(got);
  EXPECT_EQ(got->bytes, 5u);
  EXPECT_EQ(got->filename, "name.txt");
  EXPECT_EQ(content(*got), "hello");
}

TEST_F(FilesTest, AnEmptyFileIsAFile) {
  const auto made = upload("");
  ASSERT_TRUE(made) << made.error().message;
  EXPECT_EQ(content(*made), "");
}

TEST_F(FilesTest, TheSameContentIsStoredOnce) {
  const auto first = upload("same");
  const auto second = upload("same", "other");
  ASSERT_TRUE(first && second);
  EXPECT_EQ(files_in("/blobs"), 1u);
  ASSERT_TRUE(remove(first->id));
  EXPECT_EQ(files_in("/blobs"), 1u);
  EXPECT_EQ(content(*second), "same");
  ASSERT_TRUE(remove(second->id, "other"));
  EXPECT_EQ(files_in("/blobs"), 0u);
  // And comes back.
  const auto third = upload("same");
  ASSERT_TRUE(third);
  EXPECT_EQ(content(*third), "same");
}

TEST_F(FilesTest, TenantsDoNotSeeEachOther) {
  const auto made = upload("secret");
  EXPECT_EQ(get(made->id, "other").error().code, Code::kNotFound);
  EXPECT_EQ(remove(made->id, "other").error().code, Code::kNotFound);
  EXPECT_TRUE(get(made->id));
}

TEST_F(FilesTest, WhatACrashLeavesIsRemovedAtTheStart) {
  const auto kept = upload("kept");
  UploadPtr unfinished = files_->begin_upload();
  ASSERT_TRUE(unfinished->write("half"));
  fs::create_directories(options_.folder + "/blobs/ab");
  const std::string orphan = options_.folder + "/blobs/ab/ab" + std::string(62, '0');
  std::ofstream(orphan) << "orphan";
  std::ofstream(options_.folder + "/tmp/7.7") << "left over";
  unfinished.reset();
  reopen();
  EXPECT_FALSE(fs::exists(orphan));
  EXPECT_EQ(files_in("/tmp"), 0u);
  EXPECT_EQ(content(*kept), "kept");
}

TEST_F(FilesTest, AnUploadThatIsGivenUpLeavesNothing) {
  {
    UploadPtr upload = files_->begin_upload();
    ASSERT_TRUE(upload->write(std::string(1 << 20, 'x')));
    EXPECT_EQ(files_in("/tmp"), 1u);
  }
  EXPECT_EQ(files_in("/tmp"), 0u);
}

TEST_F(FilesTest, PagesAndPurposes) {
  std::vector<std::string> ids;
  for (int i = 0; i < 5; ++i) ids.push_back(upload("x" + std::to_string(i))->id);
  ASSERT_TRUE(upload("theirs", "other"));
  const auto ids_of = [](const Result<FilePage>& page) {
    std::vector<std::string> out;
    for (const FileRow& file : page.value().files) out.push_back(file.id);
    return out;
  };
  auto page = list({.limit = 2});
  EXPECT_EQ(ids_of(page), (std::vector{ids[4], ids[3]}));
  EXPECT_TRUE(page->has_more);
  page = list({.limit = 5, .after = ids[3]});
  EXPECT_EQ(ids_of(page), (std::vector{ids[2], ids[1], ids[0]}));
  EXPECT_FALSE(page->has_more);
  page = list({.limit = 3, .ascending = true});
  EXPECT_EQ(ids_of(page), (std::vector{ids[0], ids[1], ids[2]}));
  EXPECT_EQ(list({.limit = 10}, "batch")->files.size(), 0u);
  EXPECT_EQ(list({.limit = 10}, "user_data")->files.size(), 5u);
  EXPECT_EQ(list({.after = "file-unknown"}).error().param, "after");
}

TEST_F(FilesTest, ExpiredFilesAreGoneAtOnceAndThenRemoved) {
  const auto brief = upload("brief", "t", 3600);
  const auto lasting = upload("lasting");
  clock_.advance_ms(3'599'000);
  EXPECT_TRUE(get(brief->id));
  clock_.advance_ms(2'000);
  EXPECT_EQ(get(brief->id).error().code, Code::kNotFound);
  EXPECT_EQ(list({})->files.size(), 1u);
  files_->expire();
  settle();
  EXPECT_EQ(files_in("/blobs"), 1u);
  EXPECT_EQ(content(*lasting), "lasting");
}

TEST_F(FilesTest, BoundsOfAFileAndOfTheStore) {
  close();
  options_.file_bytes_max = 100;
  options_.store_bytes_max = 150;
  open();
  const auto large = upload(std::string(101, 'x'));
  ASSERT_FALSE(large);
  EXPECT_EQ(large.error().code, Code::kTooLarge);
  EXPECT_NE(large.error().message.find("100 bytes"), std::string::npos) << large.error().message;
  const auto first = upload(std::string(100, 'a'));
  ASSERT_TRUE(first);
  const auto full = upload(std::string(60, 'b'));
  ASSERT_FALSE(full);
  EXPECT_NE(full.error().message.find("the store is full"), std::string::npos);
  // What the server makes itself has room, and a removal makes room.
  UploadPtr own = files_->begin_upload(false);
  EXPECT_TRUE(own->write(std::string(200, 'c')));
  own.reset();
  ASSERT_TRUE(remove(first->id));
  EXPECT_TRUE(upload(std::string(60, 'b')));
}

TEST_F(FilesTest, UploadsUnderWayCountTowardsTheStore) {
  close();
  options_.store_bytes_max = 150;
  open();
  UploadPtr first = files_->begin_upload();
  UploadPtr second = files_->begin_upload();
  ASSERT_TRUE(first->write(std::string(100, 'a')));
  EXPECT_FALSE(second->write(std::string(100, 'b')));
  first.reset();
  second.reset();
  EXPECT_TRUE(upload(std::string(100, 'c')));
}

TEST_F(FilesTest, TooManyFilesOfATenant) {
  close();
  options_.files_max = 2;
  open();
  EXPECT_TRUE(upload("a"));
  EXPECT_TRUE(upload("b"));
  EXPECT_EQ(upload("c").error().code, Code::kTooLarge);
  EXPECT_TRUE(upload("c", "other"));
  settle();
  EXPECT_EQ(files_in("/blobs"), 3u);
}

TEST_F(FilesTest, ContentStaysWhileABatchReadsIt) {
  const auto input = upload("lines");
  BatchRow row;
  row.id = "batch_1";
  row.tenant = "t";
  row.input_file_id = input->id;
  row.input_hash = input->hash;
  row.created_ms = 1;
  ASSERT_TRUE(database_->call<void>([&](Sql& sql) { return insert_batch(sql, *files_, row, 1); }));
  ASSERT_TRUE(remove(input->id));
  EXPECT_EQ(files_in("/blobs"), 1u);
  reopen();
  EXPECT_TRUE(files_->open(input->hash));
  ASSERT_TRUE(
      database_->call<void>([&](Sql& sql) { return files_->release_reference(sql, input->hash); }));
  files_->drop_unreferenced({input->hash});
  settle();
  EXPECT_EQ(files_in("/blobs"), 0u);
}

// ---- rows of batches ----------------------------------------------------------------------------

class BatchRows : public FilesTest {
 protected:
  BatchRow make(const std::string& id, const std::string& tenant = "t") {
    const auto input = upload("lines of " + id, tenant);
    BatchRow row;
    row.id = id;
    row.tenant = tenant;
    row.endpoint = "/v1/x";
    row.input_file_id = input->id;
    row.input_hash = input->hash;
    row.created_ms = 7;
    row.expires_ms = 8;
    row.metadata = "{\"a\":\"b\"}";
    EXPECT_TRUE(insert(row));
    return row;
  }
  Status insert(const BatchRow& row, std::size_t live_max = 10) {
    return database_->call<void>(
        [&](Sql& sql) { return insert_batch(sql, *files_, row, live_max); });
  }
  bool set(const std::string& id, BatchStatus status, TimeMs now = 100) {
    return database_->call<bool>([&](Sql& sql) { return set_batch_status(sql, id, status, now); })
        .value();
  }
  Result<BatchRow> find(const std::string& id, const std::string& tenant = "t") {
    return database_->call<BatchRow>([&](Sql& sql) { return find_batch(sql, &tenant, id); });
  }
  bool set_line(const std::string& id, std::uint64_t line, int status, std::string body = "{}") {
    return database_
        ->call<bool>([&](Sql& sql) {
          return set_batch_line(sql, id, {line, "r", status, body, {1, 2, 3, 4}});
        })
        .value();
  }
};

TEST_F(BatchRows, StatusesFollowTheirOrder) {
  using enum BatchStatus;
  make("b");
  EXPECT_FALSE(set("b", kFinalizing));
  EXPECT_FALSE(set("b", kCompleted));
  EXPECT_TRUE(set("b", kInProgress, 11));
  EXPECT_FALSE(set("b", kInProgress));
  EXPECT_FALSE(set("b", kFailed));
  EXPECT_TRUE(set("b", kFinalizing, 12));
  EXPECT_FALSE(set("b", kCancelling));
  EXPECT_TRUE(set("b", kCompleted, 13));
  EXPECT_FALSE(set("b", kCancelled));
  reopen();
  const auto row = find("b");
  ASSERT_TRUE(row);
  EXPECT_EQ(row->status, kCompleted);
  EXPECT_EQ(row->since(kInProgress), 11);
  EXPECT_EQ(row->since(kFinalizing), 12);
  EXPECT_EQ(row->since(kCompleted), 13);
  EXPECT_EQ(row->since(kFailed), 0);
  EXPECT_EQ(row->since(kCancelled), 0);
  EXPECT_EQ(row->metadata, "{\"a\":\"b\"}");
  EXPECT_EQ(find("b", "other").error().code, Code::kNotFound);
}

TEST_F(BatchRows, ALineHasOneOutcome) {
  make("b");
  ASSERT_TRUE(database_->call<void>([](Sql& sql) { return note_batch_line(sql, "b", 3, "id"); }));
  EXPECT_TRUE(set_line("b", 3, 200, "{\"first\":1}"));
  EXPECT_FALSE(set_line("b", 3, 500, "{\"second\":1}"));
  EXPECT_TRUE(set_line("b", 1, 404));
  // A note that comes late takes nothing back.
  ASSERT_TRUE(database_->call<void>([](Sql& sql) { return note_batch_line(sql, "b", 1, "id"); }));
  const auto row = find("b");
  EXPECT_EQ(row->completed, 1u);
  EXPECT_EQ(row->failed, 1u);
  EXPECT_EQ(row->usage.output_tokens, 6u);
  const auto results = database_->call<std::vector<LineResult>>(
      [](Sql& sql) { return batch_results(sql, "b", 0, 1000); });
  ASSERT_EQ(results->size(), 2u);
  EXPECT_EQ((*results)[0].line, 1u);
  EXPECT_EQ((*results)[1].body, "{\"first\":1}");
}

TEST_F(BatchRows, ResultsComeInPartsOfABoundedSize) {
  make("b");
  for (std::uint64_t line = 1; line <= 20; ++line) set_line("b", line, 200, std::string(1000, 'x'));
  std::uint64_t last = 0;
  int parts = 0;
  for (;; ++parts) {
    const auto results = database_->call<std::vector<LineResult>>(
        [&](Sql& sql) { return batch_results(sql, "b", last, 5000); });
    if (results->empty()) break;
    EXPECT_LE(results->size(), 5u);
    EXPECT_EQ(results->front().line, last + 1);
    last = results->back().line;
  }
  EXPECT_EQ(last, 20u);
  EXPECT_EQ(parts, 4);
}

TEST_F(BatchRows, ListsAndBounds) {
  make("b1");
  make("b2");
  BatchRow third = make("b3");
  make("theirs", "other");
  const auto list = [&](PageQuery query) {
    std::string out;
    const auto page =
        database_->call<BatchPage>([&](Sql& sql) { return list_batches(sql, "t", query); });
    if (!page) return page.error().param;
    for (const BatchRow& row : page->batches) out += row.id + " ";
    return out + (page->has_more ? "…" : "");
  };
  EXPECT_EQ(list({.limit = 2}), "b3 b2 …");
  EXPECT_EQ(list({.limit = 2, .after = "b2"}), "b1 ");
  EXPECT_EQ(list({.after = "theirs"}), "after");
  third.id = "b4";
  const Status refused = insert(third, 3);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::kQueueFull);
  EXPECT_TRUE(set("b1", BatchStatus::kFailed));
  EXPECT_TRUE(insert(third, 3));
  const auto unended = database_->call<std::vector<std::string>>(unended_batches);
  EXPECT_EQ(*unended, (std::vector<std::string>{"b2", "b3", "theirs", "b4"}));
}

}  // namespace
}  // namespace waystation::store
