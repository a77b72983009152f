"""Random requests, valid and not: never a 500, never a hang, always the error's shape, and what is
wrong is named. The parameters and their bounds come from OpenAI's description.

`WAYSTATION_SEED=… tests/run tests/openapi -k random` plays a run again; WAYSTATION_RANDOM_REQUESTS
sets how many requests each API gets."""

import json
import os
import time

import pytest

import rules
from harness import MODEL
from tools import CLOCK, PERSON, WEATHER, responses_tool

COUNT = int(os.environ.get("WAYSTATION_RANDOM_REQUESTS") or 150)
ANSWER_WITHIN_S = 30

NOTHING = object()  # a parameter that is left out
WRONG_TYPES = ["text", -7, 3.5, True, [], {}, ["x"], {"x": 1}, [[]], [None]]


class Parameter:
    """How a parameter is drawn. `good` and `bad` are lists of values or functions of a random
    generator. `needs`: what has to be there with it."""

    def __init__(self, good, bad, needs=None, field=None):
        self.good, self.bad, self.needs, self.field = good, bad, needs or {}, field

    @staticmethod
    def draw(values, rng):
        value = rng.choice(values)
        return value(rng) if callable(value) else value


def within(low, high, whole=False):
    """A number with bounds."""
    good = [low, high, (lambda rng: rng.randint(int(low), int(high))) if whole else
            (lambda rng: rng.uniform(low, high))]
    return Parameter(good, [low - 1, high + 1, -1e300, "1", True, [], {}] + ([1.5] if whole else []))


def is_bool():
    return Parameter([True, False], ["yes", 1, 0.0, [], {}])


def text(rng):
    return "".join(rng.choice("abc é漢🦔\n\"\\{}<|im_end|>\u0000") for _ in range(rng.randint(0, 12)))


METADATA = Parameter([{}, {"a": "b"}, {"k" * 64: "v" * 512}],
                     [{"a": 1}, {"a": None}, ["a"], "a", {str(n): "" for n in range(17)},
                      {"k" * 65: "v"}, {"k": "v" * 513}])
TIER = Parameter(["auto", "default", "flex", "priority"], ["gold", 1, [], {}])
STOP = Parameter(["a", ["a"], ["a", "b", "c", "d"], None], [["a"] * 5, [""], 1, {}, [1], [None], True])
BIAS = Parameter([{}, {"5": 1}, {"5": -100, "6": 100}], [{"x": 1}, {"5": 101}, {"5": "a"}, [], 3,
                                                         {"-1": 1}, {"4294967296": 1}])
