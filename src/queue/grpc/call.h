// What calls of both kinds have in common: one write at a time, one end. Included by this folder's
// .cc files only.
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "queue/grpc/wire.h"
#include "queue/station.h"

namespace waystation::queue {

using Stream = grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>;

// gRPC owns the call's progress; `self_` keeps the object until OnDone. gRPC never calls back from
// inside a Start… or Finish, so these are called under the mutex, which no thread takes that holds
// the station's lock.
class Call : public Stream, public std::enable_shared_from_this<Call> {
 public:
  using Ended = std::function<void(Call*)>;

  explicit Call(grpc::CallbackServerContext* context) : context_(context) {}

  void begin(Ended ended) {
    ended_ = std::move(ended);
    self_ = shared_from_this();
    StartRead(&incoming_);
  }

  // Ends it without waiting for anything.
  void abort() {
    std::lock_guard lock(mutex_);
    if (!done_) context_->TryCancel();
  }

  void OnReadDone(bool ok) override {
    const bool goes_on = ok && on_message(incoming_);
    {
      std::lock_guard lock(mutex_);
      if (!goes_on) {
        reading_ = false;
      } else if (!wants_more()) {
        paused_ = true;
      } else {
        read_next();
      }
    }
    if (!ok) on_half_closed();
    pump();
  }

  void OnWriteDone(bool ok) override {
    {
      std::lock_guard lock(mutex_);
      writing_ = false;
      if (!ok) broken_ = true;
    }
    on_written();
    pump();
  }

  void OnCancel() override {
    {
      std::lock_guard lock(mutex_);
      broken_ = true;
    }
    pump();
  }

  void OnDone() override {
    {
      std::lock_guard lock(mutex_);
      done_ = true;
    }
    on_ended();
    ended_(this);
    self_.reset();  // may destroy this
  }

 protected:
  // False: nothing more is read.
  virtual bool on_message(const grpc::ByteBuffer& message) = 0;
  virtual void on_half_closed() {}
  virtual void on_written() {}
  virtual void on_ended() {}
  // Under the mutex: what is to be sent next; whether nothing more will come; whether another
  // message may be read now.
  virtual bool next_write(grpc::ByteBuffer& out) = 0;
  virtual bool is_complete() = 0;
  virtual bool wants_more() = 0;

  void end_with(grpc::Status status) {
    {
      std::lock_guard lock(mutex_);
      if (!status_) status_ = std::move(status);
    }
    pump();
  }

  // Sends, reads on, or ends, whatever is due.
  void pump() {
    std::lock_guard lock(mutex_);
    if (finished_) return;
    if (paused_ && wants_more()) {
      paused_ = false;
      read_next();
    }
    if (writing_) return;
    if (broken_ || status_) {
      finish(status_ ? *status_ : grpc::Status::OK);
    } else if (next_write(outgoing_)) {
      writing_ = true;
      StartWrite(&outgoing_);
    } else if (!reading_ && is_complete()) {
      finish(grpc::Status::OK);
    }
  }

  grpc::CallbackServerContext* const context_;  // gRPC's; valid until OnDone

 private:
  void read_next() {
    if (finished_) return;
    incoming_.Clear();
    StartRead(&incoming_);
  }
  void finish(const grpc::Status& status) {
    finished_ = true;
    Finish(status);
  }

  Ended ended_;
  std::shared_ptr<Call> self_;
  grpc::ByteBuffer incoming_, outgoing_;

  std::mutex mutex_;
  bool reading_ = true;
  bool paused_ = false;
  bool writing_ = false;
  bool broken_ = false;
  bool finished_ = false;
  bool done_ = false;
  std::optional<grpc::Status> status_;
};

// A call that is refused.
class RefusedCall final : public Stream {
 public:
  explicit RefusedCall(const grpc::Status& why) { Finish(why); }
  void OnDone() override { delete this; }
};

std::shared_ptr<Call> make_publish_call(grpc::CallbackServerContext* context, Station& station,
                                        const Clock& clock, std::string tenant);
std::shared_ptr<Call> make_consume_call(grpc::CallbackServerContext* context, Station& station,
                                        std::string tenant);

}  // namespace waystation::queue
