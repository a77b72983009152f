"""Upstreams that are Waystations themselves, answer oddly, or break: what the client hears of it."""

import json
import time

import pytest

import harness
from harness import scripted_text, wait_until
from upstreams import (answer_of, begin_stream, fakes, front_of, piece,  # noqa: F401 (a fixture)
                       send_error, send_event, send_json, upstream_config)


def metric(server, line):
    """The value of a metric, named with its labels."""
    for text in server.get("/metrics").body.decode().splitlines():
        if text.startswith(line + " "):
            return float(text.rsplit(" ", 1)[1])
    return 0.0


def ended(server, state):
    return metric(server, f'waystation_requests_ended_total{{state="{state}"}}')


# ---- cancelling through another Waystation -----------------------------------------------------------


@pytest.mark.parametrize("how", ["cancel", "client gone", "deadline"])
def test_a_cancelled_request_ends_behind_another_server_too(servers, tmp_path, how):
    far = servers.start(scripted="tokens=5000,interval-ms=20", workers=1)
    front = front_of(servers, tmp_path, upstream_config(far.url + "/v1", "far-1", '["far=scripted"]'))
    headers = {"X-Deadline-Ms": "1500"} if how == "deadline" else None
    stream = front.stream(model="far", headers=headers).wait_frames(3)
    if how == "cancel":
        front.post(f"/v1/requests/{stream.request_id}/cancel")
    elif how == "client gone":
        stream.close()
    front.wait_state(stream.request_id, "expired" if how == "deadline" else "cancelled")
    wait_until(lambda: ended(far, "cancelled") == 1, "the far request to be cancelled", 15)


def test_a_cancel_before_the_first_event_goes_all_the_way(servers, tmp_path, fakes):
    """The server in the middle hasn't answered yet, not even with its request's id."""
    def answer(handler, body, number):
        assert handler.connection.recv(1) == b""
        raise BrokenPipeError
    far = fakes(answer)
    middle = front_of(servers, tmp_path, upstream_config(far.url(), "far"))
    front = front_of(servers, tmp_path, upstream_config(middle.url + "/v1", "middle"))
    front.stream(model="far", headers={"X-Resumable": "true"})  # only a cancel ends it
    wait_until(lambda: far.calls, "the call to arrive")
    (record,) = [each for each in harness.inspect(front.data) if each["type"] == "accepted"]
    assert front.post(f"/v1/requests/{record['request']}/cancel").json["state"] == "cancelled"
    wait_until(lambda: ended(middle, "cancelled") == 1, "the middle request to be cancelled", 15)
    assert far.gone.wait(15 * harness.SLOWNESS), "the last server was left running"


# ---- servers that lead back to themselves ------------------------------------------------------------


def server_on(servers, tmp_path, port, config):
    path = tmp_path / f"loop{port}.toml"
    path.write_text(config)
    server = servers.make("--config", path)
    server.port = port
    return server


@pytest.mark.parametrize("stream", [False, True])
def test_a_server_that_is_its_own_upstream_says_so(servers, tmp_path, stream):
    port = harness.free_port()
    server = server_on(servers, tmp_path, port, upstream_config(
        f"http://127.0.0.1:{port}/v1", "itself")).start()
    reply = server.chat(model="far", stream=stream, temperature=0, timeout_s=20)
    assert reply.status == 508, reply
    assert reply.error["code"] == "loop_detected"
    assert reply.error["message"].startswith("itself: the request has come back to this server")
    assert len(server.state(reply.request_id)["attempts"]) == 1  # trying again is of no use


def test_servers_that_are_each_others_upstreams_say_so(servers, tmp_path):
    ports = [harness.free_port() for _ in range(2)]
    loop = [server_on(servers, tmp_path, ports[i], upstream_config(
        f"http://127.0.0.1:{ports[1 - i]}/v1", f"to-{'ba'[i]}")).start(ready=False) for i in range(2)]
    for server in loop:
        server.wait_ready()
    reply = loop[0].chat(model="far", temperature=0, timeout_s=20)
    assert reply.status == 508, reply
    assert reply.error["message"].startswith("to-b: to-a: the request has come back"), reply
    assert [ended(server, "failed") for server in loop] == [1, 1]


