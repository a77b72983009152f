// Runner::Loop::ask, for the sources that use it.
#pragma once

#include "batch/runner_loop.h"

namespace waystation::batch {

template <typename T>
void Runner::Loop::ask(Job& job, store::Work<T> work, std::function<void(Job&, Result<T>)> then) {
  const std::uint64_t generation = ++job.generation;
  auto back = [this, inbox = inbox_, id = job.id, generation,
               then = std::move(then)](Result<T> result) mutable {
    inbox->send_reserved([this, id = std::move(id), generation, then = std::move(then),
                          result = std::move(result)]() mutable {
      for (Job& found : jobs_) {
        if (found.id == id && found.generation == generation) then(found, std::move(result));
      }
    });
  };
  Status posted = database_.post<T>(std::move(work), std::move(back));
  if (posted) return;
  job.has_failed_step = true;
  back_off(job, posted.error().retry_after_ms);
}

}  // namespace waystation::batch
