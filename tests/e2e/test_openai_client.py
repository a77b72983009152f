"""The official Python client, unchanged, against the server."""

import openai
import pytest

from harness import MODEL, MODEL_FILE, run, scripted_text


def client_of(server, **how):
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=server.api_key or "none",
                         max_retries=0, timeout=60, **how)


@pytest.fixture(scope="module")
def server(shared):
    return shared.start("--queue-max", 4, scripted="tokens=16,interval-ms=2", workers=1)


@pytest.fixture
def client(server):
    with client_of(server) as made:
        yield made


ASK = {"model": "scripted", "messages": [{"role": "user", "content": "hello"}]}


def test_models(client):
    models = client.models.list().data
    assert [model.id for model in models] == ["scripted"]
    assert models[0].object == "model"


def test_whole_answer(client):
    answer = client.chat.completions.create(**ASK)
    assert answer.object == "chat.completion"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content == scripted_text(16)
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage.completion_tokens == 16
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 16


def test_stream(client):
    chunks = list(client.chat.completions.create(**ASK, stream=True))
    assert len({chunk.id for chunk in chunks}) == 1
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert chunks[0].choices[0].delta.role == "assistant"
    assert all(chunk.usage is None for chunk in chunks)
    reasons = [chunk.choices[0].finish_reason for chunk in chunks]
    assert reasons[:-1] == [None] * (len(chunks) - 1) and reasons[-1] in ("stop", "length")
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == scripted_text(16)


def test_stream_with_usage(client):
    chunks = list(client.chat.completions.create(**ASK, stream=True,
                                                 stream_options={"include_usage": True}))
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == 16
    assert all(chunk.choices for chunk in chunks[:-1])


def test_max_tokens_and_stop(client):
    short = client.chat.completions.create(**ASK, max_tokens=5)
    assert short.choices[0].message.content.split() == [f"tok{i}" for i in range(5)]
    assert short.choices[0].finish_reason == "length"
    newer = client.chat.completions.create(**ASK, max_completion_tokens=3)
    assert newer.choices[0].message.content.split() == ["tok0", "tok1", "tok2"]


def test_errors_have_the_types_that_clients_know(client, server):
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(**{**ASK, "model": "no-such-model"})
    assert unknown.value.code == "model_not_found" and "scripted" in str(unknown.value)
    with pytest.raises(openai.BadRequestError) as wrong:
        client.chat.completions.create(**ASK, temperature="hot")
    assert wrong.value.param == "temperature"
    with pytest.raises(openai.NotFoundError):
        client.get("/nothing/here", cast_to=object)


def test_same_key_other_body_is_unprocessable(client):
    key = {"extra_headers": {"Idempotency-Key": "client-key"}}
    client.chat.completions.create(**ASK, **key)
    with pytest.raises(openai.UnprocessableEntityError):
        client.chat.completions.create(**ASK, max_tokens=3, **key)


def test_wrong_key_is_an_authentication_error(servers):
    keys = servers.folder / "keys"
    code, out, err = run("keys", "add", keys, "--tenant", "someone")
    assert code == 0, err
    server = servers.make("--api-key-file", keys, scripted="tokens=3,interval-ms=1", workers=1)
    server.api_key = out.split()[-1]
    server.start()
    with client_of(server) as good:
        assert good.chat.completions.create(**ASK).choices[0].message.content == scripted_text(3)
    server.api_key = "ws-wrong"
    with client_of(server) as bad, pytest.raises(openai.AuthenticationError):
        bad.chat.completions.create(**ASK)


def test_raw_stream_has_nothing_that_breaks_clients(server):
    stream = server.stream("hello").wait_end()
    assert stream.how_it_ended == "done"
    assert b"\nid:" not in stream.raw and b"\nevent:" not in stream.raw
    assert not stream.raw.startswith((b"id:", b"event:"))
    assert all("sequence_number" not in frame.json for frame in stream.frames)
    assert stream.headers["content-type"].startswith("text/event-stream")


def test_real_model_answers_through_the_client(shared):
    real = shared.start(models=[MODEL_FILE], workers=1)
    with client_of(real) as client:
        assert [model.id for model in client.models.list().data] == [MODEL]
        answer = client.chat.completions.create(
            model=MODEL, temperature=0, max_tokens=24,
            messages=[{"role": "user", "content": "What is the capital of France?"}])
        assert answer.choices[0].message.content.strip()
        assert 0 < answer.usage.completion_tokens <= 24 < answer.usage.prompt_tokens
        with pytest.raises(openai.BadRequestError) as long:
            client.chat.completions.create(
                model=MODEL, messages=[{"role": "user", "content": "word " * 40_000}])
        assert long.value.code == "context_length_exceeded"
        with pytest.raises(openai.BadRequestError) as long:
            for _ in client.chat.completions.create(
                    model=MODEL, stream=True,
                    messages=[{"role": "user", "content": "word " * 40_000}]):
                pass
        assert long.value.code == "context_length_exceeded"