# ---- odd JSON ------------------------------------------------------------------------------------------


def choice(**members):
    return {"choices": [{"index": 0, **members}]}


ODD_DOCUMENTS = {
    "message": choice(message=None, finish_reason="stop"),
    "choices": {"choices": None},
    "it has no choices": {"object": "chat.completion"},
    "choices[0].message.content is a number": choice(message={"content": 7}, finish_reason="stop"),
    "choices[0].message.tool_calls is text": choice(message={"content": None, "tool_calls": "x"},
                                                    finish_reason="tool_calls"),
    "choices[0].message is text": choice(message="hello", finish_reason="stop"),
    "finish_reason is 'abort'": choice(message={"content": "half"}, finish_reason="abort"),
    "finish_reason is true or false": choice(message={"content": "half"}, finish_reason=True),
}


@pytest.mark.parametrize("what", ODD_DOCUMENTS)
def test_an_odd_answer_is_an_error_that_names_the_field(servers, tmp_path, fakes, what):
    odd = fakes(lambda handler, body, number: send_json(handler, ODD_DOCUMENTS[what]))
    front = front_of(servers, tmp_path, upstream_config(odd.url(), "odd-one", rank=0))
    reply = front.chat(model="far")
    assert reply.status >= 500, reply
    assert "odd-one sent an answer that can't be used: " in reply.error["message"], reply
    assert what in reply.error["message"], reply
    assert reply.error["code"] == "dead"


def test_after_an_odd_answer_another_upstream_answers(servers, tmp_path, fakes):
    odd = fakes(lambda handler, body, number: send_json(
        handler, choice(message={"content": [{"type": "text", "text": "half "}, 7]})))
    good = fakes(lambda handler, body, number: send_json(
        handler, choice(message={"content": [{"type": "text", "text": "all "},
                                             {"type": "text", "text": "of it"}]},
                        finish_reason="end_turn")))
    front = front_of(servers, tmp_path, upstream_config(odd.url(), "odd") +
                     upstream_config(good.url(), "good", rank=1))
    wait_until(lambda: front.process.log().count("upstream joined") == 2, "both to join")
    reply = front.chat(model="far")
    assert reply.status == 200, reply
    assert reply.text == "all of it"  # nothing of the other one's half
    assert reply.json["choices"][0]["finish_reason"] == "stop"
    assert [attempt["worker"] for attempt in front.state(reply.request_id)["attempts"]] == [
        "odd", "good"]


def test_token_counts_that_cannot_be_are_replaced_by_our_own(servers, tmp_path, fakes):
    def answer(handler, body, number):
        begin_stream(handler)
        for word in ("one ", "two ", "three"):
            send_event(handler, piece(word))
        send_event(handler, piece("", "stop"))
        send_event(handler, {"choices": [], "usage": {"prompt_tokens": 5,
                                                      "completion_tokens": 1e300}})
        send_event(handler, "[DONE]")
        handler.close_connection = True
    far = fakes(answer)
    front = front_of(servers, tmp_path, upstream_config(far.url(), "far"))
    stream = front.stream(model="far", stream_options={"include_usage": True}).wait_end()
    assert stream.how_it_ended == "done" and stream.text == "one two three"
    assert stream.chunks[-1].json["usage"]["completion_tokens"] == 3
    assert metric(front, 'waystation_upstream_uncounted_total{upstream="far"}') == 1


# ---- broken in mid-answer --------------------------------------------------------------------------------


