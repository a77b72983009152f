#include "stream/hub.h"

#include <gtest/gtest.h>

#include <random>

namespace waystation::stream {
namespace {

const RequestId kId = RequestId::make(1, 2, 3);

BlockPtr make_block(Sequence first, std::size_t count) {
  auto block = std::make_shared<Block>();
  block->first = first;
  for (std::size_t i = 0; i < count; ++i) {
    block->events.emplace_back().set_text("t" + std::to_string(first + i) + " ");
  }
  return block;
}

// Collects; has room for `room` blocks.
class Collector final : public Reader {
 public:
  explicit Collector(std::size_t room = 1'000'000) : room_(room) {}
  bool on_block(BlockPtr block) override {
    if (room_ == 0) return false;
    --room_;
    EXPECT_EQ(block->first, next);
    for (const v1::Event& event : block->events) text += event.text();
    next = block->end();
    return true;
  }
  void on_end(const Ending& ending) override {
    ++ended;
    EXPECT_EQ(ending.sequence, next);
  }
  void on_interrupted(const Error&) override { ++interrupted; }
  void give_room(std::size_t room) { room_ = room; }

  Sequence next = 0;
  std::string text;
  int ended = 0;
  int interrupted = 0;

 private:
  std::size_t room_;
};

Ending completed() {
  Ending ending;
  ending.state = v1::REQUEST_STATE_COMPLETED;
  return ending;
}

TEST(HubTest, AReaderGetsWhatWasAndWhatComes) {
  Hub hub(1 << 20);
  hub.open(kId, 0);
  hub.append(kId, make_block(0, 2));
  auto reader = std::make_shared<Collector>();
  EXPECT_TRUE(hub.attach(kId, 0, reader));
  hub.append(kId, make_block(2, 1));
  hub.end(kId, completed());
  EXPECT_EQ(reader->text, "t0 t1 t2 ");
  EXPECT_EQ(reader->ended, 1);
  EXPECT_EQ(hub.readers(), 0u);
}

TEST(HubTest, JoinsInTheMiddleOfABlock) {
  Hub hub(1 << 20);
  hub.open(kId, 0);
  hub.append(kId, make_block(0, 4));
  auto reader = std::make_shared<Collector>();
  reader->next = 2;
  EXPECT_TRUE(hub.attach(kId, 2, reader));
  EXPECT_EQ(reader->text, "t2 t3 ");
}

TEST(HubTest, EventsThatAreOnlyInTheJournalAreAskedFor) {
  Hub hub(1 << 20);
  hub.open(kId, 3);  // recovered: three events exist
  hub.append(kId, make_block(3, 1));
  auto reader = std::make_shared<Collector>();
  EXPECT_FALSE(hub.attach(kId, 0, reader));
  EXPECT_EQ(hub.first_held(kId), 3u);
  hub.load(kId, {make_block(0, 2), make_block(2, 1), make_block(3, 1)});  // the last is held already
  EXPECT_TRUE(hub.attach(kId, 0, reader));
  EXPECT_EQ(reader->text, "t0 t1 t2 t3 ");
}

TEST(HubTest, AFullReaderIsLeftAloneUntilItAttachesAgain) {
  Hub hub(1 << 20);
  hub.open(kId, 0);
  auto reader = std::make_shared<Collector>(1);
  EXPECT_TRUE(hub.attach(kId, 0, reader));
  for (Sequence i = 0; i < 5; ++i) hub.append(kId, make_block(i, 1));
  EXPECT_EQ(reader->text, "t0 ");
  EXPECT_EQ(hub.readers(kId), 1u);  // its client is still there
  reader->give_room(100);
  EXPECT_TRUE(hub.attach(kId, reader->next, reader));
  EXPECT_EQ(reader->text, "t0 t1 t2 t3 t4 ");
  EXPECT_EQ(hub.readers(kId), 1u);
  EXPECT_EQ(hub.detach(kId, reader.get()), 0u);
}

TEST(HubTest, EndedRequestsGiveWayWhenThereAreTooMany) {
  Hub hub(20'000);
  for (int i = 0; i < 100; ++i) {
    const RequestId id = RequestId::make(i, 0, 0);
    hub.open(id, 0);
    hub.append(id, make_block(0, 8));
    hub.end(id, completed());
  }
  EXPECT_FALSE(hub.holds(RequestId::make(0, 0, 0)));
  EXPECT_TRUE(hub.holds(RequestId::make(99, 0, 0)));
}

TEST(HubTest, InterruptedReadersHearItOnce) {
  Hub hub(1 << 20);
  hub.open(kId, 0);
  auto reader = std::make_shared<Collector>();
  EXPECT_TRUE(hub.attach(kId, 0, reader));
  hub.interrupt_all(Error{Code::kUnavailable, "the server ends"});
  EXPECT_EQ(reader->interrupted, 1);
  hub.append(kId, make_block(0, 1));
  EXPECT_EQ(reader->text, "");
}

// Many readers that come, stall, come back and leave at random all read the same text.
TEST(HubTest, ReadersOfWhatIsForgottenHearThatItIsGone) {
  Hub hub(1 << 20);
  hub.open(kId, 0);
  const auto reader = std::make_shared<Collector>();
  ASSERT_TRUE(hub.attach(kId, 0, reader));
  hub.append(kId, make_block(0, 2));
  hub.forget(kId);
  EXPECT_EQ(reader->interrupted, 1);
  EXPECT_EQ(hub.readers(), 0u);
  EXPECT_FALSE(hub.holds(kId));
}

TEST(HubTest, RandomReadersReadTheSame) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  for (int round = 0; round < 50; ++round) {
    Hub hub(1 << 20);
    hub.open(kId, 0);
    std::vector<std::shared_ptr<Collector>> readers;
    std::string text;
    Sequence next = 0;
    for (int step = 0; step < 200; ++step) {
      switch (random() % 4) {
        case 0: {
          const std::size_t count = 1 + random() % 3;
          const BlockPtr block = make_block(next, count);
          for (const auto& event : block->events) text += event.text();
          next += count;
          hub.append(kId, block);
          break;
        }
        case 1:
          readers.push_back(std::make_shared<Collector>(random() % 4));
          EXPECT_TRUE(hub.attach(kId, 0, readers.back()));
          break;
        case 2:
          if (!readers.empty()) {
            auto& reader = readers[random() % readers.size()];
            reader->give_room(random() % 10);
            EXPECT_TRUE(hub.attach(kId, reader->next, reader));
          }
          break;
        default:
          if (!readers.empty()) hub.detach(kId, readers[random() % readers.size()].get());
      }
    }
    hub.end(kId, completed());
    for (auto& reader : readers) {
      if (reader->ended > 0) continue;
      reader->give_room(1'000'000);
      EXPECT_TRUE(hub.attach(kId, reader->next, reader));
      EXPECT_EQ(reader->text, text);
      EXPECT_EQ(reader->ended, 1);
    }
    EXPECT_EQ(hub.readers(), 0u);
  }
}

}  // namespace
}  // namespace waystation::stream
