#include "link/server_session.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

namespace waystation::link {
namespace {

constexpr std::uint64_t kEpoch = 7;

v1::Hello good_hello() {
  v1::Hello hello;
  hello.set_protocol(1);
  hello.set_worker_name("w");
  hello.set_slots(2);
  hello.add_models()->set_id("m");
  return hello;
}

v1::WorkerMessage message_of(v1::Hello hello) {
  v1::WorkerMessage message;
  *message.mutable_hello() = std::move(hello);
  return message;
}

v1::Fence fence(int request, std::uint32_t attempt = 1, std::uint64_t epoch = kEpoch) {
  return fence_of(epoch, FenceKey{std::string(16, static_cast<char>('a' + request)), attempt});
}

v1::Assign assignment(int request, std::uint32_t attempt = 1) {
  v1::Assign assign;
  *assign.mutable_fence() = fence(request, attempt);
  return assign;
}

v1::Output started(const v1::Fence& fence) {
  v1::Output output;
  *output.mutable_fence() = fence;
  output.set_started(true);
  return output;
}

v1::Output finished(const v1::Fence& fence) {
  v1::Output output;
  *output.mutable_fence() = fence;
  output.set_finish_reason("stop");
  return output;
}

v1::WorkerMessage step(std::vector<v1::Output> outputs) {
  v1::WorkerMessage message;
  message.mutable_step();
  for (v1::Output& output : outputs) *message.mutable_step()->add_outputs() = std::move(output);
  return message;
}

v1::WorkerMessage heartbeat() {
  v1::WorkerMessage message;
  message.mutable_heartbeat();
  return message;
}

ServerSession connected(bool local = true, std::string token = "") {
  return ServerSession(ConnectionId{1}, Peer{"test", local}, ServerSessionConfig{token, 1000, 5000},
                       0);
}

ServerSession joined() {
  ServerSession session = connected();
  EXPECT_TRUE(session.on_message(message_of(good_hello()), 0));
  EXPECT_TRUE(session.welcome(Epoch{kEpoch}, WorkerId{3}).has_welcome());
  return session;
}

Code code_of(const Result<Heard>& heard) {
  EXPECT_FALSE(heard.has_value());
  return heard ? Code::kInternal : heard.error().code;
}

TEST(ServerSessionTest, HelloThenWelcomeGivesCredit) {
  ServerSession session = connected();
  EXPECT_EQ(session.credit(), 0u);
  const auto heard = session.on_message(message_of(good_hello()), 0);
  ASSERT_TRUE(heard);
  EXPECT_EQ(std::get<HelloHeard>(*heard).hello.worker_name(), "w");
  EXPECT_EQ(session.credit(), 0u);
  const v1::ServerMessage answer = session.welcome(Epoch{kEpoch}, WorkerId{3});
  EXPECT_EQ(answer.welcome().epoch(), kEpoch);
  EXPECT_EQ(answer.welcome().lease_ms(), 5000u);
  EXPECT_TRUE(session.joined());
  EXPECT_EQ(session.credit(), 2u);
}

TEST(ServerSessionTest, RefusesABadHello) {
  const auto refused = [](auto change) {
    v1::Hello hello = good_hello();
    change(hello);
    ServerSession session = connected();
    const auto heard = session.on_message(message_of(std::move(hello)), 0);
    EXPECT_EQ(code_of(heard), Code::kInvalidArgument);
    return heard ? std::string() : heard.error().param;
  };
  EXPECT_EQ(refused([](v1::Hello& h) { h.set_protocol(2); }), "protocol");
  EXPECT_EQ(refused([](v1::Hello& h) { h.clear_worker_name(); }), "worker_name");
  EXPECT_EQ(refused([](v1::Hello& h) { h.set_worker_name(std::string(129, 'x')); }), "worker_name");
  EXPECT_EQ(refused([](v1::Hello& h) { h.set_slots(0); }), "slots");
  EXPECT_EQ(refused([](v1::Hello& h) { h.set_slots(65537); }), "slots");
  EXPECT_EQ(refused([](v1::Hello& h) { h.clear_models(); }), "models");
  EXPECT_EQ(refused([](v1::Hello& h) { h.add_models(); }), "models.id");
  EXPECT_EQ(refused([](v1::Hello& h) { h.add_models()->set_id("m"); }), "models.id");
}

TEST(ServerSessionTest, ARemoteWorkerNeedsTheToken) {
  const auto join = [](bool local, const std::string& expected, const std::string& given) {
    ServerSession session = connected(local, expected);
    v1::Hello hello = good_hello();
    hello.set_join_token(given);
    return session.on_message(message_of(std::move(hello)), 0);
  };
  EXPECT_TRUE(join(false, "secret", "secret"));
  EXPECT_TRUE(join(true, "secret", ""));
  EXPECT_EQ(code_of(join(false, "secret", "")), Code::kUnauthenticated);
  EXPECT_EQ(code_of(join(false, "secret", "secre")), Code::kUnauthenticated);
  EXPECT_EQ(code_of(join(false, "secret", "secret2")), Code::kUnauthenticated);
  EXPECT_EQ(code_of(join(false, "secret", "Secret")), Code::kUnauthenticated);
  EXPECT_EQ(code_of(join(false, "", "")), Code::kUnauthenticated);  // no token set: no remote ones
}

TEST(ServerSessionTest, ForgetsTheToken) {
  ServerSession session = connected(false, "secret");
  v1::Hello hello = good_hello();
  hello.set_join_token("secret");
  const auto heard = session.on_message(message_of(std::move(hello)), 0);
  ASSERT_TRUE(heard);
  EXPECT_EQ(std::get<HelloHeard>(*heard).hello.join_token(), "");
}

TEST(ServerSessionTest, AWrongOrderEndsTheSession) {
  ServerSession before_hello = connected();
  EXPECT_EQ(code_of(before_hello.on_message(heartbeat(), 0)), Code::kInvalidArgument);
  EXPECT_EQ(code_of(before_hello.on_message(message_of(good_hello()), 0)), Code::kInvalidArgument);

  ServerSession before_welcome = connected();
  ASSERT_TRUE(before_welcome.on_message(message_of(good_hello()), 0));
  EXPECT_EQ(code_of(before_welcome.on_message(step({}), 0)), Code::kInvalidArgument);

  ServerSession twice = joined();
  EXPECT_EQ(code_of(twice.on_message(message_of(good_hello()), 0)), Code::kInvalidArgument);
  EXPECT_FALSE(twice.joined());
  EXPECT_EQ(twice.credit(), 0u);
}

TEST(ServerSessionTest, CreditComesBackWithTheLastOutput) {
  ServerSession session = joined();
  EXPECT_TRUE(session.assign(assignment(0)).has_assign());
  EXPECT_TRUE(session.assign(assignment(1)).has_assign());
  EXPECT_EQ(session.credit(), 0u);

  auto heard = session.on_message(step({started(fence(0)), started(fence(1))}), 1);
  ASSERT_TRUE(heard);
  EXPECT_EQ(std::get<StepHeard>(*heard).outputs.size(), 2u);
  EXPECT_EQ(session.credit(), 0u);

  v1::Output dropped;
  *dropped.mutable_fence() = fence(1);
  dropped.set_dropped(true);
  ASSERT_TRUE(session.on_message(step({finished(fence(0)), dropped}), 2));
  EXPECT_EQ(session.credit(), 2u);
  EXPECT_TRUE(session.in_flight().empty());
}

TEST(ServerSessionTest, OutputsOfOthersAreFenced) {
  ServerSession session = joined();
  (void)session.assign(assignment(0, 2));
  v1::Output malformed = finished(fence(0));
  malformed.mutable_fence()->set_request("short");
  v1::Output none;
  const auto heard = session.on_message(
      step({started(fence(0, 1)), started(fence(0, 2, kEpoch - 1)), started(fence(5)), malformed,
            none, started(fence(0, 2))}),
      1);
  ASSERT_TRUE(heard);
  EXPECT_EQ(std::get<StepHeard>(*heard).outputs.size(), 1u);
  EXPECT_EQ(std::get<StepHeard>(*heard).fenced.size(), 5u);
  // Ended means ended: a second ending is a stranger's.
  ASSERT_TRUE(session.on_message(step({finished(fence(0, 2))}), 1));
  const auto again = session.on_message(step({finished(fence(0, 2))}), 1);
  ASSERT_TRUE(again);
  EXPECT_EQ(std::get<StepHeard>(*again).fenced.size(), 1u);
  EXPECT_EQ(session.credit(), 2u);
}

TEST(ServerSessionTest, OutputsKeepTheirRules) {
  const auto broken = [](std::vector<v1::Output> outputs) {
    ServerSession session = joined();
    (void)session.assign(assignment(0));
    return code_of(session.on_message(step(std::move(outputs)), 1)) == Code::kInvalidArgument;
  };
  v1::Output two_endings = finished(fence(0));
  two_endings.set_started(true);
  two_endings.set_dropped(true);
  EXPECT_TRUE(broken({two_endings}));
  EXPECT_TRUE(broken({finished(fence(0))}));                    // never started
  EXPECT_TRUE(broken({started(fence(0)), started(fence(0))}));  // started twice
}

// The owner takes what is in flight back as failed; what isn't, it takes for never sent.
TEST(ServerSessionTest, AStepThatBreaksARuleEndsNothing) {
  ServerSession session = joined();
  session.assign(assignment(0));
  session.assign(assignment(1));
  ASSERT_TRUE(session.on_message(step({started(fence(0)), started(fence(1))}), 1));
  const auto heard = session.on_message(step({finished(fence(0)), started(fence(1))}), 2);
  EXPECT_EQ(code_of(heard), Code::kInvalidArgument);
  EXPECT_EQ(session.in_flight().size(), 2u);
  EXPECT_EQ(session.credit(), 0u);
}

TEST(ServerSessionTest, AFailureNeedsNoStart) {
  ServerSession session = joined();
  (void)session.assign(assignment(0));
  v1::Output failed;
  *failed.mutable_fence() = fence(0);
  failed.mutable_failure()->set_code("context_length_exceeded");
  ASSERT_TRUE(session.on_message(step({failed}), 1));
  EXPECT_EQ(session.credit(), 2u);
}

TEST(ServerSessionTest, EveryMessageMovesTheLease) {
  ServerSession session = connected();
  EXPECT_EQ(session.expires_at_ms(), 5000);  // the time it has for Hello
  ASSERT_TRUE(session.on_message(message_of(good_hello()), 100));
  (void)session.welcome(Epoch{kEpoch}, WorkerId{1});
  EXPECT_EQ(session.expires_at_ms(), 5100);
  ASSERT_TRUE(session.on_message(heartbeat(), 700));
  EXPECT_EQ(session.expires_at_ms(), 5700);
  ASSERT_TRUE(session.on_message(v1::WorkerMessage(), 900));  // a kind from the future
  EXPECT_EQ(session.expires_at_ms(), 5900);
}

TEST(ServerSessionTest, HeartbeatsAreDueOnTime) {
  ServerSession session = joined();
  EXPECT_FALSE(session.heartbeat(999));
  EXPECT_TRUE(session.heartbeat(1000));
  EXPECT_FALSE(session.heartbeat(1001));
  EXPECT_TRUE(session.heartbeat(2500));
}

TEST(ServerSessionTest, CancelsOnceAndOnlyWhatIsInFlight) {
  ServerSession session = joined();
  EXPECT_FALSE(session.cancel(fence(0)));
  (void)session.assign(assignment(0));
  EXPECT_FALSE(session.cancel(fence(0, 1, kEpoch - 1)));
  const auto cancel = session.cancel(fence(0));
  ASSERT_TRUE(cancel);
  EXPECT_EQ(cancel->cancel().fence().request(), fence(0).request());
  EXPECT_FALSE(session.cancel(fence(0)));
  EXPECT_FALSE(session.cancel(fence(0, 2)));
  EXPECT_EQ(session.credit(), 1u);  // until the worker says that it dropped it
}

TEST(ServerSessionTest, DrainAndLeavingEndTheCredit) {
  ServerSession drained = joined();
  EXPECT_TRUE(drained.drain());
  EXPECT_FALSE(drained.drain());
  EXPECT_EQ(drained.credit(), 0u);

  ServerSession leaving = joined();
  v1::WorkerMessage message;
  message.mutable_leaving()->set_reason("SIGTERM");
  const auto heard = leaving.on_message(message, 1);
  ASSERT_TRUE(heard);
  EXPECT_EQ(std::get<LeavingHeard>(*heard).reason, "SIGTERM");
  EXPECT_TRUE(leaving.leaving());
  EXPECT_EQ(leaving.credit(), 0u);
}

// ---- Anything a worker may send, against a naive model of what is in flight. ----

// fence → has started
using Model = std::map<FenceKey, bool>;

v1::Output random_output(std::mt19937_64& random, const Model& model) {
  v1::Output output;
  if (random() % 8 != 0) {
    *output.mutable_fence() = fence(static_cast<int>(random() % 4),
                                    static_cast<std::uint32_t>(random() % 3),
                                    random() % 8 == 0 ? kEpoch - 1 : kEpoch);
  }
  if (random() % 8 == 0) output.mutable_fence()->set_request(std::string(random() % 40, 'x'));
  // Mostly as it should be, or no session would live long enough to be tested.
  const auto found = model.find(key_of(output.fence()));
  output.set_started(found != model.end() ? !found->second : random() % 2 == 0);
  if (random() % 32 == 0) output.set_started(!output.started());
  if (random() % 4 == 0) output.set_finish_reason("stop");
  if (random() % 32 == 0) output.mutable_failure();
  if (random() % 32 == 0) output.set_dropped(true);
  return output;
}

v1::WorkerMessage random_message(std::mt19937_64& random, const Model& model) {
  v1::WorkerMessage message;
  switch (random() % 64) {
    case 0: {
      v1::Hello hello = good_hello();
      if (random() % 4 == 0) hello.set_slots(static_cast<std::uint32_t>(random()));
      if (random() % 4 == 0) hello.set_protocol(static_cast<std::uint32_t>(random() % 3));
      if (random() % 4 == 0) hello.add_models()->set_id(std::string(random() % 300, 'm'));
      return message_of(std::move(hello));
    }
    case 1: message.mutable_leaving()->set_reason(std::string(random() % 100, 'r')); return message;
    case 2: return message;
    case 3:
    case 4:
    case 5: return heartbeat();
    default: {
      message.mutable_step();
      for (auto n = random() % 4; n > 0; --n) {
        *message.mutable_step()->add_outputs() = random_output(random, model);
      }
      return message;
    }
  }
}

TEST(ServerSessionTest, SurvivesGarbage) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  int joined_sessions = 0;
  int heard_outputs = 0;
  for (int round = 0; round < 3000; ++round) {
    ServerSession session = connected();
    Model model;  // in flight
    bool over = false;
    std::optional<v1::WorkerMessage> first;
    if (random() % 8 != 0) first = message_of(good_hello());  // else nothing gets past the door
    for (int i = 0; i < 60; ++i) {
      const v1::WorkerMessage message = first ? *first : random_message(random, model);
      first.reset();
      const auto heard = session.on_message(message, i);
      if (over) {
        ASSERT_FALSE(heard);
        continue;
      }
      if (!heard) {
        over = true;
        ASSERT_TRUE(session.refused(heard.error()).has_refused());
        ASSERT_EQ(session.credit(), 0u);
        continue;
      }
      if (std::holds_alternative<HelloHeard>(*heard)) {
        (void)session.welcome(Epoch{kEpoch}, WorkerId{1});
        ++joined_sessions;
      }
      if (const auto* step_heard = std::get_if<StepHeard>(&*heard)) {
        ASSERT_EQ(step_heard->outputs.size() + step_heard->fenced.size(),
                  static_cast<std::size_t>(message.step().outputs_size()));
        for (const v1::Output& output : step_heard->outputs) {
          ++heard_outputs;
          ASSERT_EQ(output.fence().epoch(), kEpoch);
          const auto found = model.find(key_of(output.fence()));
          ASSERT_NE(found, model.end());
          found->second = true;
          if (endings_of(output) == 1) model.erase(found);
        }
      }
      ASSERT_EQ(session.in_flight_count(), model.size());
      if (session.joined() && !session.leaving()) {
        ASSERT_EQ(session.credit() + model.size(), session.hello().slots());
      }
      if (session.credit() > 0 && random() % 2 == 0) {
        const v1::Assign assign = assignment(static_cast<int>(random() % 4),
                                             static_cast<std::uint32_t>(1 + random() % 2));
        if (model.try_emplace(key_of(assign.fence()), false).second) (void)session.assign(assign);
      }
      if (random() % 8 == 0) {
        const v1::Fence any = fence(static_cast<int>(random() % 4));
        const bool in_flight = model.contains(key_of(any));
        const bool cancelled = session.cancel(any).has_value();
        ASSERT_TRUE(in_flight || !cancelled);
      }
    }
  }
  EXPECT_GT(joined_sessions, 1000);
  EXPECT_GT(heard_outputs, 1000);  // the garbage wasn't only garbage
}

}  // namespace
}  // namespace waystation::link
