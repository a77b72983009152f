"""Disks that fail: a sync or a write that is refused (I8), a torn write, a full disk. Under load, and
held against what clients saw. The faults come from failing_disk.c, the full disk is a small tmpfs.
"""

import functools
import os
import shutil
import signal
import subprocess

import pytest

import harness
from harness import Failed, scripted_text, wait_until
from history import Archive, History
from load import Load
from test_files import upload

MIX = ("asker", "asker", "streamer", "resumer", "plain", "uploader")
SCRIPTED = "tokens=40,interval-ms=4"


@functools.cache
def library(folder):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler for failing_disk.c")
    if harness.SANITIZER:
        pytest.skip("a sanitizer's library wants to be the first one")
    made = folder / "failing_disk.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", made,
                    harness.ROOT / "tests/e2e/failing_disk.c", "-ldl", "-lpthread"], check=True)
    return made


@pytest.fixture
def fail(tmp_path_factory):
    """What a server's environment has to have for a fault."""
    def environment(call, part, count, action):
        return {"LD_PRELOAD": str(library(tmp_path_factory.getbasetemp())),
                "FAILING_DISK": f"{call} {part} {count} {action}"}
    return environment


def refuses(server):
    try:
        return server.get("/readyz").status == 503 and server.chat("refused?").status == 503
    except OSError:
        return False


def check_reads(server, ended):
    """What was durable can be read of a server that accepts nothing more."""
    assert b"journal" in server.get("/readyz").body
    view = server.state(ended.request_id)
    assert view["state"] == "completed"
    assert server.events(ended.request_id).wait_end().text == ended.text


def finish(server, history, archive, rng):
    history.check(server)
    history.check_keys(server, rng)
    assert server.terminate() == 0
    archive.take(server.data, history)
    archive.check(history)
    code, out, err = harness.run("journal", "verify", server.data)
    assert code == 0, out + err


@pytest.mark.parametrize("call, action, most", [
    ("fdatasync", "EIO", 150), ("fdatasync", "ENOSPC", 150), ("pwrite", "EIO", 150),
    ("pwrite", "ENOSPC", 150), ("pwrite", "short", 150),
    ("fsync", "EIO", 4)])  # of a new segment: two are recovery's
def test_a_journal_that_fails_stops_and_stands_by_what_it_said(servers, rng, fail, call, action,
                                                              most):
    server = servers.start("--segment-bytes", 65536, scripted=SCRIPTED, workers=2)
    history, archive = History(), Archive()
    ended = server.chat("before", max_tokens=10)
    server.kill()
    # Past what recovery writes and syncs, which is another test's.
    count = rng.randint(20, most) if most > 20 else most
    server.environment = fail(call, ".segment", count, action)
    server.start(ready=False)
    with Load(server, history, rng, kinds=MIX) as load:
        server.process.wait_line(f"failing_disk: {call} of", 30)
        wait_until(lambda: refuses(server), "new requests to be refused", 10)
        check_reads(server, ended)
        metrics = server.get("/metrics").body.decode()
        assert "\nwaystation_journal_failures_total 1\n" in metrics
        load.raise_failure()
        server.kill()
        assert "used again" not in server.log(), server.log()
        archive.take(server.data, history)
        server.environment = {}
        server.start()
        wait_until(lambda: sum(client.done for client in load.clients) > 20, "the load to go on", 30)
    finish(server, history, archive, rng)


def test_a_torn_write_is_cut(servers, rng, fail):
    """Killed in mid-write: half of a group is there, of which nobody heard."""
    server = servers.start("--segment-bytes", 65536, scripted=SCRIPTED, workers=2)
    history, archive = History(), Archive()
    with Load(server, history, rng, kinds=MIX) as load:
        server.kill()
        for _ in range(4):
            server.environment = fail("pwrite", ".segment", rng.randint(4, 200), "torn")
            server.start(ready=False)
            wait_until(lambda: server.process.popen.poll() is not None, "its death", 30)
            assert server.process.popen.returncode == -signal.SIGKILL
            load.raise_failure()
            archive.take(server.data, history)
        server.environment = {}
        server.start()
    finish(server, history, archive, rng)


