"""Upstreams: another Waystation, the real llama-server, and servers that misbehave as told."""

import pathlib
import ssl
import subprocess
import threading
import time
import urllib.request

import pytest

import harness
from harness import Failed, scripted_text, wait_until
from upstreams import (answer_of, begin_stream, fakes, front_of, piece,  # noqa: F401 (a fixture)
                       send_error, send_event, send_json, upstream_config)

LLAMA_SERVERS = sorted(pathlib.Path.home().glob(".cache/waystation/llama/*/bin/llama-server"))


# ---- another Waystation ----------------------------------------------------------------------------


def test_answers_through_another_server(servers, tmp_path):
    far = servers.start(scripted="tokens=12,interval-ms=0", workers=1)
    front = front_of(servers, tmp_path,
                     upstream_config(far.url + "/v1", "far-1", '["far=scripted"]'))
    reply = front.chat(model="far")
    assert reply.status == 200, reply
    assert reply.text == scripted_text(12)
    assert reply.json["model"] == "far"
    usage = reply.json["usage"]
    assert usage["completion_tokens"] == 12 and usage["prompt_tokens"] > 0, usage

    stream = front.stream(model="far", stream_options={"include_usage": True}).wait_end()
    assert stream.how_it_ended == "done"
    assert stream.text == scripted_text(12)
    assert stream.finish_reason == "stop"
    assert stream.chunks[-1].json["usage"]["completion_tokens"] == 12
    assert stream.chunks[-1].json["choices"] == []

    assert [model["id"] for model in front.get("/v1/models").json["data"]] == ["far"]
    attempts = front.state(reply.request_id)["attempts"]
    assert [attempt["worker"] for attempt in attempts] == ["far-1"]


def test_flags_make_an_upstream_too(servers):
    far = servers.start(scripted="tokens=5,interval-ms=0", workers=1)
    front = servers.start("--upstream", far.url + "/v1", "--upstream-model", "far=scripted")
    assert front.chat(model="far").text == scripted_text(5)
    assert front.chat(model="other").status == 404


def serving(front, fars, request_id):
    """Which of the servers runs the request now, from its attempts: (index, attempt)."""
    attempt = front.state(request_id)["attempts"][-1]
    return int(attempt["worker"].removeprefix("far-"))


@pytest.mark.parametrize("continuation", ["prefill", "none"])
def test_an_upstream_killed_in_mid_stream(servers, tmp_path, continuation):
    """The scripted engine begins anew, as an upstream does that echoes the prefilled text."""
    tokens = 60
    fars = [servers.start(scripted=f"tokens={tokens},interval-ms=20", workers=1) for _ in range(2)]
    front = front_of(servers, tmp_path, "".join(
        upstream_config(far.url + "/v1", f"far-{number}", '["far=scripted"]',
                        continuation=continuation, echo="strip")
        for number, far in enumerate(fars)))
    wait_until(lambda: front.process.log().count("upstream joined") == 2, "both to join")
    stream = front.stream(model="far").wait_frames(15)
    victim = serving(front, fars, stream.request_id)
    fars[victim].kill()
    stream.wait_end()
    got = stream.text
    assert scripted_text(tokens).startswith(got), got
    if continuation == "prefill":
        assert stream.how_it_ended == "done", stream.frames[-3:]
        assert got == scripted_text(tokens)
        attempts = front.state(stream.request_id)["attempts"]
        assert attempts[-1]["worker"] == f"far-{1 - victim}"
        assert attempts[-1]["continuation"] == "prefill", attempts
    else:
        assert stream.how_it_ended == "error", stream.frames[-3:]
        assert len([frame for frame in stream.frames if frame.is_error]) == 1
        assert "[DONE]" not in stream.raw.decode()


