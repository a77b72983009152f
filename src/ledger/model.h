// A naive model of the ledger, for comparison in tests: one list, searched from the start each time.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "ledger/testing.h"

namespace waystation::ledger::testing {

struct ModelRequest {
  v1::Envelope envelope;
  std::string id;  // 16 bytes
  bool stream_usage = false;
  TimeMs accepted_ms = 0;
  TimeMs ended_ms = 0;
  std::uint64_t index = 0;   // of the acceptance
  std::uint64_t stored = 0;  // of the oldest record needed
  v1::RequestState state = v1::REQUEST_STATE_QUEUED;
  std::uint32_t attempt = 0;
  std::uint32_t failed = 0;
  bool new_token = false;
  std::uint64_t worker = 0;
  std::vector<std::uint32_t> tokens;
  std::vector<std::string> events;  // "start 5", "delta 1,2 text", "finish stop", "usage 5 2"
  std::uint32_t prompt_tokens = 0;

  bool live() const {
    return state == v1::REQUEST_STATE_QUEUED || state == v1::REQUEST_STATE_RUNNING;
  }
  std::string lane() const {
    return envelope.partitionkey().empty() ? id : envelope.tenant() + "\n" + envelope.partitionkey();
  }
};

inline std::string describe(const v1::Event& event) {
  std::string text;
  switch (event.kind()) {
    case v1::EVENT_KIND_START: return "start " + std::to_string(event.usage().prompt_tokens());
    case v1::EVENT_KIND_DELTA:
      text = "delta ";
      for (const std::uint32_t token : event.token_ids()) text += std::to_string(token) + ",";
      return text + " " + event.text();
    case v1::EVENT_KIND_FINISH: return "finish " + event.finish_reason();
    default:
      return "usage " + std::to_string(event.usage().prompt_tokens()) + " " +
             std::to_string(event.usage().completion_tokens());
  }
}

class Model {
 public:
  std::vector<ModelRequest> requests;  // those not forgotten, by acceptance
  std::uint64_t index = 0;             // records so far
  std::uint64_t epoch = 0;
  TimeMs last_ms = 0;
  TimeMs forgotten_until_ms = 0;

  ModelRequest* by_id(const std::string& id) {
    for (ModelRequest& request : requests) {
      if (request.id == id) return &request;
    }
    return nullptr;
  }

  // The oldest live request of its lane, and queued.
  bool ready(const ModelRequest& request) const {
    for (const ModelRequest& other : requests) {
      if (other.live() && other.lane() == request.lane()) {
        return &other == &request && request.state == v1::REQUEST_STATE_QUEUED;
      }
    }
    return false;
  }

  bool binds(const ModelRequest& request, TimeMs now_ms, const Limits& limits) const {
    return !request.envelope.idempotencykey().empty() &&
           now_ms < request.accepted_ms + limits.idempotency_ttl_ms;
  }

  // What submit must answer: a refusal's code, or the earlier request, or neither.
  struct Answer {
    bool refused = false;
    Code code = Code::kInternal;
    std::string duplicate;
  };
  Answer submit(const v1::Envelope& envelope, bool stream_usage, TimeMs now_ms,
                const Limits& limits) {
    now_ms = std::max(now_ms, last_ms);
    std::size_t live = 0, bytes = envelope.data().size(), lane = 0;
    for (const ModelRequest& request : requests) {
      if (binds(request, now_ms, limits) && request.envelope.tenant() == envelope.tenant() &&
          request.envelope.idempotencykey() == envelope.idempotencykey()) {
        if (request.envelope.fingerprint() != envelope.fingerprint()) {
          return {true, Code::kIdempotencyMismatch, ""};
        }
        return {false, Code::kInternal, request.id};
      }
      if (!request.live()) continue;
      ++live;
      bytes += request.envelope.data().size();
      lane += request.envelope.tenant() == envelope.tenant() &&
              request.envelope.partitionkey() == envelope.partitionkey();
    }
    if (envelope.expirytime_ms() != 0 && envelope.expirytime_ms() <= now_ms) {
      return {true, Code::kExpired, ""};
    }
    if (live >= limits.live_requests_max || bytes > limits.live_bytes_max ||
        (!envelope.partitionkey().empty() && lane >= limits.lane_requests_max)) {
      return {true, Code::kQueueFull, ""};
    }
    record(now_ms);
    ModelRequest request;
    request.envelope = envelope;
    request.id = RequestId::parse(envelope.id())->to_bytes();
    request.stream_usage = stream_usage;
    request.accepted_ms = last_ms;
    request.index = request.stored = index;
    requests.push_back(request);
    return {};
  }

