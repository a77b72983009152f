// The JSON of the queues' HTTP calls (docs/queue.md). Pure bytes to types and back.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "queue/station.h"

namespace waystation::queue {

// One message, an object; or several, one object a line (NDJSON). The fingerprint is that of the
// body. kInvalidArgument with `param` ("lines[3].lane").
Result<Publication> parse_message(std::string_view body, TimeMs now_ms);
Result<Publication> parse_messages(std::string_view lines, TimeMs now_ms);

struct LeaseRequest {
  Subscription how;
  TimeMs wait_ms = 0;
};
Result<LeaseRequest> parse_lease(std::string_view body);
Result<Settle> parse_settle(Action action, std::string_view body);
// Of dead letters: {"ids":[…]} or {"all":true}, which gives none.
Result<std::vector<MessageId>> parse_ids(std::string_view body);
// Changes what the body names.
Status parse_settings(std::string_view body, Settings& settings);

std::string receipt_json(const Receipt& receipt);
std::string taken_json(const Taken& taken);
std::string settled_json(std::uint64_t lease, TimeMs until_ms);  // 0: none
std::string info_json(const QueueInfo& info, TimeMs now_ms);
std::string letters_json(const std::vector<DeadMessage>& letters, bool has_more);

}  // namespace waystation::queue