SAMPLING = {
    "temperature": within(0, 2), "top_p": within(0, 1),
    "metadata": METADATA, "service_tier": TIER,
    "user": Parameter(["u", text], [1, [], {}]), "stream": is_bool(),
}
GENERATION = {
    **{name: SAMPLING[name] for name in ("temperature", "top_p", "user", "stream")},
    "presence_penalty": within(-2, 2), "frequency_penalty": within(-2, 2),
    "n": Parameter([1, 2, 3, None], [0, -1, 129, 1.5, "2", True, [], {}]),
    "stop": STOP, "seed": Parameter([0, 1, 1 << 40, -5, None], ["x", 1.5, [], {}]),
    "logit_bias": BIAS,
    "stream_options": Parameter([{"include_usage": True}, {"include_usage": False}, {}],
                                [1, "x", [], {"include_usage": 1}], {"stream": True}),
}
CHAT = {
    **GENERATION, "metadata": METADATA, "service_tier": TIER, "store": is_bool(),
    "messages": Parameter(
        [[{"role": "user", "content": "a"}], lambda rng: [{"role": "user", "content": text(rng)}],
         [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}],
         [{"role": "user", "content": [{"type": "text", "text": "a"}]}],
         [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
          {"role": "user", "content": "c", "name": "ada"}],
         [{"role": "user", "content": "a"},
          {"role": "assistant", "content": None, "tool_calls": [
              {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
          {"role": "tool", "tool_call_id": "c1", "content": "1"}]],
        [[], "a", {}, [1], [{}], [{"role": "user"}], [{"role": "x", "content": "a"}],
         [{"role": "user", "content": 1}], [{"content": "a"}], [{"role": 1, "content": "a"}],
         [{"role": "user", "content": [{"type": "x"}]}],
         [{"role": "user", "content": [{"type": "text"}]}], [None], [[]]]),
    "max_tokens": Parameter([1, 3, 8], [0, -1, 1.5, "1", True, [], {}, 1 << 70]),
    "max_completion_tokens": Parameter([1, 3, 8], [0, -1, 1.5, "1", True, [], {}]),
    "logprobs": is_bool(),
    "top_logprobs": Parameter([0, 1, 20], [-1, 21, 1.5, "1", [], {}], {"logprobs": True}),
    "tools": Parameter([[WEATHER], [WEATHER, CLOCK]],
                       [{}, "x", [1], [{}], [{"type": "function"}], [{"type": "x"}],
                        [{"type": "function", "function": {}}], [WEATHER, WEATHER],
                        [{"type": "function", "function": {"name": "a" * 65}}],
                        [{"type": "function", "function": {"name": "a", "parameters": []}}]]),
    "tool_choice": Parameter(["auto", "none", "required",
                              {"type": "function", "function": {"name": "get_time"}}],
                             ["x", 1, [], {}, {"type": "function"},
                              {"type": "function", "function": {"name": "unknown"}}],
                             {"tools": [WEATHER, CLOCK]}),
    "parallel_tool_calls": Parameter([True, False], ["x", 1, [], {}], {"tools": [WEATHER, CLOCK]}),
    "response_format": Parameter(
        [{"type": "text"}, {"type": "json_object"},
         {"type": "json_schema", "json_schema": {"name": "p", "schema": PERSON}}],
        [1, "x", [], {}, {"type": "x"}, {"type": "json_schema"},
         {"type": "json_schema", "json_schema": {"name": "p", "schema": "x"}},
         {"type": "json_schema", "json_schema": {"schema": PERSON}}]),
}
COMPLETION = {
    **GENERATION,
    "prompt": Parameter(["a", text, ["a", "b"], [5, 6], [[5], [6, 7]]],
                        [[], 1, {}, [{}], ["a", 1], [[]], [-1], [1.5], True, [[5], "a"]]),
    "max_tokens": Parameter([1, 3, 8], [-1, 1.5, "1", True, [], {}]),
    "logprobs": Parameter([0, 1, 5, None], [-1, 6, 1.5, "1", True, [], {}]),
    "echo": is_bool(),
}
EMBEDDING = {
    "input": Parameter(["a", ["a", "b"], [5, 6], [[5], [6, 7]]],
                       [[], "", [""], 1, {}, [{}], ["a", 1], [[]], [-1], [1.5], True, None]),
    "encoding_format": Parameter(["float", "base64"], ["hex", 1, [], {}]),
    "dimensions": Parameter([8, 16], [0, -1, 1.5, "1", True, [], {}, 1 << 20]),
    "user": Parameter(["u"], [1, [], {}]),
}
RESPONSES = {
    **SAMPLING, "store": is_bool(),
    "input": Parameter(
        ["a", text, [{"role": "user", "content": "a"}],
         [{"role": "user", "content": [{"type": "input_text", "text": "a"}]}],
         [{"type": "message", "role": "developer", "content": "a"},
          {"role": "user", "content": "b"}]],
        [1, [], {}, [1], [{}], [{"role": "x", "content": "a"}], [{"role": "user", "content": 1}],
         [{"type": "x"}], [{"role": "user", "content": [{"type": "x"}]}], True]),
    "instructions": Parameter(["a", None], [1, {}, True]),
    "max_output_tokens": Parameter([16, 20], [0, -1, 1.5, "1", True, [], {}]),
    "top_logprobs": Parameter([0, 5, 20], [-1, 21, "1", [], {}],
                              {"include": ["message.output_text.logprobs"]}),
    "tools": Parameter([[responses_tool(WEATHER)], [responses_tool(CLOCK)]],
                       [{}, "x", [1], [{}], [{"type": "function"}], [{"type": "x"}]]),
    "tool_choice": Parameter(["auto", "none", "required", {"type": "function", "name": "get_time"}],
                             ["x", 1, [], {}, {"type": "function", "name": "unknown"}],
                             {"tools": [responses_tool(CLOCK)]}),
    "parallel_tool_calls": is_bool(),
    "text": Parameter([{}, {"format": {"type": "text"}}, {"format": {"type": "json_object"}},
                       {"format": {"type": "json_schema", "name": "p", "schema": PERSON}}],
                      [1, "x", [], {"format": 1}, {"format": {"type": "x"}},
                       {"format": {"type": "json_schema", "name": "p"}}]),
    "truncation": Parameter(["disabled"], ["x", 1, [], {}]),
    "previous_response_id": Parameter([None], [1, [], {}]),
    "include": Parameter([[], ["message.output_text.logprobs"]], [1, "x", {}, [1]]),
    "background": Parameter([False, None], ["x", 1, [], {}]),
}
APIS = {
    "chat": ("/v1/chat/completions", CHAT, {"messages": [{"role": "user", "content": "a"}]}),
    "completions": ("/v1/completions", COMPLETION, {"prompt": "a"}),
    "embeddings": ("/v1/embeddings", EMBEDDING, {"input": "a"}),
    "responses": ("/v1/responses", RESPONSES, {"input": "a"}),
}


def draw(rng, parameters, base, model):
    """A random body, and the name of the parameter that is wrong in it, if one is."""
    body = {"model": model, **base}
    for limit in ("max_tokens", "max_output_tokens"):  # without one, answers may be very long
        if limit in parameters:
            body[limit] = 16
    names = rng.sample(sorted(parameters), rng.randint(0, min(6, len(parameters))))
    wrong = rng.choice(names) if names and rng.random() < 0.5 else None
    for name in names:
        parameter = parameters[name]
        for other, value in parameter.needs.items():
            if other != wrong:
                body[other] = value
        if name in parameter_needs(parameters, names) and name != wrong:
            continue  # another one needs a certain value of it
        body[name] = Parameter.draw(parameter.bad if name == wrong else parameter.good, rng)
    if wrong not in ("response_format", "stop") and \
            (body.get("response_format") or {}).get("type", "text") != "text":
        body.pop("stop", None)  # could cut the JSON: refused together
    if body.get("echo") is True and wrong not in ("logprobs", "echo"):
        body.pop("logprobs", None)  # the prompt's tokens have none here: refused together
    if "max_completion_tokens" in body and wrong not in ("max_tokens", "max_completion_tokens"):
        body.pop("max_tokens", None)
    return body, wrong


def parameter_needs(parameters, names):
    return {other for name in names for other in parameters[name].needs}


def send(api, path, body):
    """One request, streamed or not; its status and, from 400 on, its error."""
    about = json.dumps(body)[:700]
    began = time.monotonic()
    before = len(api.bad)
    if body.get("stream") is True:
        stream = api.stream_or_reply(path, body, ANSWER_WITHIN_S)
        status, error = stream.status, None
        if status != 200:
            error = json.loads(stream.body)["error"]
        elif path != "/v1/responses":
            values = [frame.json for frame in stream.chunks]
            api.complain(path, rules.chunks(values, body, stream.how_it_ended))
        else:
            api.complain(path, rules.response_events(stream.frames, stream.how_it_ended))
    else:
        reply = api.server.post(path, body, timeout_s=ANSWER_WITHIN_S)
        api.read("POST", path, reply)
        status, error = reply.status, reply.error if reply.status >= 400 else None
        if status == 200 and path == "/v1/chat/completions":
            api.complain(path, rules.chat_answer(reply.json, body,
                                                 logprobs=body["model"] != "scripted"))
    for number in range(before, len(api.bad)):
        api.bad[number] += f"\n    of {about}"
    assert time.monotonic() - began < ANSWER_WITHIN_S * 2, about
    return status, error


def judge(status, error, body, wrong):
    """What is wrong with how a body was judged."""
    if status >= 500:
        return f"a {status}: {error}"
    if wrong is None:
        return None if status == 200 else f"a valid body was refused: {status} {error}"
    if status == 200:
        return f"{wrong} = {body[wrong]!r} was accepted"
    named = error.get("param") or ""
    return None if status == 400 and named.startswith(wrong) else \
        f"{wrong} = {str(body[wrong])[:80]} is wrong; the answer is {status} and names {named!r}: " \
        f"{error['message'][:150]}"


def run(api, rng, name, model, count):
    path, parameters, base = APIS[name]
    workers = api.server.workers()
    accepted, bad = 0, {}
    for _ in range(count):
        body, wrong = draw(rng, parameters, base, model)
        status, error = send(api, path, body)
        accepted += status == 200
        complaint = judge(status, error, body, wrong)
        if complaint:
            bad.setdefault(complaint[:60], f"{complaint}\n    of {json.dumps(body)[:700]}")
    api.bad += list(bad.values())
    assert api.server.get("/healthz").status == 200
    assert api.server.workers() == workers, "a worker died"
    assert count * 0.2 < accepted, "hardly anything was accepted: the test tests nothing"


@pytest.mark.parametrize("name", APIS)
def test_random_requests_to_the_scripted_engine(quick, rng, name):
    run(quick, rng, name, "scripted", COUNT)


@pytest.mark.parametrize("name", ["chat", "completions", "embeddings", "responses"])
def test_random_requests_to_the_real_model(api, rng, name):
    run(api, rng, name, "embedder" if name == "embeddings" else MODEL, max(COUNT // 4, 10))


def mangled(rng, body):
    """The bytes of a request with a fault anywhere."""
    raw = bytearray(json.dumps(body).encode())
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(raw))
        kind = rng.randrange(4)
        if kind == 0:
            raw[place] = rng.randrange(256)
        elif kind == 1:
            del raw[place:place + rng.randint(1, 9)]
        elif kind == 2:
            raw[place:place] = rng.choice([b"{", b"]", b'"', b"\\u0000", b"1e400", b"null", b"\xf0"])
        else:
            raw = raw[:place]
        if not raw:
            break
    return bytes(raw)


@pytest.mark.parametrize("name", APIS)
def test_random_bytes(quick, rng, name):
    path, parameters, base = APIS[name]
    for _ in range(COUNT):
        body, _ = draw(rng, parameters, base, "scripted")
        body.pop("stream", None)
        raw = mangled(rng, body)
        reply = quick.server.post(path, raw, timeout_s=ANSWER_WITHIN_S)
        assert reply.status < 500, (reply, raw)
        if reply.status >= 400:
            quick.complain(f"{path} {raw!r}", rules.error_reply(reply))


@pytest.mark.parametrize("name, schema", [
    ("chat", "CreateChatCompletionRequest"), ("completions", "CreateCompletionRequest"),
    ("embeddings", "CreateEmbeddingRequest"), ("responses", "CreateResponse")])
def test_the_random_requests_are_what_the_description_says(description, rng, name, schema):
    """What is drawn as valid is valid by the description too, and mostly the other way round."""
    if description is None:
        pytest.skip("OpenAI's description is absent")
    _, parameters, base = APIS[name]
    told = 0
    for _ in range(300):
        body, wrong = draw(rng, parameters, base, "m")
        problems = description.problems(schema, body)
        assert wrong is not None or not problems, (body, problems)
        told += wrong is not None and bool(problems)
    assert told > 40
