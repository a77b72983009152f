// The end of a batch: the outcomes of its lines become files, in the order of the lines, a part at
// a time. Only the last step is visible, and it is one transaction, so a crash begins it anew.
#include "base/log.h"
#include "batch/ask.h"
#include "message/json.h"

namespace waystation::batch {

using store::BatchStatus;
using store::Sql;

namespace {

constexpr std::size_t kChunkBytes = 4 << 20;
constexpr int kSliceLines = 1000;

struct Ended {
  BatchStatus status{};
};

}  // namespace

void Runner::Loop::finalize(Job& job) {
  job.phase = Job::Phase::kFinalizing;
  job.input.reset();
  if (job.cancelling || job.row.status == BatchStatus::kFinalizing) return begin_assembly(job);
  ask<bool>(
      job,
      [id = job.id, now_ms = clock_.wall_ms()](Sql& sql) {
        return store::set_batch_status(sql, id, BatchStatus::kFinalizing, now_ms);
      },
      [this](Job& found, Result<bool> is_set) {
        if (!is_set) return fail_step(found, is_set.error());
        if (*is_set) {
          found.row.status = BatchStatus::kFinalizing;
        } else {
          found.cancelling = true;  // meanwhile
        }
        begin_assembly(found);
      });
}

void Runner::Loop::begin_assembly(Job& job) {
  Assembly& assembly = job.assembly.emplace();
  assembly.output = files_.begin_upload(false);
  assembly.errors = files_.begin_upload(false);
  ++job.generation;
  // Cancelled before anybody knew that its lines are lines.
  if (!job.is_validated) return end_assembly(job);
  auto input = open_input(job);
  if (!input) return fail_step(job, input.error());
  assembly.input.emplace(std::move(*input));
  auto first = assembly.input->next();
  if (!first) return fail_step(job, first.error());
  assembly.line = *first;
  assemble_some(job);
}

void Runner::Loop::assemble_some(Job& job) {
  Assembly& assembly = *job.assembly;
  if (!assembly.line) return end_assembly(job);
  if (assembly.taken < assembly.results.size() || assembly.has_all) {
    auto is_over = write_lines(job);
    if (!is_over) return fail_step(job, is_over.error());
    return go_on(job, &Loop::assemble_some);
  }
  ask<std::vector<store::LineResult>>(
      job,
      [id = job.id, last = assembly.last](Sql& sql) {
        return store::batch_results(sql, id, last, kChunkBytes);
      },
      [this](Job& found, Result<std::vector<store::LineResult>> results) {
        if (!results) return fail_step(found, results.error());
        found.assembly->results = std::move(*results);
        found.assembly->taken = 0;
        found.assembly->has_all = found.assembly->results.empty();
        assemble_some(found);
      });
}

// Writes lines while it is known what came of them. True: that was the last one.
Result<bool> Runner::Loop::write_lines(Job& job) {
  Assembly& assembly = *job.assembly;
  for (int n = 0; n < kSliceLines && assembly.line; ++n) {
    const store::LineResult* result = nullptr;
    if (assembly.taken < assembly.results.size()) {
      result = &assembly.results[assembly.taken];
      if (result->line != assembly.line->number) result = nullptr;
    } else if (!assembly.has_all) {
      return false;
    }
    if (Status s = write_line(job, result); !s) return s.error();
    if (result != nullptr) {
      assembly.last = result->line;
      ++assembly.taken;
    }
    auto next = assembly.input->next();
    if (!next) return next.error();
    assembly.line = *next;
  }
  return !assembly.line;
}

// `result` null: the line has none.
Status Runner::Loop::write_line(Job& job, const store::LineResult* result) {
  Assembly& assembly = *job.assembly;
  const auto line = message::parse_batch_line(assembly.input->text(), job.row.endpoint);
  const std::string custom_id = line ? line->custom_id : "";
  // "batch_…" and the line's number: the same however often this is done.
  std::string out = "{\"id\":\"batch_req_" + job.id.substr(job.id.find('_') + 1) + "_" +
                    std::to_string(assembly.line->number) +
                    "\",\"custom_id\":" + message::json_string(custom_id) + ",\"response\":";
  if (result != nullptr) {
    out += "{\"status_code\":" + std::to_string(result->http_status) +
           ",\"request_id\":" + message::json_string(result->request_id) +
           ",\"body\":" + result->body + "},\"error\":null}\n";
  } else if (job.cancelling) {
    out +=
        "null,\"error\":{\"code\":\"batch_cancelled\",\"message\":\"The batch was cancelled "
        "before this line was answered.\"}}\n";
  } else {
    out +=
        "null,\"error\":{\"code\":\"batch_expired\",\"message\":\"The batch's completion window "
        "ended before this line was answered.\"}}\n";
  }
  const bool is_good = result != nullptr && result->http_status == 200;
  (is_good ? assembly.completed : assembly.failed) += 1;
  assembly.unfinished += result == nullptr ? 1 : 0;
  return (is_good ? assembly.output : assembly.errors)->write(out);
}

void Runner::Loop::end_assembly(Job& job) {
  Assembly& assembly = *job.assembly;
  for (const auto& [upload, lines] : {std::pair(assembly.output, assembly.completed),
                                      std::pair(assembly.errors, assembly.failed)}) {
    if (lines == 0) continue;
    if (Status s = upload->finish(); !s) return fail_step(job, s.error());
  }
  BatchStatus status = BatchStatus::kCompleted;
  if (assembly.unfinished > 0) status = BatchStatus::kExpired;
  if (job.cancelling) status = BatchStatus::kCancelled;
  ask<Ended>(
      job,
      [&files = files_, row = job.row, output = assembly.output, errors = assembly.errors,
       completed = assembly.completed, failed = assembly.failed, status,
       now_ms = clock_.wall_ms()](Sql& sql) -> Result<Ended> {
        const auto add = [&](const store::UploadPtr& upload, std::uint64_t lines,
                             const char* kind) -> Result<std::string> {
          if (lines == 0) return std::string();
          auto file = files.add_in(sql, *upload,
                                   {row.tenant, row.id + "_" + kind + ".jsonl", "batch_output",
                                    row.output_expires_after_s});
          if (!file) return file.error();
          return file->id;
        };
        auto output_id = add(output, completed, "output");
        if (!output_id) return output_id.error();
        auto error_id = add(errors, failed, "error");
        if (!error_id) return error_id.error();
        if (Status s = store::end_batch(sql, row.id, *output_id, *error_id, completed, failed); !s)
          return s.error();
        if (Status s = files.release_reference(sql, row.input_hash); !s) return s.error();
        auto is_set = store::set_batch_status(sql, row.id, status, now_ms);
        if (!is_set) return is_set.error();
        if (!*is_set) return Error{Code::kInternal, "the batch is in another status"};
        return Ended{status};
      },
      [this](Job& found, Result<Ended> ended) {
        if (!ended) return fail_step(found, ended.error());
        WS_LOG(info, "batch ended batch={} status={} completed={} failed={}", found.id,
               store::batch_status_name(ended->status), found.assembly->completed,
               found.assembly->failed);
        files_.drop_unreferenced({found.row.input_hash});
        finish(found);
      });
}

}  // namespace waystation::batch
