"""Embeddings and the list of models."""

import base64
import math
import struct

import pytest

from harness import MODEL

EMBEDDER = "embedder"


def embed(api, given, **fields):
    reply = api.post("/v1/embeddings", {"model": EMBEDDER, "input": given, **fields}).json
    assert [one["index"] for one in reply["data"]] == list(range(len(reply["data"])))
    assert reply["model"] == EMBEDDER
    assert 0 < reply["usage"]["prompt_tokens"] == reply["usage"]["total_tokens"]
    return [one["embedding"] for one in reply["data"]]


def unpacked(text):
    raw = base64.b64decode(text, validate=True)
    return list(struct.unpack(f"<{len(raw) // 4}f", raw))


def length(vector):
    return math.sqrt(sum(value * value for value in vector))


@pytest.mark.parametrize("given, count", [
    ("a", 1), (["a", "b", "c"], 3), ([504, 3575], 1), ([[504, 3575], [314]], 2)],
    ids=["text", "texts", "tokens", "lists of tokens"])
def test_what_can_be_embedded(api, given, count):
    vectors = embed(api, given)
    assert len(vectors) == count
    assert len({len(vector) for vector in vectors}) == 1


def test_floats_and_base64_are_the_same(api):
    floats = embed(api, ["one", "two"], encoding_format="float")
    packed = embed(api, ["one", "two"], encoding_format="base64")
    for first, second in zip(floats, map(unpacked, packed)):
        assert first == pytest.approx(second, abs=1e-6)
    assert floats[0] != floats[1]


def test_vectors_have_length_one(api):
    (vector,) = embed(api, "The sun is warm.")
    assert length(vector) == pytest.approx(1, abs=1e-3)


def test_fewer_dimensions(api):
    (full,) = embed(api, "dimensions")
    (short,) = embed(api, "dimensions", dimensions=16)
    assert len(full) > 16 == len(short)
    assert length(short) == pytest.approx(1, abs=1e-3)
    scale = length(full[:16])
    assert short == pytest.approx([value / scale for value in full[:16]], abs=1e-3)


def test_likeness_is_sensible_at_all(api):
    """The same text is nearest to itself. Nothing more is asked of a model this small."""
    first, again, other = embed(api, ["cats purr", "cats purr", "the treaty of 1648"])
    assert first == pytest.approx(again, abs=1e-4)
    assert sum(a * b for a, b in zip(first, other)) < 0.9999


@pytest.mark.parametrize("body, param", [
    ({}, "input"), ({"input": ""}, "input"), ({"input": []}, "input"), ({"input": [""]}, "input"),
    ({"input": [[]]}, "input"), ({"input": {"a": 1}}, "input"), ({"input": [1.5]}, "input"),
    ({"input": [-1]}, "input"), ({"input": "a", "dimensions": 0}, "dimensions"),
    ({"input": "a", "dimensions": 1 << 20}, "dimensions"),
    ({"input": "a", "encoding_format": "hex"}, "encoding_format"),
    ({"input": ["a"] * 3000}, "input"), ({"input": [1 << 31]}, "input")])
def test_what_is_refused(api, body, param):
    reply = api.post("/v1/embeddings", {"model": EMBEDDER, **body}, status=400)
    assert (reply.error["param"] or "").startswith(param), reply.error


def test_a_chat_model_does_not_embed_nor_an_embedder_chat(api):
    wrong = api.post("/v1/embeddings", {"model": MODEL, "input": "a"}, status=400)
    assert wrong.error["param"] == "model"
    wrong = api.post("/v1/chat/completions",
                     {"model": EMBEDDER, "messages": [{"role": "user", "content": "a"}]}, status=400)
    assert wrong.error["param"] == "model"


def test_models(api):
    listed = api.get("/v1/models").json["data"]
    assert {MODEL, EMBEDDER} == {model["id"] for model in listed}
    for model in listed:
        assert api.get(f"/v1/models/{model['id']}").json == model
    api.call("GET", "/v1/models/no-such-model", status=404)


def test_a_model_id_with_slashes(servers, description):
    from recorder import Api
    from harness import MODEL_FILE
    server = servers.start(models=[f"org/small/model={MODEL_FILE}"], workers=1)
    api = Api(server, description)
    assert api.get("/v1/models/org/small/model").json["id"] == "org/small/model"
    assert api.get("/v1/models/org%2Fsmall%2Fmodel").json["id"] == "org/small/model"
    answer = api.post("/v1/chat/completions", {
        "model": "org/small/model", "max_tokens": 2, "messages": [{"role": "user", "content": "a"}]})
    assert answer.json["model"] == "org/small/model"
    api.verdict()
