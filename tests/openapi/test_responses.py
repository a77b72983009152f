"""Responses and conversations of the real model, read against OpenAI's description."""

import json

import jsonschema
import pytest

from harness import MODEL, wait_until
from tools import CLOCK, PERSON, WEATHER, responses_tool

RESPONSES = "/v1/responses"
ENDED = ("completed", "incomplete", "failed", "cancelled")


def ask(**fields):
    return {"model": MODEL, "input": "Say hello.", "max_output_tokens": 16, "temperature": 0,
            **fields}


PERSON_TEXT = {"format": {"type": "json_schema", "name": "person", "strict": True,
                          "schema": PERSON}}
TOOLS = [responses_tool(WEATHER), responses_tool(CLOCK)]
VARIANTS = {
    "plain": {},
    "instructions": {"instructions": "Be brief."},
    "messages": {"input": [{"role": "user", "content": "Hello"},
                           {"type": "message", "role": "assistant",
                            "content": [{"type": "output_text", "text": "Hi"}]},
                           {"role": "user", "content": [{"type": "input_text", "text": "Bye"}]}]},
    "metadata": {"metadata": {"a": "b"}, "user": "u1", "service_tier": "flex"},
    "not stored": {"store": False},
    "json object": {"text": {"format": {"type": "json_object"}}, "max_output_tokens": 60},
    "json schema": {"text": PERSON_TEXT, "max_output_tokens": 200},
    "tools, auto": {"tools": TOOLS},
    "tools, required": {"tools": TOOLS, "tool_choice": "required", "max_output_tokens": 120},
    "tools, named": {"tools": TOOLS, "tool_choice": {"type": "function", "name": "get_time"},
                     "max_output_tokens": 120},
    "calls and their results": {"tools": TOOLS, "input": [
        {"role": "user", "content": "What time is it?"},
        {"type": "function_call", "call_id": "call_1", "name": "get_time",
         "arguments": '{"zone":"UTC"}'},
        {"type": "function_call_output", "call_id": "call_1", "output": "noon"}]},
    "logprobs": {"top_logprobs": 2, "include": ["message.output_text.logprobs"]},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_whole_responses(api, name):
    body = ask(**VARIANTS[name])
    response = api.post(RESPONSES, body).json
    assert response["status"] in ("completed", "incomplete")
    assert response["model"] == MODEL
    assert response["metadata"] == body.get("metadata", {})
    check_output(body, response)


def check_output(body, response):
    calls = [item for item in response["output"] if item["type"] == "function_call"]
    messages = [item for item in response["output"] if item["type"] == "message"]
    assert calls or messages
    if body.get("tool_choice"):
        assert calls
    if response["status"] != "completed":
        assert response["incomplete_details"] == {"reason": "max_output_tokens"}
        return
    for call in calls:
        tool = WEATHER if call["name"] == "get_weather" else CLOCK
        jsonschema.validate(json.loads(call["arguments"]), tool["function"]["parameters"])
    if body.get("text") == PERSON_TEXT:
        jsonschema.validate(json.loads(messages[0]["content"][0]["text"]), PERSON)
    if body.get("top_logprobs"):
        logprobs = messages[0]["content"][0]["logprobs"]
        assert logprobs and all(len(token["top_logprobs"]) == 2 for token in logprobs)


@pytest.mark.parametrize("name", VARIANTS)
def test_streams(api, name):
    body = ask(**VARIANTS[name])
    values = api.events(RESPONSES, body)
    response = values[-1]["response"]
    check_output(body, response)
    types = [value["type"] for value in values]
    if any(item["type"] == "message" for item in response["output"]):
        assert types[2:4] == ["response.output_item.added", "response.content_part.added"]
    if any(item["type"] == "function_call" for item in response["output"]):
        assert "response.function_call_arguments.delta" in types
        assert "response.function_call_arguments.done" in types


def test_a_stream_says_what_the_whole_response_says(api):
    whole = api.post(RESPONSES, ask()).json
    streamed = api.events(RESPONSES, ask())[-1]["response"]
    def texts(response):
        return [part["text"] for item in response["output"] for part in item["content"]]
    assert texts(whole) == texts(streamed)
    assert set(whole) == set(streamed)


def test_too_few_tokens_is_incomplete(api):
    response = api.post(RESPONSES, ask(input="Tell me a long story about a king.")).json
    assert response["status"] == "incomplete"
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert response["output"][-1]["status"] == "incomplete"
    values = api.events(RESPONSES, ask(input="Tell me a long story about a king."))
    assert values[-1]["type"] == "response.incomplete"


def test_a_stored_response_can_be_had_again(api):
    made = api.post(RESPONSES, ask(metadata={"k": "v"}, input="Store me.")).json
    assert api.get(f"{RESPONSES}/{made['id']}").json == made
    items = api.get(f"{RESPONSES}/{made['id']}/input_items").json
    assert [item["type"] for item in items["data"]] == ["message"]
    assert items["data"][0]["content"][0]["text"] == "Store me."
    gone = api.delete(f"{RESPONSES}/{made['id']}").json
    assert gone["id"] == made["id"] and gone["deleted"] is True
    api.call("GET", f"{RESPONSES}/{made['id']}", status=404)
    api.call("GET", f"{RESPONSES}/{made['id']}/input_items", status=404)
    api.call("DELETE", f"{RESPONSES}/{made['id']}", status=404)


def test_what_is_not_stored_is_not_found(api):
    made = api.post(RESPONSES, ask(store=False)).json
    api.call("GET", f"{RESPONSES}/{made['id']}", status=404)


def test_input_items_come_in_pages(api):
    made = api.post(RESPONSES, ask(input=[{"role": "user", "content": f"line {n}"}
                                          for n in range(5)])).json
    base = f"{RESPONSES}/{made['id']}/input_items"
    whole = api.get(f"{base}?order=asc").json
    texts = [item["content"][0]["text"] for item in whole["data"]]
    assert texts == [f"line {n}" for n in range(5)] and whole["has_more"] is False
    newest = api.get(base).json["data"]
    assert newest == whole["data"][::-1]
    first = api.get(f"{base}?order=asc&limit=2").json
    assert first["data"] == whole["data"][:2] and first["has_more"] is True
    rest = api.get(f"{base}?order=asc&limit=20&after={first['last_id']}").json
    assert rest["data"] == whole["data"][2:]


def wait_ended(api, response_id):
    def ended():
        response = api.get(f"{RESPONSES}/{response_id}").json
        return response if response["status"] in ENDED else None
    return wait_until(ended, f"{response_id} to end", 60)


def test_background(api):
    made = api.post(RESPONSES, ask(background=True, input="In the background.")).json
    assert made["status"] in ("queued", "in_progress") and made["background"] is True
    ended = wait_ended(api, made["id"])
    assert ended["status"] in ("completed", "incomplete")
    values = api.events(f"{RESPONSES}/{made['id']}?stream=true", method="GET")
    assert values[-1]["response"] == ended
    later = api.events(f"{RESPONSES}/{made['id']}?stream=true&starting_after=3", method="GET",
                       first=4)
    assert later == values[4:]


def test_background_streams(api):
    values = api.events(RESPONSES, ask(background=True, input="Streamed in the background."))
    response_id = values[0]["response"]["id"]
    assert api.events(f"{RESPONSES}/{response_id}?stream=true", method="GET") == values


def test_cancel(api):
    made = api.post(RESPONSES, ask(background=True, max_output_tokens=2000,
                                   logit_bias=None, input="Count to a million.")).json
    cancelled = api.post(f"{RESPONSES}/{made['id']}/cancel").json
    assert cancelled["status"] in ("cancelled", "completed")
    ended = wait_ended(api, made["id"])
    assert api.post(f"{RESPONSES}/{made['id']}/cancel").json == ended
    api.call("POST", f"{RESPONSES}/resp_nothing/cancel", {}, status=404)


def test_previous_response(api):
    first = api.post(RESPONSES, ask(input="My name is Ada.")).json
    second = api.post(RESPONSES, ask(input="What is my name?",
                                     previous_response_id=first["id"])).json
    assert second["previous_response_id"] == first["id"]
    alone = api.post(RESPONSES, ask(input="What is my name?")).json
    assert second["usage"]["input_tokens"] > alone["usage"]["input_tokens"] + 5
    wrong = api.post(RESPONSES, ask(previous_response_id="resp_nothing"), status=400)
    assert wrong.error["param"] == "previous_response_id"
    both = api.post(RESPONSES, ask(previous_response_id=first["id"], conversation="conv_x"),
                    status=400)
    assert both.error["param"] in ("conversation", "previous_response_id")


# ---- conversations -------------------------------------------------------------------------------


CONVERSATIONS = "/v1/conversations"


def test_conversation_objects(api):
    made = api.post(CONVERSATIONS, {"metadata": {"topic": "demo"}}).json
    place = f"{CONVERSATIONS}/{made['id']}"
    assert made["metadata"] == {"topic": "demo"}
    assert api.get(place).json == made
    changed = api.post(place, {"metadata": {"topic": "other"}}).json
    assert changed["metadata"] == {"topic": "other"} and changed["id"] == made["id"]
    assert api.get(f"{place}/items").json["data"] == []
    api.delete(place)
    api.call("GET", place, status=404)
    api.call("GET", f"{place}/items", status=404)


def test_conversation_items(api):
    made = api.post(CONVERSATIONS, {"items": [
        {"type": "message", "role": "user", "content": "one"}]}).json
    place = f"{CONVERSATIONS}/{made['id']}/items"
    added = api.post(place, {"items": [
        {"type": "message", "role": "assistant",
         "content": [{"type": "output_text", "text": "two", "annotations": []}]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "three"}]},
    ]}).json
    assert len(added["data"]) == 2
    listed = api.get(f"{place}?order=asc").json["data"]
    assert [item["content"][0]["text"] for item in listed] == ["one", "two", "three"]
    assert api.get(place).json["data"] == listed[::-1]
    one = api.get(f"{place}/{listed[1]['id']}").json
    assert one == listed[1]
    assert api.delete(f"{place}/{listed[1]['id']}").json["id"] == made["id"]
    api.call("GET", f"{place}/{listed[1]['id']}", status=404)
    assert len(api.get(place).json["data"]) == 2


def test_a_conversation_grows_with_its_responses(api):
    made = api.post(CONVERSATIONS, {}).json
    place = f"{CONVERSATIONS}/{made['id']}"
    first = api.post(RESPONSES, ask(input="My name is Ada.", conversation=made["id"])).json
    assert first["conversation"] == {"id": made["id"]}
    values = api.events(RESPONSES, ask(input="And you?", conversation={"id": made["id"]}))
    assert values[-1]["response"]["usage"]["input_tokens"] > first["usage"]["input_tokens"]
    items = api.get(f"{place}/items?order=asc").json["data"]
    assert [item["role"] for item in items] == ["user", "assistant", "user", "assistant"]
    assert items[0]["content"][0]["text"] == "My name is Ada."
    wrong = api.post(RESPONSES, ask(conversation="conv_nothing"), status=404)
    assert wrong.error["param"] in ("conversation", None)
