#include "sim/client.h"

#include <algorithm>
#include <utility>

#include "base/sha256.h"
#include "sim/reader.h"

namespace waystation::sim {
namespace {

constexpr int kTriesMax = 12;

bool worth_another_try(Code code) {
  return code == Code::kQueueFull || code == Code::kUnavailable;
}

}  // namespace

// The reader of a call. Sometimes it has no room, and comes back later.
class Client::Reader final : public JudgingReader {
 public:
  Reader(Client& client, const CallPtr& call)
      : JudgingReader(client.checker_, client.history_, client.name_of(*call), call->id,
                      call->next),
        client_(client),
        call_(call),
        connection_(call->connection) {}

  bool on_block(stream::BlockPtr block) override {
    const CallPtr call = mine();
    if (call == nullptr) return true;
    if (client_.dice_.percent(10)) {
      client_.attach_later(call);
      return false;
    }
    JudgingReader::on_block(std::move(block));
    call->next = next();
    return true;
  }
  void on_end(const stream::Ending& ending) override {
    const CallPtr call = mine();
    if (call == nullptr) return;
    JudgingReader::on_end(ending);
    client_.over(call, "has its answer");
    if (ending.state == v1::REQUEST_STATE_DEAD) client_.deal_with_letter(call->id);
  }
  void on_interrupted(const Error& error) override {
    const CallPtr call = mine();
    if (call == nullptr) return;
    JudgingReader::on_interrupted(error);
    if (error.code == Code::kGone) {
      client_.checker_.saw_no_request(client_.tenant_, call->id, error);
      client_.over(call, "is gone");
    } else {
      client_.attach_later(call);
    }
  }

 private:
  // Null when the call has gone on without this reader.
  CallPtr mine() const {
    CallPtr call = call_.lock();
    return call != nullptr && call->connection == connection_ && call->state == State::kReading
               ? call
               : nullptr;
  }

  Client& client_;
  const std::weak_ptr<Call> call_;
  const int connection_;
};

Client::Client(Scheduler& scheduler, History& history, Checker& checker, Server& server,
               const SimClock& clock, const Plan& plan, Dice dice, int number)
    : scheduler_(scheduler),
      history_(history),
      checker_(checker),
      server_(server),
      clock_(clock),
      plan_(plan),
      dice_(dice),
      number_(number),
      tenant_(number % 2 == 0 ? "acme" : "bolt"),
      calls_left_(plan.calls) {}

std::string Client::name_of(const Call& call) const {
  return "client " + std::to_string(number_) + "." + std::to_string(call.number);
}

bool Client::done() const {
  return calls_left_ == 0 && requeues_ == 0 && plans_ == 0 &&
         std::all_of(calls_.begin(), calls_.end(),
                     [](const CallPtr& call) { return call->state == State::kOver; });
}

std::string Client::waits_for() const {
  for (const CallPtr& call : calls_) {
    if (call->state != State::kOver) {
      return name_of(*call) + " (state " + std::to_string(static_cast<int>(call->state)) +
             ", request " + short_name(call->id) + ")";
    }
  }
  return "client " + std::to_string(number_) + " has calls left";
}

void Client::start() {
  scheduler_.after(dice_.between(1, plan_.think_max), kWorldLife, [this] { live(); });
}

void Client::live() {
  if (calls_left_ == 0) return;
  if (calls_.empty() || dice_.percent(50)) {
    --calls_left_;
    calls_.push_back(make_call());
    submit(calls_.back());
  } else {
    meddle(dice_.pick(calls_));
  }
  start();
}

Client::CallPtr Client::make_call() {
  auto call = std::make_shared<Call>();
  call->number = static_cast<int>(calls_.size());
  v1::Envelope& envelope = call->submission.envelope;
  std::int64_t variant = dice_.between(0, 3);
  if (dice_.percent(40)) {
    const std::int64_t key = dice_.between(1, plan_.keys);
    envelope.set_idempotencykey("key-" + std::to_string(key));
    if (dice_.percent(85)) variant = key % 4;  // else perhaps another body than it had before
  }
  if (dice_.percent(50)) {
    envelope.set_partitionkey("lane-" + std::to_string(dice_.between(1, plan_.lanes)));
  }
  const std::uint32_t choices = variant == 3 ? 2 : 1;
  std::string body = R"({"model":"m","messages":[{"role":"user","content":"hi )" +
                     std::to_string(variant) + R"("}],"n":)" + std::to_string(choices);
  if (variant > 0) body += ",\"max_tokens\":" + std::to_string(variant * 2);
  envelope.set_data(body + "}");
  envelope.set_type("waystation.chat.request.v1");
  envelope.set_api("chat.completions");
  envelope.set_tenant(tenant_);
  envelope.set_model(dice_.percent(75) ? "small" : "large");
  envelope.set_fingerprint(sha256(body));
  if (dice_.percent(15)) envelope.set_expirytime_ms(clock_.wall_ms() + dice_.between(1, 2000));
  if (dice_.percent(20)) envelope.set_priority(static_cast<std::int32_t>(dice_.between(-1, 1)));
  const bool in_lane = !envelope.partitionkey().empty();
  if (!in_lane && dice_.percent(30)) {
    envelope.set_cachekey(sha256(tenant_ + body + envelope.model()));
    call->submission.cache = broker::CacheUse::kFull;
    call->submission.cache_ttl_ms = 60'000;
  }
  call->submission.detached = !envelope.idempotencykey().empty() || dice_.percent(40);
  call->submission.stream_usage = dice_.percent(30);
  call->submission.choices = choices;
  call->submission.compose = in_lane && dice_.percent(20);
  call->submission.locked = in_lane && dice_.percent(10);
  if (dice_.percent(40)) call->submission.block_on_dead = dice_.percent(75);
  call->asked = {tenant_, envelope.idempotencykey(), envelope.fingerprint(), envelope.cachekey()};
  return call;
}

