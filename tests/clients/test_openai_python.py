"""The official Python client against the real model: everything it can ask of the server.
`e2e/test_openai_client.py` has its streams and errors over the scripted engine."""

import asyncio
import json
import math
import typing

import openai
import pydantic
import pytest

from harness import MODEL, scripted_text, wait_until
from shared_fixtures import EMBEDDER


def client_of(server, **how):
    return openai.OpenAI(**{"base_url": f"{server.url}/v1", "api_key": "none", "max_retries": 0,
                            "timeout": 60, **how})


@pytest.fixture(scope="module")
def client(real):
    with client_of(real) as made:
        yield made


@pytest.fixture(scope="module")
def quick(scripted):
    with client_of(scripted) as made:
        yield made


MESSAGES = [{"role": "user", "content": "Say hello."}]
ASK = {"model": MODEL, "messages": MESSAGES, "temperature": 0, "max_tokens": 12}
SCRIPTED = {"model": "scripted", "messages": MESSAGES}


class Person(pydantic.BaseModel):
    """A schema whose values can't be long, so that a small model comes to an end."""
    age: typing.Annotated[int, pydantic.Field(ge=0, le=120)]
    mood: typing.Literal["good", "bad"]
    tags: typing.Annotated[list[typing.Literal["a", "b"]], pydantic.Field(max_length=3)]


class GetWeather(pydantic.BaseModel):
    """The weather at a place."""
    place: typing.Literal["Paris", "Rome"]
    days: typing.Annotated[int, pydantic.Field(ge=1, le=7)]


# ---- chat ----------------------------------------------------------------------------------------


def test_logprobs(client):
    answer = client.chat.completions.create(**ASK, logprobs=True, top_logprobs=3)
    tokens = answer.choices[0].logprobs.content
    assert "".join(token.token for token in tokens) == answer.choices[0].message.content
    assert all(len(token.top_logprobs) == 3 for token in tokens)
    assert all(token.top_logprobs[0].token == token.token for token in tokens), "temperature 0"


def test_choices_in_a_stream(client):
    texts = {}
    for chunk in client.chat.completions.create(**{**ASK, "temperature": 1.3}, n=3, seed=5,
                                                stream=True):
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
    assert sorted(texts) == [0, 1, 2] and len(set(texts.values())) > 1


def test_stop_and_seed(client):
    wild = {**ASK, "temperature": 1.4, "max_tokens": 20,
            "extra_headers": {"Cache-Control": "no-store"}}
    first = client.chat.completions.create(**wild, seed=3).choices[0].message.content
    assert client.chat.completions.create(**wild, seed=3).choices[0].message.content == first
    word = first.split()[-1]
    cut = client.chat.completions.create(**wild, seed=3, stop=[word]).choices[0]
    assert cut.message.content == first[:first.index(word)] and cut.finish_reason == "stop"


def test_parsed_output(client):
    answer = client.chat.completions.parse(**{**ASK, "max_tokens": 100}, response_format=Person)
    assert isinstance(answer.choices[0].message.parsed, Person)


def test_parsed_output_that_was_cut_short(client):
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(**{**ASK, "max_tokens": 2}, response_format=Person)


def test_parsed_stream(client):
    with client.chat.completions.stream(**{**ASK, "max_tokens": 100},
                                        response_format=Person) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    assert "content.delta" in kinds and kinds.count("content.done") == 1
    assert isinstance(final.choices[0].message.parsed, Person)


def test_parsed_tool_calls(client):
    tool = openai.pydantic_function_tool(GetWeather)
    answer = client.chat.completions.parse(**{**ASK, "max_tokens": 100}, tools=[tool],
                                           tool_choice="required", parallel_tool_calls=False)
    calls = answer.choices[0].message.tool_calls
    assert calls and all(isinstance(call.function.parsed_arguments, GetWeather) for call in calls)


def test_parsed_tool_calls_in_a_stream(client):
    tool = openai.pydantic_function_tool(GetWeather)
    named = {"type": "function", "function": {"name": "GetWeather"}}
    with client.chat.completions.stream(**{**ASK, "max_tokens": 100}, tools=[tool],
                                        tool_choice=named) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    assert "tool_calls.function.arguments.delta" in kinds
    (call,) = final.choices[0].message.tool_calls
    assert isinstance(call.function.parsed_arguments, GetWeather)


def test_a_call_and_its_result(client):
    tool = openai.pydantic_function_tool(GetWeather)
    asked = client.chat.completions.create(
        **{**ASK, "max_tokens": 100}, tools=[tool], tool_choice="required",
        parallel_tool_calls=False).choices[0].message
    messages = [*MESSAGES, asked.model_dump(exclude_none=True)]
    messages += [{"role": "tool", "tool_call_id": call.id, "content": "sunny"}
                 for call in asked.tool_calls]
    answer = client.chat.completions.create(**{**ASK, "messages": messages}, tools=[tool],
                                            tool_choice="none")
    assert answer.choices[0].message.content and not answer.choices[0].message.tool_calls


