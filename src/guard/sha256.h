// The hash of API keys; see base/sha256.h.
#pragma once

#include "base/sha256.h"

namespace waystation::guard {

using waystation::sha256;
using waystation::sha256_hex;

}  // namespace waystation::guard