void Client::submit(const CallPtr& call) {
  if (call->state == State::kOver) return;
  call->state = State::kToSubmit;
  if (!server_.up()) return try_again(call);
  const int connection = ++call->connection;
  broker::Submission submission = call->submission;
  // Half of them read along from the start, as a stream does; the others attach when they know the
  // id.
  std::shared_ptr<Reader> reader;
  if (dice_.percent(50)) submission.reader = reader = std::make_shared<Reader>(*this, call);
  call->reader = reader;
  const Status taken = server_.broker().submit(
      std::move(submission), [this, call, connection, reader](Result<broker::Submitted> result) {
        if (call->connection != connection || call->state != State::kAsked) return;
        if (reader != nullptr && result) reader->set_id(result->id);
        submitted(call, std::move(result));
      });
  server_.poke();
  call->state = State::kAsked;
  history_.note(name_of(*call) + ": asks" +
                (call->asked.key.empty() ? "" : " with " + call->asked.key) +
                (call->submission.envelope.partitionkey().empty()
                     ? ""
                     : " in " + call->submission.envelope.partitionkey()));
  if (!taken) try_again(call);
}

void Client::submitted(const CallPtr& call, Result<broker::Submitted> result) {
  if (!result) {
    history_.note(name_of(*call) + ": refused, " + std::string(code_name(result.error().code)));
    checker_.saw_refused(call->asked, result.error());
    if (worth_another_try(result.error().code)) return try_again(call);
    return over(call, "was refused");
  }
  checker_.saw_submitted(call->asked, *result);
  call->id = result->id;
  call->next = 0;
  call->state = State::kReading;
  history_.note(name_of(*call) + ": is request " + short_name(call->id) +
                (result->duplicate ? ", as before" : ""));
  if (call->reader == nullptr || result->duplicate) attach(call);
}

void Client::try_again(const CallPtr& call) {
  call->state = State::kToSubmit;
  if (++call->tries > kTriesMax) return over(call, "gives up");
  scheduler_.after(dice_.between(10, 400) * kMs, kWorldLife, [this, call] {
    if (call->state == State::kToSubmit) submit(call);
  });
}

void Client::attach(const CallPtr& call) {
  if (call->state != State::kReading) return;
  if (!server_.up()) return attach_later(call);
  const int connection = ++call->connection;
  call->reader = std::make_shared<Reader>(*this, call);
  const Status taken = server_.broker().attach(
      tenant_, call->id, call->next, call->reader,
      [this, call, connection](Result<broker::RequestView> view) {
        if (call->connection != connection || call->state != State::kReading) return;
        if (view) return checker_.saw_view(tenant_, *view, false);
        checker_.saw_no_request(tenant_, call->id, view.error());
        if (view.error().code == Code::kUnavailable) return attach_later(call);
        over(call, "isn't known any more");
      });
  server_.poke();
  if (!taken) attach_later(call);
}

void Client::attach_later(const CallPtr& call) {
  const int connection = ++call->connection;
  scheduler_.after(dice_.between(1, 200) * kMs, kWorldLife, [this, call, connection] {
    if (call->connection == connection) attach(call);
  });
}

void Client::over(const CallPtr& call, const std::string& how) {
  call->state = State::kOver;
  call->reader.reset();
  history_.note(name_of(*call) + ": " + how);
}

void Client::server_died() {
  ++connections_;
  requeues_ = 0;  // who asked again would get the same one; nobody does
  for (const CallPtr& call : calls_) {
    ++call->connection;
    call->reader.reset();
    if (call->state == State::kAsked) {
      // It can't know whether it was accepted. Only a key makes another try safe.
      if (call->asked.key.empty()) {
        over(call, "never got an answer");
      } else {
        try_again(call);
      }
    } else if (call->state == State::kReading) {
      if (dice_.percent(80)) {
        attach_later(call);
      } else {
        over(call, "doesn't come back");
      }
    }
  }
}

