"""What the benches share: servers started and ended, wrk, the disk's own speed, the machine's name."""

import contextlib
import json
import os
import pathlib
import platform
import re
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
BIN = ROOT / "build/release/waystation"
# What bench/setup_peers.sh put there.
PEERS = pathlib.Path(os.environ.get("WAYSTATION_CACHE", pathlib.Path.home() / ".cache/waystation")) / "bench-peers"

WRK_SCRIPT = """
wrk.method = "POST"
wrk.body = '{body}'
wrk.headers["Content-Type"] = "application/json"
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('RESULT {{"median_us":%d,"p99_us":%d,"requests":%d,"duration_us":%d,"errors":%d}}\\n',
    latency:percentile(50), latency:percentile(99), summary.requests, summary.duration,
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""


def row(what, ours, theirs, ratio, bar, met, equal):
    """A line of the table. `met`: True, False, or None where there is no bar."""
    return {"row": what, "ours": ours, "theirs": theirs, "ratio": ratio, "bar": bar, "met": met,
            "equal": equal}


def show_rows(rows):
    lines = ["| what | Waystation | peer | ratio | bar | met | what was equal |",
             "| --- | --- | --- | --- | --- | --- | --- |"]
    for one in rows:
        ratio = "" if one["ratio"] is None else f"{one['ratio']:.2f}"
        met = {True: "yes", False: "no", None: ""}[one["met"]]
        lines.append(f"| {one['row']} | {one['ours']} | {one['theirs']} | {ratio} | {one['bar']} | "
                     f"{met} | {one['equal']} |")
    return "\n".join(lines)


def write_rows(rows, out):
    """Prints the rows; with `out` also into that file, for bench/run.py."""
    print("\n" + show_rows(rows))
    if out:
        pathlib.Path(out).write_text(json.dumps(rows, indent=1) + "\n")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(url, within_s=20):
    deadline = time.monotonic() + within_s
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError as error:
            if time.monotonic() > deadline:
                sys.exit(f"bench: {url} doesn't answer: {error}")
            time.sleep(0.05)


@contextlib.contextmanager
def process(command, log):
    with open(log, "wb") as out:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        yield child
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def load(port, connections, seconds, script, path="/v1/chat/completions"):
    done = subprocess.run(["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script),
                           f"http://127.0.0.1:{port}{path}"],
                          capture_output=True, text=True, check=False)
    match = re.search(r"^RESULT (.*)$", done.stdout, re.MULTILINE)
    if not match:
        sys.exit(f"bench: wrk failed:\n{done.stdout}{done.stderr}")
    result = json.loads(match[1])
    return {"median_ms": result["median_us"] / 1000, "p99_ms": result["p99_us"] / 1000,
            "per_s": result["requests"] / (result["duration_us"] / 1e6), "errors": result["errors"]}


def sync_ms(folder, seconds=1.0):
    """The median time of one fdatasync after 1 KiB was written into a file that has its size already,
    as the journal does."""
    path = folder / "sync"
    with open(path, "wb", buffering=0) as file:
        file.write(bytes(16 << 20))
        os.fsync(file.fileno())
        times, at, block = [], 0, os.urandom(1024)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            os.pwrite(file.fileno(), block, at)
            at = (at + 1024) % (16 << 20)
            began = time.monotonic()
            os.fdatasync(file.fileno())
            times.append((time.monotonic() - began) * 1000)
    path.unlink()
    return statistics.median(times)


def first_line(command):
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    return ((done.stdout + done.stderr).strip().splitlines() or ["?"])[0]


def machine():
    model = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    return f"{os.cpu_count()} cores, {model[1] if model else platform.machine()}, Linux {platform.release()}"
