"""Whatever is wrong, the answer is an error of OpenAI's shape with the right status, never a 500."""

import pytest

from harness import chat_body

POSTS = {
    "/v1/chat/completions": {"model": "scripted", "messages": [{"role": "user", "content": "a"}]},
    "/v1/completions": {"model": "scripted", "prompt": "a"},
    "/v1/embeddings": {"model": "scripted", "input": "a"},
    "/v1/responses": {"model": "scripted", "input": "a"},
    "/v1/batches": {"input_file_id": "file-x", "endpoint": "/v1/completions",
                    "completion_window": "24h"},
}
JUNK = {
    "empty": b"", "space": b"  ", "no JSON": b"hello", "cut": b'{"model":"scripted",',
    "null": b"null", "a list": b"[]", "a number": b"1", "a text": b'"x"', "nothing in it": b"{}",
    "no UTF-8": b'{"model":"\xff"}', "a lone surrogate": b'{"model":"\\ud800"}',
    "deep": b'{"model":' + b"[" * 5000 + b"]" * 5000 + b"}", "two values": b"{} {}",
    "NaN": b'{"model":"scripted","temperature":NaN}', "a NUL": b'{"model":"a\\u0000b"}',
    "a huge number": b'{"model":1e999}', "a byte order mark": b"\xef\xbb\xbf{}",
}


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("name", JUNK)
def test_junk(quick, path, name):
    reply = quick.server.post(path, JUNK[name])
    quick.read("POST", path, reply)
    assert 400 <= reply.status < 500, reply
    assert isinstance(reply.error["code"], (str, type(None)))


@pytest.mark.parametrize("path", POSTS)
def test_missing_model(quick, path):
    if path == "/v1/batches":
        return
    body = {key: value for key, value in POSTS[path].items() if key != "model"}
    reply = quick.server.post(path, body)
    quick.read("POST", path, reply)
    assert reply.status == 400 and reply.error["param"] == "model", reply


@pytest.mark.parametrize("path", POSTS)
def test_unknown_model(quick, path):
    if path == "/v1/batches":
        return
    reply = quick.call("POST", path, {**POSTS[path], "model": "no-such-model"}, status=404)
    assert reply.error["code"] == "model_not_found" and reply.error["param"] == "model"


@pytest.mark.parametrize("path", ["/v1/responses/resp_x", "/v1/conversations/conv_x",
                                  "/v1/files/file-x", "/v1/batches/batch_x", "/v1/models/x",
                                  "/v1/nothing", "/v2/models"])
def test_not_found(quick, path):
    reply = quick.call("GET", path, status=404)
    assert reply.error["type"] == "invalid_request_error"


@pytest.mark.parametrize("method, path", [("GET", "/v1/chat/completions"), ("PUT", "/v1/files"),
                                          ("DELETE", "/v1/embeddings"), ("PATCH", "/v1/batches")])
def test_wrong_method(quick, method, path):
    reply = quick.call(method, path, status=405)
    assert reply.error["message"] and reply.error["param"] is None
    assert reply.headers["allow"]


def test_compressed_bodies(quick):
    reply = quick.call("POST", "/v1/chat/completions", {"model": "scripted"},
                       headers={"content-encoding": "gzip"}, status=415)
    assert reply.error["param"] == "Content-Encoding"


CHAT_FAULTS = [
    ({"messages": []}, "messages"), ({"messages": "hi"}, "messages"),
    ({"messages": [{"role": "king", "content": "a"}]}, "messages[0].role"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {
        "url": "data:image/png;base64,AAAA"}}]}]}, "messages[0].content"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
    ({"temperature": 3}, "temperature"), ({"temperature": -1}, "temperature"),
    ({"temperature": "1"}, "temperature"), ({"top_p": 2}, "top_p"), ({"n": 0}, "n"),
    ({"n": 129}, "n"), ({"n": "2"}, "n"), ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": 1.5}, "max_tokens"), ({"max_completion_tokens": -1}, "max_completion_tokens"),
    ({"stop": [""]}, "stop"), ({"stop": ["a"] * 5}, "stop"), ({"stop": 5}, "stop"),
    ({"presence_penalty": 2.5}, "presence_penalty"), ({"frequency_penalty": -3}, "frequency_penalty"),
    ({"logit_bias": {"x": 1}}, "logit_bias"), ({"logit_bias": {"1": 200}}, "logit_bias"),
    ({"logit_bias": [1]}, "logit_bias"), ({"logprobs": "yes"}, "logprobs"),
    ({"top_logprobs": 3}, "top_logprobs"), ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"stream": "yes"}, "stream"), ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"stream": True, "stream_options": 1}, "stream_options"), ({"seed": "x"}, "seed"),
    ({"tools": {}}, "tools"), ({"tools": [{"type": "function"}]}, "tools[0].function"),
    ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
    ({"tools": [{"type": "function", "function": {"name": "a", "parameters": 3}}]},
     "tools[0].function.parameters"),
    ({"tool_choice": "required"}, "tool_choice"), ({"tool_choice": "sometimes"}, "tool_choice"),
    ({"tools": [{"type": "function", "function": {"name": "a"}}],
      "tool_choice": {"type": "function", "function": {"name": "b"}}}, "tool_choice"),
    ({"response_format": "json"}, "response_format"),
    ({"response_format": {"type": "yaml"}}, "response_format"),
    ({"response_format": {"type": "json_schema"}}, "response_format"),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": 3}}},
     "response_format"),
    ({"service_tier": "gold"}, "service_tier"), ({"metadata": {"a": 1}}, "metadata"),
    ({"metadata": {str(n): "x" for n in range(17)}}, "metadata"), ({"store": "x"}, "store"),
    ({"model": 5}, "model"), ({"model": ""}, "model"), ({"user": 5}, "user"),
    ({"modalities": ["audio"]}, "modalities"), ({"audio": {"voice": "a", "format": "wav"}}, "audio"),
]


