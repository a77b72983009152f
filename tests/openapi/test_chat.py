"""Chat completions and legacy completions of the real model, read against OpenAI's description."""

import json

import jsonschema
import pytest

import rules
from harness import MODEL
from tools import CLOCK, PERSON, WEATHER, user

CHAT = "/v1/chat/completions"
LEGACY = "/v1/completions"


def ask(**fields):
    return {"model": MODEL, "messages": user(), "max_tokens": 8, "temperature": 0, **fields}


FRESH = {"Cache-Control": "no-cache"}  # not an earlier answer again


def whole(api, **fields):
    body = ask(**fields)
    answer = api.post(CHAT, body, headers=FRESH).json
    api.complain("chat", rules.chat_answer(answer, body))
    return answer


PERSON_FORMAT = {"type": "json_schema",
                 "json_schema": {"name": "person", "strict": True, "schema": PERSON}}
CALLS = {"tools": [WEATHER, CLOCK], "max_tokens": 120}
VARIANTS = {
    "plain": {},
    "several": {"n": 3, "temperature": 0.9, "seed": 7},
    "logprobs": {"logprobs": True, "top_logprobs": 3},
    "logprobs without alternatives": {"logprobs": True},
    "stop": {"stop": ["e", "."]},
    "one stop": {"stop": "e"},
    "penalties": {"presence_penalty": 1.5, "frequency_penalty": -0.5, "logit_bias": {"5": -100}},
    "json object": {"response_format": {"type": "json_object"}, "max_tokens": 60},
    "json schema": {"response_format": PERSON_FORMAT, "max_tokens": 120},
    "text format": {"response_format": {"type": "text"}},
    "tools, auto": {"tools": [WEATHER, CLOCK], "tool_choice": "auto"},
    "tools, none": {"tools": [WEATHER, CLOCK], "tool_choice": "none"},
    "tools, required": {**CALLS, "tool_choice": "required"},
    "tools, named": {**CALLS, "tool_choice": {"type": "function",
                                              "function": {"name": "get_time"}}},
    "tools, one at a time": {**CALLS, "tool_choice": "required", "parallel_tool_calls": False},
    "tools, several choices": {**CALLS, "tool_choice": "required", "n": 2, "temperature": 0.8,
                               "seed": 3},
    "what is kept": {"metadata": {"purpose": "test"}, "store": True, "user": "u1",
                     "service_tier": "flex", "safety_identifier": "s1"},
    "newer limit": {"max_tokens": None, "max_completion_tokens": 5},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_whole_answers(api, name):
    answer = whole(api, **VARIANTS[name])
    assert answer["id"] and answer["model"] == MODEL


@pytest.mark.parametrize("usage", [False, True], ids=["", "usage"])
@pytest.mark.parametrize("name", VARIANTS)
def test_streams(api, name, usage):
    body = ask(**VARIANTS[name])
    if usage:
        body["stream_options"] = {"include_usage": True}
    values = api.chunks(CHAT, body)
    for choice in rules.joined(values):
        if choice["calls"] and choice["finish_reason"] != "length":
            api.complain("calls", rules.tool_calls(choice["calls"], body["tools"]))
        if body.get("logprobs") and not body.get("stop"):
            api.complain("logprobs", rules.chat_logprobs({"content": choice["logprobs"]},
                                                         choice["content"],
                                                         body.get("top_logprobs", 0)))


@pytest.mark.parametrize("name", ["plain", "json schema", "tools, required", "logprobs", "stop"])
def test_a_stream_says_what_the_whole_answer_says(api, name):
    """Temperature 0: the same text, calls and reason, streamed or not."""
    answer = whole(api, **VARIANTS[name])["choices"][0]
    (streamed,) = rules.joined(api.chunks(CHAT, ask(**VARIANTS[name]), FRESH))
    assert (streamed["content"] or None) == (answer["message"]["content"] or None)
    assert streamed["finish_reason"] == answer["finish_reason"]
    calls = answer["message"].get("tool_calls") or []
    assert [call["function"] for call in streamed["calls"]] == [call["function"] for call in calls]


def test_a_schema_is_kept(api):
    for seed in range(4):
        answer = whole(api, response_format=PERSON_FORMAT, max_tokens=200, temperature=1.0, seed=seed)
        (choice,) = answer["choices"]
        assert choice["finish_reason"] == "stop"
        jsonschema.validate(json.loads(choice["message"]["content"]), PERSON)


@pytest.mark.parametrize("choice, alone", [
    ("required", True), ("required", False),
    ({"type": "function", "function": {"name": "get_weather"}}, False),
    ({"type": "function", "function": {"name": "get_time"}}, True)], ids=str)
def test_forced_calls_are_made(api, choice, alone):
    """`required` is one call or more (one, when they may not be parallel); a name is exactly one."""
    answer = whole(api, **CALLS, tool_choice=choice, parallel_tool_calls=not alone)
    (made,) = answer["choices"]
    calls = made["message"]["tool_calls"]
    if alone or choice != "required":
        assert made["finish_reason"] in ("tool_calls", "stop") and len(calls) == 1
    if choice != "required":
        assert calls[0]["function"]["name"] == choice["function"]["name"]
    whole_calls = calls if made["finish_reason"] != "length" else calls[:-1]
    for call in whole_calls:
        tool = WEATHER if call["function"]["name"] == "get_weather" else CLOCK
        jsonschema.validate(json.loads(call["function"]["arguments"]),
                            tool["function"]["parameters"])


def test_no_call_when_none_is_allowed(api):
    answer = whole(api, tools=[WEATHER], tool_choice="none")
    assert "tool_calls" not in answer["choices"][0]["message"]


def test_a_whole_conversation_with_calls_is_taken(api):
    call = {"id": "call_1", "type": "function",
            "function": {"name": "get_time", "arguments": '{"zone":"UTC"}'}}
    answer = whole(api, tools=[CLOCK], messages=[
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "What time "},
                                     {"type": "text", "text": "is it?"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "noon"},
    ])
    assert answer["choices"][0]["message"]["role"] == "assistant"