def test_json_mode(client):
    answer = client.chat.completions.create(
        **{**ASK, "max_tokens": 200, "messages": [{"role": "user", "content": "JSON, one key: a."}]},
        response_format={"type": "json_object"}).choices[0]
    if answer.finish_reason == "stop":
        assert isinstance(json.loads(answer.message.content), dict)
    else:
        assert answer.message.content.lstrip().startswith("{")


def test_images_are_refused_plainly(client):
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(**{**ASK, "messages": [{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}]})
    assert "image" in str(refused.value) and refused.value.param.startswith("messages[0].content")


# ---- completions, embeddings ---------------------------------------------------------------------


def test_legacy_completions(client):
    legacy = {"model": MODEL, "prompt": ["The sun", "The moon"], "max_tokens": 6, "temperature": 0}
    whole = client.completions.create(**legacy, logprobs=1)
    assert [choice.index for choice in whole.choices] == [0, 1]
    for choice in whole.choices:
        assert "".join(choice.logprobs.tokens) == choice.text
        assert choice.logprobs.text_offset[0] == 0
    texts = ["", ""]
    for chunk in client.completions.create(**legacy, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    assert texts == [choice.text for choice in whole.choices]
    echoed = client.completions.create(**{**legacy, "prompt": "The sun"}, echo=True)
    assert echoed.choices[0].text == "The sun" + whole.choices[0].text


def test_embeddings(client):
    """The client asks for base64 unless told otherwise."""
    packed = client.embeddings.create(model=EMBEDDER, input=["one", "two"])
    floats = client.embeddings.create(model=EMBEDDER, input=["one", "two"], encoding_format="float")
    for one, other in zip(packed.data, floats.data):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)
        assert math.sqrt(sum(value ** 2 for value in one.embedding)) == pytest.approx(1, abs=1e-3)
    tokens = client.embeddings.create(model=EMBEDDER, input=[[504, 3575]], dimensions=8)
    assert len(tokens.data[0].embedding) == 8 and tokens.usage.prompt_tokens >= 2


# ---- responses, conversations --------------------------------------------------------------------


RESPONSE = {"model": MODEL, "input": "Say hello.", "temperature": 0, "max_output_tokens": 16}