@pytest.mark.parametrize("fields, param", CHAT_FAULTS, ids=lambda value: str(value)[:60])
def test_chat_faults_name_the_field(quick, fields, param):
    reply = quick.call("POST", "/v1/chat/completions", chat_body("a", **fields), status=400)
    assert (reply.error["param"] or "").startswith(param), reply.error
    assert reply.error["type"] == "invalid_request_error" and reply.error["code"]


COMPLETION_FAULTS = [
    ({"prompt": []}, "prompt"), ({"prompt": 5}, "prompt"),
    ({"prompt": ["a", 1]}, "prompt"), ({"prompt": [-1]}, "prompt"), ({"logprobs": 6}, "logprobs"),
    ({"logprobs": True}, "logprobs"), ({"echo": "x"}, "echo"), ({"best_of": 0}, "best_of"),
    ({"n": 3, "best_of": 2}, "best_of"), ({"suffix": "end"}, "suffix"), ({"n": 129}, "n"),
    ({"max_tokens": -1}, "max_tokens"), ({"stream": True, "best_of": 2}, "best_of"),
]


@pytest.mark.parametrize("fields, param", COMPLETION_FAULTS, ids=lambda value: str(value)[:60])
def test_completion_faults_name_the_field(quick, fields, param):
    body = {"model": "scripted", "prompt": "a", **fields}
    reply = quick.call("POST", "/v1/completions", body, status=400)
    assert (reply.error["param"] or "").startswith(param), reply.error


RESPONSES_FAULTS = [
    ({"input": 5}, "input"), ({"input": []}, "input"), ({"input": [{"type": "x"}]}, "input[0]"),
    ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
     "input[0]"),
    ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "x"}]}]}, "input[0]"),
    ({"input": [{"type": "function_call_output", "output": "x"}]}, "input[0].call_id"),
    ({"max_output_tokens": 0}, "max_output_tokens"), ({"max_output_tokens": "1"}, "max_output_tokens"),
    ({"temperature": 5}, "temperature"), ({"tools": [{"type": "web_search"}]}, "tools[0]"),
    ({"tools": [{"type": "function"}]}, "tools[0].name"), ({"tool_choice": "required"}, "tool_choice"),
    ({"text": {"format": {"type": "xml"}}}, "text.format"), ({"text": 3}, "text"),
    ({"text": {"format": {"type": "json_schema", "name": "a"}}}, "text.format.schema"),
    ({"background": "x"}, "background"), ({"background": True, "store": False}, "background"),
    ({"instructions": 3}, "instructions"), ({"previous_response_id": 3}, "previous_response_id"),
    ({"conversation": 3}, "conversation"), ({"metadata": {"a": 1}}, "metadata"),
    ({"include": "x"}, "include"), ({"top_logprobs": 21}, "top_logprobs"),
    ({"prompt": {"id": "pmpt_1"}}, "prompt"), ({"stream": 1}, "stream"),
]


@pytest.mark.parametrize("fields, param", RESPONSES_FAULTS, ids=lambda value: str(value)[:60])
def test_responses_faults_name_the_field(quick, fields, param):
    body = {"model": "scripted", "input": "a", **fields}
    reply = quick.call("POST", "/v1/responses", body, status=400)
    assert (reply.error["param"] or "").startswith(param), reply.error


def test_an_error_before_a_stream_is_no_stream(quick):
    for path, body in POSTS.items():
        if path in ("/v1/embeddings", "/v1/batches"):
            continue
        reply = quick.call("POST", path, {**body, "stream": True, "temperature": 9}, status=400)
        assert reply.error["param"] == "temperature"


def test_a_body_that_is_too_large(quick):
    big = b'{"model":"scripted","messages":[{"role":"user","content":"' + b"a" * (5 << 20) + b'"}]}'
    reply = quick.call("POST", "/v1/chat/completions", big, status=413)
    assert reply.error["code"]


def test_a_stop_can_not_cut_json(api):
    from harness import MODEL
    reply = api.post("/v1/chat/completions", chat_body(
        "a", model=MODEL, stop="a", response_format={"type": "json_object"}), status=400)
    assert reply.error["param"] == "stop"


def test_an_echoed_prompt_has_no_logprobs(api):
    from harness import MODEL
    reply = api.post("/v1/completions", {"model": MODEL, "prompt": "a", "echo": True, "logprobs": 1},
                     status=400)
    assert reply.error["param"] == "echo"


def test_too_long_a_prompt(api):
    from harness import MODEL
    for path, body in (("/v1/chat/completions",
                        {"messages": [{"role": "user", "content": "word " * 9000}]}),
                       ("/v1/completions", {"prompt": "word " * 9000}),
                       ("/v1/responses", {"input": "word " * 9000})):
        for stream in (False, True):
            reply = api.call("POST", path, {"model": MODEL, **body, "stream": stream}, status=400)
            assert reply.error["code"] == "context_length_exceeded", reply.error
