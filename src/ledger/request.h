// One request as the ledger knows it.
//
//                 lease                    finish
//   accept ▶ QUEUED ─────▶ RUNNING ──────────────▶ COMPLETED
//              ▲  │            │ ├─ final failure ▶ FAILED
//              │  │            │ └─ 3 lost tries ─▶ DEAD: a dead letter, until its owner requeues
//              it │  │            │                    (as a new request), discards it or erases it
//              │  └─────┬──────┘
//   worker lost, server │ restarted: back to the head of its lane, next attempt
//                       └─ cancel ▶ CANCELLED, deadline ▶ EXPIRED (from both)
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/ids.h"
#include "message/proto/envelope.pb.h"
#include "message/proto/records.pb.h"

namespace waystation::ledger {

// The record at `index` holds the request's events from `first` on.
struct EventPosition {
  Sequence first;
  LogIndex index;
};

// What one of a request's answers has brought; for what a next attempt resumes from.
struct Choice {
  std::vector<std::uint32_t> token_ids;
  std::string text;
  std::string reasoning;
  std::vector<v1::ToolCallDelta> tool_calls;  // joined: one per call
  std::string finish_reason;                  // from its finish event on

  bool begun() const {
    return !token_ids.empty() || !text.empty() || !reasoning.empty() || !tool_calls.empty() ||
           !finish_reason.empty();
  }
};

struct Request {
  RequestId id;
  std::string tenant;
  std::string model;
  std::string api;
  std::string conversation;  // empty: a lane of its own
  std::string lane;          // the key of its lane
  std::string idempotency_key;
  std::string fingerprint;
  std::string cache_key;
  std::int32_t priority = 0;
  std::uint32_t choice_count = 1;
  bool detached = false;
  bool stream_usage = false;
  bool compose = false;
  bool block_on_dead = false;                    // only with a conversation
  std::optional<RequestId> requeue_of;           // the dead letter that it was made of
  TimeMs expiry_ms = 0;                          // 0 = none
  std::shared_ptr<const v1::Envelope> envelope;  // live requests only
  std::uint64_t data_bytes = 0;                  // of its data; live ones, and what blocks a lane
  LogIndex accepted_index;
  LogIndex place;         // in its lane and in the order of lanes
  LogIndex stored_index;  // the oldest record that is still needed
  TimeMs accepted_ms = 0;

  v1::RequestState state = v1::REQUEST_STATE_QUEUED;
  std::uint32_t attempt = 0;          // the current or last one; from 1
  std::uint32_t failed_attempts = 0;  // those that count against it
  bool token_in_attempt = false;      // the current attempt has brought a token
  bool suspect = false;  // a worker died under it: it runs alone until it has shown to be harmless
  WorkerId worker;       // while running
  std::vector<v1::Attempt> attempts;  // the last kAttemptsKept of them

  Sequence event_count = 0;
  std::vector<EventPosition> positions;
  std::vector<Choice> choices;    // live requests: choice_count of them
  std::string token_fingerprint;  // of the model whose token ids they hold; empty: of no single one
  std::string answer_fingerprint;  // of the model of the last attempt

  TimeMs first_token_ms = 0;
  TimeMs ended_ms = 0;
  std::string finish_reason;  // of the first choice, once all have finished
  v1::Failure failure;
  v1::Usage usage;
  bool discarded = false;                // a dead letter
  std::optional<RequestId> requeued_as;  // a dead letter
  bool erased =
      false;  // its content was deleted: nothing above but its names, its key and its times

  bool live() const {
    return state == v1::REQUEST_STATE_QUEUED || state == v1::REQUEST_STATE_RUNNING;
  }
  // Dead, and nobody has dealt with it.
  bool open_letter() const {
    return state == v1::REQUEST_STATE_DEAD && !discarded && !requeued_as && !erased;
  }
  // Nothing of its lane runs, although it has ended. It keeps its place there, and its room.
  bool blocks_lane() const { return block_on_dead && open_letter(); }
  bool all_finished() const;
  bool begun() const;
  // The ids are there of all that it has brought: an upstream's text has none.
  bool holds_ids() const;
};

// The key of its lane. One without a conversation is a lane of its own, named by its id (which
// holds no NUL).
inline std::string lane_of(const Request& request) {
  return request.conversation.empty() ? request.id.to_string()
                                      : request.tenant + '\0' + request.conversation;
}

inline bool Request::all_finished() const {
  return !choices.empty() && std::all_of(choices.begin(), choices.end(), [](const Choice& choice) {
    return !choice.finish_reason.empty();
  });
}

inline bool Request::begun() const {
  return std::any_of(choices.begin(), choices.end(),
                     [](const Choice& choice) { return choice.begun(); });
}

inline bool Request::holds_ids() const {
  return std::none_of(choices.begin(), choices.end(), [](const Choice& choice) {
    return choice.token_ids.empty() &&
           (!choice.text.empty() || !choice.reasoning.empty() || !choice.tool_calls.empty());
  });
}

inline constexpr std::size_t kAttemptsKept = 16;
inline constexpr std::uint32_t kChoicesMax = 4096;  // more are a misfit, in records and commands

}  // namespace waystation::ledger