  void start_epoch(TimeMs now_ms) {
    record(now_ms);
    ++epoch;
    for (ModelRequest& request : requests) {
      if (request.state == v1::REQUEST_STATE_RUNNING) request.state = v1::REQUEST_STATE_QUEUED;
    }
  }

  void lease(ModelRequest& request, std::uint64_t worker, TimeMs now_ms) {
    record(now_ms);
    request.state = v1::REQUEST_STATE_RUNNING;
    ++request.attempt;
    request.new_token = false;
    request.worker = worker;
  }

  bool output(std::uint64_t worker, const v1::Output& output, TimeMs now_ms, const Limits& limits) {
    ModelRequest* request = by_id(output.fence().request());
    if (request == nullptr || request->state != v1::REQUEST_STATE_RUNNING ||
        request->worker != worker || request->attempt != output.fence().attempt() ||
        epoch != output.fence().epoch()) {
      return false;
    }
    if (output.has_failure()) {
      if (output.failure().code() == "invalid_argument") {
        end(*request, v1::REQUEST_STATE_FAILED, now_ms);
      } else {
        end_attempt(*request, true, now_ms, limits);
      }
      return true;
    }
    const bool finishes = !output.finish_reason().empty();
    const bool delta = output.token_ids_size() > 0 || !output.text().empty();
    const std::size_t before = request->events.size();
    if (before == 0 && (output.started() || delta || finishes)) {
      request->prompt_tokens = output.prompt_tokens();
      request->events.push_back("start " + std::to_string(output.prompt_tokens()));
    }
    if (delta) {
      std::string text = "delta ";
      for (const std::uint32_t token : output.token_ids()) {
        text += std::to_string(token) + ",";
        request->tokens.push_back(token);
        request->new_token = true;
      }
      request->events.push_back(text + " " + output.text());
    }
    if (finishes) {
      request->events.push_back("finish " + output.finish_reason());
      if (request->stream_usage) {
        request->events.push_back("usage " + std::to_string(request->prompt_tokens) + " " +
                                  std::to_string(request->tokens.size()));
      }
    }
    if (request->events.size() > before) record(now_ms);
    if (finishes) {
      end(*request, v1::REQUEST_STATE_COMPLETED, now_ms);
    } else if (output.dropped()) {
      end_attempt(*request, false, now_ms, limits);
    }
    return true;
  }

  void worker_lost(std::uint64_t worker, TimeMs now_ms, const Limits& limits) {
    for (ModelRequest& request : requests) {
      if (request.state == v1::REQUEST_STATE_RUNNING && request.worker == worker) {
        end_attempt(request, !request.new_token, now_ms, limits);
      }
    }
  }

  void cancel(ModelRequest& request, TimeMs now_ms) {
    if (request.live()) end(request, v1::REQUEST_STATE_CANCELLED, now_ms);
  }

  void expire(TimeMs now_ms) {
    for (ModelRequest& request : requests) {
      const TimeMs expiry_ms = request.envelope.expirytime_ms();
      if (request.live() && expiry_ms != 0 && expiry_ms <= now_ms) {
        end(request, v1::REQUEST_STATE_EXPIRED, now_ms);
      }
    }
  }

  // With no bound on the count.
  void forget(TimeMs now_ms, std::uint64_t below, const Limits& limits) {
    const std::size_t before = requests.size();
    std::erase_if(requests, [&](const ModelRequest& request) {
      if (request.live() || binds(request, now_ms, limits)) return false;
      if (now_ms < request.ended_ms + limits.retain_ms && request.stored >= below) return false;
      forgotten_until_ms = std::max(forgotten_until_ms, request.accepted_ms);
      return true;
    });
    if (requests.size() < before) record(now_ms);
  }

  void carry(ModelRequest& request, TimeMs now_ms) {
    record(now_ms);
    request.stored = index;
  }

 private:
  void record(TimeMs now_ms) {
    ++index;
    last_ms = std::max(last_ms, now_ms);
  }
  void end(ModelRequest& request, v1::RequestState state, TimeMs now_ms) {
    record(now_ms);
    request.state = state;
    request.ended_ms = last_ms;
  }
  void end_attempt(ModelRequest& request, bool counts, TimeMs now_ms, const Limits& limits) {
    record(now_ms);
    request.state = v1::REQUEST_STATE_QUEUED;
    if (counts && ++request.failed >= limits.attempts_max) {
      end(request, v1::REQUEST_STATE_DEAD, now_ms);
    }
  }
};

}  // namespace waystation::ledger::testing