def test_response(client):
    response = client.responses.create(**RESPONSE, metadata={"a": "b"})
    assert response.status in ("completed", "incomplete") and response.output_text
    assert response.usage.total_tokens == \
        response.usage.input_tokens + response.usage.output_tokens
    again = client.responses.retrieve(response.id)
    assert again.output_text == response.output_text and again.metadata == {"a": "b"}
    assert len(list(client.responses.input_items.list(response.id))) == 1
    client.responses.delete(response.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(response.id)


def test_response_stream(quick):
    """The helper wants a completed response, which the scripted engine gives."""
    with quick.responses.stream(model="scripted", input="a") as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert [event.sequence_number for event in events] == list(range(len(events)))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == final.output_text


def test_parsed_response(client):
    response = client.responses.parse(**{**RESPONSE, "max_output_tokens": 100}, text_format=Person)
    assert isinstance(response.output_parsed, Person)


def test_response_with_calls(client):
    tool = {"type": "function", "name": "get_weather", "strict": True,
            "parameters": GetWeather.model_json_schema() | {"additionalProperties": False}}
    response = client.responses.create(**{**RESPONSE, "max_output_tokens": 100}, tools=[tool],
                                       tool_choice="required", parallel_tool_calls=False)
    (call,) = [item for item in response.output if item.type == "function_call"]
    GetWeather.model_validate_json(call.arguments)
    after = client.responses.create(
        **{**RESPONSE, "input": [{"type": "function_call_output", "call_id": call.call_id,
                                  "output": "sunny"}]},
        previous_response_id=response.id, tools=[tool], tool_choice="none")
    assert after.output_text


def test_background_response(quick):
    made = quick.responses.create(model="scripted", input="a", background=True)
    assert made.status in ("queued", "in_progress")
    ended = wait_until(lambda: (now := quick.responses.retrieve(made.id)).status in
                       ("completed", "incomplete") and now, "the response to end")
    assert ended.output_text == scripted_text(6)
    events = list(quick.responses.retrieve(made.id, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    later = list(quick.responses.retrieve(made.id, stream=True, starting_after=2))
    assert [event.sequence_number for event in later] == list(range(3, len(events)))
    assert quick.responses.cancel(made.id).status == ended.status


def test_cancelled_background_response(client):
    made = client.responses.create(**{**RESPONSE, "input": "Count to a million.",
                                      "max_output_tokens": 3000}, background=True)
    assert client.responses.cancel(made.id).status in ("cancelled", "completed")
    assert client.responses.retrieve(made.id).status in ("cancelled", "completed")


def test_conversation(quick):
    conversation = quick.conversations.create(
        items=[{"type": "message", "role": "user", "content": "zero"}], metadata={"a": "b"})
    for text in ("one", "two"):
        quick.responses.create(model="scripted", input=text, conversation=conversation.id)
    items = list(quick.conversations.items.list(conversation.id, order="asc", limit=2))
    assert [item.content[0].text for item in items if item.role == "user"] == ["zero", "one", "two"]
    quick.conversations.items.delete(items[0].id, conversation_id=conversation.id)
    assert len(list(quick.conversations.items.list(conversation.id))) == 4
    assert quick.conversations.update(conversation.id, metadata={"c": "d"}).metadata == {"c": "d"}
    assert quick.conversations.delete(conversation.id).deleted


# ---- files, batches ------------------------------------------------------------------------------


def test_files_and_batch(quick, tmp_path):
    source = tmp_path / "batch.jsonl"
    source.write_text("".join(json.dumps({
        "custom_id": f"n{n}", "method": "POST", "url": "/v1/chat/completions", "body": SCRIPTED})
        + "\n" for n in range(3)), encoding="utf-8")
    with source.open("rb") as opened:
        file = quick.files.create(file=opened, purpose="batch")
    assert quick.files.retrieve(file.id).filename == "batch.jsonl"
    assert quick.files.content(file.id).read() == source.read_bytes()
    assert file.id in [one.id for one in quick.files.list(purpose="batch")]
    batch = quick.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions",
                                 completion_window="24h", metadata={"a": "b"})
    ended = wait_until(lambda: (now := quick.batches.retrieve(batch.id)).status == "completed"
                       and now, "the batch to end", 30)
    assert ended.request_counts.completed == ended.request_counts.total == 3
    lines = [json.loads(line) for line in
             quick.files.content(ended.output_file_id).text.splitlines()]
    assert {line["custom_id"] for line in lines} == {"n0", "n1", "n2"}
    assert batch.id in [one.id for one in quick.batches.list()]
    assert quick.files.delete(file.id).deleted


# ---- retries, cancellation -----------------------------------------------------------------------


def test_a_full_queue_is_retried_until_there_is_room(servers):
    server = servers.start("--queue-max", 1, scripted="tokens=20,interval-ms=20", workers=1)
    with client_of(server) as hasty, client_of(server, max_retries=8) as patient:
        with hasty.chat.completions.create(**SCRIPTED, stream=True) as busy:
            next(iter(busy))
            with pytest.raises(openai.RateLimitError) as full:
                hasty.chat.completions.create(**SCRIPTED)
            assert full.value.code == "queue_full"
            assert int(full.value.response.headers["retry-after-ms"]) > 0
            answer = patient.chat.completions.create(**SCRIPTED, max_tokens=1)
            assert answer.choices[0].message.content.strip() == "tok0"


def test_a_retry_after_a_killed_server_gets_the_same_request(servers):
    """The client retries a broken connection; with a key, that is the request that was accepted."""
    server = servers.start(scripted="tokens=30,interval-ms=20", workers=1)

    def accepted():
        return b"\nwaystation_requests_accepted_total 1" in server.get("/metrics").body

    async def ask():
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=40,
                                      timeout=60) as patient:
            key = {"extra_headers": {"Idempotency-Key": "the-one"}}
            waiting = asyncio.create_task(patient.chat.completions.create(**SCRIPTED, **key))
            await asyncio.to_thread(wait_until, accepted, "the request to be accepted")
            await asyncio.to_thread(server.restart)
            first = await waiting
            second = await patient.chat.completions.create(**SCRIPTED, **key)
            return first, second
    first, second = asyncio.run(ask())
    assert first.id == second.id
    assert first.choices[0].message.content == scripted_text(30)


def test_a_closed_stream_cancels_its_request(client, real):
    stream = client.chat.completions.create(
        **{**ASK, "max_tokens": 2000, "messages": [{"role": "user", "content": "Count."}]},
        logit_bias={"2": -100}, stream=True)
    request_id = stream.response.headers["x-request-id"]
    next(iter(stream))
    stream.close()
    real.wait_state(request_id, "cancelled")


def test_a_timeout_is_a_timeout_error(real):
    with client_of(real, timeout=0.2) as hasty, pytest.raises(openai.APITimeoutError):
        hasty.chat.completions.create(**{**ASK, "max_tokens": 2000}, logit_bias={"2": -100})


def test_many_at_once(real):
    async def run():
        async with openai.AsyncOpenAI(base_url=f"{real.url}/v1", api_key="none",
                                      max_retries=0) as made:
            return await asyncio.gather(*[
                made.chat.completions.create(**{**ASK, "max_tokens": 4}, seed=number)
                for number in range(16)])
    answers = asyncio.run(run())
    assert len({answer.id for answer in answers}) == 16
    assert len({answer.choices[0].message.content for answer in answers}) == 1, "temperature 0"


def test_raw_responses_have_the_request_id(client):
    raw = client.chat.completions.with_raw_response.create(**ASK)
    assert raw.parse()._request_id == raw.headers["x-request-id"]
