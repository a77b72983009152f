// The handlers of all routes; one source file a family. Each runs on its connection's loop.
#pragma once

#include "base/ids.h"
#include "front/exchange.h"

namespace waystation::front {

struct Deps;

// create.cc
void handle_chat(const Deps& deps, ExchangePtr exchange);
void handle_completions(const Deps& deps, ExchangePtr exchange);
void handle_embeddings(const Deps& deps, ExchangePtr exchange);

// responses.cc
void handle_responses_create(const Deps& deps, ExchangePtr exchange);
void handle_response(const Deps& deps, ExchangePtr exchange);
void handle_response_cancel(const Deps& deps, ExchangePtr exchange);
void handle_response_delete(const Deps& deps, ExchangePtr exchange);
void handle_response_input_items(const Deps& deps, ExchangePtr exchange);

// conversations.cc
void handle_conversations_create(const Deps& deps, ExchangePtr exchange);
void handle_conversation(const Deps& deps, ExchangePtr exchange);
void handle_conversation_update(const Deps& deps, ExchangePtr exchange);
void handle_conversation_delete(const Deps& deps, ExchangePtr exchange);
void handle_conversation_items(const Deps& deps, ExchangePtr exchange);
void handle_conversation_items_create(const Deps& deps, ExchangePtr exchange);
void handle_conversation_item(const Deps& deps, ExchangePtr exchange);
void handle_conversation_item_delete(const Deps& deps, ExchangePtr exchange);

// files.cc
void handle_file_upload(const Deps& deps, ExchangePtr exchange);
void handle_files(const Deps& deps, ExchangePtr exchange);
void handle_file(const Deps& deps, ExchangePtr exchange);
void handle_file_content(const Deps& deps, ExchangePtr exchange);
void handle_file_delete(const Deps& deps, ExchangePtr exchange);

// batches.cc
void handle_batch_create(const Deps& deps, ExchangePtr exchange);
void handle_batches(const Deps& deps, ExchangePtr exchange);
void handle_batch(const Deps& deps, ExchangePtr exchange);
void handle_batch_cancel(const Deps& deps, ExchangePtr exchange);

// models.cc
void handle_models(const Deps& deps, ExchangePtr exchange);
void handle_model(const Deps& deps, ExchangePtr exchange);

// requests.cc
void handle_request(const Deps& deps, ExchangePtr exchange);
void handle_request_events(const Deps& deps, ExchangePtr exchange);
void handle_request_delete(const Deps& deps, ExchangePtr exchange);
void handle_request_cancel(const Deps& deps, ExchangePtr exchange);
// The id in the path; kNotFound for what can be none.
Result<RequestId> request_id_of(const Request& request);

// dead_letters.cc
void handle_requests(const Deps& deps, ExchangePtr exchange);
void handle_request_requeue(const Deps& deps, ExchangePtr exchange);
void handle_request_discard(const Deps& deps, ExchangePtr exchange);

// queues.cc
void handle_queue_publish(const Deps& deps, ExchangePtr exchange);
void handle_queue_lease(const Deps& deps, ExchangePtr exchange);
void handle_queue_ack(const Deps& deps, ExchangePtr exchange);
void handle_queue_nack(const Deps& deps, ExchangePtr exchange);
void handle_queue_extend(const Deps& deps, ExchangePtr exchange);
void handle_queue_terminate(const Deps& deps, ExchangePtr exchange);
void handle_queues(const Deps& deps, ExchangePtr exchange);
void handle_queue(const Deps& deps, ExchangePtr exchange);
void handle_queue_put(const Deps& deps, ExchangePtr exchange);
void handle_queue_delete(const Deps& deps, ExchangePtr exchange);
void handle_queue_dead_letters(const Deps& deps, ExchangePtr exchange);
void handle_queue_requeue(const Deps& deps, ExchangePtr exchange);
void handle_queue_discard(const Deps& deps, ExchangePtr exchange);

// ops.cc
void handle_healthz(const Deps& deps, ExchangePtr exchange);
void handle_readyz(const Deps& deps, ExchangePtr exchange);
void handle_metrics(const Deps& deps, ExchangePtr exchange);

}  // namespace waystation::front