def test_an_upstream_killed_before_its_first_token_is_replaced(servers, tmp_path):
    fars = [servers.start(scripted="tokens=5,interval-ms=0", workers=1) for _ in range(2)]
    front = front_of(servers, tmp_path, "".join(
        upstream_config(far.url + "/v1", f"far-{number}", '["far=scripted"]')
        for number, far in enumerate(fars)))
    wait_until(lambda: front.process.log().count("upstream joined") == 2, "both to join")
    fars[0].kill()
    for _ in range(10):
        reply = front.chat(model="far")
        assert reply.status == 200 and reply.text == scripted_text(5), reply


def test_a_local_model_answers_when_the_upstream_is_down(servers, tmp_path):
    front = front_of(
        servers, tmp_path,
        upstream_config(f"http://127.0.0.1:{harness.free_port()}/v1", "down") +
        '[fallback]\nfar = ["scripted"]\n', scripted="tokens=7,interval-ms=0", workers=1)
    front.process.wait_line("upstream not usable")
    reply = front.chat(model="far")
    assert reply.status == 200, reply
    assert reply.text == scripted_text(7)
    assert front.state(reply.request_id)["attempts"][-1]["worker"].startswith("local-")


# ---- servers that misbehave ------------------------------------------------------------------------


def test_what_the_upstream_is_sent(servers, tmp_path, fakes, monkeypatch):
    far = fakes(lambda handler, body, number: send_json(handler, answer_of("hi")))
    monkeypatch.setenv("WAYSTATION_E2E_KEY", "s3cret")
    front = front_of(servers, tmp_path, upstream_config(
        far.url(), "far", '["far=theirs"]', key_env="WAYSTATION_E2E_KEY", drop=["metadata"]) +
        '[upstream.headers]\nX-Team = "search"\n')
    reply = front.chat(model="far", seed=5, metadata={"a": "b"}, max_tokens=9)
    assert reply.text == "hi"
    assert reply.json["usage"]["total_tokens"] == 5
    (_, headers, body), = far.calls
    assert headers["Authorization"] == "Bearer s3cret"
    assert headers["X-Team"] == "search"
    assert headers["Idempotency-Key"] == reply.request_id + "-1"
    assert body["model"] == "theirs" and body["seed"] == 5 and body["max_tokens"] == 9
    assert "metadata" not in body
    assert "s3cret" not in front.process.log()


def test_too_many_requests_waits_as_long_as_asked(servers, tmp_path, fakes):
    def answer(handler, body, number):
        if number == 1:
            send_error(handler, 429, headers={"retry-after": "1"})
        else:
            send_json(handler, answer_of("at last"))
    far = fakes(answer)
    front = front_of(servers, tmp_path, upstream_config(far.url(), "far"))
    reply = front.chat(model="far")
    assert reply.status == 200 and reply.text == "at last", reply
    assert far.calls[1][0] - far.calls[0][0] >= 0.95
    outcomes = [attempt["outcome"] for attempt in front.state(reply.request_id)["attempts"]]
    assert len(outcomes) == 2 and outcomes[-1] == "completed", outcomes


def test_the_breaker_opens_and_recovers(servers, tmp_path, fakes):
    broken = threading.Event()
    broken.set()

    def answer(handler, body, number):
        if broken.is_set():
            send_error(handler, 500, "on fire")
        else:
            send_json(handler, answer_of("good again"))
    far = fakes(answer)
    front = front_of(servers, tmp_path, upstream_config(far.url(), "far", breaker_failures=3))
    far.models_status = 500
    failed = front.chat(model="far")
    assert failed.status >= 500, failed
    assert "on fire" in failed.error["message"], failed
    front.process.wait_line("upstream circuit open")
    front.process.wait_line("upstream not usable")
    assert 'waystation_upstream_joined{upstream="far"} 0' in front.get("/metrics").body.decode()
    calls = len(far.calls)

    # While it is open a request waits, and is answered after the probe has succeeded.
    done = []
    waiting = threading.Thread(target=lambda: done.append(front.chat(model="far")))
    waiting.start()
    time.sleep(0.3)  # nothing may happen in it
    assert len(far.calls) == calls
    broken.clear()
    far.models_status = 200
    waiting.join(60)
    assert done and done[0].text == "good again", done
    metrics = front.get("/metrics").body.decode()
    assert 'waystation_upstream_joined{upstream="far"} 1' in metrics
    assert 'waystation_upstream_circuit_opened_total{upstream="far"} 1' in metrics


