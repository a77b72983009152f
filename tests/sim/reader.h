// Reads a stream, and has the checker judge each block.
#pragma once

#include <functional>
#include <string>
#include <utility>

#include "sim/checker.h"
#include "sim/dice.h"
#include "stream/reader.h"

namespace waystation::sim {

class JudgingReader : public stream::Reader {
 public:
  JudgingReader(Checker& checker, History& history, std::string name, RequestId id, Sequence from)
      : checker_(checker), history_(history), name_(std::move(name)), id_(id), next_(from) {}

  // Of a reader that came with its submission: known once that is answered.
  void set_id(RequestId id) { id_ = id; }
  Sequence next() const { return next_; }

  bool on_block(stream::BlockPtr block) override {
    if (block->first != next_) {
      history_.violated("I3", name_ + " was given event " + std::to_string(block->first) +
                                  " after " + std::to_string(next_) + " events");
    }
    checker_.saw_block(id_, *block);
    next_ = block->end();
    history_.note(name_ + ": has read " + std::to_string(next_) + " events");
    return true;
  }
  void on_end(const stream::Ending& ending) override {
    if (ending.sequence != next_) {
      history_.violated("I3", name_ + " was told the end at event " +
                                  std::to_string(ending.sequence) + " after " +
                                  std::to_string(next_) + " events");
    }
    checker_.saw_ending(id_, ending);
    history_.note(name_ + ": read to its end, " + v1::RequestState_Name(ending.state));
  }
  void on_interrupted(const Error& error) override {
    history_.note(name_ + ": interrupted: " + error.message);
  }

 protected:
  Checker& checker_;
  History& history_;
  const std::string name_;
  RequestId id_;
  Sequence next_;
};

}  // namespace waystation::sim
