// Rows of batches and of their lines' results. Functions on the database's thread (database.h);
// each belongs to whatever transaction its caller is in.
//
//   validating ─▶ in_progress ─▶ finalizing ─▶ completed
//       │  │           │              └──▶ expired        (its time ran out before)
//       │  └─▶ failed  └─▶ cancelling ──▶ cancelled
//       └────────────────────▲
//
// A line's result is written once; a second one of the same line changes nothing.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "store/database.h"
#include "store/files.h"

namespace waystation::store {

std::vector<Migration> batches_schema();

enum class BatchStatus {
  kValidating,
  kFailed,
  kInProgress,
  kFinalizing,
  kCompleted,
  kExpired,
  kCancelling,
  kCancelled,
};
inline constexpr std::size_t kBatchStatusCount = 8;

// OpenAI's name: "in_progress".
std::string_view batch_status_name(BatchStatus status);
bool is_ended(BatchStatus status);

struct BatchUsage {
  std::uint64_t input_tokens = 0;
  std::uint64_t cached_tokens = 0;
  std::uint64_t output_tokens = 0;
  std::uint64_t reasoning_tokens = 0;
};

struct BatchRow {
  std::string id;  // "batch_…"
  std::string tenant;
  std::string endpoint;
  std::string input_file_id;
  std::string input_hash;  // of its content, which is kept until the batch has ended
  std::string completion_window;
  std::string metadata;  // a JSON object; empty: none
  std::optional<std::int64_t> output_expires_after_s;
  BatchStatus status = BatchStatus::kValidating;
  std::string errors;  // of a failed one: a JSON array
  std::string model;   // of all lines, when it is the same
  std::string output_file_id;
  std::string error_file_id;
  TimeMs created_ms = 0;
  TimeMs expires_ms = 0;
  std::array<TimeMs, kBatchStatusCount> since_ms{};  // when it came to each status; 0: never
  std::uint64_t total = 0;
  std::uint64_t completed = 0;
  std::uint64_t failed = 0;
  BatchUsage usage;

  TimeMs since(BatchStatus s) const { return since_ms[static_cast<std::size_t>(s)]; }
};

struct BatchPage {
  std::vector<BatchRow> batches;
  bool has_more = false;
};

// `row.input_hash` gets a reference. kQueueFull: the tenant has `live_max` that haven't ended.
Status insert_batch(Sql& sql, const Files& files, const BatchRow& row, std::size_t live_max);
// kNotFound also for another tenant's. `tenant` null: anybody's.
Result<BatchRow> find_batch(Sql& sql, const std::string* tenant, const std::string& id);
Result<BatchPage> list_batches(Sql& sql, const std::string& tenant, const PageQuery& query);
// Ids of all that haven't ended, the oldest first.
Result<std::vector<std::string>> unended_batches(Sql& sql);

// False: it isn't in a status that this may follow (it was cancelled meanwhile); nothing is
// changed.
Result<bool> set_batch_status(Sql& sql, const std::string& id, BatchStatus status, TimeMs now_ms);
Status set_batch_lines(Sql& sql, const std::string& id, std::uint64_t total,
                       const std::string& model);
Status set_batch_errors(Sql& sql, const std::string& id, const std::string& errors);
// The end of a batch that ran: its files (empty: none), and its lines' results go.
Status end_batch(Sql& sql, const std::string& id, const std::string& output_file_id,
                 const std::string& error_file_id, std::uint64_t completed, std::uint64_t failed);

struct LineResult {
  std::uint64_t line = 0;  // from 1
  std::string request_id;  // empty: it never became a request
  int http_status = 0;     // 0: accepted, and no outcome yet
  std::string body;        // JSON
  BatchUsage usage;
};

// The line was accepted as a request: what to cancel if the batch is.
Status note_batch_line(Sql& sql, const std::string& id, std::uint64_t line,
                       std::string_view request_id);
// Counts it as completed (status 200) or failed. False: the line had an outcome already.
Result<bool> set_batch_line(Sql& sql, const std::string& id, const LineResult& result);
// Of lines after `after`, in order, with bodies: as many as have about `bytes_max` together.
Result<std::vector<LineResult>> batch_results(Sql& sql, const std::string& id, std::uint64_t after,
                                              std::size_t bytes_max);
// All lines that are known, in order, without bodies.
Result<std::vector<LineResult>> batch_lines(Sql& sql, const std::string& id);

}  // namespace waystation::store
