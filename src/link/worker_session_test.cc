#include "link/worker_session.h"

#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <random>

#include "link/server_session.h"

namespace waystation::link {
namespace {

v1::Hello hello(std::uint32_t slots = 2) {
  v1::Hello message;
  message.set_protocol(1);
  message.set_worker_name("w");
  message.set_slots(slots);
  message.add_models()->set_id("m");
  return message;
}

v1::ServerMessage welcome(std::uint64_t epoch = 7) {
  v1::ServerMessage message;
  message.mutable_welcome()->set_epoch(epoch);
  message.mutable_welcome()->set_worker(3);
  message.mutable_welcome()->set_heartbeat_ms(1000);
  message.mutable_welcome()->set_lease_ms(5000);
  return message;
}

v1::Fence fence(int request, std::uint32_t attempt = 1, std::uint64_t epoch = 7) {
  return fence_of(epoch, FenceKey{std::string(16, static_cast<char>('a' + request)), attempt});
}

v1::ServerMessage assign(const v1::Fence& fence) {
  v1::ServerMessage message;
  *message.mutable_assign()->mutable_fence() = fence;
  return message;
}

WorkerSession joined(std::uint32_t slots = 2) {
  WorkerSession session(hello(slots), 0);
  EXPECT_TRUE(session.on_message(welcome(), 0));
  return session;
}

TEST(WorkerSessionTest, SaysHelloAndIsWelcomed) {
  WorkerSession session(hello(), 0, 3000);
  EXPECT_EQ(session.hello().hello().slots(), 2u);
  EXPECT_EQ(session.expires_at_ms(), 3000);
  EXPECT_FALSE(session.heartbeat({}, 2000));
  const auto news = session.on_message(welcome(), 100);
  ASSERT_TRUE(news);
  EXPECT_EQ(std::get<Welcomed>(*news).epoch, Epoch{7});
  EXPECT_TRUE(session.joined());
  EXPECT_EQ(session.expires_at_ms(), 5100);
}

TEST(WorkerSessionTest, KeepsTheCodeOfARefusal) {
  const auto refused_with = [](std::string code) {
    WorkerSession session(hello(), 0);
    v1::ServerMessage message;
    message.mutable_refused()->set_code(std::move(code));
    message.mutable_refused()->set_message("why");
    const auto news = session.on_message(message, 0);
    EXPECT_FALSE(news);
    EXPECT_FALSE(session.on_message(welcome(), 0));  // over
    return news.error().code;
  };
  EXPECT_FALSE(retry_can_help(refused_with("unauthenticated")));
  EXPECT_FALSE(retry_can_help(refused_with("a code of the future")));
  EXPECT_TRUE(retry_can_help(refused_with("unavailable")));
}

TEST(WorkerSessionTest, AServerThatBreaksTheRulesIsLeft) {
  const auto broken = [](WorkerSession session, const v1::ServerMessage& message) {
    return !session.on_message(message, 0).has_value();
  };
  EXPECT_TRUE(broken(WorkerSession(hello(), 0), assign(fence(0))));
  EXPECT_TRUE(broken(joined(), welcome()));
  EXPECT_TRUE(broken(joined(), assign(fence(0, 1, 6))));
  EXPECT_TRUE(broken(joined(), assign(fence_of(7, FenceKey{"short", 1}))));
  WorkerSession full = joined(1);
  ASSERT_TRUE(full.on_message(assign(fence(0)), 0));
  EXPECT_TRUE(broken(full, assign(fence(1))));
  WorkerSession twice = joined();
  ASSERT_TRUE(twice.on_message(assign(fence(0)), 0));
  EXPECT_TRUE(broken(twice, assign(fence(0))));
  v1::ServerMessage no_lease = welcome();
  no_lease.mutable_welcome()->set_lease_ms(0);
  EXPECT_TRUE(broken(WorkerSession(hello(), 0), no_lease));
}

TEST(WorkerSessionTest, HeartbeatsAndLease) {
  WorkerSession session = joined();
  EXPECT_EQ(session.next_due_ms(), 1000);
  EXPECT_FALSE(session.heartbeat({}, 999));
  EXPECT_TRUE(session.heartbeat({}, 1000));
  EXPECT_EQ(session.next_due_ms(), 2000);
  EXPECT_EQ(session.expires_at_ms(), 5000);
  v1::ServerMessage beat;
  beat.mutable_heartbeat();
  ASSERT_TRUE(session.on_message(beat, 4000));
  EXPECT_EQ(session.expires_at_ms(), 9000);
}

TEST(WorkerSessionTest, CancelsOnlyWhatItHolds) {
  WorkerSession session = joined();
  v1::ServerMessage cancel;
  *cancel.mutable_cancel()->mutable_fence() = fence(0);
  auto news = session.on_message(cancel, 0);
  ASSERT_TRUE(news);
  EXPECT_TRUE(std::holds_alternative<NoNews>(*news));
  ASSERT_TRUE(session.on_message(assign(fence(0)), 0));
  for (const v1::Fence& other : {fence(0, 1, 6), fence(0, 2), fence(1)}) {
    v1::ServerMessage wrong;
    *wrong.mutable_cancel()->mutable_fence() = other;
    news = session.on_message(wrong, 0);
    ASSERT_TRUE(news);
    EXPECT_TRUE(std::holds_alternative<NoNews>(*news));
  }
  news = session.on_message(cancel, 0);
  ASSERT_TRUE(news);
  EXPECT_TRUE(std::holds_alternative<CancelAsked>(*news));
}

TEST(WorkerSessionTest, AccountsForWhatItSends) {
  WorkerSession session = joined();
  ASSERT_TRUE(session.on_message(assign(fence(0)), 0));
  ASSERT_TRUE(session.on_message(assign(fence(1)), 0));
  v1::Step step;
  *step.add_outputs()->mutable_fence() = fence(5);        // not ours
  *step.add_outputs()->mutable_fence() = fence(0, 1, 6);  // of an earlier server
  *step.add_outputs()->mutable_fence() = fence(0);
  v1::Output& last = *step.add_outputs();
  *last.mutable_fence() = fence(1);
  last.set_finish_reason("stop");
  session.account(step);
  ASSERT_EQ(step.outputs_size(), 2);
  EXPECT_EQ(step.outputs(0).fence().request(), fence(0).request());
  EXPECT_EQ(step.outputs(1).fence().request(), fence(1).request());
  EXPECT_EQ(session.in_flight_count(), 1u);
}

TEST(WorkerSessionTest, LeavesOnce) {
  WorkerSession waiting(hello(), 0);
  EXPECT_FALSE(waiting.leaving("early"));
  WorkerSession session = joined();
  EXPECT_TRUE(session.leaving("SIGTERM"));
  EXPECT_FALSE(session.leaving("SIGTERM"));
  WorkerSession drained = joined();
  v1::ServerMessage drain;
  drain.mutable_drain();
  ASSERT_TRUE(drained.on_message(drain, 0));
  EXPECT_TRUE(drained.is_leaving());
}

TEST(WorkerSessionTest, SurvivesGarbage) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  for (int round = 0; round < 2000; ++round) {
    WorkerSession session(hello(3), 0);
    if (random() % 8 != 0) {
      ASSERT_TRUE(session.on_message(welcome(), 0));
    }
    for (int i = 0; i < 40; ++i) {
      v1::ServerMessage message;
      const v1::Fence any = fence(static_cast<int>(random() % 4), 1, random() % 16 == 0 ? 6 : 7);
      switch (random() % 12) {
        case 0: message = welcome(random()); break;
        case 1: message.mutable_drain(); break;
        case 2: message.mutable_heartbeat(); break;
        case 3: break;
        case 4: *message.mutable_cancel()->mutable_fence() = any; break;
        default: message = assign(any);
      }
      (void)session.on_message(message, i);
      v1::Step step;
      v1::Output& output = *step.add_outputs();
      *output.mutable_fence() = any;
      if (random() % 2 == 0) output.set_dropped(true);
      if (random() % 4 == 0) output.set_finish_reason("stop");
      session.account(step);
      ASSERT_LE(session.in_flight_count(), 3u);
    }
  }
}

// Both sessions over a line with delay in both directions: whatever the server decides and the
// worker answers, neither ever finds a rule broken, and both agree once the line is empty.
TEST(SessionPairTest, BothSidesKeepTheRulesOfEachOther) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  for (int round = 0; round < 300; ++round) {
    ServerSession server(ConnectionId{1}, Peer{"test", true}, {}, 0);
    WorkerSession worker(hello(3), 0);
    std::deque<v1::WorkerMessage> to_server{worker.hello()};
    std::deque<v1::ServerMessage> to_worker;
    std::uint32_t attempt = 0;
    std::map<FenceKey, bool> running;  // the worker's engine: fence → has started
    for (int i = 0; i < 400; ++i) {
      const bool quiet = i >= 300;  // the line empties
      if (!to_server.empty() && random() % 2 == 0) {
        const auto heard = server.on_message(to_server.front(), i);
        to_server.pop_front();
        ASSERT_TRUE(heard) << heard.error().message;
        if (std::holds_alternative<HelloHeard>(*heard)) {
          to_worker.push_back(server.welcome(Epoch{7}, WorkerId{1}));
        }
        const auto* step = std::get_if<StepHeard>(&*heard);
        ASSERT_TRUE(step == nullptr || step->fenced.empty());
      }
      if (!to_worker.empty() && random() % 2 == 0) {
        const auto news = worker.on_message(to_worker.front(), i);
        to_worker.pop_front();
        ASSERT_TRUE(news) << news.error().message;
        if (const auto* assigned = std::get_if<Assigned>(&*news)) {
          running[key_of(assigned->assign.fence())] = false;
        }
      }
      if (!quiet && server.credit() > 0 && random() % 3 == 0) {
        v1::Assign work;
        *work.mutable_fence() = fence(static_cast<int>(random() % 2), ++attempt);
        to_worker.push_back(server.assign(std::move(work)));
      }
      if (!quiet && random() % 8 == 0) {
        for (const v1::Fence& held : server.in_flight()) {
          if (auto cancel = server.cancel(held)) to_worker.push_back(*cancel);
        }
      }
      if (!running.empty() && random() % 2 == 0) {
        v1::WorkerMessage message;
        for (auto it = running.begin(); it != running.end();) {
          v1::Output& output = *message.mutable_step()->add_outputs();
          *output.mutable_fence() = fence_of(7, it->first);
          output.set_started(!it->second);
          it->second = true;
          const bool end = quiet || random() % 4 == 0;
          if (end) output.set_finish_reason("stop");
          it = end ? running.erase(it) : std::next(it);
        }
        worker.account(*message.mutable_step());
        to_server.push_back(std::move(message));
      }
    }
    while (!to_server.empty()) {
      ASSERT_TRUE(server.on_message(to_server.front(), 400));
      to_server.pop_front();
    }
    if (running.empty() && to_worker.empty()) {
      ASSERT_EQ(server.in_flight_count(), 0u);
      ASSERT_EQ(worker.in_flight_count(), 0u);
      ASSERT_EQ(server.credit(), 3u);
    }
  }
}

}  // namespace
}  // namespace waystation::link
