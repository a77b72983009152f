"""More than the workers can do, and clients that don't read: nothing grows, and what is accepted is
answered. The longer and stricter form is `make overload`; timings here are judged leniently.
"""

import socket

import harness
import pytest
from harness import chat_body, scripted_text, wait_until
from overload import ARGUMENTS, CAPACITY, OFFERED, QUEUE_MAX, SCRIPTED, Flood, check_counts, \
    gauge, quantile, rss_mb
from soak import fit


@pytest.mark.skipif(bool(harness.SANITIZER), reason="a flood needs a server at its own speed")
def test_ten_times_the_capacity(servers):
    server = servers.start(*ARGUMENTS, scripted=SCRIPTED, workers=1)
    outcome = Flood(server, 12).run()
    print(outcome.table())
    check_counts(outcome)
    assert outcome.offered / outcome.seconds > 0.3 * OFFERED, "hardly a flood"
    assert outcome.offered / outcome.seconds > 2 * CAPACITY, "hardly a flood"
    assert outcome.refused > len(outcome.answered)
    assert outcome.goodput > 0.5
    assert quantile(outcome.first, 0.5) < 0.6 * quantile(outcome.latencies, 0.5)
    # It was full, and is empty again.
    assert outcome.live_max > QUEUE_MAX / 2
    wait_until(lambda: gauge(server, 'waystation_requests{state="running"}') == 0, "the end", 20)
    assert server.chat("after", max_tokens=3).text == scripted_text(3)


def test_clients_that_never_read_hold_nothing_up(servers):
    """Each has an answer of some hundred kilobytes coming and takes none of it."""
    tokens = 20_000
    server = servers.start(scripted=f"tokens={tokens},interval-ms=0", workers=1)
    assert server.chat("warm").status == 200
    before = rss_mb(server.pid)
    silent = []
    try:
        for n in range(30):
            peer = socket.socket()
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            peer.connect(("127.0.0.1", server.port))
            body = harness.json.dumps(chat_body(f"silent {n}", stream=True)).encode()
            peer.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nx-resumable: true"
                         b"\r\ncontent-type: application/json\r\ncontent-length: " +
                         str(len(body)).encode() + b"\r\n\r\n" + body)
            silent.append(peer)
        ended = 'waystation_requests_ended_total{state="completed"}'
        wait_until(lambda: gauge(server, ended) == 31, "all of them to be done", 60)
        # Others are answered meanwhile, and the rest is on the disk and not in memory.
        assert server.stream("hello", max_tokens=50).wait_end().text == scripted_text(50)
        if not harness.SANITIZER:  # which keeps what is freed
            assert rss_mb(server.pid) - before < 96, "unread answers are kept in memory"
    finally:
        for peer in silent:
            peer.close()
    wait_until(lambda: gauge(server, "waystation_stream_readers") == 0, "its readers to go", 20)


def test_the_line_of_the_soak_finds_growth():
    slope, first = fit([(n, 100 + 2 * n + (n % 2)) for n in range(100)])
    assert abs(slope - 2) < 0.01 and abs(first - 100.5) < 0.1
    assert fit([(n, 100) for n in range(10)]) == (0, 100)
