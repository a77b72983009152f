// /v1/batches.
#include "store/batches.h"

#include "batch/runner.h"
#include "front/deps.h"
#include "front/handlers.h"
#include "front/headers.h"
#include "front/on_loop.h"
#include "front/paging.h"
#include "message/batch.h"
#include "message/json.h"

namespace waystation::front {
namespace {

using message::json_string;
using store::BatchRow;
using store::BatchStatus;

constexpr std::size_t kBatchesPageDefault = 20;
constexpr std::size_t kBatchesPageMax = 100;

std::string usage_json(const store::BatchUsage& usage) {
  return "{\"input_tokens\":" + std::to_string(usage.input_tokens) +
         ",\"input_tokens_details\":{\"cached_tokens\":" + std::to_string(usage.cached_tokens) +
         "},\"output_tokens\":" + std::to_string(usage.output_tokens) +
         ",\"output_tokens_details\":{\"reasoning_tokens\":" +
         std::to_string(usage.reasoning_tokens) +
         "},\"total_tokens\":" + std::to_string(usage.input_tokens + usage.output_tokens) + "}";
}

// Members that a batch doesn't have (yet) are left out: the API's description knows no null there.
void append_batch(std::string& out, const BatchRow& batch) {
  const auto text = [&out](const char* name, const std::string& value) {
    if (!value.empty()) out += ",\"" + std::string(name) + "\":" + json_string(value);
  };
  const auto time = [&out](const std::string& name, TimeMs ms) {
    if (ms > 0) out += ",\"" + name + "\":" + std::to_string(ms / 1000);
  };
  out += "{\"id\":" + json_string(batch.id) + ",\"object\":\"batch\"";
  text("endpoint", batch.endpoint);
  text("model", batch.model);
  if (!batch.errors.empty())
    out += ",\"errors\":{\"object\":\"list\",\"data\":" + batch.errors + "}";
  text("input_file_id", batch.input_file_id);
  text("completion_window", batch.completion_window);
  text("status", std::string(store::batch_status_name(batch.status)));
  text("output_file_id", batch.output_file_id);
  text("error_file_id", batch.error_file_id);
  time("created_at", batch.created_ms);
  time("expires_at", batch.expires_ms);
  for (const BatchStatus status :
       {BatchStatus::kInProgress, BatchStatus::kFinalizing, BatchStatus::kCompleted,
        BatchStatus::kFailed, BatchStatus::kExpired, BatchStatus::kCancelling,
        BatchStatus::kCancelled}) {
    time(std::string(store::batch_status_name(status)) + "_at", batch.since(status));
  }
  out += ",\"request_counts\":{\"total\":" + std::to_string(batch.total) +
         ",\"completed\":" + std::to_string(batch.completed) +
         ",\"failed\":" + std::to_string(batch.failed) + "},\"usage\":" + usage_json(batch.usage) +
         ",\"metadata\":" + (batch.metadata.empty() ? "null" : batch.metadata) + "}";
}

store::Done<BatchRow> answer_with_batch(const ExchangePtr& exchange) {
  return value_on_loop<BatchRow>(exchange, [exchange](const BatchRow& batch) {
    Response response;
    append_batch(response.body, batch);
    exchange->reply(std::move(response));
  });
}

// Calls `call(runner, tenant)`, whose error is the answer.
template <typename Call>
void with_batches(const Deps& deps, const ExchangePtr& exchange, Call call) {
  batch::Runner* const runner = deps.parts.batches;
  const Status status = runner == nullptr
                            ? Status(Error{Code::kUnavailable, "this server runs no batches"})
                            : call(*runner, exchange->request().tenant);
  if (!status) exchange->reply(status.error());
}

}  // namespace

void handle_batch_create(const Deps& deps, ExchangePtr exchange) {
  with_batches(deps, exchange, [&](batch::Runner& runner, const std::string& tenant) -> Status {
    auto request = message::parse_batch_request(exchange->request().body);
    if (!request) return request.error();
    auto use = read_key_use(exchange->request(), "/v1/batches");
    if (!use) return use.error();
    return runner.create(tenant, std::move(*request), std::move(*use), answer_with_batch(exchange));
  });
}

void handle_batches(const Deps& deps, ExchangePtr exchange) {
  with_batches(deps, exchange, [&](batch::Runner& runner, const std::string& tenant) -> Status {
    auto page = page_query(exchange->request(), kBatchesPageDefault, kBatchesPageMax);
    if (!page) return page.error();
    return runner.list(
        tenant, std::move(*page),
        value_on_loop<store::BatchPage>(exchange, [exchange](const store::BatchPage& found) {
          exchange->reply(page_response(found.batches, found.has_more, append_batch));
        }));
  });
}

void handle_batch(const Deps& deps, ExchangePtr exchange) {
  with_batches(deps, exchange, [&](batch::Runner& runner, const std::string& tenant) {
    return runner.get(tenant, exchange->request().params[0], answer_with_batch(exchange));
  });
}

void handle_batch_cancel(const Deps& deps, ExchangePtr exchange) {
  with_batches(deps, exchange, [&](batch::Runner& runner, const std::string& tenant) {
    return runner.cancel(tenant, exchange->request().params[0], answer_with_batch(exchange));
  });
}

}  // namespace waystation::front
