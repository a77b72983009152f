// One request as the ledger knows it.
//
//                 lease                    finish
//   accept ▶ QUEUED ─────▶ RUNNING ──────────────▶ COMPLETED
//              ▲  │            │ ├─ final failure ▶ FAILED
//              │  │            │ └─ 3 lost tries ─▶ DEAD
//              │  └─────┬──────┘
//   worker lost, server │ restarted: back to the head of its lane, next attempt
//                       └─ cancel ▶ CANCELLED, deadline ▶ EXPIRED (from both)
#pragma once

#include <cstdint>
#include <memory>
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

struct Request {
  RequestId id;
  std::string tenant;
  std::string model;
  std::string conversation;  // empty: a lane of its own
  std::string lane;          // the key of its lane
  std::string idempotency_key;
  std::string fingerprint;
  bool detached = false;
  bool stream_usage = false;
  TimeMs expiry_ms = 0;                            // 0 = none
  std::shared_ptr<const v1::Envelope> envelope;    // live requests only
  LogIndex accepted_index;                         // place in the order of lanes
  LogIndex stored_index;                           // the oldest record that is still needed
  TimeMs accepted_ms = 0;

  v1::RequestState state = v1::REQUEST_STATE_QUEUED;
  std::uint32_t attempt = 0;          // the current or last one; from 1
  std::uint32_t failed_attempts = 0;  // those that count against it
  bool token_in_attempt = false;      // the current attempt has brought a token
  WorkerId worker;                    // while running
  std::vector<v1::Attempt> attempts;  // the last kAttemptsKept of them

  Sequence event_count = 0;
  std::vector<EventPosition> positions;
  std::vector<std::uint32_t> token_ids;  // live requests: what a next attempt resumes from
  std::uint64_t text_bytes = 0;

  TimeMs first_token_ms = 0;
  TimeMs ended_ms = 0;
  std::string finish_reason;  // from the finish event on
  v1::Failure failure;
  v1::Usage usage;

  bool live() const {
    return state == v1::REQUEST_STATE_QUEUED || state == v1::REQUEST_STATE_RUNNING;
  }
  // It was there when a worker died, so it runs alone until it has shown that it is harmless.
  bool suspect() const { return failed_attempts > 0; }
};

inline constexpr std::size_t kAttemptsKept = 16;

}  // namespace waystation::ledger
