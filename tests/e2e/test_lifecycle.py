"""Starting, draining, stopping; the terminal chat; a start on a large journal."""

import concurrent.futures
import os
import signal
import time

import pytest

import harness
from harness import chat_body, inspect, scripted_text, wait_until


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_drain_lets_running_streams_end(servers, number):
    server = servers.start(scripted="tokens=80,interval-ms=15", workers=1)
    stream = server.stream("hello").wait_frames(10)
    server.process.send_signal(number)

    def refused():
        try:
            return server.chat("late").status == 503
        except OSError:
            return True  # it has stopped listening, which says the same
    wait_until(refused, "new requests to be refused", 10)
    stream.wait_end()
    assert stream.how_it_ended == "done" and stream.text == scripted_text(80)
    assert server.process.wait_exit() == 0
    wait_until(lambda: not server.left_over(), "the workers to end", 10)


def test_what_takes_longer_than_the_grace_time_is_left_to_the_next_start(servers):
    server = servers.start("--grace-seconds", 1, scripted="tokens=300,interval-ms=15", workers=1)
    stream = server.stream("hello", headers={"X-Resumable": "true"}).wait_frames(10)
    queued = server.stream("next", headers={"X-Resumable": "true"})
    began = time.monotonic()
    assert server.terminate() == 0
    assert time.monotonic() - began < 10 * harness.SLOWNESS
    stream.wait_end()
    seen = len(stream.chunks)
    assert not stream.finish_reason
    server.start()
    rest = server.events(stream.request_id, starting_after=seen - 1).wait_end()
    assert stream.text + rest.text == scripted_text(300)
    assert server.events(queued.request_id).wait_end().text == scripted_text(300)


def test_second_signal_ends_the_drain(servers):
    server = servers.start("--grace-seconds", 60, scripted="tokens=2000,interval-ms=20", workers=1)
    server.stream("hello").wait_frames(5)
    server.process.send_signal(signal.SIGTERM)
    server.process.wait_line("drain", 10)
    server.process.send_signal(signal.SIGTERM)
    server.process.wait_exit(10)


def test_restart_with_nothing_going_on(servers):
    server = servers.start(scripted="tokens=5,interval-ms=1", workers=1)
    ids = [server.chat(f"{n}").request_id for n in range(3)]
    for _ in range(3):
        assert server.terminate() == 0
        server.start()
    for request in ids:
        assert server.state(request)["state"] == "completed"
        assert server.events(request).wait_end().text == scripted_text(5)


def test_journal_commands(servers):
    server = servers.start(scripted="tokens=5,interval-ms=1", workers=1)
    request = server.chat("hello").request_id
    assert server.terminate() == 0
    code, out, err = harness.run("journal", "verify", server.data)
    assert code == 0, out + err
    kinds = [record["type"] for record in inspect(server.data) if record.get("request") == request]
    assert kinds[0] == "accepted" and kinds[1] == "leased" and kinds[-1] == "settled"
    code, out, err = harness.run("journal", "verify", servers.folder / "nothing")
    assert code != 0 and "nothing" in out + err


def test_inspect_shows_no_prompts(servers):
    server = servers.start(scripted="tokens=5,interval-ms=1", workers=1)
    server.chat("a very private sentence")
    assert server.terminate() == 0
    code, out, err = harness.run("journal", "inspect", server.data)
    assert code == 0 and "private" not in out + err
    assert "private" not in server.log()


def test_version_and_help():
    for arguments in (["--help"], ["serve", "--help"], ["worker", "--help"], ["journal", "--help"]):
        code, out, err = harness.run(*arguments)
        assert code == 0 and "waystation" in (out + err)
    code, out, err = harness.run("--version")
    assert code == 0 and out.strip()
    code, out, err = harness.run("no-such-command")
    assert code != 0 and (out + err)


# ---- the terminal chat --------------------------------------------------------------------------


def test_chat_in_a_pipe_survives_a_restart_of_the_server(servers):
    server = servers.start(scripted="tokens=150,interval-ms=15", workers=1)
    read_end, write_end = os.pipe()
    process = servers.process("chat", "--url", server.url, stdin=read_end)
    os.close(read_end)
    os.write(write_end, b"hello\n")
    out = b""
    while out.count(b"tok") < 20:
        piece = os.read(process.popen.stdout.fileno(), 4096)
        assert piece, process.log()
        out += piece
    server.restart()
    os.close(write_end)
    rest = process.popen.stdout.read()
    assert process.wait_exit(60) == 0, process.log()
    assert scripted_text(150).strip() in " ".join((out + rest).decode().split())


# ---- a large journal ----------------------------------------------------------------------------

RECORDS = 1_000_000
START_S = 2.0


@pytest.fixture(scope="module")
def large(shared):
    """A server's folder whose journal holds a million records, made by real requests."""
    tokens, at_once = 2000, 100
    server = shared.start(scripted=f"tokens={tokens},interval-ms=1", workers=2)
    made = 0
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        def one(number):
            reply = server.chat(f"{number}", timeout_s=240)
            assert reply.status == 200, reply
        while made < RECORDS:
            list(pool.map(one, range(at_once)))
            made = server_records(server)
    assert server.terminate(60) == 0
    return server


def server_records(server):
    for line in server.get("/metrics").body.decode().splitlines():
        if line.startswith("waystation_journal_records_total"):
            return float(line.rsplit(" ", 1)[1])
    pytest.fail("/metrics has no waystation_journal_records_total")


@pytest.mark.slow
@pytest.mark.timeout(400 * harness.SLOWNESS)
@pytest.mark.skipif(bool(harness.SANITIZER), reason="a time is measured: not under a sanitizer")
@pytest.mark.parametrize("how", ["after a clean stop", "after kill -9"])
def test_start_on_a_million_records(large, how):
    large.start()
    request = large.chat("one more", max_tokens=3).request_id
    if how == "after kill -9":
        large.kill()
    else:
        assert large.terminate() == 0
    began = time.monotonic()
    large.start(ready=False)
    took = time.monotonic() - began
    print(f"listening after {took:.2f} s")
    assert large.state(request)["state"] == "completed"
    assert took < START_S
    large.wait_ready()
    assert large.post("/v1/chat/completions", chat_body("x", max_tokens=2)).status == 200
    large.terminate()
