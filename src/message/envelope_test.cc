#include "message/envelope.h"

#include <gtest/gtest.h>

#include "message/chat.h"

namespace waystation::message {
namespace {

v1::Envelope good() {
  v1::Envelope envelope;
  envelope.set_id("0190f0c2-0000-7000-8000-000000000000");
  envelope.set_source("/front/chat");
  envelope.set_specversion("1.0");
  envelope.set_type(std::string(kChatRequestType));
  return envelope;
}

TEST(Envelope, GoodPasses) {
  EXPECT_TRUE(check_envelope(good()));
  auto envelope = good();
  envelope.clear_id();
  EXPECT_TRUE(check_envelope(envelope)) << "the broker gives the id";
  envelope.set_specversion("1.7");
  EXPECT_TRUE(check_envelope(envelope)) << "a minor version adds only what may be ignored";
}

TEST(Envelope, WhatIsMissingOrTooNewIsNamed) {
  const auto refused = [](auto change) {
    auto envelope = good();
    change(envelope);
    const auto status = check_envelope(envelope);
    return status ? std::string("(taken)") : status.error().param;
  };
  EXPECT_EQ(refused([](auto& e) { e.clear_specversion(); }), "specversion");
  EXPECT_EQ(refused([](auto& e) { e.set_specversion("2.0"); }), "specversion");
  EXPECT_EQ(refused([](auto& e) { e.set_specversion("1"); }), "specversion");
  EXPECT_EQ(refused([](auto& e) { e.clear_type(); }), "type");
  EXPECT_EQ(refused([](auto& e) { e.set_type("waystation.chat.request"); }), "type");
  EXPECT_EQ(refused([](auto& e) { e.set_type("waystation.chat.request.v2"); }), "type");
  EXPECT_EQ(refused([](auto& e) { e.clear_source(); }), "source");
  EXPECT_EQ(refused([](auto& e) { e.set_id("five"); }), "id");
  EXPECT_EQ(refused([](auto& e) { e.set_compression("lzma"); }), "compression");
}

TEST(Envelope, FieldsOfALaterVersionAreKept) {
  // Field 100, length-delimited, isn't known here; a rewrite must not lose it.
  const std::string later = good().SerializeAsString() + std::string("\xa2\x06\x03new", 6);
  v1::Envelope envelope;
  ASSERT_TRUE(envelope.ParseFromString(later));
  EXPECT_TRUE(check_envelope(envelope));
  EXPECT_EQ(envelope.SerializeAsString(), later);
}

TEST(Envelope, TypeVersion) {
  EXPECT_EQ(type_major_version("a.b.v12").value(), 12);
  for (const char* bad : {"", "v1", ".v1", "a.v", "a.v0", "a.v1x", "a.v-1", "a"}) {
    EXPECT_FALSE(type_major_version(bad)) << bad;
  }
}

}  // namespace
}  // namespace waystation::message
