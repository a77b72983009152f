// What runs a model. A worker owns one engine and drives it from one thread:
//
//   while (running) {
//     take what the link brought: engine.start(assign), engine.cancel(fence);
//     engine.step(out);                       // one decode step for all slots together
//     link.send(out);
//   }
//
// An engine never talks to the network and keeps nothing on disk: what it was asked to do stands in
// the journal, so it may die at any moment.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "message/proto/link.pb.h"

namespace waystation::engine {

// Not thread-safe: one thread calls everything.
class Engine {
 public:
  virtual ~Engine() = default;

  virtual const std::vector<v1::ModelInfo>& models() const = 0;
  // Requests it can work on at once; the caller never starts more.
  virtual std::uint32_t slots() const = 0;

  // Takes a request, whatever its number of choices: those that find no room wait inside. Never fails
  // here: what is wrong with it comes as the `failure` of its first output (code
  // kContextLengthExceeded, kInvalidArgument: final; kInternal: another try may help).
  // Each choice goes on after assign.resume[choice], which counts as generated: sampler, grammar,
  // penalties, stop strings, parser and the token budget have seen it. Nothing that it holds is handed
  // out again; a choice with a finish_reason is not run.
  virtual void start(v1::Assign assign) = 0;

  // Drops a request; the next step reports it with `dropped`. Unknown fences are ignored.
  virtual void cancel(const v1::Fence& fence) = 0;

  // True when there is nothing to do before the next start().
  virtual bool idle() const = 0;

  // Microseconds until step() has something to do: 0 = now. Only meaningful when not idle.
  virtual std::int64_t wait_us() const = 0;

  // Runs one step and adds what came of it to `out`: at most one Output a choice. Every token id is
  // handed out, also those inside an unfinished character (their text follows with the token that
  // finishes it) and those whose text is held back because a stop string may have begun. A choice that
  // ends while others of its request go on says so with `more`.
  virtual void step(v1::Step& out) = 0;
};

}  // namespace waystation::engine
