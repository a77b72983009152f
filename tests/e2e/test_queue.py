"""Queues for people's own jobs: over HTTP, over gRPC, and with the server killed under them."""

import base64
import contextlib
import os
import queue
import subprocess
import sys
import threading
import time

import grpc
import pytest

from harness import ROOT, SLOWNESS, run, wait_until


@pytest.fixture(scope="module")
def stubs(tmp_path_factory):
    """The modules that protoc makes of the .proto, as a user would make them."""
    folder = tmp_path_factory.mktemp("proto")
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", "-I", ROOT / "src",
                    f"--python_out={folder}", f"--grpc_python_out={folder}",
                    ROOT / "src/message/proto/queue.proto"], check=True)
    sys.path.insert(0, str(folder))
    from message.proto import queue_pb2, queue_pb2_grpc  # pylint: disable=import-outside-toplevel
    queue_pb2.folder, queue_pb2.grpc = folder, queue_pb2_grpc
    return queue_pb2


def start(servers, *arguments, **how):
    server = servers.make("--queue-listen", "127.0.0.1:0", *arguments,
                          scripted="tokens=1,interval-ms=1", workers=0, **how)
    return server.start(ready=False)


def address(server):
    return "127.0.0.1:" + server.process.wait_line(r"queues listening port=(\d+)")[1]


@contextlib.contextmanager
def connected(server, stubs):
    with grpc.insecure_channel(address(server)) as channel:
        yield stubs.grpc.QueuesStub(channel)


class Consumer:
    """Reads deliveries on a thread of its own; says what it is told to."""

    def __init__(self, stub, stubs, name, **how):
        self.stubs, self.number = stubs, 1
        self.requests, self.messages = queue.SimpleQueue(), queue.SimpleQueue()
        self.confirmed, self.errors, self.ended = 0, [], None
        self.requests.put(stubs.ConsumeRequest(number=1, open=stubs.Open(queue=name, **how)))
        self.call = stub.Consume(iter(self.requests.get, None))
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        try:
            for delivery in self.call:
                self.errors += delivery.errors
                self.confirmed = max(self.confirmed, delivery.confirmed)
                ids = [(run.first + i, run.attempt) for run in delivery.runs
                       for i in range(run.count)]
                assert len(ids) == len(delivery.payload)
                for (message, attempt), payload in zip(ids, delivery.payload):
                    self.messages.put((delivery.lease, message, attempt, payload))
        except grpc.RpcError as error:
            self.ended = error

    def next(self):
        return self.messages.get(timeout=20 * SLOWNESS)

    def settle(self, lease, first, **how):
        self.number += 1
        self.requests.put(self.stubs.ConsumeRequest(number=self.number, settle=[self.stubs.Settle(
            lease=lease, ranges=[self.stubs.IdRange(first=first, count=1)], **how)]))
        return self.number

    def wait_confirmed(self, number):
        wait_until(lambda: self.confirmed >= number, f"request {number} to be confirmed")


# ---- HTTP ---------------------------------------------------------------------------------------


