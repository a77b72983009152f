// Callbacks of other threads' calls, brought to the exchange's loop.
#pragma once

#include <memory>
#include <utility>

#include "broker/api.h"
#include "front/exchange.h"
#include "front/loop.h"

namespace waystation::front {

// Calls `next(value)` on the exchange's loop, if its client is still there; an error is the answer.
template <typename T, typename Next>
broker::Callback<T> value_on_loop(ExchangePtr exchange, Next next) {
  return [exchange = std::move(exchange), next = std::move(next)](Result<T> result) {
    auto shared = std::make_shared<Result<T>>(std::move(result));
    exchange->loop()->post([exchange, next, shared]() mutable {
      if (!exchange->is_open()) return;
      if (!*shared) return exchange->reply(shared->error());
      if constexpr (std::is_void_v<T>) {
        next();
      } else {
        next(std::move(**shared));
      }
    });
  };
}

}  // namespace waystation::front
