// Requests that used up their attempts: GET /v1/requests?state=dead, and POST …/requeue, …/discard.
// Requeueing answers {"id": the new request's, "object": "request.requeued", "requeue_of": "…"},
// the second time as the first; discarding, with the request as it is then.
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/utf8.h"
#include "front/deps.h"
#include "front/handlers.h"
#include "front/on_loop.h"
#include "front/paging.h"
#include "front/sink.h"

namespace waystation::front {
namespace {

constexpr std::size_t kPageDefault = 20;
constexpr std::size_t kPageMax = 100;

// What a page shows of a letter.
struct Letter {
  std::string id;
  std::string json;
};

void append_letter(std::string& out, const Letter& letter) {
  out += letter.json;
}

// Where the page begins; none: with the newest.
Result<std::optional<RequestId>> after_of(const store::PageQuery& page) {
  if (page.ascending) {
    return Error{Code::kInvalidArgument, "order must be 'desc': the newest come first", "order"};
  }
  if (page.after.empty()) return std::optional<RequestId>();
  const auto id = RequestId::parse(page.after);
  if (id) return id;
  return Error{Code::kInvalidArgument,
               "'after' names no dead letter: '" + utf8_prefix(page.after, 100) + "'", "after"};
}

}  // namespace

void handle_requests(const Deps& deps, ExchangePtr exchange) {
  const Request& request = exchange->request();
  if (request.query_value("state") != "dead") {
    return exchange->reply(Error{Code::kInvalidArgument,
                                 "state must be 'dead': only dead letters can be listed", "state"});
  }
  const auto page = page_query(request, kPageDefault, kPageMax);
  if (!page) return exchange->reply(page.error());
  const auto after = after_of(*page);
  if (!after) return exchange->reply(after.error());
  using Views = std::vector<broker::RequestView>;
  // One more than is shown tells whether there are more.
  const auto status = deps.api.dead_letters(
      request.tenant, *after, page->limit + 1,
      value_on_loop<Views>(exchange, [exchange, limit = page->limit](Views views) {
        const bool has_more = views.size() > limit;
        if (has_more) views.resize(limit);
        std::vector<Letter> letters;
        for (const broker::RequestView& view : views) {
          letters.push_back({view.id.to_string(), request_json(view, "", "")});
        }
        exchange->reply(page_response(letters, has_more, append_letter));
      }));
  if (!status) exchange->reply(status.error());
}

void handle_request_requeue(const Deps& deps, ExchangePtr exchange) {
  const auto id = request_id_of(exchange->request());
  if (!id) return exchange->reply(id.error());
  const auto status = deps.api.requeue(
      exchange->request().tenant, *id,
      value_on_loop<broker::Submitted>(exchange, [exchange, id = *id](broker::Submitted made) {
        exchange->set_request_id(made.id.to_string());
        exchange->reply(Response{.body = "{\"id\":\"" + made.id.to_string() +
                                         "\",\"object\":\"request.requeued\",\"requeue_of\":\"" +
                                         id.to_string() + "\"}"});
      }));
  if (!status) exchange->reply(status.error());
}

void handle_request_discard(const Deps& deps, ExchangePtr exchange) {
  const auto id = request_id_of(exchange->request());
  if (!id) return exchange->reply(id.error());
  exchange->set_request_id(id->to_string());
  const auto status = deps.api.discard(
      exchange->request().tenant, *id,
      value_on_loop<broker::RequestView>(exchange, [exchange](const broker::RequestView& view) {
        exchange->reply(Response{.body = request_json(view, "", "")});
      }));
  if (!status) exchange->reply(status.error());
}

}  // namespace waystation::front
