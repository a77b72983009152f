"""Limits that a server is given: by the system, and by its options."""

import base64
import http.client
import random
import socket
import time

from harness import SLOWNESS, wait_until


def connect(server):
    return socket.create_connection(("127.0.0.1", server.port), timeout=30 * SLOWNESS)


def read_to_end(peer):
    """What comes until the other side closes, and how long that took."""
    began, said = time.monotonic(), b""
    while piece := peer.recv(65536):
        said += piece
    return said, time.monotonic() - began


# ---- the system's limit for the size of a file --------------------------------------------------


def test_file_size_limit_is_a_full_disk_not_the_end(servers):
    """`ulimit -f`: the system sends a signal that ends whoever doesn't expect it."""
    server = servers.make("--segment-bytes", "65536", scripted="tokens=5,interval-ms=1", workers=1,
                          file_bytes_max=200_000)
    server.start()
    ended = server.chat("small")
    assert ended.status == 200
    noise = base64.b64encode(random.Random(1).randbytes(600_000)).decode()  # can't be compressed
    assert server.chat(noise).status == 503
    assert server.process.popen.poll() is None
    wait_until(lambda: server.get("/readyz").status == 503, "/readyz to be red", 10)
    assert b"journal" in server.get("/readyz").body
    assert server.chat("small again").status == 503
    assert server.events(ended.request_id).wait_end().text == ended.text
    server.file_bytes_max = None
    server.restart()
    assert server.chat(noise).status == 200
    assert server.events(ended.request_id).wait_end().text == ended.text


# ---- connections that say too little ------------------------------------------------------------


def test_header_that_does_not_end_is_408(servers):
    server = servers.start("--header-timeout-ms", "300", scripted="tokens=5,interval-ms=1", workers=1)
    with connect(server) as slow, connect(server) as silent:
        slow.sendall(b"GET /healthz HTTP/1.1\r\nhost:")
        said, seconds = read_to_end(slow)
        assert said.startswith(b"HTTP/1.1 408 "), said
        assert seconds < 10 * SLOWNESS  # the built-in limit
        assert read_to_end(silent)[0] == b"", "one that never said anything is just closed"
    assert server.chat().status == 200


def test_body_that_does_not_come_is_408(servers):
    server = servers.start("--body-timeout-ms", "300", scripted="tokens=5,interval-ms=1", workers=1)
    with connect(server) as slow:
        slow.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
                     b"content-length: 100\r\n\r\n{")
        said, seconds = read_to_end(slow)
    assert said.startswith(b"HTTP/1.1 408 "), said
    assert seconds < 60 * SLOWNESS


def test_idle_connection_is_closed_but_never_in_an_answer(servers):
    server = servers.start("--idle-timeout-ms", "300", scripted="tokens=40,interval-ms=50", workers=1)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30 * SLOWNESS)
    connection.request("GET", "/healthz")
    assert connection.getresponse().read()
    said, seconds = read_to_end(connection.sock)
    assert said == b"" and seconds < 75 * SLOWNESS
    connection.close()
    assert server.stream("two seconds").wait_end().finish_reason  # longer than the limit
