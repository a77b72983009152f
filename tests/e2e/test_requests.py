"""Keys, readers, tenants, cancelling: the life of one request as its client sees it."""

import concurrent.futures
import json
import socket

import pytest

from harness import Process, chat_body, free_port, run, scripted_text, wait_until

KEY = {"Idempotency-Key": "the-key"}


@pytest.fixture
def server(servers):
    return servers.start(scripted="tokens=60,interval-ms=15", workers=1)


# ---- idempotency --------------------------------------------------------------------------------


def test_duplicate_joins_the_running_stream(server):
    first = server.stream("hello", headers=KEY).wait_frames(15)
    second = server.stream("hello", headers=KEY)
    assert second.request_id == first.request_id
    first.wait_end(), second.wait_end()
    assert first.text == second.text == scripted_text(60)
    assert second.numbers == list(range(len(first.frames)))
    assert [frame.json for frame in first.frames] == [frame.json for frame in second.frames]


def test_duplicate_gets_the_stored_result_also_after_a_restart(server):
    first = server.chat("hello", headers=KEY)
    again = server.chat("hello", headers=KEY)
    server.restart()
    later = server.chat("hello", headers=KEY)
    assert first.status == again.status == later.status == 200
    assert first.json == again.json == later.json
    assert first.request_id == again.request_id == later.request_id
    assert len(server.state(first.request_id)["attempts"]) == 1


def test_same_key_other_body_is_422_also_after_a_restart(server):
    assert server.chat("hello", headers=KEY, max_tokens=3).status == 200
    reply = server.chat("other", headers=KEY, max_tokens=3)
    assert reply.status == 422 and reply.error["code"] == "idempotency_mismatch"
    server.restart()
    assert server.chat("other", headers=KEY, max_tokens=3).status == 422
    assert server.chat("hello", headers=KEY, max_tokens=3).status == 200


def test_a_refused_request_binds_no_key(server):
    assert server.chat("hello", model="unknown", headers=KEY).status == 404
    assert server.chat("hello", headers=KEY, max_tokens=3).status == 200


def test_many_at_once_by_one_key_are_one_request(server):
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        replies = list(pool.map(lambda _: server.chat("hello", headers=KEY, max_tokens=20),
                                range(16)))
    assert {reply.status for reply in replies} == {200}
    assert len({reply.request_id for reply in replies}) == 1
    assert {reply.body for reply in replies} == {replies[0].body}


# ---- conversations ------------------------------------------------------------------------------


def test_one_conversation_is_answered_in_order_one_at_a_time(server):
    lane = {"X-Conversation-Id": "c", "X-Resumable": "true"}
    first = server.stream("1", headers=lane).wait_frames(5)
    second = server.stream("2", headers=lane)
    other = server.stream("3", headers={"X-Resumable": "true"}).wait_frames(5)
    assert not second.frames
    first.wait_end(), second.wait_end(), other.wait_end()
    one, two = server.state(first.request_id), server.state(second.request_id)
    assert two["attempts"][0]["started_at"] >= one["ended_at"]


# ---- clients that go away -----------------------------------------------------------------------


def test_plain_stream_is_cancelled_when_its_client_goes_away(server):
    stream = server.stream("hello").wait_frames(5)
    stream.close()
    view = server.wait_state(stream.request_id, "cancelled", within_s=10)
    assert view["ended_at"] > 0
    replay = server.events(stream.request_id).wait_end()
    assert replay.ending[0] == "cancelled" and replay.text != scripted_text(60)


def test_resumable_stream_goes_on_without_its_client(server):
    stream = server.stream("hello", headers={"X-Resumable": "true"}).wait_frames(5)
    assert stream.numbers[:5] == [0, 1, 2, 3, 4]
    stream.close()
    server.wait_state(stream.request_id, "completed")
    rest = server.events(stream.request_id, starting_after=4).wait_end()
    assert rest.numbers[0] == 5
    whole = server.events(stream.request_id).wait_end()
    assert whole.text == scripted_text(60)
    # What the stream carried is what is replayed.
    assert [frame.json for frame in whole.chunks[:5]] == [frame.json for frame in stream.frames[:5]]


def test_idempotent_request_goes_on_without_its_client(server):
    stream = server.stream("hello", headers=KEY).wait_frames(5)
    stream.close()
    server.wait_state(stream.request_id, "completed")
    assert server.stream("hello", headers=KEY).wait_end().text == scripted_text(60)


