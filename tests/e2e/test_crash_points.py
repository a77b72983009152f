"""The server is killed at named points of its code, under load, and again in its recovery.

docs/testing.md says what the points are. WAYSTATION_CRASH_ROUNDS=N does all of it N times
(`make crash ROUNDS=N`), WAYSTATION_SEED=… once more as it was.
"""

import os
import signal
import time

import pytest

import harness
from harness import Failed, wait_until
from history import Archive, History
from load import MIX, Load

ROUNDS = int(os.environ.get("WAYSTATION_CRASH_ROUNDS", "1"))

# Point → the most times it is reached before the process dies. The load comes there within seconds;
# a group of points shares a server, whose journal is small enough that they are reached at all.
GROUPS = {
    "journal": ({"journal.before_write": 200, "journal.after_write": 200,
                 "journal.after_sync": 200}, (), MIX),
    "broker": ({"broker.before_release": 500, "broker.after_release": 500}, (), MIX),
    "segments": ({"segment.before_rename": 3, "segment.after_rename": 3,
                  "checkpoint.before_rename": 2, "checkpoint.after_rename": 2,
                  "segment.before_remove": 2, "segment.after_remove": 2},
                 # Ended requests that a key binds are never dropped for room: most have none here.
                 ("--journal-bytes-max", 300_000),
                 ("plain", "plain", "resumer", "resumer", "resumer", "asker")),
    "store": ({"store.before_commit": 60, "store.after_commit": 60, "blob.before_rename": 6,
               "blob.after_rename": 6}, (), (*MIX, "talker", "uploader", "batcher")),
}
REACHED_S = 30
LOOK_S = 0.5  # a server removes a segment a second at most


def die_at(server, load, archive, point, count):
    """Starts the server armed, and waits until it is dead; also when it dies in its start."""
    server.environment["WAYSTATION_CRASH_AT"] = f"{point}:{count}"
    try:
        server.start(ready=False)
    except Failed:
        if server.process.popen.poll() != -signal.SIGKILL:
            raise

    next_look = time.monotonic() + LOOK_S

    def dead():
        nonlocal next_look
        load.raise_failure()
        if time.monotonic() > next_look:
            archive.look(server.data)
            next_look = time.monotonic() + LOOK_S
        return server.process.popen.poll() is not None
    wait_until(dead, f"{point} to be reached {count} times", REACHED_S)
    assert server.process.popen.returncode == -signal.SIGKILL, server.process.log()


def deaths(points, rng):
    """Each point at its first time, in recovery where that reaches it, and at later ones. What the
    server does once a second is waited for once."""
    plan = []
    for point, most in points.items():
        counts = [rng.randint(1, most)]
        if most > 2:
            counts += [1, rng.randint(1, most)]
        plan += [(point, count) for count in counts]
    rng.shuffle(plan)
    return plan


@pytest.mark.timeout(240 * harness.SLOWNESS * ROUNDS)
@pytest.mark.parametrize("group", GROUPS)
def test_killed_at_every_point_it_stands_by_what_it_said(servers, rng, group):
    points, options, kinds = GROUPS[group]
    for _ in range(ROUNDS):
        server = servers.start("--segment-bytes", 65536, *options, workers=2,
                               scripted="tokens=40,interval-ms=4")
        history, archive = History(forgets=group == "segments"), Archive()
        with Load(server, history, rng, kinds=kinds) as load:
            server.kill()
            for point, count in deaths(points, rng):
                die_at(server, load, archive, point, count)
                archive.take(server.data, history)
            del server.environment["WAYSTATION_CRASH_AT"]
            server.start()
        history.check(server)
        history.check_keys(server, rng)
        assert server.terminate() == 0
        archive.take(server.data, history)
        accepted = archive.check(history)
        code, out, err = harness.run("journal", "verify", server.data)
        assert code == 0, out + err
        done = {client.name: client.done for client in load.clients}
        print(f"{len(accepted)} requests, {len(archive.records)} records; {done}")


def test_an_unknown_point_is_refused_at_the_start(servers):
    server = servers.make(scripted="tokens=1", environment={
        "WAYSTATION_CRASH_AT": "journal.before_sync:1"})
    with pytest.raises(Failed):
        server.start()
    assert server.process.wait_exit() == 64
    assert "did you mean 'journal.before_write'" in server.log()
