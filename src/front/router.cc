#include "front/router.h"

#include "front/handlers.h"

namespace waystation::front {
namespace {

namespace http = boost::beast::http;

std::string_view take_segment(std::string_view& path) {
  if (path.starts_with('/')) path.remove_prefix(1);
  const std::string_view segment = path.substr(0, path.find('/'));
  path.remove_prefix(segment.size());
  return segment;
}

bool matches(std::string_view pattern, std::string_view path, std::vector<std::string>& params) {
  while (!pattern.empty() && !path.empty()) {
    const std::string_view wanted = take_segment(pattern);
    if (wanted.ends_with("...}")) {
      path.remove_prefix(1);
      if (path.empty()) return false;
      params.push_back(percent_decode(path));
      return true;
    }
    const std::string_view got = take_segment(path);
    if (wanted.starts_with('{')) {
      if (got.empty()) return false;
      params.push_back(percent_decode(got));
    } else if (wanted != got) {
      return false;
    }
  }
  return pattern.empty() && path.empty();
}

void add_method(std::string& allow, std::string_view name) {
  if (allow.find(name) != std::string::npos) return;
  if (!allow.empty()) allow += ", ";
  allow += name;
}

}  // namespace

Match Router::match(http::verb method, std::string_view path) const {
  Match out;
  if (!path.starts_with('/')) return out;
  for (const Route& route : routes_) {
    std::vector<std::string> params;
    if (!matches(route.pattern, path, params)) continue;
    if (route.method == method || (route.method == http::verb::get && method == http::verb::head)) {
      out.route = &route;
      out.params = std::move(params);
      return out;
    }
    const auto name = http::to_string(route.method);
    add_method(out.allow, {name.data(), name.size()});
    if (route.method == http::verb::get) add_method(out.allow, "HEAD");
  }
  return out;
}

Router make_router() {
  using http::verb;
  return Router({
      {verb::post, "/v1/chat/completions", handle_chat},
      {verb::post, "/v1/completions", handle_completions},
      {verb::post, "/v1/embeddings", handle_embeddings},
      {verb::post, "/v1/responses", handle_responses_create},
      {verb::get, "/v1/responses/{id}", handle_response},
      {verb::delete_, "/v1/responses/{id}", handle_response_delete},
      {verb::post, "/v1/responses/{id}/cancel", handle_response_cancel},
      {verb::get, "/v1/responses/{id}/input_items", handle_response_input_items},
      {verb::post, "/v1/conversations", handle_conversations_create},
      {verb::get, "/v1/conversations/{id}", handle_conversation},
      {verb::post, "/v1/conversations/{id}", handle_conversation_update},
      {verb::delete_, "/v1/conversations/{id}", handle_conversation_delete},
      {verb::get, "/v1/conversations/{id}/items", handle_conversation_items},
      {verb::post, "/v1/conversations/{id}/items", handle_conversation_items_create},
      {verb::get, "/v1/conversations/{id}/items/{item}", handle_conversation_item},
      {verb::delete_, "/v1/conversations/{id}/items/{item}", handle_conversation_item_delete},
      {verb::post, "/v1/files", handle_file_upload, false, true},
      {verb::get, "/v1/files", handle_files},
      {verb::get, "/v1/files/{id}", handle_file},
      {verb::get, "/v1/files/{id}/content", handle_file_content},
      {verb::delete_, "/v1/files/{id}", handle_file_delete},
      {verb::post, "/v1/batches", handle_batch_create},
      {verb::get, "/v1/batches", handle_batches},
      {verb::get, "/v1/batches/{id}", handle_batch},
      {verb::post, "/v1/batches/{id}/cancel", handle_batch_cancel},
      {verb::get, "/v1/queues", handle_queues},
      {verb::get, "/v1/queues/{name}", handle_queue},
      {verb::put, "/v1/queues/{name}", handle_queue_put},
      {verb::delete_, "/v1/queues/{name}", handle_queue_delete},
      {verb::post, "/v1/queues/{name}/messages", handle_queue_publish},
      {verb::post, "/v1/queues/{name}/leases", handle_queue_lease},
      {verb::post, "/v1/queues/{name}/ack", handle_queue_ack},
      {verb::post, "/v1/queues/{name}/nack", handle_queue_nack},
      {verb::post, "/v1/queues/{name}/extend", handle_queue_extend},
      {verb::post, "/v1/queues/{name}/terminate", handle_queue_terminate},
      {verb::get, "/v1/queues/{name}/dead_letters", handle_queue_dead_letters},
      {verb::post, "/v1/queues/{name}/dead_letters/requeue", handle_queue_requeue},
      {verb::post, "/v1/queues/{name}/dead_letters/discard", handle_queue_discard},
      {verb::get, "/v1/models", handle_models},
      {verb::get, "/v1/models/{id...}", handle_model},
      {verb::get, "/v1/requests", handle_requests},
      {verb::get, "/v1/requests/{id}", handle_request},
      {verb::delete_, "/v1/requests/{id}", handle_request_delete},
      {verb::get, "/v1/requests/{id}/events", handle_request_events},
      {verb::post, "/v1/requests/{id}/cancel", handle_request_cancel},
      {verb::post, "/v1/requests/{id}/requeue", handle_request_requeue},
      {verb::post, "/v1/requests/{id}/discard", handle_request_discard},
      {verb::get, "/healthz", handle_healthz, true},
      {verb::get, "/readyz", handle_readyz, true},
      {verb::get, "/metrics", handle_metrics, true},
  });
}

}  // namespace waystation::front
