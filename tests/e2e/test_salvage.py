"""A damaged journal, of requests or of queues: the server refuses it, `waystation journal salvage`
makes a new one of it, and a server on that serves what the damage didn't touch as it was."""

import pathlib
import random
import re
import shutil

import pytest
from harness import Server, run

REQUESTS = 30


def segments(server):
    return sorted((server.data / "journal").glob("*.segment"))


def frames_of(server, request_id):
    """The whole stored stream, byte for byte; None when it isn't there to its end."""
    reply = server.get(f"/v1/requests/{request_id}/events")
    return reply.body if reply.status == 200 else None


@pytest.fixture
def full(tmp_path):
    """A stopped server with some finished requests, and what each one's stream is."""
    server = Server(tmp_path, "--segment-bytes", 65536, scripted="tokens=40", workers=2)
    server.start()
    try:
        seen = {}
        for number in range(REQUESTS):
            reply = server.chat(f"question {number}",
                                headers={"X-Conversation-Id": f"talk-{number % 3}"})
            assert reply.status == 200
            seen[reply.headers["x-request-id"]] = None
        for request_id in seen:
            seen[request_id] = frames_of(server, request_id)
            assert b"waystation.request.completed" in seen[request_id]
        server.terminate()
        yield server, seen
    finally:
        server.clean_up()


def salvage(server, new, *arguments):
    code, out, err = run("journal", "salvage", server.data, *arguments,
                         *(["--to", new] if new else []))
    return code, out + err


def start_on(server, journal):
    """The same data folder with another journal."""
    shutil.move(server.data / "journal", server.data / "journal-damaged")
    shutil.move(journal, server.data / "journal")
    server.start()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_server_starts_on_what_is_left(full, tmp_path, seed):
    server, seen = full
    generator = random.Random(seed)
    for path in generator.sample(segments(server), 1):
        content = bytearray(path.read_bytes())
        used = len(content.rstrip(b"\0"))
        for _ in range(3):
            at = generator.randrange(used // 8, used * 7 // 8)
            content[at] ^= 1 << generator.randrange(8)
        path.write_bytes(content)
    before = {path: path.read_bytes() for path in segments(server)}
    code, told, _ = run("journal", "verify", server.data)
    assert code == 65 and "waystation journal salvage" in told and "--to NEW_DIR" in told

    new = tmp_path / "saved"
    code, told = salvage(server, None, "--dry-run")
    assert code == 0 and "would keep" in told and not new.exists()
    code, told = salvage(server, new)
    assert code == 0, told
    assert "damage: " in told and " at byte " in told and "lost: record" in told
    assert {path: path.read_bytes() for path in segments(server)} == before
    assert run("journal", "verify", new)[0] == 0
    assert salvage(server, new)[0] == 64  # not into a folder that is there
    assert salvage(server, server.data / "journal" / "inside")[0] == 64

    start_on(server, new)
    same = 0
    for request_id, frames in seen.items():
        now = frames_of(server, request_id)
        if now == frames:
            same += 1
            continue
        # Touched: gone, or ended, and it says so.
        assert request_id in told, f"{request_id} changed and nothing was said\n{told}"
        if now is not None:
            assert b"lost_in_salvage" in now, now
    assert same >= REQUESTS - 9, told
    for number in range(3):  # conversations go on
        reply = server.chat("one more", headers={"X-Conversation-Id": f"talk-{number}"})
        assert reply.status == 200, reply
    server.restart()
    assert sum(frames_of(server, request_id) == frames for request_id, frames in seen.items()) == same


def test_a_cut_file(full, tmp_path):
    server, seen = full
    first = segments(server)[0]
    content = first.read_bytes()
    first.write_bytes(content[:len(content.rstrip(b"\0")) // 2])
    code, told = salvage(server, tmp_path / "saved")
    assert code == 0, told
    if len(segments(server)) > 1:
        assert "lost: record" in told
    start_on(server, tmp_path / "saved")
    assert any(frames_of(server, request_id) == frames for request_id, frames in seen.items())
    assert server.chat("hello").status == 200


def test_a_folder_in_use_and_one_without_a_journal(tmp_path):
    server = Server(tmp_path, scripted="tokens=4")
    try:
        server.start()
        code, told = salvage(server, tmp_path / "saved")
        assert code == 75 and "in use" in told
        assert not (tmp_path / "saved").exists()
    finally:
        server.clean_up()
    empty = pathlib.Path(tmp_path / "empty")
    empty.mkdir()
    code, _, err = run("journal", "salvage", empty, "--to", tmp_path / "other")
    assert code == 66 and "holds no segments" in err
    code, _, err = run("journal", "salvage", empty)
    assert code == 64 and "--to" in err


@pytest.mark.parametrize("seed", [1, 2])
def test_queues(tmp_path, seed):
    generator = random.Random(seed)
    server = Server(tmp_path, scripted="tokens=4")
    try:
        server.start()
        payloads = {}
        for number in range(60):
            payload = f"job {number} {'x' * 200}"
            reply = server.post("/v1/queues/jobs/messages",
                                {"payload": payload, "lane": f"lane-{number % 3}"})
            payloads[reply.json["id"]] = payload
        done = set()
        for _ in range(20):
            lease = server.post("/v1/queues/jobs/leases", {"max": 1}).json
            server.post("/v1/queues/jobs/ack", {"lease": lease["lease"]})
            done.add(lease["messages"][0]["id"])
        server.terminate()

        folder = server.data / "queues"
        [segment] = sorted(folder.glob("*.segment"))
        content = bytearray(segment.read_bytes())
        used = len(content.rstrip(b"\0"))
        content[generator.randrange(used // 8, used * 7 // 8)] ^= 1 << generator.randrange(8)
        segment.write_bytes(content)
        code, told, _ = run("journal", "verify", server.data)
        assert code == 65 and f"waystation journal salvage {folder}" in told, told
        with pytest.raises(AssertionError, match="salvage"):
            server.start()

        new = tmp_path / "saved"
        code, told, err = run("journal", "salvage", folder, "--to", new)
        assert code == 0, told + err
        assert "lost: record" in told and "queues: 1 with" in told, told
        shutil.move(folder, server.data / "damaged")
        again = run("journal", "salvage", server.data / "damaged", "--dry-run")[1]
        assert "queues: 1 with" in again  # whatever the folder is called
        shutil.move(new, folder)
        server.start()
        dead = server.post("/v1/queues/jobs/dead_letters/requeue", {"all": True}).json["count"]
        assert dead == 0 or f"{dead} are dead letters now" in told, told
        back = {}
        while lease := server.post("/v1/queues/jobs/leases", {"max": 100}).json:
            if lease["lease"] is None:
                break
            for message in lease["messages"]:
                back[message["id"]] = message["payload"]
            server.post("/v1/queues/jobs/ack", {"lease": lease["lease"]})
        assert all(payloads[number] == payload for number, payload in back.items())
        # One record is lost: of a message, or of its acknowledgement.
        lost = re.search(r"1 messages are lost: (\d+)$", told, re.MULTILINE)
        gone = {int(lost[1])} if lost else set()
        assert set(back) - done == set(payloads) - done - gone, told
        assert len(set(back) & done) == (0 if lost else 1), told
        assert server.post("/v1/queues/jobs/messages", {"payload": "on"}).json["id"] == 61
    finally:
        server.clean_up()
