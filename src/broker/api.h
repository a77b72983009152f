// What the front door asks of the broker. Every call may come from any thread and returns at once;
// an error returned by the call itself means that it was not taken (mailbox full, shutting down).
// Otherwise the callback is called exactly once, on the broker's thread, and must not block.
// What the callback says is durable when it is called.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "message/proto/envelope.pb.h"
#include "message/proto/records.pb.h"
#include "stream/reader.h"

namespace waystation::broker {

// Whether an earlier answer to the same envelope (`cachekey`) may be given instead.
enum class CacheUse {
  kNone,     // neither looked up nor kept
  kRefresh,  // not looked up, but this one's answer is kept
  kFull,
};

struct Submission {
  v1::Envelope envelope;      // `id` empty: the broker makes one; else a new UUIDv7 of the caller's
  bool detached = false;      // goes on when its client goes away
  bool stream_usage = false;  // a usage event ends the stream
  std::uint32_t choices = 1;
  bool compose = false;  // the Composer makes its data when its turn has come
  bool locked = false;   // refused with kConversationLocked when its lane has a live request
  // Should it die, its conversation is blocked until the dead letter is dealt with; unless said, as
  // the server does it. Of no use without a conversation.
  std::optional<bool> block_on_dead;
  CacheUse cache = CacheUse::kNone;        // only without a conversation; a key is never looked up
  TimeMs cache_ttl_ms = 0;                 // an answer older than this is not given
  std::shared_ptr<stream::Reader> reader;  // may be null; attached from event 0
};

struct Submitted {
  RequestId id;
  bool duplicate = false;  // this is an earlier request: of the same key, or a cached one
  bool cached = false;     // it was found in the cache, answered or still running
  TimeMs accepted_ms = 0;
};

struct AttemptView {
  std::uint32_t number = 0;
  std::string worker;
  TimeMs started_ms = 0;
  TimeMs ended_ms = 0;  // 0 while it runs
  std::string outcome;  // "", "completed", "worker_lost", "engine_error", "server_restart", …
  std::string detail;
  std::uint64_t resumed_tokens = 0;
  std::string continuation;  // "", "exact", "prefill", "restarted"; see records.proto
  std::uint64_t prefilled_bytes = 0;
  std::uint64_t regenerated_tokens = 0;
  std::string model;  // that answered, when another than asked for
};

struct RequestView {
  RequestId id;
  v1::RequestState state = v1::REQUEST_STATE_UNSPECIFIED;
  std::string model;
  std::string api;  // "chat.completions", "completions", "responses", "embeddings"
  std::string conversation;
  std::uint32_t choices = 1;
  std::int32_t priority = 0;
  std::vector<AttemptView> attempts;
  std::uint64_t queue_position = 0;  // 0 = running or ended; 1 = next
  TimeMs accepted_ms = 0;
  TimeMs first_token_ms = 0;
  TimeMs ended_ms = 0;
  std::uint64_t event_count = 0;
  std::string finish_reason;
  v1::Failure failure;
  v1::Usage usage;
  bool detached = false;
  bool stream_usage = false;  // as submitted; the renderer needs it to replay the same bytes
  std::optional<RequestId> requeue_of;   // the dead letter that it was made of
  std::optional<RequestId> requeued_as;  // of a dead letter: the request that was made of it
  bool discarded = false;                // of a dead letter
  bool blocks_lane = false;              // its conversation waits for somebody to deal with it
};

struct ModelView {
  std::string id;
  std::string fingerprint;
  std::string engine;
  std::uint32_t context_length = 0;
  std::uint32_t embedding_length = 0;
  std::vector<std::string> tasks;  // "chat", "completion", "embedding"
  std::uint32_t workers = 0;
  TimeMs since_ms = 0;  // first seen by this server
};

struct Health {
  bool accepting = false;  // new requests are taken
  bool ready = false;      // accepting, and a worker is joined
  std::string reason;      // why not, in words
};

template <typename T>
using Callback = std::function<void(Result<T>)>;

// Makes the data of a request whose prompt depends on the turns before it (Submission::compose).
// Asked when its turn has come, so all of those have ended; asked again for the same request (after
// a failed attempt, after a restart), it must give the same bytes.
class Composer {
 public:
  virtual ~Composer() = default;
  // Returns at once; `done` is called once, on any thread, with the envelope's data to run.
  virtual void compose(v1::Envelope envelope, Callback<std::string> done) = 0;
};

class Api {
 public:
  virtual ~Api() = default;

  // Between the two, what this thread asks wakes nobody; help() then has it done, by this thread if
  // no other is at it. Saves two switches of threads a call. For threads that hold no lock.
  virtual void gather() {}
  virtual void help() {}

  // Accepts a request. Errors through the callback: kModelNotFound (message lists the models),
  // kQueueFull (with retry_after_ms), kIdempotencyMismatch, kUnavailable (journal failed,
  // draining).
  virtual Status submit(Submission submission, Callback<Submitted> done) = 0;

  // Joins a stream: blocks from event `from` on, then the ending. kNotFound, kGone.
  virtual Status attach(std::string tenant, RequestId id, Sequence from,
                        std::shared_ptr<stream::Reader> reader, Callback<RequestView> done) = 0;

  // Lets a reader go. `client_gone`: its client went away; the last reader of a request that isn't
  // detached takes the request with it (cancelled).
  virtual void detach(RequestId id, std::shared_ptr<stream::Reader> reader, bool client_gone) = 0;

  // Idempotent; gives the state after it.
  virtual Status cancel(std::string tenant, RequestId id, Callback<RequestView> done) = 0;

  virtual Status get(std::string tenant, RequestId id, Callback<RequestView> done) = 0;

  // Deletes what the request was asked and has answered; one that is live is cancelled first. From
  // then on it is kGone to everyone, also to a submission with its idempotency key. kNotFound,
  // kGone.
  virtual Status erase(std::string tenant, RequestId id, Callback<void> done) = 0;

  // A new request of a dead letter: at its place, if it blocks its conversation, else at the
  // conversation's end. Idempotent: as a duplicate, the request that was made of it before.
  // kConflict: it isn't dead, was discarded, or is a turn that was composed. kGone: also when its
  // body isn't kept any more. kQueueFull, kUnavailable as submit().
  virtual Status requeue(std::string tenant, RequestId id, Callback<Submitted> done) = 0;
  // A dead letter was dealt with; its conversation goes on. Idempotent; gives the state after it.
  // kConflict: it isn't dead, or was requeued.
  virtual Status discard(std::string tenant, RequestId id, Callback<RequestView> done) = 0;
  // The tenant's dead letters, dealt with or not, newest first; at most `count_max` of those before
  // the letter `after` (kInvalidArgument when there is none).
  virtual Status dead_letters(std::string tenant, std::optional<RequestId> after,
                              std::size_t count_max, Callback<std::vector<RequestView>> done) = 0;

  virtual Status models(Callback<std::vector<ModelView>> done) = 0;

  // Any thread, at once.
  virtual Health health() const = 0;
};

}  // namespace waystation::broker
