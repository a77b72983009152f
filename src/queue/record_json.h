// A queue's record as people read it (`waystation journal inspect DATA/queues`).
#pragma once

#include <string>
#include <string_view>

namespace waystation::queue {

// One line of JSON. Payloads are left out (only how many and how large) unless asked for.
std::string record_json(std::string_view record, bool with_text);

}  // namespace waystation::queue
