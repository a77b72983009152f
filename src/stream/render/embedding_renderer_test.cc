#include "stream/render/embedding_renderer.h"

#include <gtest/gtest.h>

#include "stream/render/testing.h"

namespace waystation::stream {
namespace {

v1::Event vectors(const std::vector<std::vector<float>>& lists) {
  auto event = test_event(v1::EVENT_KIND_DELTA);
  for (const auto& list : lists) {
    event.add_embeddings(
        std::string(reinterpret_cast<const char*>(list.data()), list.size() * sizeof(float)));
  }
  return event;
}

std::string answer(bool base64, const std::vector<std::vector<float>>& lists) {
  auto identity = test_identity("embeddings");
  identity.base64 = base64;
  const auto collector = make_embedding_collector(identity);
  collector->add(test_event(v1::EVENT_KIND_START));
  collector->add(vectors(lists));
  collector->add(test_event(v1::EVENT_KIND_FINISH, "", "stop"));
  return collector->answer(test_ending()).value();
}

const std::string kTail = R"(],"model":"org/model","usage":{"prompt_tokens":3,"total_tokens":3}})";

TEST(EmbeddingCollector, GoldenFloats) {
  EXPECT_EQ(answer(false, {{0.1f, -2}, {}, {1e-7f}}),
            R"({"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.1,-2]},)"
            R"({"object":"embedding","index":1,"embedding":[]},)"
            R"({"object":"embedding","index":2,"embedding":[1e-07]})" +
                kTail);
}

TEST(EmbeddingCollector, GoldenBase64IsTheRawBytes) {
  // Lengths of 4, 8 and 12 bytes have two, one and no padding.
  EXPECT_EQ(answer(true, {{1}, {1, -1}, {1, -1, 0.5f}}),
            R"({"object":"list","data":[)"
            R"({"object":"embedding","index":0,"embedding":"AACAPw=="},)"
            R"({"object":"embedding","index":1,"embedding":"AACAPwAAgL8="},)"
            R"({"object":"embedding","index":2,"embedding":"AACAPwAAgL8AAAA/"})" +
                kTail);
}

TEST(EmbeddingRenderer, EventsAreLists) {
  auto identity = test_identity("embeddings");
  identity.numbered = true;
  const auto renderer = make_embedding_renderer(identity);
  EXPECT_EQ(one_frame(*renderer, 0, test_event(v1::EVENT_KIND_START)),
            R"({"object":"list","data":[],"model":"org/model","sequence_number":0})");
  EXPECT_EQ(one_frame(*renderer, 1, vectors({{1}})),
            R"({"object":"list","data":[{"object":"embedding","index":0,"embedding":[1]}],)"
            R"("model":"org/model","sequence_number":1})");
  EXPECT_EQ(one_frame(*renderer, 2, vectors({{2}})),
            R"({"object":"list","data":[{"object":"embedding","index":1,"embedding":[2]}],)"
            R"("model":"org/model","sequence_number":2})");
}

}  // namespace
}  // namespace waystation::stream
