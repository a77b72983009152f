// Failures as records have them; for the ledger's own sources.
#pragma once

#include <string>
#include <utility>

#include "base/result.h"
#include "message/proto/records.pb.h"

namespace waystation::ledger {

inline v1::Failure make_failure(Code code, std::string message) {
  v1::Failure failure;
  failure.set_code(std::string(code_name(code)));
  failure.set_message(std::move(message));
  return failure;
}

}  // namespace waystation::ledger