def test_queued_request_is_cancelled_when_its_client_goes_away(servers):
    server = servers.start(scripted="tokens=200,interval-ms=20", workers=1)
    lane = {"X-Conversation-Id": "c"}
    first = server.stream("1", headers={**lane, "X-Resumable": "true"}).wait_frames(2)
    waiting = server.stream("2", headers=lane)
    wait_until(lambda: metrics(server)["waystation_requests_accepted_total"] == 2, "both", 10)
    waiting.close()
    cancelled = 'waystation_requests_ended_total{state="cancelled"}'
    wait_until(lambda: metrics(server)[cancelled] == 1, "the queued one to be cancelled", 10)
    assert server.state(first.request_id)["state"] == "running"
    first.wait_end()
    assert first.text == scripted_text(200)


def metrics(server):
    found = {}
    for line in server.get("/metrics").body.decode().splitlines():
        if line and not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            found[name] = float(value)
    return found


# ---- cancel, state, metrics ---------------------------------------------------------------------


def test_cancel_is_idempotent_and_frees_the_lane(server):
    lane = {"X-Conversation-Id": "c", "X-Resumable": "true"}
    stream = server.stream("1", headers=lane).wait_frames(5)
    following = server.stream("2", headers=lane)
    for _ in range(2):
        reply = server.post(f"/v1/requests/{stream.request_id}/cancel")
        assert reply.status == 200 and reply.json["state"] == "cancelled"
    stream.wait_end(10)
    assert stream.text != scripted_text(60)
    following.wait_end()
    assert following.text == scripted_text(60)
    done = server.post(f"/v1/requests/{following.request_id}/cancel")
    assert done.status == 200 and done.json["state"] == "completed"


def test_state_tells_how_it_went(server):
    stream = server.stream("hello", headers={"X-Resumable": "true"}).wait_frames(10)
    running = server.state(stream.request_id)
    assert running["state"] == "running" and running["id"] == stream.request_id
    server.kill_worker()
    stream.wait_end()
    view = server.wait_state(stream.request_id, "completed")
    assert [attempt["outcome"] for attempt in view["attempts"]] == ["worker_lost", "completed"]
    assert view["attempts"][1]["resumed_tokens"] > 0
    assert view["usage"]["completion_tokens"] == 60
    assert view["accepted_at"] <= view["first_token_at"] <= view["ended_at"]
    server.restart()
    assert server.state(stream.request_id) == view


def test_metrics_count(server):
    assert server.chat(max_tokens=7).status == 200
    found = metrics(server)
    assert len({name.split("{")[0] for name in found}) >= 10
    text = server.get("/metrics").body.decode()
    assert text.count("# TYPE") >= 10


def test_resumable_stream_has_numbers_and_no_id_lines(server):
    stream = server.stream("hello", headers={"X-Resumable": "true"}, max_tokens=5).wait_end()
    assert stream.numbers == list(range(len(stream.frames)))
    assert b"\nid:" not in stream.raw and stream.raw.rstrip().endswith(b"data: [DONE]")


def test_usage_is_a_numbered_chunk(server):
    stream = server.stream("hello", headers={"X-Resumable": "true"}, max_tokens=5,
                           stream_options={"include_usage": True}).wait_end()
    assert stream.frames[-1].json["choices"] == []
    assert stream.frames[-1].json["usage"]["completion_tokens"] == 5
    assert stream.numbers == list(range(len(stream.frames)))


# ---- tenants ------------------------------------------------------------------------------------


def add_key(path, tenant):
    code, out, err = run("keys", "add", path, "--tenant", tenant)
    assert code == 0, err
    return out.split()[-1]


def test_tenants_do_not_see_each_other(servers):
    keys = servers.folder / "keys"
    anna, boris = add_key(keys, "anna"), add_key(keys, "boris")
    assert anna not in keys.read_text() and boris not in keys.read_text(), "keys are kept as hashes"
    assert (keys.stat().st_mode & 0o077) == 0, "only its owner may read the key file"
    server = servers.make("--api-key-file", keys, scripted="tokens=60,interval-ms=15", workers=1)
    server.api_key = anna
    server.start()

    def key(value):
        return {"authorization": f"Bearer {value}"}

    mine = server.stream("secret", headers={"X-Resumable": "true", **KEY}).wait_frames(5)
    request = mine.request_id
    for path in (f"/v1/requests/{request}", f"/v1/requests/{request}/events"):
        reply = server.get(path, headers=key(boris))
        assert reply.status == 404 and b"secret" not in reply.body
    assert server.post(f"/v1/requests/{request}/cancel", headers=key(boris)).status == 404
    # The same key and conversation of another tenant are other ones.
    theirs = server.chat("other", headers={**key(boris), **KEY}, max_tokens=3)
    assert theirs.status == 200 and theirs.request_id != request
    mine.wait_end()
    assert mine.text == scripted_text(60)
    for wrong in ("Bearer nonsense", "Bearer ", "Basic abc", f"Bearer {anna}x"):
        reply = server.get("/v1/models", headers={"authorization": wrong})
        assert reply.status == 401 and reply.error["code"] == "invalid_api_key"
    assert server.get(f"/v1/requests/{request}", headers={"authorization": ""}).status == 401
    assert server.get("/healthz", headers={"authorization": ""}).status == 200