def test_a_checkpoint_that_fails_stops_nothing(servers, rng, fail):
    server = servers.make("--segment-bytes", 65536, scripted=SCRIPTED, workers=2,
                          environment=fail("fsync", ".ckpt", 1, "EIO"))
    server.start()
    history, archive = History(), Archive()
    with Load(server, history, rng, kinds=MIX) as load:
        server.process.wait_line("checkpoint failed", 30)
        server.process.wait_line(r"failing_disk: fsync of \S*\.ckpt", 5)
        assert server.get("/readyz").status == 200
        # And the next one is written.
        wait_until(lambda: list(server.data.rglob("*.ckpt")), "a checkpoint", 30)
        load.raise_failure()
    server.kill()
    archive.take(server.data, history)
    server.start()
    finish(server, history, archive, rng)


@pytest.mark.parametrize("call, count, action", [
    ("fsync", 1, "EIO"), ("pwrite", 1, "ENOSPC"), ("pwrite", 2, "short"), ("pwrite", 1, "torn")])
def test_a_start_that_fails_says_so_and_the_next_one_is_whole(servers, rng, fail, call, count,
                                                             action):
    server = servers.start(scripted=SCRIPTED, workers=1)
    history, archive = History(), Archive()
    with Load(server, history, rng, kinds=MIX) as load:
        wait_until(lambda: load.clients[0].done > 2, "some answers", 20)
        server.kill()
        archive.take(server.data, history)
        server.environment = fail(call, ".segment", count, action)
        with pytest.raises(Failed):
            server.start()
        code = server.process.wait_exit()
        assert code == (-signal.SIGKILL if action == "torn" else 74), server.log()
        assert action == "torn" or ".segment" in server.process.log().splitlines()[-1]
        archive.take(server.data, history)
        server.environment = {}
        server.start()
        load.raise_failure()
    finish(server, history, archive, rng)


def test_a_store_that_fails_takes_no_files_and_answers_on(servers, fail):
    """The database of files and batches stops by itself; a restart reads it anew."""
    server = servers.make(scripted=SCRIPTED, workers=1)
    server.start()
    kept = upload(server, b"kept").json["id"]
    server.kill()
    server.environment = fail("fdatasync", ".db-wal", 5, "EIO")
    server.start()
    stored = {kept: b"kept"}

    def refused():
        content = os.urandom(100)
        reply = upload(server, content)
        if reply.status == 200:
            stored[reply.json["id"]] = content
        return reply if reply.status != 200 else None
    reply = wait_until(refused, "an upload to be refused", 20)
    assert reply.status in (500, 503) and "restart" in reply.error["message"], reply
    assert refused(), "it takes uploads again without a restart"
    assert server.chat("hello", max_tokens=3).text == scripted_text(3)
    server.environment = {}
    server.restart()
    for file, content in stored.items():
        assert server.get(f"/v1/files/{file}/content").body == content
    assert not refused()


# ---- a full disk --------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 24 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", folder],
                             capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"a small file system can't be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(path):
    """A file that takes all the room that is left."""
    with open(path, "wb", buffering=0) as ballast:
        size = 1 << 20
        while size > 0:
            try:
                ballast.write(b"\0" * size)
            except OSError:
                size //= 2
    return path


def test_a_full_disk_loses_nothing(servers, rng, small_disk):
    server = servers.make("--segment-bytes", 65536, scripted=SCRIPTED, workers=2)
    server.data = small_disk / "data"
    server.start()
    history, archive = History(), Archive()
    ended = server.chat("before", max_tokens=10)
    ballast = small_disk / "ballast"
    try:
        with Load(server, history, rng, kinds=MIX, kill_workers=False) as load:
            for _ in range(2):
                wait_until(lambda: load.clients[0].done > 3, "some answers", 30)
                fill(ballast)
                wait_until(lambda: refuses(server), "new requests to be refused", 30)
                check_reads(server, ended)
                load.raise_failure()
                server.kill()
                archive.take(server.data, history)
                with pytest.raises(Failed):  # still no room: it says so, and leaves all as it is
                    server.start()
                assert server.process.wait_exit() != 0
                assert "free some space" in server.process.log(), server.process.log()
                archive.take(server.data, history)
                ballast.unlink()
                server.start()
        finish(server, history, archive, rng)
    finally:
        server.clean_up()  # or the disk is in use
