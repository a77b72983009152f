#include "journal/format.h"

#include <gtest/gtest.h>

#include <random>

namespace waystation::journal {
namespace {

TEST(FormatTest, Crc32cIsTheUsualOne) {
  EXPECT_EQ(crc32c("123456789"), 0xe3069283u);
  EXPECT_EQ(crc32c("56789", crc32c("1234")), 0xe3069283u);
  EXPECT_EQ(crc32c(""), 0u);
}

TEST(FormatTest, NamesSortAndParse) {
  EXPECT_EQ(segment_name({42}), "00000000000000000042.segment");
  EXPECT_EQ(parse_segment_name(segment_name({42})), LogIndex{42});
  EXPECT_EQ(parse_checkpoint_name(checkpoint_name({7})), LogIndex{7});
  EXPECT_FALSE(parse_segment_name("42.segment"));
  EXPECT_FALSE(parse_segment_name("0000000000000000004x.segment"));
  EXPECT_FALSE(parse_checkpoint_name("checkpoint-1.ckpt"));
  EXPECT_TRUE(is_temporary_name(segment_name({1}) + ".tmp"));
  EXPECT_FALSE(is_temporary_name("notes.tmp"));
}

TEST(FormatTest, BatchesRoundTrip) {
  const std::uint64_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  BatchEncoder encoder(1000);
  for (int round = 0; round < 300; ++round) {
    std::vector<std::string> records(random() % 5);
    for (std::string& record : records) {
      record.resize(random() % 3 == 0 ? random() % 3000 : random() % 200);
      const bool noise = random() % 2 == 0;  // can't be compressed
      for (char& c : record) c = static_cast<char>(noise ? random() : 'a');
    }
    const BatchEncoder::Position position{random(), {random() >> 1}, {random() >> 1}, 1234567, 99};
    std::string out = "before";
    const std::uint32_t crc = encoder.encode(position, records, out);
    const std::string_view batch = std::string_view(out).substr(6);
    const auto header = decode_batch_header(batch, position.journal_id);
    ASSERT_TRUE(header);
    EXPECT_EQ(header->header_crc, crc);
    EXPECT_EQ(header->base, position.base);
    EXPECT_EQ(header->synced, position.synced);
    EXPECT_EQ(header->time_ms, 1234567);
    EXPECT_EQ(header->previous_crc, 99u);
    EXPECT_EQ(header->record_count, records.size());
    EXPECT_EQ(batch.size(), kBatchHeaderBytes + header->stored_bytes);
    EXPECT_LE(header->stored_bytes, header->raw_bytes);
    EXPECT_FALSE(decode_batch_header(batch, position.journal_id + 1));  // another journal's
    std::string scratch;
    const auto raw = decode_payload(*header, batch.substr(kBatchHeaderBytes), scratch);
    ASSERT_TRUE(raw);
    RecordCursor cursor(*raw);
    std::vector<std::string> found;
    for (std::string_view record; cursor.next(record);) found.emplace_back(record);
    EXPECT_TRUE(cursor.at_end());
    EXPECT_EQ(found, records);
  }
}

TEST(FormatTest, EveryFlippedBitOfAHeaderIsSeen) {
  std::string batch;
  BatchEncoder(1000).encode({5, {1}, {0}, 1, 2}, std::vector<std::string>{"x"}, batch);
  const std::string segment = encode_segment_header({5, {1}, 0, 0});
  for (std::size_t bit = 0; bit < 8 * kBatchHeaderBytes; ++bit) {
    std::string changed = batch;
    changed[bit / 8] = static_cast<char>(changed[bit / 8] ^ (1 << bit % 8));
    EXPECT_FALSE(decode_batch_header(changed, 5));
  }
  for (std::size_t bit = 0; bit < 8 * kSegmentHeaderBytes; ++bit) {
    std::string changed = segment;
    changed[bit / 8] = static_cast<char>(changed[bit / 8] ^ (1 << bit % 8));
    EXPECT_FALSE(decode_segment_header(changed));
  }
}

TEST(FormatTest, RecordsThatDontAddUpEndTheCursor) {
  for (const std::string& raw : {std::string("\x05"
                                             "abc"),
                                 std::string("\xff\xff\xff\xff\xff\xff"), std::string("\x80")}) {
    RecordCursor cursor(raw);
    std::string_view record;
    EXPECT_FALSE(cursor.next(record));
    EXPECT_FALSE(cursor.at_end());
  }
}

TEST(FormatTest, AnUnknownVersionIsNamed) {
  std::string header = encode_segment_header({5, {1}, 0, 0});
  header[8] = 2;
  const auto decoded = decode_segment_header(header);
  ASSERT_FALSE(decoded);
  EXPECT_NE(decoded.error().message.find("version 2"), std::string::npos);
}

}  // namespace
}  // namespace waystation::journal
