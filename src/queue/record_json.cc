#include "queue/record_json.h"

#include <boost/json.hpp>

#include "base/utf8.h"
#include "queue/base64.h"
#include "queue/record.h"

namespace waystation::queue {
namespace {

using boost::json::array;
using boost::json::object;

std::string_view name_of(Outcome outcome) {
  switch (outcome) {
    case Outcome::kAcked:
      return "acked";
    case Outcome::kExpired:
      return "expired";
    case Outcome::kDiscarded:
      return "discarded";
  }
  return "unknown";
}

std::string_view name_of(Priority priority) {
  switch (priority) {
    case Priority::kLow:
      return "low";
    case Priority::kNormal:
      return "normal";
    case Priority::kHigh:
      return "high";
  }
  return "unknown";
}

// [first, last] each.
array ranges_json(const Ranges& ranges) {
  array out;
  for (const Range& range : ranges) out.push_back(array{range.first, range.end() - 1});
  return out;
}

object options_json(const MessageOptions& options) {
  object out;
  if (!options.lane.empty()) out["lane"] = options.lane;
  if (options.priority != Priority::kNormal) out["priority"] = name_of(options.priority);
  if (options.not_before_ms != 0) out["not_before_ms"] = options.not_before_ms;
  if (options.deadline_ms != 0) out["deadline_ms"] = options.deadline_ms;
  return out;
}

void add_payload(object& out, const Payload& payload, bool with_text) {
  out["count"] = payload.count();
  out["bytes"] = payload.bytes().size();
  if (!with_text) return;
  array messages;
  for (std::size_t i = 0; i < payload.count(); ++i) {
    const std::string_view message = payload.message(i);
    if (is_utf8(message)) {
      messages.push_back(object{{"payload", message}});
    } else {
      messages.push_back(object{{"payload_base64", base64_encode(message)}});
    }
  }
  out["messages"] = std::move(messages);
}

// What a record holds, under its type's name.
struct Describe {
  bool with_text;
  object& out;

  object& of(const char* type, QueueId queue) const {
    object& body = (out[type] = object{}).as_object();
    body["queue"] = queue.value;
    return body;
  }
  void operator()(const Started& record) const { out["started"] = object{{"epoch", record.epoch}}; }
  void operator()(const Created& record) const {
    object& body = of("created", record.queue);
    body["tenant"] = record.tenant;
    body["name"] = record.name;
  }
  void operator()(const Configured& record) const {
    object& body = of("configured", record.queue);
    body["max_attempts"] = record.settings.attempts_max;
    body["lease_ms"] = record.settings.lease_ms;
    body["on_dead"] = record.settings.dead_blocks ? "block" : "skip";
  }
  void operator()(const Deleted& record) const { of("deleted", record.queue); }
  void operator()(const Published& record) const {
    object& body = of("published", record.queue);
    body["first"] = record.first;
    if (!record.key.empty()) body["idempotency_key"] = record.key;
    if (!record.options.empty()) {
      array options;
      for (const MessageOptions& each : record.options) options.push_back(options_json(each));
      body["options"] = std::move(options);
    }
    add_payload(body, *record.payload, with_text);
  }
  void operator()(const Carried& record) const {
    object& body = of("carried", record.queue);
    body["first"] = record.first;
    add_payload(body, *record.payload, with_text);
  }
  void operator()(const Settled& record) const {
    object& body = of("settled", record.queue);
    body["outcome"] = name_of(record.outcome);
    body["messages"] = ranges_json(record.ranges);
  }
  void operator()(const Returned& record) const {
    object& body = of("returned", record.queue);
    body["counts"] = record.counts;
    if (record.not_before_ms != 0) body["not_before_ms"] = record.not_before_ms;
    body["messages"] = ranges_json(record.ranges);
  }
  void operator()(const Died& record) const {
    object& body = of("died", record.queue);
    body["reason"] = record.reason;
    body["messages"] = ranges_json(record.ranges);
  }
  void operator()(const Revived& record) const {
    of("revived", record.queue)["messages"] = ranges_json(record.ranges);
  }
};

}  // namespace

std::string record_json(std::string_view bytes, bool with_text) {
  const auto record = decode(bytes);
  if (!record) return R"({"unreadable":true})";
  object out{{"time_ms", record->time_ms}};
  std::visit(Describe{with_text, out}, record->body);
  return boost::json::serialize(out);
}

}  // namespace waystation::queue
