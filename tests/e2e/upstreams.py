"""Upstreams for tests: servers that answer as a test tells them, and servers in front of them."""

import http.server
import json
import threading
import time

import pytest


class FakeUpstream:
    """An HTTP server whose answers a test gives: answer(handler, body, number of the call)."""

    def __init__(self, answer, context=None):
        self.calls = []  # (time, headers, body)
        self.gone = threading.Event()  # a client went away in mid-answer
        self.models_status = 200
        fake = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                send_json(self, {"object": "list", "data": []}, fake.models_status)

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                fake.calls.append((time.monotonic(), dict(self.headers), body))
                try:
                    answer(self, body, len(fake.calls))
                except OSError:
                    fake.gone.set()
                    self.close_connection = True

            def log_message(self, *arguments):
                pass

        class Quiet(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request, client_address):
                pass  # handshakes that are meant to fail

        self.server = Quiet(("127.0.0.1", 0), Handler)
        if context is not None:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        self.scheme = "http" if context is None else "https"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def url(self, host="127.0.0.1"):
        return f"{self.scheme}://{host}:{self.port}/v1"

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


def send_json(handler, value, status=200, headers=None):
    payload = json.dumps(value).encode()
    handler.send_response(status)
    handler.send_header("content-type", "application/json")
    handler.send_header("content-length", str(len(payload)))
    for name, content in (headers or {}).items():
        handler.send_header(name, content)
    handler.end_headers()
    handler.wfile.write(payload)


def send_error(handler, status, message="no", headers=None):
    send_json(handler, {"error": {"message": message, "type": "x", "param": None, "code": None}},
              status, headers)


def answer_of(text):
    return {"id": "x", "object": "chat.completion", "created": 1, "model": "theirs",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": text},
                         "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}}


def begin_stream(handler, headers=None):
    handler.send_response(200)
    handler.send_header("content-type", "text/event-stream")
    handler.send_header("connection", "close")
    for name, content in (headers or {}).items():
        handler.send_header(name, content)
    handler.end_headers()


def send_event(handler, value):
    data = value if isinstance(value, str) else json.dumps(value)
    handler.wfile.write(f"data: {data}\n\n".encode())
    handler.wfile.flush()


def piece(text, reason=None):
    return {"id": "x", "choices": [{"index": 0, "delta": {"content": text},
                                    "finish_reason": reason}]}


@pytest.fixture
def fakes():
    """Makes fake upstreams and ends them."""
    made = []

    def make(answer, **how):
        made.append(FakeUpstream(answer, **how))
        return made[-1]
    yield make
    for fake in made:
        fake.stop()


def front_of(servers, tmp_path, config, *arguments, ready=True, **how):
    """A server in front of upstreams, with its configuration file."""
    path = tmp_path / f"config{len(servers.servers)}.toml"
    path.write_text(config)
    server = servers.make("--config", path, *arguments, **how)
    return server.start(ready=ready)


def upstream_config(url, name, models='["far"]', **keys):
    lines = ["[[upstream]]", f'name = "{name}"', f'url = "{url}"', f"models = {models}",
             "probe_min_ms = 100", "probe_max_ms = 500"]
    lines += [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
    return "\n".join(lines) + "\n"
