"""Many requests, random kills: nothing is lost, nothing is doubled, every conversation is in order."""

import collections
import os
import signal
import threading
import time

import pytest

import harness
from harness import chat_body, inspect, scripted_text, wait_until
from history import check_lanes

TOKENS = 40
CONVERSATIONS = 20
EACH = 10


class Client(threading.Thread):
    """Wants one answer and doesn't give up: the same key until it has it."""

    def __init__(self, server, key, conversation, deadline):
        super().__init__(daemon=True)
        self.server, self.key, self.conversation, self.deadline = server, key, conversation, deadline
        self.reply = None
        self.tries = 0
        self.odd = []  # answers that no client should get here

    def run(self):
        headers = {"Idempotency-Key": self.key, "X-Conversation-Id": self.conversation}
        while time.monotonic() < self.deadline:
            self.tries += 1
            try:
                reply = self.server.post("/v1/chat/completions",
                                         chat_body(f"{self.conversation} {self.key}"), headers,
                                         timeout_s=60)
            except OSError:
                time.sleep(harness.POLL_S)
                continue
            if reply.status == 200:
                self.reply = reply
                return
            if reply.status not in (429, 503):
                self.odd.append((reply.status, reply.body[:300]))
                return
            time.sleep(int(reply.headers.get("retry-after-ms", 50)) / 1000)


def disturb(server, rng, clients, worker_kills, server_kills, ready=None):
    """Kills in random order at random moments, as long as somebody is waiting for an answer."""
    todo = ["worker"] * worker_kills + ["server"] * server_kills
    rng.shuffle(todo)
    done = collections.Counter()
    for what in todo:
        pause = time.monotonic() + rng.uniform(0.05, 0.45)
        wait_until(lambda: time.monotonic() > pause, "a moment", 5)
        if not any(client.is_alive() for client in clients):
            break
        if what == "worker":
            workers = server.workers()
            if workers:
                server.kill_worker(rng.choice(workers))
                done[what] += 1
        else:
            server.restart(ready=rng.random() < 0.5)
            done[what] += 1
    return done


@pytest.mark.timeout(240 * harness.SLOWNESS)
def test_random_kills_lose_nothing_and_keep_every_conversation_in_order(servers, rng):
    server = servers.start(scripted=f"tokens={TOKENS},interval-ms=15", workers=4)
    server.wait_workers(4)
    deadline = time.monotonic() + 200 * harness.SLOWNESS
    keys = [(f"key-{c}-{n}", f"conversation-{c}") for n in range(EACH) for c in range(CONVERSATIONS)]
    clients = [Client(server, key, conversation, deadline) for key, conversation in keys]
    # Some clients ask twice at the same time, by the same key.
    clients += [Client(server, *pair, deadline) for pair in rng.sample(keys, 30)]
    for client in clients:
        client.start()
    done = disturb(server, rng, clients, worker_kills=16, server_kills=5)
    print(f"killed: {dict(done)}")
    for client in clients:
        client.join(max(1, deadline - time.monotonic()))
    assert done["worker"] >= 8 and done["server"] >= 3, f"hardly anything was disturbed: {done}"
    assert not [client.odd for client in clients if client.odd]
    assert all(client.reply for client in clients), "somebody never got an answer"
    assert {client.reply.text for client in clients} == {scripted_text(TOKENS)}
    by_key = collections.defaultdict(set)
    for client in clients:
        by_key[client.key].add(client.reply.request_id)
    assert all(len(ids) == 1 for ids in by_key.values()), "a key made two requests"
    assert server.terminate() == 0
    accepted = check_lanes(inspect(server.data))
    assert len(accepted) == len(keys)
    assert set(accepted) == {request for ids in by_key.values() for request in ids}
    code, out, err = harness.run("journal", "verify", server.data)
    assert code == 0, out + err


@pytest.mark.timeout(180 * harness.SLOWNESS)
def test_two_servers_fight_for_one_folder_under_load(servers, rng):
    """Killed and started in pairs: one of each pair serves, the other names it and ends."""
    server = servers.start(scripted=f"tokens={TOKENS},interval-ms=10", workers=2)
    deadline = time.monotonic() + 120 * harness.SLOWNESS
    clients = [Client(server, f"key-{n}", f"conversation-{n % 5}", deadline) for n in range(40)]
    for client in clients:
        client.start()
    for _ in range(4):
        pause = time.monotonic() + rng.uniform(0.1, 0.4)
        wait_until(lambda: time.monotonic() > pause, "a moment", 5)
        server.kill()
        server.start(ready=False)
        rival = servers.process("serve", "--listen", "127.0.0.1:0", "--data", server.data,
                                "--scripted", "tokens=4,interval-ms=1")
        assert rival.wait_exit() != 0
        assert str(server.pid) in rival.log(), rival.log()
    for client in clients:
        client.join(max(1, deadline - time.monotonic()))
    assert not [client.odd for client in clients if client.odd]
    assert all(client.reply for client in clients)
    assert {client.reply.text for client in clients} == {scripted_text(TOKENS)}
    assert server.terminate() == 0
    assert len(check_lanes(inspect(server.data))) == 40


def test_a_stuck_worker_is_given_up_and_replaced(servers):
    """It stops for longer than its lease: another takes its request over, a new one its place."""
    server = servers.start(scripted="tokens=400,interval-ms=20", workers=2)
    stream = server.stream("hello", headers={"X-Resumable": "true"}).wait_frames(10)
    name = server.state(stream.request_id)["attempts"][-1]["worker"]
    (pid,) = [pid for pid in server.workers() if name in harness.command_line(pid)]
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: len(server.state(stream.request_id)["attempts"]) == 2,
                   f"{name} to be given up", 30)
        stream.wait_frames(len(stream.frames) + 20)
    finally:
        if harness.alive(pid):
            os.kill(pid, signal.SIGCONT)
    stream.wait_end()
    assert stream.text == scripted_text(400)
    assert stream.numbers == list(range(len(stream.frames)))
    assert len(server.state(stream.request_id)["attempts"]) == 2
    wait_until(lambda: pid not in server.workers() and len(server.workers()) == 2,
               "another in its place", 20)
