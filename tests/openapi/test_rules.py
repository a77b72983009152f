"""The checker is checked: good answers pass, and each planted fault is named."""

import copy
import json

import pytest

import description as descriptions
import rules
from harness import Frame, Reply


@pytest.fixture(scope="module")
def described():
    found = descriptions.load()
    if found is None:
        pytest.skip(f"OpenAI's description isn't at {descriptions.PATH}: nothing was read against it")
    return found


def test_the_description_is_there(described):
    """Skipped where it is absent, so that its absence is counted."""
    assert len(described.schemas) > 500


# ---- chat chunks ---------------------------------------------------------------------------------


def chunk(delta, reason=None, **fields):
    return {"id": "c1", "object": "chat.completion.chunk", "created": 7, "model": "m",
            "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}],
            **fields}


def call_delta(**fields):
    return chunk({"tool_calls": [fields]})


REQUEST = {"messages": [], "stream_options": {"include_usage": True}}
GOOD = [
    chunk({"role": "assistant", "content": ""}, usage=None),
    chunk({"content": "Hello"}, usage=None),
    chunk({}, "stop", usage=None),
    {**chunk({}), "choices": [],
     "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}},
]


def test_good_chunks_pass(described):
    assert rules.chunks(GOOD, REQUEST) == []
    for value in GOOD:
        assert described.problems("CreateChatCompletionStreamResponse", value) == []


def alter(change):
    values = copy.deepcopy(GOOD)
    change(values)
    return values


@pytest.mark.parametrize("change, named", [
    (lambda v: v[1].update(id="other"), "id changes"),
    (lambda v: v[1].update(created=8), "created changes"),
    (lambda v: v[0]["choices"][0]["delta"].pop("role"), "no role"),
    (lambda v: v[1]["choices"][0]["delta"].update(role="assistant"), "role after the first"),
    (lambda v: v[1]["choices"][0].update(finish_reason="stop"), "before its last chunk"),
    (lambda v: v[2]["choices"][0].update(finish_reason=None), "its last chunk has"),
    (lambda v: v[1].update(usage=v[3]["usage"]), "not only in the last"),
    (lambda v: v.pop(), "not only in the last"),
    (lambda v: v[3].update(choices=v[2]["choices"]), "usage has choices"),
    (lambda v: v[3]["usage"].update(total_tokens=9), "total_tokens"),
    (lambda v: v[1]["choices"][0].update(index=1), "nobody asked for"),
    (lambda v: v[1].update(choices=[]), "without choices in the middle"),
    (lambda v: v[1].pop("usage"), "without `usage`"),
])
def test_faults_in_chunks_are_named(change, named):
    assert any(named in complaint for complaint in rules.chunks(alter(change), REQUEST))


def test_a_stream_without_done_is_named():
    assert any("[DONE]" in complaint for complaint in rules.chunks(GOOD, REQUEST, "eof"))


@pytest.mark.parametrize("deltas, named", [
    ([{"index": 0, "type": "function", "function": {"name": "f", "arguments": ""}}], "without id"),
    ([{"id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}], "index is None"),
    ([{"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}},
      {"index": 0, "id": "a", "function": {"arguments": "{"}}], "twice"),
    ([{"index": 1, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}],
     "before call 0"),
    ([], "there are none"),
])
def test_faults_in_call_deltas_are_named(deltas, named):
    values = [chunk({"role": "assistant", "content": None})]
    values += [call_delta(**delta) for delta in deltas] + [chunk({}, "tool_calls")]
    assert any(named in complaint for complaint in rules.chunks(values, {"messages": []}))


# ---- raw streams, errors -------------------------------------------------------------------------


class Raw:
    headers = {"content-type": "text/event-stream"}

    def __init__(self, raw):
        self.raw = raw


def test_raw_lines():
    assert rules.raw_stream(Raw(b": ping\n\ndata: {}\n\ndata: [DONE]\n\n")) == []
    assert rules.raw_stream(Raw(b"event: x\ndata: {}\n\n"), events=True) == []
    for bad in (b"id: 1\ndata: {}\n\n", b"event: x\ndata: {}\n\n", b"data: \xff\n\n"):
        assert rules.raw_stream(Raw(bad)), bad


def error(**fields):
    inner = {"message": "m", "type": "invalid_request_error", "param": None, "code": "c", **fields}
    return Reply(400, {"content-type": "application/json"}, json.dumps({"error": inner}).encode())


def test_errors(described):
    assert rules.error_reply(error()) == []
    assert described.problems("ErrorResponse", error().json) == []
    for fault in ({"code": 400}, {"param": ["a"]}, {"message": ""}, {"type": None}):
        assert rules.error_reply(error(**fault)), fault
    for body in (b"", b"oops", b"[]", b'{"error":{}}', b'{"error":"no"}', b'{"detail":"x"}'):
        assert rules.error_reply(Reply(400, {"content-type": "application/json"}, body)), body
    assert rules.error_reply(Reply(400, {"content-type": "text/plain"}, error().body))


# ---- Responses -----------------------------------------------------------------------------------


def response(status, output=(), used=None):
    return {"id": "resp_1", "object": "response", "created_at": 5, "status": status, "error": None,
            "incomplete_details": None, "instructions": None, "max_output_tokens": None,
            "model": "m", "output": list(output), "parallel_tool_calls": True,
            "previous_response_id": None, "store": True, "temperature": 1.0,
            "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": [], "top_p": 1.0,
            "truncation": "disabled", "usage": used, "user": None, "metadata": {}}


def good_events():
    part = {"type": "output_text", "text": "Hi", "annotations": [], "logprobs": []}
    item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed",
            "content": [part]}
    used = {"input_tokens": 1, "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": 2, "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 3}
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    values = [
        {"type": "response.created", "response": response("in_progress")},
        {"type": "response.in_progress", "response": response("in_progress")},
        {"type": "response.output_item.added", "output_index": 0,
         "item": {**item, "status": "in_progress", "content": []}},
        {"type": "response.content_part.added", **place, "part": {**part, "text": ""}},
        {"type": "response.output_text.delta", **place, "delta": "H", "logprobs": []},
        {"type": "response.output_text.delta", **place, "delta": "i", "logprobs": []},
        {"type": "response.output_text.done", **place, "text": "Hi", "logprobs": []},
        {"type": "response.content_part.done", **place, "part": part},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": response("completed", [item], used)},
    ]
    return [{**value, "sequence_number": number} for number, value in enumerate(values)]


def frames(values):
    return [Frame(event=value["type"], data=json.dumps(value)) for value in values]


def test_good_events_pass(described):
    values = good_events()
    assert rules.response_events(frames(values)) == []
    assert rules.response_object(values[-1]["response"]) == []
    for value in values:
        assert described.problems("ResponseStreamEvent", value) == []


@pytest.mark.parametrize("change, named", [
    (lambda v: v[4].update(sequence_number=9), "gap"),
    (lambda v: v.pop(), "last event"),
    (lambda v: v.pop(0), "gap"),
    (lambda v: v.pop(1), "in_progress"),
    (lambda v: v.pop(2), "not added"),
    (lambda v: v.pop(3), "not added"),
    (lambda v: v.pop(4), "deltas made"),
    (lambda v: v[6].update(text="Ho"), "deltas made"),
    (lambda v: v.pop(8), "no output_item.done"),
    (lambda v: v[4].update(item_id="msg_2"), "item_id"),
    (lambda v: v.insert(6, v.pop(8)), "after item 0 was done"),
    (lambda v: v[9]["response"].update(id="resp_2"), "id changes"),
    (lambda v: v[9]["response"].update(output=[]), "output is not"),
    (lambda v: v[2]["item"].update(status="completed"), "added item"),
])
def test_faults_in_events_are_named(change, named):
    values = good_events()
    change(values)
    assert any(named in complaint for complaint in rules.response_events(frames(values)))


def test_faults_in_a_response_are_named():
    good = good_events()[-1]["response"]
    for fault in ({"usage": None}, {"status": "incomplete"}, {"status": "failed"},
                  {"error": {"code": "server_error", "message": "m"}}):
        assert rules.response_object({**good, **fault}), fault


# ---- the description -----------------------------------------------------------------------------


@pytest.mark.parametrize("schema, value, named", [
    ("CreateChatCompletionStreamResponse", {**GOOD[1], "created": "now"}, "created"),
    ("CreateChatCompletionStreamResponse", {**GOOD[1], "surprise": 1}, "surprise: no such field"),
    ("CreateChatCompletionStreamResponse", {**GOOD[1], "object": "chat.completion"}, "object"),
    ("ResponseStreamEvent", {**good_events()[4], "delta": 3}, "delta"),
    ("ResponseStreamEvent", {"type": "response.invented", "sequence_number": 1}, "none of"),
    ("ErrorResponse", {"error": {"message": "m", "type": "t", "param": None, "code": 400}}, "code"),
    ("Batch", {"id": "b"}, "required"),
    ("CreateEmbeddingResponse", {"object": "list", "model": "m", "data": [],
                                 "usage": {"prompt_tokens": 1}}, "total_tokens"),
])
def test_faults_against_the_description_are_named(described, schema, value, named):
    found = described.problems(schema, value)
    assert any(named in problem for problem in found), found


def test_legacy_and_chat_logprobs():
    chat = {"content": [{"token": "Hi", "logprob": -0.1, "bytes": [72, 105], "top_logprobs": [
        {"token": "Hi", "logprob": -0.1, "bytes": [72, 105]}]}], "refusal": None}
    assert rules.chat_logprobs(chat, "Hi", 1) == []
    assert rules.chat_logprobs(chat, "Ho", 1) and rules.chat_logprobs(chat, "Hi", 2)
    assert rules.chat_logprobs(None, "Hi", 1)
    old = {"tokens": ["H", "i"], "token_logprobs": [-1, -2], "text_offset": [0, 1],
           "top_logprobs": [{"H": -1}, {"i": -2}]}
    assert rules.legacy_logprobs(old, "Hi", 1) == []
    for fault in ({"tokens": ["H"]}, {"text_offset": [1, 0]}, {"top_logprobs": None}):
        assert rules.legacy_logprobs({**old, **fault}, "Hi", 1), fault
    assert rules.legacy_logprobs({"content": []}, "Hi", 1)