void Client::meddle(const CallPtr& call) {
  if (!server_.up() || call->id == RequestId{}) return;
  switch (dice_.below(9)) {
    case 0:
      return go_away(call);
    case 1:
      return cancel(call);
    case 2:
      return look(call, tenant_);
    case 3:
      return look(call, tenant_ == "acme" ? "bolt" : "acme");
    case 4:
      return peek(call);
    case 5:
      return dice_.percent(30) ? erase(call) : void();
    case 6:
      return requeue(call->id);
    case 7:
      return dice_.percent(50) ? discard(call->id) : void();
    default:
      return;
  }
}

void Client::go_away(const CallPtr& call) {
  if (call->state != State::kReading || call->reader == nullptr) return;
  server_.broker().detach(call->id, call->reader, true);
  server_.poke();
  over(call, "goes away");
}

void Client::look(const CallPtr& call, const std::string& tenant) {
  const Status taken = server_.broker().get(
      tenant, call->id, [this, call, tenant](Result<broker::RequestView> view) {
        if (view) return checker_.saw_view(tenant, *view, false);
        checker_.saw_no_request(tenant, call->id, view.error());
      });
  if (taken) server_.poke();
}

void Client::cancel(const CallPtr& call) {
  history_.note(name_of(*call) + ": cancels " + short_name(call->id));
  const Status taken =
      server_.broker().cancel(tenant_, call->id, [this, call](Result<broker::RequestView> view) {
        if (view) return checker_.saw_view(tenant_, *view, true);
        checker_.saw_no_request(tenant_, call->id, view.error());
      });
  if (taken) server_.poke();
}

void Client::erase(const CallPtr& call) {
  history_.note(name_of(*call) + ": deletes " + short_name(call->id));
  const Status taken = server_.broker().erase(tenant_, call->id, [this, call](Result<void> erased) {
    if (erased) return checker_.saw_erased(call->id);
    checker_.saw_no_request(tenant_, call->id, erased.error());
  });
  if (taken) server_.poke();
}

// Another reader of the same stream, from anywhere in what was seen.
void Client::peek(const CallPtr& call) {
  const Sequence from = dice_.below(call->next + 1);
  auto reader = std::make_shared<JudgingReader>(checker_, history_, name_of(*call) + " again",
                                                call->id, from);
  const Status taken = server_.broker().attach(tenant_, call->id, from, std::move(reader),
                                               [](Result<broker::RequestView>) {});
  if (taken) server_.poke();
}

// Now and then it is asked twice at once.
void Client::requeue(RequestId id) {
  history_.note("client " + std::to_string(number_) + ": requeues " + short_name(id));
  for (int times = dice_.percent(20) ? 2 : 1; times > 0; --times) {
    const Status taken = server_.broker().requeue(
        tenant_, id, [this, id, connection = connections_](Result<broker::Submitted> made) {
          if (connection != connections_) return;
          --requeues_;
          if (made) return checker_.saw_requeued(tenant_, id, *made);
          checker_.saw_no_request(tenant_, id, made.error());
        });
    if (!taken) return;
    ++requeues_;
    server_.poke();
  }
}

void Client::discard(RequestId id) {
  history_.note("client " + std::to_string(number_) + ": discards " + short_name(id));
  const Status taken =
      server_.broker().discard(tenant_, id, [this, id](Result<broker::RequestView> view) {
        if (view) return checker_.saw_view(tenant_, *view, false);
        checker_.saw_no_request(tenant_, id, view.error());
      });
  if (taken) server_.poke();
}

// Mostly, and after a while: the lane is blocked until then. Sometimes it is dealt with twice.
void Client::deal_with_letter(RequestId id) {
  for (int times = dice_.percent(30) ? 2 : 1; times > 0; --times) {
    if (dice_.percent(20)) continue;
    ++plans_;
    scheduler_.after(dice_.between(1, 400) * kMs, kWorldLife,
                     [this, id, again = dice_.percent(70)] {
                       --plans_;
                       if (!server_.up()) return;
                       again ? requeue(id) : discard(id);
                     });
  }
}

void Client::calm() {
  calls_left_ = 0;
  deal_with_letters();
}

void Client::deal_with_letters() {
  scheduler_.after(dice_.between(10, 500) * kMs, kWorldLife, [this] { deal_with_letters(); });
  if (!server_.up()) return;
  const Status taken = server_.broker().dead_letters(
      tenant_, std::nullopt, 100, [this](Result<std::vector<broker::RequestView>> letters) {
        if (!letters) return;
        for (const broker::RequestView& letter : *letters) {
          checker_.saw_view(tenant_, letter, false);
          if (!letter.blocks_lane || !server_.up()) continue;
          // Not within the broker's turn, which may not be entered again.
          scheduler_.after(1, kWorldLife, [this, id = letter.id, again = dice_.percent(50)] {
            if (!server_.up()) return;
            again ? requeue(id) : discard(id);
          });
        }
      });
  if (taken) server_.poke();
}

}  // namespace waystation::sim
