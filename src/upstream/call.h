// One assignment on its way through an upstream: the HTTP exchange on one side, outputs of the link
// on the other. Loop's thread only.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "link/fence.h"
#include "link/transport.h"
#include "message/proto/link.pb.h"
#include "upstream/answer.h"
#include "upstream/exchange.h"
#include "upstream/verdict.h"

namespace waystation::upstream {

class Call;

// Who runs the calls. Both are called from within events of the network.
class CallHost {
 public:
  virtual ~CallHost() = default;
  // It has something to take().
  virtual void on_news(Call& call) = 0;
  // Nothing more will come. An empty error and no pause: it is complete, its last output can be
  // taken.
  virtual void on_ended(Call& call, Verdict verdict) = 0;
};

class Call final : public Exchange {
 public:
  // `host` outlives it or aborts it. `options` outlive it.
  Call(CallHost& host, link::ConnectionId session, v1::Fence fence, Body body,
       std::uint32_t choices, const Options& options);

  const v1::Fence& fence() const { return fence_; }
  link::ConnectionId session() const { return session_; }
  // Something of the answer came, so that it would be a pity to give it up.
  bool has_begun() const { return answer_.has_begun(); }
  bool has_usage() const { return answer_.has_usage(); }
  // Appends what came since the last time, with the fence.
  void take(std::vector<v1::Output>& out);

  bool on_head(const ResponseHead& head) override;
  bool on_body(std::string_view piece) override;
  void on_complete() override;
  void on_failed(HttpFailure failure) override;

  std::int64_t started_us = 0;    // steady; the host's
  std::uint64_t step_serial = 0;  // the host's: the step that holds its newest output
  bool news_noted = false;        // the host's

 private:
  enum class Mode { kNothing, kStream, kDocument, kRefusal };

  bool read_stream(std::string_view piece);
  // The answer can't be used: gives up the exchange. Always false.
  bool give_up(Error error);
  void end_stream(const std::string& how_it_ended);
  void end(Verdict verdict);
  Error named(Error error) const;

  CallHost& host_;
  const link::ConnectionId session_;
  const v1::Fence fence_;
  const bool stream_;
  const Options& options_;
  Mode mode_ = Mode::kNothing;
  ResponseHead head_;
  Answer answer_;
  std::string document_;
  bool ended_ = false;
};

}  // namespace waystation::upstream
