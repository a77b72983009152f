"""JSON answers validate and tool calls parse, with the real small model, also when its worker dies."""

import concurrent.futures
import json

import jsonschema
import pytest

import random_schemas
from harness import MODEL, MODEL_FILE, SLOWNESS, command_line

pytestmark = pytest.mark.timeout(900 * SLOWNESS)
SCHEMAS = 200
AT_ONCE = 8
TOOLS = [{"type": "function", "function": {
    "name": "book_courier", "description": "Books a courier",
    "parameters": {"type": "object", "properties": {
        "city": {"type": "string", "maxLength": 16}, "horses": {"type": "integer", "minimum": 1, "maximum": 9},
        "speed": {"enum": ["walk", "trot", "gallop"]}}, "required": ["city", "horses", "speed"],
        "additionalProperties": False}}}]


@pytest.fixture(scope="module")
def server(shared):
    if not MODEL_FILE.exists():
        pytest.fail(f"{MODEL_FILE} is not there: run 'make models'")
    return shared.start("--embed-model", f"embed={MODEL_FILE}", models=[MODEL_FILE], workers=1)


def kill_chat_worker(server):
    (pid,) = [pid for pid in server.workers() if "--model" in command_line(pid)]
    server.kill_worker(pid)


def check(text, schema):
    value = json.loads(text)
    jsonschema.Draft202012Validator(
        schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER).validate(value)


def wanted(schema):
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}


def test_random_schemas(server, rng):
    schemas = [random_schemas.root(rng) for _ in range(SCHEMAS)]

    def ask(number):
        return server.chat("Fill in the form about a courier.", model=MODEL, max_tokens=400, timeout_s=300,
                           temperature=0 if number % 2 else 1, seed=number,
                           response_format=wanted(schemas[number]))

    finished = 0
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        for number, reply in enumerate(pool.map(ask, range(SCHEMAS))):
            assert reply.status == 200, (schemas[number], reply.body)
            choice = reply.json["choices"][0]
            if choice["finish_reason"] == "length":
                continue
            assert choice["finish_reason"] == "stop"
            try:
                check(choice["message"]["content"], schemas[number])
            except (ValueError, jsonschema.ValidationError) as error:
                pytest.fail(f"{json.dumps(schemas[number])}\n{choice['message']['content']!r}\n{error}")
            finished += 1
    assert finished >= SCHEMAS * 0.8, f"only {finished} answers ended by themselves"


@pytest.mark.parametrize("keyword, value", [
    ("multipleOf", 3), ("not", {}), ("patternProperties", {}), ("uniqueItems", True), ("minimum", 0.5),
    ("oneOf", [{}, {}]), ("if", {}), ("contains", {}), ("$ref", "http://example.com/x")])
def test_what_cannot_be_kept_is_refused(server, keyword, value):
    schema = {"type": "object", "properties": {"x": {"type": "number", keyword: value}}}
    if keyword == "$ref":
        del schema["properties"]["x"]["type"]
    reply = server.chat("x", model=MODEL, response_format=wanted(schema))
    assert reply.status == 400
    assert reply.error["param"] == f"response_format.json_schema.schema.properties.x.{keyword}"
    assert keyword in reply.error["message"]


def test_json_object(server):
    reply = server.chat("A JSON object with one member.", model=MODEL, temperature=0, max_tokens=200,
                        response_format={"type": "json_object"})
    choice = reply.json["choices"][0]
    assert choice["message"]["content"].startswith("{")
    if choice["finish_reason"] == "stop":
        assert isinstance(json.loads(choice["message"]["content"]), dict)


def calls_of(stream):
    """Tool calls joined from a stream's deltas, checked for what clients rely on."""
    calls = {}
    for frame in stream.frames:
        if not frame.data.startswith("{"):
            continue
        for choice in frame.json.get("choices", []):
            for piece in choice["delta"].get("tool_calls", []):
                call = calls.setdefault(piece["index"], {"arguments": ""})
                if "id" in piece:
                    assert "id" not in call, "an id comes once"
                    call["id"] = piece["id"]
                    call["name"] = piece["function"]["name"]
                call["arguments"] += piece["function"].get("arguments", "")
    return calls


@pytest.mark.parametrize("number", range(5))
def test_a_worker_dies_in_mid_call(server, number):
    fields = dict(model=MODEL, temperature=0, max_tokens=200, tools=TOOLS, tool_choice="required",
                  parallel_tool_calls=False)
    prompt = f"Send {number + 1} horses to Samarkand, fast."
    undisturbed = calls_of(server.stream(prompt, **fields).wait_end(150))
    stream = server.stream(prompt, headers={"Idempotency-Key": f"call-{number}"}, **fields)
    stream.wait_frames(2 + 3 * number, 150)
    kill_chat_worker(server)
    stream.wait_end(150)
    assert stream.how_it_ended == "done"
    assert stream.finish_reason == "tool_calls"
    (call,) = calls_of(stream).values()
    jsonschema.validate(json.loads(call["arguments"]), TOOLS[0]["function"]["parameters"])
    assert call["name"] == "book_courier"
    assert call["arguments"] == undisturbed[0]["arguments"]


@pytest.mark.parametrize("number", range(5))
def test_a_worker_dies_in_mid_json(server, rng, number):
    schema = {"type": "object", "properties": {"story": {"type": "string", "minLength": 30, "maxLength": 60},
                                               "horses": {"type": "integer", "minimum": 2, "maximum": 90}},
              "required": ["story", "horses"], "additionalProperties": False}
    stream = server.stream(f"A courier's day, number {number}.", model=MODEL, temperature=0.7, seed=number,
                           max_tokens=300, response_format=wanted(schema),
                           headers={"Idempotency-Key": f"json-{number}"})
    stream.wait_frames(rng.randrange(2, 10), 150)
    kill_chat_worker(server)
    stream.wait_end(150)
    assert stream.how_it_ended == "done" and stream.finish_reason == "stop"
    check(stream.text, schema)


def test_embeddings(server):
    def vectors(text):
        reply = server.post("/v1/embeddings", {"model": "embed", "input": text, "encoding_format": "float"})
        assert reply.status == 200, reply.body
        return [entry["embedding"] for entry in reply.json["data"]]

    alone = vectors("A horse on the road.")[0]
    both = vectors(["The bank's report.", "A horse on the road."])
    assert max(abs(a - b) for a, b in zip(alone, both[1])) < 1e-3
    assert sum(a * b for a, b in zip(alone, both[0])) < 0.999
    assert abs(sum(a * a for a in alone) - 1) < 1e-4