def test_seeds_repeat_and_differ(api):
    def text(seed):
        return whole(api, temperature=1.5, seed=seed, max_tokens=16)["choices"][0]["message"]["content"]
    assert text(11) == text(11)
    assert len({text(seed) for seed in range(1, 6)}) > 1


def test_several_choices_differ(api):
    answer = whole(api, n=4, temperature=1.5, seed=5, max_tokens=16)
    assert len({choice["message"]["content"] for choice in answer["choices"]}) > 1
    assert answer["usage"]["completion_tokens"] > 16


def test_a_bias_forces_a_token(api):
    """198 is this model's line feed."""
    forced = whole(api, max_tokens=3, logit_bias={"198": 100})
    assert set(forced["choices"][0]["message"]["content"]) == {"\n"}
    assert forced["usage"]["completion_tokens"] == 3


def test_a_stop_is_not_in_the_text(api):
    full = whole(api, max_tokens=24)["choices"][0]["message"]["content"]
    word = full.split()[1]
    cut = whole(api, max_tokens=24, stop=[word])["choices"][0]
    assert cut["finish_reason"] == "stop"
    assert cut["message"]["content"] == full[:full.index(word)]


def test_usage_counts(api):
    answer = whole(api, max_tokens=5)
    assert answer["usage"]["completion_tokens"] == 5
    assert answer["choices"][0]["finish_reason"] == "length"
    two = whole(api, max_tokens=5, n=2, temperature=1, seed=1)
    assert two["usage"]["prompt_tokens"] == answer["usage"]["prompt_tokens"]
    assert two["usage"]["completion_tokens"] <= 10


def test_the_cache_gives_the_same_answer_whole_and_streamed(api):
    body = ask(messages=user("To be cached."))
    first = api.post(CHAT, body)
    again = api.post(CHAT, body)
    assert [reply.headers["x-cache"] for reply in (first, again)] == ["miss", "hit"]
    assert first.body == again.body
    values = api.chunks(CHAT, body)
    assert values[0]["id"] == first.json["id"]
    assert rules.joined(values)[0]["content"] == first.json["choices"][0]["message"]["content"]
    for headers, expected in (({"Cache-Control": "no-store"}, None), (FRESH, "miss")):
        reply = api.post(CHAT, body, headers=headers)
        assert reply.json["id"] != first.json["id"]
        assert reply.headers.get("x-cache") in (expected, None)
    assert "x-cache" not in api.post(CHAT, ask(temperature=1)).headers


# ---- legacy completions --------------------------------------------------------------------------


def legacy(**fields):
    return {"model": MODEL, "prompt": "The sun is", "max_tokens": 6, "temperature": 0, **fields}


LEGACY_VARIANTS = {
    "plain": {},
    "several": {"n": 2, "temperature": 0.9, "seed": 4},
    "several prompts": {"prompt": ["One", "Two", "Three"]},
    "several of several": {"prompt": ["One", "Two"], "n": 2, "temperature": 0.9, "seed": 4},
    "tokens": {"prompt": [504, 3575, 314]},
    "lists of tokens": {"prompt": [[504, 3575, 314], [504]]},
    "stop": {"stop": "a"},
    "echo": {"echo": True},
    "logprobs": {"logprobs": 2},
    "logprobs 0": {"logprobs": 0},
}


@pytest.mark.parametrize("name", LEGACY_VARIANTS)
def test_legacy_answers(api, name):
    body = legacy(**LEGACY_VARIANTS[name])
    answer = api.post(LEGACY, body).json
    prompts = 1 if isinstance(body["prompt"], str) or isinstance(body["prompt"][0], int) \
        else len(body["prompt"])
    api.complain("legacy", rules.choice_numbers(answer["choices"], prompts * body.get("n", 1)))
    api.complain("legacy", rules.usage(answer["usage"]))
    for choice in answer["choices"]:
        if "logprobs" in body:
            api.complain("legacy", rules.legacy_logprobs(choice["logprobs"], choice["text"],
                                                         body["logprobs"]))
        else:
            assert choice["logprobs"] is None
        if body.get("echo"):
            assert choice["text"].startswith(body["prompt"])


@pytest.mark.parametrize("usage", [False, True], ids=["", "usage"])
@pytest.mark.parametrize("name", LEGACY_VARIANTS)
def test_legacy_streams(api, name, usage):
    body = legacy(**LEGACY_VARIANTS[name])
    if usage:
        body["stream_options"] = {"include_usage": True}
    values = api.chunks(LEGACY, body)
    whole_answer = api.post(LEGACY, legacy(**LEGACY_VARIANTS[name]), headers=FRESH).json
    assert [choice["content"] for choice in rules.joined(values)] == \
        [choice["text"] for choice in whole_answer["choices"]]


def test_text_and_its_tokens_are_the_same_prompt(api):
    """The prompt's ids are taken as they are: nothing is put before them."""
    first = api.post(LEGACY, legacy(logprobs=0)).json
    again = api.post(LEGACY, legacy(prompt=["The sun is"], logprobs=0)).json
    assert first["choices"][0]["text"] == again["choices"][0]["text"]
    assert first["usage"] == again["usage"]