def test_http_from_publication_to_dead_letter(servers):
    server = start(servers)
    assert server.get("/v1/queues/mails").status == 404
    assert server.request("PUT", "/v1/queues/mails", {"max_attempts": 2}).json["max_attempts"] == 2
    one = server.post("/v1/queues/mails/messages", {"payload": "hé", "priority": "high"})
    assert one.status == 200 and one.json["id"] == 1, one
    raw = base64.b64encode(b"\x00\xff").decode()
    lines = f'{{"payload": {{"to": "ann"}}}}\n{{"payload_base64": "{raw}"}}\n'.encode()
    many = server.post("/v1/queues/mails/messages", lines,
                       {"content-type": "application/x-ndjson"}).json
    assert (many["id"], many["count"]) == (2, 2)

    lease = server.post("/v1/queues/mails/leases", {"max": 10}).json
    assert [m["id"] for m in lease["messages"]] == [1, 2, 3]
    assert lease["messages"][0]["payload"] == "hé"
    assert lease["messages"][1]["payload"] == '{"to": "ann"}'
    assert lease["messages"][2]["payload_base64"] == raw
    assert server.get("/v1/queues/mails").json["leased"] == 3
    assert server.post("/v1/queues/mails/ack", {"lease": lease["lease"], "ids": [1]}).status == 200
    assert server.post("/v1/queues/mails/ack", {"lease": lease["lease"], "ids": [1]}).status == 410
    extended = server.post("/v1/queues/mails/extend", {"lease": lease["lease"], "lease_ms": 60000})
    assert extended.json["until_ms"] > lease["until_ms"]
    server.post("/v1/queues/mails/terminate",
                {"lease": lease["lease"], "ids": [3], "reason": "unreadable"})
    server.post("/v1/queues/mails/nack", {"lease": lease["lease"]})

    again = server.post("/v1/queues/mails/leases", {"max": 10, "wait_ms": 5000}).json
    assert [(m["id"], m["attempt"]) for m in again["messages"]] == [(2, 2)]
    server.post("/v1/queues/mails/nack", {"lease": again["lease"], "reason": "still no"})
    dead = server.get("/v1/queues/mails/dead_letters?limit=1").json
    assert dead["has_more"] and dead["data"][0]["id"] == 2, dead
    assert dead["data"][0]["reason"] == "still no" and dead["data"][0]["attempts"] == 2
    dead = server.get("/v1/queues/mails/dead_letters?after=2").json
    assert [d["payload_base64"] for d in dead["data"]] == [raw]
    assert server.post("/v1/queues/mails/dead_letters/requeue", {"ids": [2]}).json["count"] == 1
    assert server.post("/v1/queues/mails/dead_letters/discard", {"all": True}).json["count"] == 1
    back = server.post("/v1/queues/mails/leases", {"wait_ms": 5000}).json
    assert [(m["id"], m["attempt"]) for m in back["messages"]] == [(2, 1)]
    assert [q["name"] for q in server.get("/v1/queues").json["data"]] == ["mails"]
    assert server.request("DELETE", "/v1/queues/mails").json["deleted"] is True
    assert server.get("/v1/queues/mails").status == 404


def test_http_refusals(servers):
    server = start(servers)
    wrong = server.post("/v1/queues/q/messages", {"payload": "a", "prority": "high"})
    assert wrong.status == 400 and wrong.json["error"]["param"] == "prority"
    assert "priority" in wrong.json["error"]["message"]
    assert server.post("/v1/queues/a%2Fb/messages", {"payload": "a"}).status == 400
    late = server.post("/v1/queues/q/messages", {"payload": "a", "deadline_ms": 1})
    assert late.status >= 400
    assert server.request("PATCH", "/v1/queues/q").status == 405
    key = {"idempotency-key": "k"}
    first = server.post("/v1/queues/q/messages", {"payload": "a"}, key).json
    same = server.post("/v1/queues/q/messages", {"payload": "a"}, key).json
    assert (same["id"], same["duplicate"], first["duplicate"]) == (first["id"], True, False)
    assert server.post("/v1/queues/q/messages", {"payload": "b"}, key).status == 422


def test_lanes_delays_and_waiting(servers):
    server = start(servers)
    for payload in ("one", "two"):
        server.post("/v1/queues/q/messages", {"payload": payload, "lane": "l"})
    first = server.post("/v1/queues/q/leases", {"max": 10}).json
    assert [m["payload"] for m in first["messages"]] == ["one"]
    assert server.post("/v1/queues/q/leases", {}).json["lease"] is None
    server.post("/v1/queues/q/ack", {"lease": first["lease"]})
    assert server.post("/v1/queues/q/leases", {"wait_ms": 5000}).json["messages"][0]["payload"] == "two"
    began = time.monotonic()
    server.post("/v1/queues/q/messages", {"payload": "later", "delay_ms": 300})
    later = server.post("/v1/queues/q/leases", {"wait_ms": 20000}).json
    assert later["messages"][0]["payload"] == "later" and time.monotonic() - began >= 0.3


