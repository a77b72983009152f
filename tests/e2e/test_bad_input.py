"""What people send by mistake, and what they hear."""

import concurrent.futures
import http.client
import json
import socket

import pytest

import harness
from harness import Failed, chat_body, scripted_text, wait_until


@pytest.fixture(scope="module")
def server(shared):
    return shared.start(scripted="tokens=8,interval-ms=2", workers=1)


def check_error(reply, status, code=None, param=None):
    assert reply.status == status, reply
    assert set(reply.error) == {"message", "type", "param", "code"}, reply.body
    assert isinstance(reply.error["message"], str) and reply.error["message"]
    if code:
        assert reply.error["code"] == code
    if param:
        assert reply.error["param"] == param
        assert param in reply.error["message"]


def test_unknown_model_is_404_with_the_list(server):
    reply = server.chat(model="gpt-17")
    check_error(reply, 404, "model_not_found")
    assert "scripted" in reply.error["message"] and "gpt-17" in reply.error["message"]


@pytest.mark.parametrize("body, param", [
    ({"model": "scripted"}, "messages"),
    ({"messages": [{"role": "user", "content": "x"}]}, "model"),
    ({"model": 5, "messages": []}, "model"),
    ({"model": "scripted", "messages": "hello"}, "messages"),
    ({"model": "scripted", "messages": []}, "messages"),
    ({"model": "scripted", "messages": ["hello"]}, "messages[0]"),
    ({"model": "scripted", "messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
    ({"model": "scripted", "messages": [{"role": "user"}]}, "messages[0].content"),
    ({"model": "scripted", "messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
    (chat_body("x", temperature="hot"), "temperature"),
    (chat_body("x", temperature=3), "temperature"),
    (chat_body("x", top_p=-1), "top_p"),
    (chat_body("x", max_tokens=0), "max_tokens"),
    (chat_body("x", max_tokens=1.5), "max_tokens"),
    (chat_body("x", max_completion_tokens="many"), "max_completion_tokens"),
    (chat_body("x", n=17), "n"),
    (chat_body("x", stop=["a", "b", "c", "d", "e"]), "stop"),
    (chat_body("x", stop=[1]), "stop[0]"),
    (chat_body("x", seed="lucky"), "seed"),
    (chat_body("x", stream="yes"), "stream"),
    (chat_body("x", stream=True, stream_options={"include_usage": 1}),
     "stream_options.include_usage"),
    (chat_body("x", stream_options={"include_usage": True}), "stream_options"),
])
def test_wrong_field_is_400_naming_it(server, body, param):
    check_error(server.post("/v1/chat/completions", body), 400, param=param)


@pytest.mark.parametrize("body", [b"", b"{", b"not json", b"[1,2]", b'"text"', b"null",
                                  b'{"model":"scripted","messages":[{"role":"user","content":"\xff"}]}',
                                  b"[" * 20_000, b'{"a":' * 5_000])
def test_malformed_json_is_400(server, body):
    check_error(server.post("/v1/chat/completions", body), 400)


def test_unknown_paths_and_methods(server):
    check_error(server.get("/v1/nothing"), 404)
    check_error(server.get("/v1/chat/completions"), 405)
    check_error(server.get("/v1/requests/not-an-id"), 404)
    check_error(server.get("/v1/requests/0190f0c2-0000-7000-8000-000000000000"), 404)
    check_error(server.post("/v1/requests/0190f0c2-0000-7000-8000-000000000000/cancel"), 404)
    check_error(server.get("/v1/requests/0190f0c2-0000-7000-8000-000000000000/events"), 404)


@pytest.mark.parametrize("value", ["x", "-1", "1e3", "99999999999999999999999"])
def test_wrong_starting_after_is_400(server, value):
    request = server.chat().request_id
    check_error(server.get(f"/v1/requests/{request}/events?starting_after={value}"), 400)


def test_body_over_the_limit_is_413_before_it_is_read(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20 * harness.SLOWNESS)
    connection.putrequest("POST", "/v1/chat/completions")
    connection.putheader("content-type", "application/json")
    connection.putheader("content-length", str(10 << 30))
    connection.endheaders()
    response = connection.getresponse()
    assert response.status == 413
    assert json.loads(response.read())["error"]["code"] == "too_large"
    connection.close()


def test_chunked_body_over_the_limit_is_413(server):
    """A body whose size isn't announced is stopped at the limit, not buffered without end."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30 * harness.SLOWNESS) as raw:
        raw.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
                    b"content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n")
        piece = b"100000\r\n" + b"x" * (1 << 20) + b"\r\n"
        try:
            for _ in range(256):
                raw.sendall(piece)
        except OSError:
            pass  # it stopped listening, which is right; what it said is still to be read
        try:
            said = raw.recv(65536)
        except OSError:
            said = b""
    if said:
        assert said.startswith(b"HTTP/1.1 413"), said[:200]
    assert server.chat().status == 200


def test_large_headers_are_refused(server):
    reply = server.chat(headers={"X-Padding": "x" * (1 << 20)})
    check_error(reply, 431)


@pytest.mark.parametrize("raw", [b"\r\n\r\n", b"GARBAGE\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n",
                                 b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: -4\r\n\r\n",
                                 b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 200])
def test_what_is_no_http_ends_the_connection_and_nothing_else(server, raw):
    with socket.create_connection(("127.0.0.1", server.port), timeout=40 * harness.SLOWNESS) as peer:
        peer.sendall(raw)
        peer.shutdown(socket.SHUT_WR)
        try:
            while peer.recv(65536):
                pass
        except ConnectionResetError:
            pass
    assert server.chat().status == 200


def test_bad_ids_in_headers_are_refused_or_taken_whole(server):
    for header in ("Idempotency-Key", "X-Conversation-Id"):
        check_error(server.chat(headers={header: "k" * 5000}), 400)


def test_queue_full_is_429_with_when_to_try_again(servers):
    server = servers.start("--queue-max", 5, scripted="tokens=40,interval-ms=20", workers=1)
    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        replies = list(pool.map(
            lambda n: server.chat(f"{n}", headers={"X-Conversation-Id": "one"}), range(24)))
    refused = [reply for reply in replies if reply.status != 200]
    assert refused and len(replies) - len(refused) >= 5
    for reply in refused:
        check_error(reply, 429, "queue_full")
        assert int(reply.headers["retry-after"]) >= 1
        assert int(reply.headers["retry-after-ms"]) >= 1
    assert all(reply.text == scripted_text(40) for reply in replies if reply.status == 200)
    assert server.chat().status == 200


def test_a_request_that_kills_its_worker_is_dead_after_three_attempts(servers):
    server = servers.start(scripted="tokens=30,interval-ms=20,crash-on=poison", workers=2)
    healthy = [server.stream(f"good {n}", headers={"X-Resumable": "true"}) for n in range(4)]
    lane = {"X-Conversation-Id": "lane", "Idempotency-Key": "deadly"}
    poison = server.stream("this is poison", headers=lane)
    poison.wait_end(90)
    after = server.chat("after it", headers={"X-Conversation-Id": "lane"}, timeout_s=90)
    assert after.status == 200 and after.text == scripted_text(30)
    for stream in healthy:
        stream.wait_end(90)
        assert stream.text == scripted_text(30)
    view = server.state(poison.request_id)
    assert view["state"] == "dead"
    assert len(view["attempts"]) == 3
    assert "3" in json.dumps(view["error"]), view
    assert server.events(poison.request_id).wait_end().ending[0] == "dead"
    # By the same key: the stored outcome, not a fourth try.
    again = server.chat("this is poison", headers={"Idempotency-Key": "deadly",
                                                   "X-Conversation-Id": "lane"}, stream=True)
    assert again.status >= 500 or b'"error"' in again.body
    assert len(server.state(poison.request_id)["attempts"]) == 3


def test_without_a_worker_it_is_not_ready_but_takes_what_will_be_served(servers):
    server = servers.make(scripted="tokens=5,interval-ms=1", workers=0)
    server.start(ready=False)
    assert server.get("/healthz").status == 200
    ready = server.get("/readyz")
    assert ready.status == 503 and b"worker" in ready.body
    stream = server.stream("hello", headers={"X-Resumable": "true"})
    assert stream.wait_status(15) == 200  # held back for five seconds, then it waits in the open
    view = server.state(stream.request_id)
    assert view["state"] == "queued" and view["queue_position"] == 1
    assert server.post(f"/v1/requests/{stream.request_id}/cancel").status == 200
    stream.wait_end(10)
    assert server.chat(model="other").status == 404


# ---- what keeps a server from starting ----------------------------------------------------------


def fails_to_start(servers, *arguments):
    process = servers.process("serve", "--listen", "127.0.0.1:0", *arguments)
    code = process.wait_exit(20)
    assert code not in (0, -6, -11), process.log()
    return process.log()


def test_data_folder_in_use_names_the_other_server(servers):
    server = servers.start(scripted="tokens=5,interval-ms=1", workers=1)
    log = fails_to_start(servers, "--data", server.data, "--scripted", "tokens=5")
    assert str(server.pid) in log
    assert server.chat().status == 200


def test_port_in_use(servers):
    server = servers.start(scripted="tokens=5,interval-ms=1", workers=1)
    process = servers.process("serve", "--listen", f"127.0.0.1:{server.port}", "--data",
                              servers.folder / "other", "--scripted", "tokens=5")
    assert process.wait_exit(20) not in (0, -6, -11)
    assert str(server.port) in process.log()


def test_missing_model_file(servers):
    path = servers.folder / "no-such.gguf"
    log = fails_to_start(servers, "--data", servers.folder / "d", "--model", path)
    assert str(path) in log


@pytest.mark.parametrize("content", [b"", b"not a model at all" * 100, b"GGUF" + b"\0" * 8])
def test_model_file_that_is_none(servers, content):
    path = servers.folder / "broken.gguf"
    path.write_bytes(content)
    log = fails_to_start(servers, "--data", servers.folder / "d", "--model", path)
    assert str(path) in log and "GGUF" in log.upper()


def test_model_path_that_is_a_folder(servers):
    log = fails_to_start(servers, "--data", servers.folder / "d", "--model", servers.folder)
    assert str(servers.folder) in log


@pytest.mark.parametrize("arguments", [
    ["--scripted", "tokens=many"], ["--scripted", "tokes=5"], ["--listen", "nowhere"],
    ["--listen", "127.0.0.1:70000"], ["--workers", "-1"], ["--log-level", "loud"], ["--unknown"],
    ["--queue-max", "-5"], ["--queue-max", "0"], ["--body-bytes-max", "-1"], ["--connections-max", "0"],
    ["--journal-bytes-max", "-1"], ["--idempotency-ttl-hours", "-1"], ["--retain-hours", "nan"],
    ["--response-days", "1e300"], ["--grace-seconds", "-5"],
])
def test_wrong_options_are_named(servers, arguments):
    process = servers.process("serve", "--data", servers.folder / "d", *arguments)
    assert process.wait_exit(20) not in (0, -6, -11)
    word = arguments[-1].split("=")[0]
    assert word in process.log() or arguments[0] in process.log(), process.log()


def test_other_addresses_than_loopback_need_a_key_file(servers):
    for address in ("0.0.0.0:0", "[::]:0"):
        process = servers.process("serve", "--listen", address, "--data", servers.folder / "d",
                                  "--scripted", "tokens=5")
        assert process.wait_exit(20) not in (0, -6, -11)
        assert "--api-key-file" in process.log()


# ---- a journal that can't be written ------------------------------------------------------------


def test_journal_that_cannot_be_written_stops_acceptance_not_reading(servers):
    server = servers.make(scripted="tokens=200,interval-ms=20", workers=1)
    server.start()
    ended = server.chat("before", max_tokens=10)
    running = server.stream("running", headers={"X-Resumable": "true"}).wait_frames(10)
    seen = len(running.frames)
    server.refuse_writes()
    running.wait_end(30)
    assert running.how_it_ended in ("broken", "error", "eof") and not running.finish_reason
    wait_until(lambda: server.get("/readyz").status == 503, "/readyz to be red", 10)
    assert b"journal" in server.get("/readyz").body
    for body in ("after", "and again"):
        reply = server.chat(body)
        assert reply.status == 503, reply
    # Reads go on.
    assert server.get("/healthz").status in (200, 503)
    assert server.state(ended.request_id)["state"] == "completed"
    replay = server.events(ended.request_id).wait_end()
    assert replay.text == ended.text and replay.ending[0] == "completed"
    # A restart recovers, and goes on with what had been accepted.
    visible = running.chunks
    server.restart()
    whole = server.events(running.request_id).wait_end()
    assert whole.text == scripted_text(200)
    assert [frame.json for frame in whole.frames[:len(visible)]] == \
           [frame.json for frame in visible if "choices" in frame.json]
    assert len(visible) >= seen
    assert server.chat("after", max_tokens=3).status == 200


def test_journal_that_is_damaged_in_the_middle_is_refused_with_the_tool(servers):
    server = servers.start(scripted="tokens=30,interval-ms=1", workers=1)
    for n in range(5):
        assert server.chat(f"{n}").status == 200
    assert server.terminate() == 0
    segments = sorted(server.data.rglob("*.segment"))
    assert segments, list(server.data.rglob("*"))
    text = bytearray(segments[0].read_bytes())
    middle = len(bytes(text).rstrip(b"\0")) // 2
    text[middle] ^= 0xFF
    # No checkpoint may cover it: then only the tail would be read.
    for checkpoint in server.data.rglob("*.ckpt"):
        checkpoint.unlink()
    segments[0].write_bytes(bytes(text))
    with pytest.raises(Failed) as refused:
        server.start()
    assert "salvage" in str(refused.value)
    code, out, err = harness.run("journal", "verify", server.data)
    assert code != 0 and str(segments[0].name) in out + err
