#include "broker/prepare.h"

#include <gtest/gtest.h>

namespace waystation::broker {
namespace {

const std::string kChat = "/v1/chat/completions";

PrepareOptions options() {
  PrepareOptions out;
  out.tenant = "t";
  out.now_ms = 1000;
  out.cache = CacheUse::kFull;
  out.cache_ttl_ms = 60;
  return out;
}

std::string chat(const std::string& more) {
  return R"({"model":"m","messages":[{"role":"user","content":"x"}])" + more + "}";
}

Prepared prepared(const std::string& body, const PrepareOptions& with = options()) {
  auto out = prepare(kChat, body, with);
  EXPECT_TRUE(out) << out.error().message;
  return *out;
}

std::string key_of(const std::string& body, const PrepareOptions& with = options()) {
  return prepared(body, with).submission.envelope.cachekey();
}

TEST(Prepare, WhoHasAKeyMayStillWantItsRequestToEndWithItsConnection) {
  PrepareOptions with = options();
  EXPECT_FALSE(prepared(chat(""), with).submission.detached);
  with.resumable = true;
  EXPECT_TRUE(prepared(chat(""), with).submission.detached);
  with.idempotency_key = "k";
  with.resumable = std::nullopt;
  EXPECT_TRUE(prepared(chat(""), with).submission.detached);
  with.resumable = false;
  const Prepared out = prepared(chat(""), with);
  EXPECT_FALSE(out.submission.detached);
  EXPECT_FALSE(out.identity.numbered);
  EXPECT_EQ(out.submission.envelope.idempotencykey(), "k");
}

TEST(Prepare, TheServersThatItPassedGoWithIt) {
  PrepareOptions with = options();
  with.hops = "a, b";
  EXPECT_EQ(prepared(chat(""), with).submission.envelope.hops(), "a, b");
}

TEST(Prepare, AChatBodyBecomesASubmission) {
  PrepareOptions with = options();
  with.id = "0190f0c2-1111-7222-8333-444444444444";
  with.idempotency_key = "k";
  with.conversation = "c";
  with.expiry_ms = 5000;
  const std::string body =
      chat(R"(,"n":2,"stream":true,"stream_options":{"include_usage":true},"service_tier":"flex")");
  const Prepared out = prepared(body, with);
  const v1::Envelope& envelope = out.submission.envelope;
  EXPECT_EQ(envelope.id(), with.id);
  EXPECT_EQ(envelope.type(), "waystation.chat.request.v1");
  EXPECT_EQ(envelope.api(), "chat.completions");
  EXPECT_EQ(envelope.tenant(), "t");
  EXPECT_EQ(envelope.model(), "m");
  EXPECT_EQ(envelope.data(), body);
  EXPECT_EQ(envelope.idempotencykey(), "k");
  EXPECT_EQ(envelope.partitionkey(), "c");
  EXPECT_EQ(envelope.expirytime_ms(), 5000);
  EXPECT_EQ(envelope.priority(), -1);
  EXPECT_EQ(envelope.fingerprint().size(), 32u);
  EXPECT_EQ(out.submission.choices, 2u);
  EXPECT_TRUE(out.submission.detached) << "who has a key comes back";
  EXPECT_TRUE(out.submission.stream_usage);
  EXPECT_TRUE(out.stream);
  EXPECT_EQ(out.identity.api, "chat.completions");
  EXPECT_EQ(out.identity.model, "m");
  EXPECT_EQ(out.identity.choices, 2u);
  EXPECT_TRUE(out.identity.include_usage && out.identity.numbered);
}

TEST(Prepare, ThePriorityOfTheCallerWins) {
  PrepareOptions with = options();
  EXPECT_EQ(prepared(chat(R"(,"service_tier":"priority")"), with).submission.envelope.priority(),
            1);
  with.priority = -1;
  EXPECT_EQ(prepared(chat(R"(,"service_tier":"priority")"), with).submission.envelope.priority(),
            -1);
}

TEST(Prepare, TheOtherEndpoints) {
  auto completion =
      prepare("/v1/completions", R"({"model":"m","prompt":["a","b"],"n":2})", options());
  ASSERT_TRUE(completion) << completion.error().message;
  EXPECT_EQ(completion->submission.envelope.type(), "waystation.completion.request.v1");
  EXPECT_EQ(completion->submission.choices, 4u);
  auto embedding = prepare("/v1/embeddings",
                           R"({"model":"m","input":"a","encoding_format":"base64"})", options());
  ASSERT_TRUE(embedding) << embedding.error().message;
  EXPECT_EQ(embedding->submission.envelope.type(), "waystation.embedding.request.v1");
  EXPECT_TRUE(embedding->identity.base64);
  EXPECT_TRUE(is_cacheable(embedding->submission)) << "a vector is the same every time";
  EXPECT_FALSE(prepare("/v1/models", "{}", options()));
  EXPECT_FALSE(is_prepared_endpoint("/v1/models"));
  EXPECT_EQ(prepare("/v1/embeddings", R"({"model":"m"})", options()).error().param, "input");
}

TEST(Prepare, AResponseStandsAlone) {
  const auto response = [](const std::string& more) {
    return prepare("/v1/responses", R"({"model":"m","input":"x")" + more + "}", options());
  };
  const auto out = response(R"(,"temperature":0,"metadata":{"a":"b"})");
  ASSERT_TRUE(out) << out.error().message;
  const v1::Envelope& envelope = out->submission.envelope;
  EXPECT_EQ(envelope.type(), "waystation.chat.request.v1") << "a model hears a chat";
  EXPECT_EQ(envelope.api(), "responses");
  EXPECT_FALSE(is_cacheable(out->submission));
  EXPECT_EQ(out->submission.cache, CacheUse::kNone);
  EXPECT_EQ(out->identity.api, "responses");
  EXPECT_NE(out->identity.echo.find(R"("store":false)"), std::string::npos) << out->identity.echo;
  EXPECT_NE(stream::make_collector(out->identity), nullptr);
  EXPECT_TRUE(response(R"(,"store":false)"));
  EXPECT_EQ(response(R"(,"store":true)").error().param, "store");
  EXPECT_EQ(response(R"(,"store":"no")").error().param, "store");
  EXPECT_FALSE(response(R"(,"background":true)"));
  EXPECT_FALSE(response(R"(,"conversation":"conv_0190f0c2111172228333444444444444")"));
  EXPECT_FALSE(prepare("/v1/responses", "{}", options()));
  EXPECT_FALSE(prepare("/v1/responses", "", options()));
  EXPECT_TRUE(is_prepared_endpoint("/v1/responses"));
}

TEST(CacheKey, OnlyWhatWouldBeAnsweredTheSame) {
  EXPECT_EQ(key_of(chat("")), "");
  EXPECT_EQ(key_of(chat(R"(,"temperature":0.5)")), "");
  EXPECT_EQ(key_of(chat(R"(,"temperature":0)")).size(), 32u);
  EXPECT_EQ(key_of(chat(R"(,"seed":1)")).size(), 32u);
  PrepareOptions turn = options();
  turn.conversation = "c";
  const Prepared out = prepared(chat(R"(,"seed":1)"), turn);
  EXPECT_FALSE(is_cacheable(out.submission));
  EXPECT_EQ(out.submission.cache, CacheUse::kNone);
}

TEST(CacheKey, DependsOnAllThatDecidesTheAnswerAndNothingElse) {
  const std::string key = key_of(chat(R"(,"seed":1)"));
  EXPECT_EQ(key_of(R"({"seed":1,"messages":[{"content":"x","role":"user"}],"model":"m"})"), key);
  EXPECT_EQ(key_of(chat(R"(,"seed":1,"stream":true,"user":"u","store":true,"metadata":{"a":"b"},)"
                        R"("service_tier":"flex","safety_identifier":"s","prompt_cache_key":"k")")),
            key);
  EXPECT_EQ(key_of(chat(R"(,"seed":1,"stream":true,"stream_options":{"include_usage":false})")),
            key);
  EXPECT_NE(key_of(chat(R"(,"seed":1,"stream":true,"stream_options":{"include_usage":true})")), key)
      << "its stream has one chunk more";
  EXPECT_NE(key_of(chat(R"(,"seed":2)")), key);
  EXPECT_NE(key_of(chat(R"(,"seed":1,"max_tokens":5)")), key);
  PrepareOptions other = options();
  other.tenant = "u";
  EXPECT_NE(key_of(chat(R"(,"seed":1)"), other), key);
}

TEST(Fingerprint, IsOfTheWholeBodyAndTheEndpoint) {
  const auto of = [](const std::string& body) {
    return prepared(body).submission.envelope.fingerprint();
  };
  EXPECT_EQ(of(chat(R"(,"seed":1)")),
            of(R"({"seed":1,"messages":[{"content":"x","role":"user"}],"model":"m"})"));
  EXPECT_NE(of(chat("")), of(chat(R"(,"user":"u")")));
}

}  // namespace
}  // namespace waystation::broker