def test_tenants_do_not_see_each_other(servers, stubs, tmp_path):
    keys = tmp_path / "keys"
    alice, bob = (run("keys", "add", keys, "--tenant", who)[1].strip() for who in ("alice", "bob"))
    server = start(servers, "--api-key-file", keys, api_key=alice)
    assert server.post("/v1/queues/q/messages", {"payload": "hers"}).status == 200
    server.api_key = bob
    assert server.get("/v1/queues/q").status == 404
    assert server.get("/v1/queues").json["data"] == []
    with connected(server, stubs) as stub:
        with pytest.raises(grpc.RpcError) as refused:
            list(stub.Publish(iter([stubs.PublishFrame(queue="q", payload=[b"a"])])))
        assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
        frame = stubs.PublishFrame(queue="q", payload=[b"his"])
        (receipts,) = stub.Publish(iter([frame]), metadata=[("authorization", f"Bearer {bob}")])
        assert receipts.receipts[0].first == 1


def test_others_machines_need_keys(servers):
    code, _, said = run("serve", "--data", servers.folder / "data", "--listen", "127.0.0.1:0",
                        "--queue-listen", "0.0.0.0:0", "--scripted", "tokens=1")
    assert code != 0 and "--api-key-file" in said


# ---- gRPC ---------------------------------------------------------------------------------------


def test_grpc_publish_consume_settle(servers, stubs):
    server = start(servers)
    with connected(server, stubs) as stub:
        frames = [stubs.PublishFrame(queue="q", number=1, payload=[b"a", b"b"]),
                  stubs.PublishFrame(number=2, payload=[b"c"], idempotency_key="k"),
                  stubs.PublishFrame(number=3, payload=[b"c"], idempotency_key="k"),
                  stubs.PublishFrame(number=4, payload=[b"x"], idempotency_key="k"),
                  stubs.PublishFrame(number=5, payload=[b"d", b"e"],
                                     options=[stubs.MessageOptions(lane="l")] * 2),
                  stubs.PublishFrame(number=6)]
        found = {r.number: r for rs in stub.Publish(iter(frames)) for r in rs.receipts}
        assert [found[n].first for n in (1, 2, 3, 5)] == [1, 3, 3, 4]
        assert found[3].duplicate and not found[2].duplicate
        assert found[4].error.code == "idempotency_mismatch"
        assert found[6].error.code == "invalid_argument"

        consumer = Consumer(stub, stubs, "q", window=10)
        got = [consumer.next() for _ in range(4)]
        assert [(m, a, p) for _, m, a, p in got] == [(1, 1, b"a"), (2, 1, b"b"), (3, 1, b"c"),
                                                     (4, 1, b"d")]
        lease = got[0][0]
        consumer.settle(lease, 1)
        consumer.settle(lease, 2, outcome=stubs.OUTCOME_NACK)
        last = consumer.settle(lease, 4)  # the lane's next
        assert {consumer.next()[1:] for _ in range(2)} == {(2, 2, b"b"), (5, 1, b"e")}
        consumer.wait_confirmed(last)
        assert not consumer.errors
        consumer.settle(lease, 1)
        wait_until(lambda: consumer.errors, "the refusal")
        assert consumer.errors[0].error.code == "gone"
        consumer.call.cancel()  # what it holds goes to the next one
        other = Consumer(stub, stubs, "q", window=10)
        assert {other.next()[1] for _ in range(3)} == {2, 3, 5}


def test_window_bounds_what_a_consumer_holds(servers, stubs):
    server = start(servers)
    with connected(server, stubs) as stub:
        list(stub.Publish(iter([stubs.PublishFrame(queue="q", payload=[b"x"] * 10)])))
        consumer = Consumer(stub, stubs, "q", window=3)
        held = [consumer.next() for _ in range(3)]
        assert server.get("/v1/queues/q").json["waiting"] == 7
        consumer.settle(held[0][0], held[0][1])
        assert consumer.next()[1] == 4
        assert consumer.messages.empty()