@pytest.mark.parametrize("how, said", [
    ("cut", "far-0 closed the connection in mid-answer"),
    ("stall", "far-0 stopped in mid-answer"),
    ("odd", "far-0 sent an answer that can't be used: choices[0].delta.content is a number"),
    ("abort", "far-0 sent an answer that can't be used: choices[0].finish_reason is 'abort'"),
    ("error", "far-0 reported an error: overloaded"),
    ("no finish", "far-0 ended its answer without a finish reason"),
])
def test_the_error_names_who_broke_and_who_could_not_go_on(servers, tmp_path, fakes, how, said):
    def answer(handler, body, number):
        begin_stream(handler, {"content-length": "9999"} if how == "cut" else {})
        send_event(handler, piece("half of "))
        if how == "stall":
            time.sleep(5)
        elif how == "odd":
            send_event(handler, choice(delta={"content": 7}))
        elif how == "abort":
            send_event(handler, piece("", "abort"))
        elif how == "error":
            send_event(handler, {"error": {"message": "overloaded", "code": 503}})
        elif how == "no finish":
            send_event(handler, "[DONE]")
        handler.close_connection = True
    broken = fakes(answer)
    other = fakes(lambda handler, body, number: send_json(handler, answer_of("never asked")))
    front = front_of(servers, tmp_path,
                     upstream_config(broken.url(), "far-0", idle_timeout_ms=300) +
                     upstream_config(other.url(), "far-1", rank=1))
    wait_until(lambda: front.process.log().count("upstream joined") == 2, "both to join")
    stream = front.stream(model="far").wait_end()
    assert stream.how_it_ended == "error" and stream.text == "half of "
    message = stream.frames[-1].json["error"]["message"]
    assert message.startswith(said), message
    assert message.endswith("; the answer had begun, and it can't be continued by far-1"), message
    assert stream.frames[-1].json["error"]["code"] == "upstream_error"
    assert not other.calls


def test_the_tokens_of_an_answer_that_two_made(servers, tmp_path, fakes):
    def broken(handler, body, number):
        begin_stream(handler)
        for word in ("one ", "two ", "three "):
            send_event(handler, piece(word))
            time.sleep(0.05)  # an event of its own each
        handler.wfile.write(b"data: {")
        handler.close_connection = True

    def rest(handler, body, number):
        assert body["messages"][-1] == {"role": "assistant", "content": "one two three "}
        begin_stream(handler)
        send_event(handler, piece("four", "stop"))
        send_event(handler, {"choices": [], "usage": {"prompt_tokens": 13, "completion_tokens": 2}})
        send_event(handler, "[DONE]")
        handler.close_connection = True
    first, second = fakes(broken), fakes(rest)
    front = front_of(servers, tmp_path, upstream_config(first.url(), "far-0") + upstream_config(
        second.url(), "far-1", rank=1, continuation="prefill"))
    wait_until(lambda: front.process.log().count("upstream joined") == 2, "both to join")
    stream = front.stream(model="far", stream_options={"include_usage": True}).wait_end()
    assert stream.how_it_ended == "done" and stream.text == "one two three four"
    usage = stream.chunks[-1].json["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (10, 5), usage


def test_vectors_of_a_broken_answer_are_not_given_twice(servers, tmp_path, fakes):
    vectors = {"object": "list", "usage": {"prompt_tokens": 4, "total_tokens": 4},
               "data": [{"index": i, "embedding": [0.5, i]} for i in range(2)]}

    def answer(handler, body, number):
        if number > 1:
            return send_json(handler, vectors)
        payload = json.dumps(vectors | {"data": vectors["data"] + [{"index": 2}]}).encode()
        handler.send_response(200)
        handler.send_header("content-type", "application/json")
        handler.send_header("content-length", str(len(payload)))
        handler.end_headers()
        handler.wfile.write(payload)
        return None
    far = fakes(answer)
    config = f'''[[upstream]]
name = "far"
url = "{far.url()}"
[upstream.models]
far = {{ tasks = ["embedding"] }}
'''
    front = front_of(servers, tmp_path, config)
    reply = front.post("/v1/embeddings", {"model": "far", "input": ["a", "b"]})
    assert reply.status == 200, reply
    assert len(far.calls) == 2
    assert [item["embedding"] for item in reply.json["data"]] == [[0.5, 0], [0.5, 1]]
    assert reply.json["usage"]["prompt_tokens"] == 4
