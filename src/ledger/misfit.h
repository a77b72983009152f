// What `apply` answers to a record that it can't have made itself. For the ledger's own sources.
#pragma once

#include <string>

#include "base/result.h"

namespace waystation::ledger {

inline Error misfit(const std::string& what) {
  return Error{Code::kCorruption, "a record doesn't fit the state before it: " + what};
}

}  // namespace waystation::ledger
