#include "queue/json.h"

#include <gtest/gtest.h>

#include "queue/record.h"
#include "queue/record_json.h"

namespace waystation::queue {
namespace {

constexpr TimeMs kNow = 1'000'000;

std::string param_of(const Error& error) {
  return error.param;
}

TEST(QueueJson, MessageWithAllThatItMayHave) {
  const auto text = parse_message(R"({"payload":"hé","lane":"l","priority":"high","delay_ms":5,
                                      "ttl_ms":10})",
                                  kNow);
  ASSERT_TRUE(text) << text.error().message;
  EXPECT_EQ(text->payload->message(0), "hé");
  ASSERT_EQ(text->options.size(), 1u);
  EXPECT_EQ(text->options[0], (MessageOptions{"l", Priority::kHigh, kNow + 5, kNow + 10}));
  const auto json = parse_message(R"({"payload":{"a":[1,null]}})", kNow);
  EXPECT_EQ(json->payload->message(0), R"({"a":[1,null]})");
  EXPECT_TRUE(json->options.empty());
  // As they were sent, whatever a parser would make of them.
  for (const char* sent : {"12345678901234567890123", "1e400", "19.90", R"({"a": 1,"a":2 })",
                           "[ 1.5, \"]}\\\"\" ]", "true", "-0", R"({"payload":{"payload":1}})"}) {
    const auto kept =
        parse_message(std::string(R"({"lane" : "x,\"payload\":1", "payload":7, "pa\u0079load" :)") +
                          sent + "\n, \"priority\":\"low\"}",
                      kNow);
    ASSERT_TRUE(kept) << kept.error().message;
    EXPECT_EQ(kept->payload->message(0), sent);
  }
  EXPECT_EQ(parse_message(R"({"payload_base64":"AP8="})", kNow)->payload->message(0),
            std::string("\0\xff", 2));
}

TEST(QueueJson, LinesAreOneFrame) {
  const auto lines =
      parse_messages("{\"payload\":\"a\"}\r\n\n{\"payload\":\"b\",\"lane\":\"l\"}", kNow);
  ASSERT_TRUE(lines) << lines.error().message;
  EXPECT_EQ(lines->payload->count(), 2u);
  EXPECT_EQ(lines->options.size(), 2u);
  EXPECT_EQ(lines->options[1].lane, "l");
  const auto bad = parse_messages("{\"payload\":\"a\"}\n{\"payload\":1,\"lane\":3}\n", kNow);
  EXPECT_EQ(param_of(bad.error()), "lines[1].lane");
  EXPECT_FALSE(parse_messages("\n\n", kNow));
}

TEST(QueueJson, RefusalsNameTheMember) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({})", "payload"},
      {R"({"payload":"a","payload_base64":"AA=="})", "payload"},
      {R"({"payload_base64":"A"})", "payload_base64"},
      {R"({"payload_base64":"A*=="})", "payload_base64"},
      {R"({"payload":"a","prioritiy":"high"})", "prioritiy"},
      {R"({"payload":"a","priority":"urgent"})", "priority"},
      {R"({"payload":"a","priority":""})", "priority"},
      {R"({"payload":"a","ttl_ms":1,"deadline_ms":2000000})", "ttl_ms"},
      {R"({"payload":"a","deadline_ms":1})", "deadline_ms"},
      {R"({"payload":"a","delay_ms":-1})", "delay_ms"},
      {R"({"payload":"a","ttl_ms":1.5})", "ttl_ms"},
  };
  for (const auto& [body, param] : cases) {
    const auto parsed = parse_message(body, kNow);
    ASSERT_FALSE(parsed) << body;
    EXPECT_EQ(param_of(parsed.error()), param) << body;
  }
  EXPECT_FALSE(parse_message("[1]", kNow));
  EXPECT_FALSE(parse_message("{", kNow));
}

TEST(QueueJson, SettleNamesIdsAsRanges) {
  const auto ack = parse_settle(Action::kAck, R"({"lease":"1099511627776","ids":[3,"1",2,7]})");
  ASSERT_TRUE(ack) << ack.error().message;
  EXPECT_EQ(ack->lease, 1ull << 40);
  EXPECT_EQ(ack->ranges, (Ranges{{1, 3}, {7, 1}}));
  EXPECT_EQ(param_of(parse_settle(Action::kAck, "{}").error()), "lease");
  EXPECT_EQ(param_of(parse_settle(Action::kAck, R"({"lease":1,"delay_ms":1})").error()),
            "delay_ms");
  EXPECT_EQ(parse_settle(Action::kNack, R"({"lease":1,"delay_ms":7})")->ms, 7);
  EXPECT_FALSE(parse_ids("{}"));
  EXPECT_TRUE(parse_ids(R"({"all":true})")->empty());
  EXPECT_EQ(parse_ids(R"({"ids":[5]})")->at(0), 5u);
}

TEST(QueueJson, SettingsChangeWhatTheyName) {
  Settings settings;
  ASSERT_TRUE(parse_settings(R"({"on_dead":"block"})", settings));
  ASSERT_TRUE(parse_settings(R"({"max_attempts":2,"lease_ms":5})", settings));
  EXPECT_EQ(settings, (Settings{2, 5, true}));
  EXPECT_FALSE(parse_settings(R"({"max_attempts":0})", settings));
  EXPECT_FALSE(parse_settings(R"({"on_dead":"burn"})", settings));
}

TEST(QueueJson, PayloadsAreTextOrBase64) {
  const auto payload = Payload::of({"a\"b", std::string_view("\xff\x00", 2), "\xff"}).value();
  const Taken taken{7, 9, 3, 4, {{1, 3, 2, 0, 5, payload}}, false};
  EXPECT_EQ(taken_json(taken),
            R"({"object":"queue.lease","lease":"7","until_ms":9,"messages":[)"
            R"({"id":1,"attempt":2,"published_ms":5,"payload":"a\"b"},)"
            R"({"id":2,"attempt":2,"published_ms":5,"payload_base64":"/wA="},)"
            R"({"id":3,"attempt":2,"published_ms":5,"payload_base64":"/w=="}]})");
  EXPECT_EQ(taken_json({}),
            R"({"object":"queue.lease","lease":null,"until_ms":null,"messages":[]})");
}

TEST(QueueJson, RecordsForPeopleTellNoPayloadUnlessAsked) {
  const auto payload = Payload::of({"secret", std::string_view("\xff", 1)});
  ASSERT_TRUE(payload);
  Published published{.queue = {7}, .first = 3, .payload = *payload};
  published.options = {{.lane = "ann", .priority = Priority::kHigh, .deadline_ms = 9}};
  const std::string record = encode({5, published});
  EXPECT_EQ(
      record_json(record, false),
      R"({"time_ms":5,"published":{"queue":7,"first":3,"options":[{"lane":"ann","priority":"high","deadline_ms":9}],"count":2,"bytes":11}})");
  const std::string with_text = record_json(record, true);
  EXPECT_NE(with_text.find(R"([{"payload":"secret"},{"payload_base64":"/w=="}])"),
            std::string::npos)
      << with_text;
  EXPECT_EQ(record_json(encode({6, Settled{{7}, Outcome::kExpired, {{1, 2}, {9, 1}}}}), false),
            R"({"time_ms":6,"settled":{"queue":7,"outcome":"expired","messages":[[1,2],[9,9]]}})");
  EXPECT_EQ(record_json("no record", false), R"({"unreadable":true})");
}

}  // namespace
}  // namespace waystation::queue
