// /v1/queues: people's own jobs (docs/queue.md). Answers come from the station when what they say
// is on disk.
#include <charconv>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <utility>

#include "front/deps.h"
#include "front/handlers.h"
#include "front/headers.h"
#include "front/loop.h"
#include "message/json.h"
#include "queue/json.h"
#include "queue/station.h"

namespace waystation::front {
namespace {

constexpr std::size_t kKeyBytesMax = 255;
constexpr std::size_t kLettersMax = 100;
constexpr std::size_t kLettersDefault = 20;

// Answers on the exchange's loop with what `body_of` makes of the value.
template <typename T, typename Make>
queue::Done<T> answer_with(const ExchangePtr& exchange, Make body_of) {
  return [exchange, body_of](Result<T> result) {
    Response response;
    if (!result) {
      response = error_response(result.error());
    } else if constexpr (std::is_void_v<T>) {
      response.body = body_of();
    } else {
      response.body = body_of(*result);
    }
    auto shared = std::make_shared<Response>(std::move(response));
    exchange->loop()->post([exchange, shared] {
      if (exchange->is_open()) exchange->reply(std::move(*shared));
    });
  };
}

// Calls `call(station, tenant, queue)`, whose error is the answer.
template <typename Call>
void with_queue(const Deps& deps, const ExchangePtr& exchange, Call call) {
  if (deps.parts.queues == nullptr) {
    return exchange->reply(Error{Code::kUnavailable, "this server keeps no queues"});
  }
  const Request& request = exchange->request();
  const std::string name = request.params.empty() ? "" : request.params[0];
  const Status status = call(*deps.parts.queues, request.tenant, name);
  if (!status) exchange->reply(status.error());
}

void settle(const Deps& deps, const ExchangePtr& exchange, queue::Action action) {
  with_queue(
      deps, exchange,
      [&](queue::Station& station, const std::string& tenant, const std::string& name) -> Status {
        auto settle = queue::parse_settle(action, exchange->request().body);
        if (!settle) return settle.error();
        const std::uint64_t lease = settle->lease;
        station.settle(tenant, name, std::move(*settle),
                       answer_with<TimeMs>(exchange, [lease](TimeMs until_ms) {
                         return queue::settled_json(lease, until_ms);
                       }));
        return {};
      });
}

std::string count_json(const char* what, std::uint64_t count) {
  return std::string("{\"object\":\"queue.dead_letters.") + what +
         "\",\"count\":" + std::to_string(count) + "}";
}

bool is_ndjson(const Request& request) {
  const std::string_view type = request.header("Content-Type");
  return type.starts_with("application/x-ndjson") || type.starts_with("application/jsonl");
}

Result<std::uint64_t> number_query(const Request& request, const char* name,
                                   std::uint64_t otherwise, std::uint64_t most) {
  const auto text = request.query_value(name);
  if (!text) return otherwise;
  std::uint64_t number = 0;
  const char* const end = text->data() + text->size();
  const auto [stop, ec] = std::from_chars(text->data(), end, number);
  if (ec == std::errc() && stop == end && number <= most) return number;
  return Error{Code::kInvalidArgument,
               std::string(name) + " must be a whole number up to " + std::to_string(most), name};
}

}  // namespace

void handle_queue_publish(const Deps& deps, ExchangePtr exchange) {
  with_queue(
      deps, exchange,
      [&](queue::Station& station, const std::string& tenant, const std::string& name) -> Status {
        const Request& request = exchange->request();
        auto key = text_header(request, "Idempotency-Key", kKeyBytesMax);
        if (!key) return key.error();
        const TimeMs now_ms = deps.clock.wall_ms();
        auto publication = is_ndjson(request) ? queue::parse_messages(request.body, now_ms)
                                              : queue::parse_message(request.body, now_ms);
        if (!publication) return publication.error();
        publication->key = std::move(*key);
        if (publication->key.empty()) publication->fingerprint.clear();
        station.publish(tenant, name, std::move(*publication),
                        answer_with<queue::Receipt>(exchange, queue::receipt_json));
        return {};
      });
}

void handle_queue_lease(const Deps& deps, ExchangePtr exchange) {
  with_queue(
      deps, exchange,
      [&](queue::Station& station, const std::string& tenant, const std::string& name) -> Status {
        const auto request = queue::parse_lease(exchange->request().body);
        if (!request) return request.error();
        station.lease(tenant, name, request->how, request->wait_ms,
                      answer_with<queue::Taken>(exchange, queue::taken_json));
        return {};
      });
}

void handle_queue_ack(const Deps& deps, ExchangePtr exchange) {
  settle(deps, exchange, queue::Action::kAck);
}
void handle_queue_nack(const Deps& deps, ExchangePtr exchange) {
  settle(deps, exchange, queue::Action::kNack);
}
void handle_queue_extend(const Deps& deps, ExchangePtr exchange) {
  settle(deps, exchange, queue::Action::kExtend);
}
void handle_queue_terminate(const Deps& deps, ExchangePtr exchange) {
  settle(deps, exchange, queue::Action::kTerminate);
}

void handle_queues(const Deps& deps, ExchangePtr exchange) {
  with_queue(deps, exchange,
             [&](queue::Station& station, const std::string& tenant, const std::string&) -> Status {
               const auto found = station.list(tenant);
               if (!found) return found.error();
               Response response{.body = "{\"object\":\"list\",\"data\":["};
               for (const queue::QueueInfo& info : *found) {
                 if (&info != &found->front()) response.body += ",";
                 response.body += queue::info_json(info, deps.clock.wall_ms());
               }
               response.body += "]}";
               exchange->reply(std::move(response));
               return {};
             });
}

void handle_queue(const Deps& deps, ExchangePtr exchange) {
  with_queue(
      deps, exchange,
      [&](queue::Station& station, const std::string& tenant, const std::string& name) -> Status {
        const auto found = station.info(tenant, name);
        if (!found) return found.error();
        exchange->reply(Response{.body = queue::info_json(*found, deps.clock.wall_ms())});
        return {};
      });
}

void handle_queue_put(const Deps& deps, ExchangePtr exchange) {
  with_queue(
      deps, exchange,
      [&](queue::Station& station, const std::string& tenant, const std::string& name) -> Status {
        station.configure(
            tenant, name,
            [exchange](queue::Settings& settings) {
              return queue::parse_settings(exchange->request().body, settings);
            },
            answer_with<queue::QueueInfo>(
                exchange, [now_ms = deps.clock.wall_ms()](const queue::QueueInfo& info) {
                  return queue::info_json(info, now_ms);
                }));
        return {};
      });
}

void handle_queue_delete(const Deps& deps, ExchangePtr exchange) {
  with_queue(
      deps, exchange,
      [&](queue::Station& station, const std::string& tenant, const std::string& name) -> Status {
        station.remove(tenant, name, answer_with<void>(exchange, [name] {
                         return "{\"object\":\"queue.deleted\",\"name\":" +
                                message::json_string(name) + ",\"deleted\":true}";
                       }));
        return {};
      });
}

void handle_queue_dead_letters(const Deps& deps, ExchangePtr exchange) {
  with_queue(
      deps, exchange,
      [&](queue::Station& station, const std::string& tenant, const std::string& name) -> Status {
        const Request& request = exchange->request();
        const auto after = number_query(request, "after", 0, UINT64_MAX);
        if (!after) return after.error();
        const auto limit = number_query(request, "limit", kLettersDefault, kLettersMax);
        if (!limit) return limit.error();
        // One more than is shown tells whether there are more.
        station.dead_letters(
            tenant, name, *after, *limit + 1,
            answer_with<std::vector<queue::DeadMessage>>(
                exchange, [limit = *limit](std::vector<queue::DeadMessage>& letters) {
                  const bool has_more = letters.size() > limit;
                  if (has_more) letters.resize(limit);
                  return queue::letters_json(letters, has_more);
                }));
        return {};
      });
}

void handle_queue_requeue(const Deps& deps, ExchangePtr exchange) {
  with_queue(
      deps, exchange,
      [&](queue::Station& station, const std::string& tenant, const std::string& name) -> Status {
        const auto ids = queue::parse_ids(exchange->request().body);
        if (!ids) return ids.error();
        station.revive(tenant, name, *ids,
                       answer_with<std::uint64_t>(exchange, [](std::uint64_t count) {
                         return count_json("requeued", count);
                       }));
        return {};
      });
}

void handle_queue_discard(const Deps& deps, ExchangePtr exchange) {
  with_queue(
      deps, exchange,
      [&](queue::Station& station, const std::string& tenant, const std::string& name) -> Status {
        const auto ids = queue::parse_ids(exchange->request().body);
        if (!ids) return ids.error();
        station.discard(tenant, name, *ids,
                        answer_with<std::uint64_t>(exchange, [](std::uint64_t count) {
                          return count_json("discarded", count);
                        }));
        return {};
      });
}

}  // namespace waystation::front