def test_a_refused_key_is_said_and_not_tried_again(servers, tmp_path, fakes):
    far = fakes(lambda handler, body, number: send_error(handler, 401, "sk-123 is wrong"))
    front = front_of(servers, tmp_path, upstream_config(far.url(), "far"))
    far.models_status = 401
    reply = front.chat(model="far")
    assert reply.status == 502, reply
    assert "refused our key" in reply.error["message"]
    assert "sk-123" not in reply.body.decode()
    assert len(far.calls) == 1


def test_the_requests_own_fault_is_the_clients_to_see(servers, tmp_path, fakes):
    far = fakes(lambda handler, body, number: send_json(
        handler, {"error": {"message": "too long", "type": "invalid_request_error",
                            "param": "messages", "code": "context_length_exceeded"}}, 400))
    front = front_of(servers, tmp_path, upstream_config(far.url(), "far"))
    for reply in (front.chat(model="far"), front.chat(model="far", stream=True)):
        assert reply.status == 400, reply
        assert reply.error["message"] == "too long"
        assert reply.error["code"] == "context_length_exceeded"
    assert len(far.calls) == 2


def test_a_client_that_goes_away_reaches_the_upstream(servers, tmp_path, fakes):
    def answer(handler, body, number):
        begin_stream(handler)
        while True:
            send_event(handler, piece("word "))
            time.sleep(0.02)
    far = fakes(answer)
    front = front_of(servers, tmp_path, upstream_config(far.url(), "far"))
    stream = front.stream(model="far").wait_frames(3)
    stream.close()
    assert far.gone.wait(20 * harness.SLOWNESS), "the upstream was left running"
    front.wait_state(stream.request_id, "cancelled")


@pytest.mark.parametrize("how", ["cut", "no finish", "error event", "stall"])
def test_a_stream_is_never_silently_short(servers, tmp_path, fakes, how):
    def answer(handler, body, number):
        begin_stream(handler)
        send_event(handler, piece("half of "))
        if how == "no finish":
            send_event(handler, "[DONE]")
        elif how == "error event":
            send_event(handler, {"error": {"message": "overloaded", "code": 503}})
        elif how == "stall":
            time.sleep(5)
        handler.close_connection = True
    far = fakes(answer)
    front = front_of(servers, tmp_path, upstream_config(far.url(), "far", idle_timeout_ms=300))
    stream = front.stream(model="far").wait_end()
    assert stream.how_it_ended == "error", (stream.how_it_ended, stream.frames)
    assert stream.text == "half of "
    assert stream.finish_reason is None
    error = stream.frames[-1].json["error"]
    assert "far" in error["message"] and error["code"], error


# ---- TLS -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """An authority of our own, and a server's certificate for the address 127.0.0.1 only."""
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem",
            "-subj", "/CN=Test authority", "-days", "2")
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", "server.key", "-out", "server.csr",
            "-subj", "/CN=127.0.0.1")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1")
    openssl("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
            "-CAcreateserial", "-out", "server.pem", "-days", "2", "-extfile", "names")
    return folder


def test_certificates_are_checked(servers, tmp_path, fakes, certificates):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    far = fakes(lambda handler, body, number: send_json(handler, answer_of("over TLS")),
                context=context)
    trusted = str(certificates / "ca.pem")
    front = front_of(servers, tmp_path, upstream_config(far.url(), "far", ca_file=trusted))
    for _ in range(3):
        assert front.chat(model="far").text == "over TLS"

    for url, keys in ((far.url(), {}),                                  # no authority we know
                      (far.url("localhost"), {"ca_file": trusted})):    # not its name
        other = front_of(servers, tmp_path, upstream_config(url, "far", **keys), ready=False)
        other.process.wait_line("upstream not usable .*certificate that isn't trusted")
        assert other.get("/readyz").status == 503
    assert all(body["messages"] for _, _, body in far.calls)
    assert len(far.calls) == 3