def test_the_example_works(servers, stubs):
    server = start(servers)

    def example(*arguments):
        return subprocess.run(
            [sys.executable, ROOT / "examples/queue_worker.py", address(server), "mails",
             *arguments], cwd=stubs.folder, capture_output=True, text=True, check=True,
            timeout=60 * SLOWNESS, env={**os.environ, "PYTHONPATH": str(stubs.folder)}).stdout

    assert example("publish", "one", "two").split() == ["1", "2"]
    assert example("work", "--for-seconds", str(3 * SLOWNESS)).splitlines() == ["1 1 one", "2 1 two"]
    assert server.get("/v1/queues/mails").json["waiting"] == 0


# ---- Kills --------------------------------------------------------------------------------------


def test_killed_server_keeps_what_it_accepted_and_nothing_it_was_told_is_done(servers, stubs, rng):
    """Publishers and a consumer at full speed, kill -9, three times."""
    server = start(servers)
    accepted, acked, tried, sent = set(), set(), set(), 0
    for _ in range(3):
        with connected(server, stubs) as stub:
            frames, stop, room = {}, threading.Event(), threading.Semaphore(20)

            def make_frames():
                nonlocal sent
                while not stop.is_set():
                    room.acquire()  # pylint: disable=consider-using-with
                    payloads = [f"{sent + i}".encode() for i in range(rng.randrange(1, 50))]
                    sent += len(payloads)
                    frames[sent] = payloads
                    yield stubs.PublishFrame(queue="q", number=sent, payload=payloads)

            def publish():
                with contextlib.suppress(grpc.RpcError):
                    for receipts in stub.Publish(make_frames()):
                        for receipt in receipts.receipts:
                            room.release()
                            if not receipt.HasField("error"):
                                accepted.update(frames[receipt.number])

            publisher = threading.Thread(target=publish)
            publisher.start()
            consumer = Consumer(stub, stubs, "q", window=100)
            waiting = []
            while len(waiting) < 500:
                lease, message, _, payload = consumer.next()
                assert payload not in acked, "given again after its acknowledgement was confirmed"
                tried.add(payload)
                waiting.append((consumer.settle(lease, message), payload))
            server.kill()
            stop.set()
            room.release()
            publisher.join()
            consumer.thread.join()
            acked.update(payload for number, payload in waiting if number <= consumer.confirmed)
        server.start(ready=False)
    assert acked and accepted
    left = set()
    while True:
        lease = server.post("/v1/queues/q/leases", {"max": 1000, "lease_ms": 600_000}).json
        if lease["lease"] is None:
            break
        left.update(m["payload"].encode() for m in lease["messages"])
    assert not left & acked
    assert accepted - left <= tried, "accepted, never tried, and gone"


def test_restart_voids_leases_and_keeps_the_rest(servers, stubs):
    server = start(servers)
    server.request("PUT", "/v1/queues/q", {"on_dead": "block", "max_attempts": 1})
    for payload in ("a", "b"):
        server.post("/v1/queues/q/messages", {"payload": payload, "lane": "l"},
                    {"idempotency-key": payload})
    lease = server.post("/v1/queues/q/leases", {}).json
    server.restart(ready=False)
    assert server.post("/v1/queues/q/ack", {"lease": lease["lease"]}).status == 410
    lease = server.post("/v1/queues/q/leases", {"lease_ms": 1}).json
    assert lease["messages"][0]["payload"] == "a"
    wait_until(lambda: server.get("/v1/queues/q").json["dead"] == 1, "the lease to run out")
    server.restart(ready=False)
    assert server.post("/v1/queues/q/leases", {}).json["lease"] is None  # its lane is held
    assert server.get("/v1/queues/q/dead_letters").json["data"][0]["payload"] == "a"
    assert server.post("/v1/queues/q/messages", {"payload": "a", "lane": "l"},
                       {"idempotency-key": "a"}).json["duplicate"] is True
    server.post("/v1/queues/q/dead_letters/discard", {"all": True})
    assert server.post("/v1/queues/q/leases", {"wait_ms": 5000}).json["messages"][0]["payload"] == "b"
