// Answers as effects. For the broker's own sources.
#pragma once

#include <utility>

#include "broker/api.h"
#include "broker/gate.h"

namespace waystation::broker {

// Hands a result over once it is durable; a lost one becomes the error that lost it.
template <typename T>
Effect reply(Callback<T> done, Result<T> result) {
  return [done = std::move(done), result = std::move(result)](const Error* lost) {
    done(lost == nullptr ? result : Result<T>(*lost));
  };
}

}  // namespace waystation::broker