def test_keys_may_come_and_go_while_it_runs(servers):
    keys = servers.folder / "keys"
    first = add_key(keys, "a")
    server = servers.make("--api-key-file", keys, scripted="tokens=1", workers=1, api_key=first)
    server.start()

    def status(key):
        return server.get("/v1/models", {"authorization": f"Bearer {key}"}).status

    second = add_key(keys, "b")
    wait_until(lambda: status(second) == 200, "the added key to be good")
    keys.write_text(keys.read_text().splitlines()[1] + "\n")
    wait_until(lambda: status(first) == 401, "the removed key to be no good")
    assert status(second) == 200
    keys.write_text("nonsense\n")
    server.process.wait_line("API keys not read again")
    assert status(second) == 200


def test_a_name_that_points_here_is_refused_without_keys(servers):
    server = servers.start("--allow-host", "box.lan", scripted="tokens=1", workers=1)
    for host in (f"localhost:{server.port}", f"127.0.0.1:{server.port}", "[::1]", "box.lan"):
        assert server.get("/v1/models", {"host": host}).status == 200
    refused = server.get("/v1/models", {"host": f"evil.example:{server.port}"})
    assert refused.status == 421 and "--allow-host" in refused.error["message"]


def test_a_client_that_ends_its_sending_is_answered(server):
    payload = json.dumps(chat_body("hello", max_tokens=5)).encode()
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
        client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
                       b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"
                       % len(payload) + payload)
        client.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := client.recv(65536):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"), answer
    assert scripted_text(5).encode() in answer


def test_any_address_is_allowed_with_a_key_file(servers):
    keys = servers.folder / "keys"
    add_key(keys, "anna")
    process = servers.process("serve", "--listen", "0.0.0.0:0", "--data", servers.folder / "d",
                              "--api-key-file", keys, "--scripted", "tokens=5,interval-ms=1")
    process.wait_line("listening url=")
    process.send_signal(15)
    assert process.wait_exit() == 0


def test_no_cors_headers(server):
    reply = server.chat(max_tokens=2, headers={"Origin": "http://evil.example"})
    assert not [name for name in reply.headers if name.startswith("access-control")]


# ---- remote workers -----------------------------------------------------------------------------


def test_remote_worker_joins_with_a_token_and_not_without(servers):
    token, wrong = servers.folder / "token", servers.folder / "wrong"
    token.write_text("correct horse\n")
    wrong.write_text("battery staple\n")
    token.chmod(0o600)
    wrong.chmod(0o600)
    port = free_port()
    server = servers.make("--link-listen", f"127.0.0.1:{port}", "--join-token-file", token,
                          workers=0)
    server.start(ready=False)
    connect = ["worker", "--connect", f"127.0.0.1:{port}", "--scripted", "tokens=30,interval-ms=15"]
    stranger = servers.process(*connect, "--join-token-file", wrong)
    stranger.wait_line("token", 20)
    assert server.get("/readyz").status == 503
    stranger.stop_by_force()
    first = servers.process(*connect, "--join-token-file", token, "--name", "first")
    server.wait_ready()
    second = servers.process(*connect, "--join-token-file", token, "--name", "second")
    stream = server.stream("hello", headers={"X-Resumable": "true"}).wait_frames(5)
    name = server.state(stream.request_id)["attempts"][-1]["worker"]
    worker = {"first": first, "second": second}[name]
    assert isinstance(worker, Process)
    worker.stop_by_force()
    stream.wait_end()
    assert stream.text == scripted_text(30)
    # And they come back by themselves when the server was away.
    server.restart()
    assert server.post("/v1/chat/completions", chat_body("hello")).text == scripted_text(30)