# ---- the configuration file ------------------------------------------------------------------------


def test_an_unknown_key_ends_the_start(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text('[[upstream]]\nurl = "http://127.0.0.1:1/v1"\nmodles = ["a"]\n')
    code, _, err = harness.run("serve", "--config", path, "--data", tmp_path / "data")
    assert code == 64, err
    assert "c.toml:3: unknown key 'modles' in [[upstream]]; did you mean 'models'?" in err


# ---- the real llama-server -------------------------------------------------------------------------


class LlamaServer:
    def __init__(self, folder, name):
        self.port = harness.free_port()
        self.log = open(folder / f"{name}.log", "wb")
        self.popen = subprocess.Popen(
            [LLAMA_SERVERS[-1], "--model", harness.MODEL_FILE, "--port", str(self.port), "--host",
             "127.0.0.1", "-t", "1", "-c", "4096", "-np", "2", "--no-webui"],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/v1"

    def wait_ready(self):
        def ready():
            if self.popen.poll() is not None:
                raise Failed("llama-server ended")
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5):
                    return True
            except OSError:
                return False
        wait_until(ready, "llama-server to be ready", 60)

    def stop(self):
        self.popen.kill()
        self.popen.wait()
        self.log.close()


@pytest.fixture(scope="module")
def llamas(tmp_path_factory):
    if not LLAMA_SERVERS or not harness.MODEL_FILE.exists():
        pytest.skip("no llama-server or no model here: run 'make setup'")
    folder = tmp_path_factory.mktemp("llama")
    made = [LlamaServer(folder, f"llama{number}") for number in range(2)]
    for llama in made:
        llama.wait_ready()
    yield made
    for llama in made:
        llama.stop()


QUESTION = "Tell me a long story about a relay station on an old road."


@pytest.mark.timeout(300)
def test_the_real_llama_server(servers, tmp_path, llamas):
    front = front_of(servers, tmp_path, upstream_config(llamas[0].url, "llama"))
    asked = {"model": "far", "temperature": 0, "max_tokens": 24}
    reply = front.chat(QUESTION, **asked)
    assert reply.status == 200, reply
    assert reply.json["usage"]["completion_tokens"] == 24
    stream = front.stream(QUESTION, stream_options={"include_usage": True}, **asked).wait_end()
    assert stream.how_it_ended == "done"
    assert stream.text == reply.text and reply.text
    assert stream.finish_reason == "length"
    assert stream.chunks[-1].json["usage"]["completion_tokens"] == 24
    long = front.chat("word " * 9000, model="far")
    assert long.status == 400 and long.error["code"] == "context_length_exceeded", long


@pytest.mark.timeout(300)
def test_a_real_answer_goes_on_elsewhere(servers, tmp_path, llamas):
    """Killed in mid-stream, the other one reads the text as the beginning of its own answer. Last,
    since one of the two is gone afterwards."""
    front = front_of(servers, tmp_path, "".join(
        upstream_config(llama.url, f"far-{number}", continuation="prefill")
        for number, llama in enumerate(llamas)))
    wait_until(lambda: front.process.log().count("upstream joined") == 2, "both to join")
    asked = {"model": "far", "temperature": 0, "max_tokens": 120}
    whole = front.stream(QUESTION, **asked).wait_end().text
    stream = front.stream(QUESTION, **asked).wait_frames(20)
    victim = serving(front, llamas, stream.request_id)
    before = stream.text
    llamas[victim].popen.kill()
    stream.wait_end()
    assert stream.how_it_ended == "done", stream.frames[-3:]
    assert stream.finish_reason in ("stop", "length")
    assert whole.startswith(before)
    # No echo: what was there isn't repeated, and the answer goes on beyond it.
    assert stream.text.startswith(before) and len(stream.text) > len(before)
    assert stream.text.count(whole[:40]) == 1, stream.text
    attempts = front.state(stream.request_id)["attempts"]
    assert attempts[-1]["continuation"] == "prefill" and len(attempts) == 2, attempts
