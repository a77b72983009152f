#!/usr/bin/env python3
"""What the service itself costs and how fast it heals: round trips, many streams, a cache hit, a worker
that dies, a server that is killed.

    bench/service.py [round-trip] [streams] [cache] [failover] [recovery]    all without names

Models are the scripted engine in real worker processes, but for `failover`, which is measured with the
real model too. Needs wrk, and `sse_load` from the build.
"""

import argparse
import contextlib
import http.client
import json
import os
import pathlib
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

from common import (BIN, ROOT, WRK_SCRIPT, free_port, load, machine, process, row, sync_ms, wait_for,
                    write_rows)

MODEL_FILE = ROOT / "models/SmolLM2-135M-Instruct.Q4_1.gguf"


class Station:
    """A server with its workers, on a fresh folder unless one is given."""

    def __init__(self, options, folder, *flags):
        self.port, self.folder, self.options, self.flags = free_port(), folder, options, flags

    def command(self):
        return [str(self.options.bin), "serve", "--listen", f"127.0.0.1:{self.port}", "--data",
                str(self.folder / "data"), "--log-level", "warn", *self.flags]

    @contextlib.contextmanager
    def running(self):
        with process(self.command(), self.folder / "server.log") as child:
            wait_for(f"http://127.0.0.1:{self.port}/readyz")
            self.pid = child.pid
            yield self

    def workers(self):
        found = subprocess.run(["pgrep", "-P", str(self.pid)], capture_output=True, text=True, check=False)
        return [int(pid) for pid in found.stdout.split()]

    def metric(self, name):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics") as reply:
            text = reply.read().decode()
        return sum(float(line.rpartition(" ")[2]) for line in text.splitlines()
                   if re.match(name + r"[ {]", line))


def wrk_script(folder, body):
    path = folder / "post.lua"
    path.write_text(WRK_SCRIPT.format(body=json.dumps(body, separators=(",", ":"))))
    return path


def chat(model="scripted", prompt="Say hello.", **more):
    return {"model": model, "messages": [{"role": "user", "content": prompt}], **more}


def median_of(results):
    return {key: statistics.median(one[key] for one in results) for key in results[0]}


def round_trip(options, folder):
    """publish -> worker -> result, 64 in flight."""
    station = Station(options, folder, "--scripted", "tokens=1,interval-ms=0", "--cache", "off")
    with station.running():
        script = wrk_script(folder, chat())
        load(station.port, 64, 1, script)
        got = median_of([load(station.port, 64, options.seconds, script) for _ in range(options.runs)])
    return [row("publish → worker → result, 64 in flight: requests/s",
                f"{got['per_s']:,.0f}, p99 {got['p99_ms']:.1f} ms", "", None, ">= 10,000, p99 <= 10 ms",
                got["per_s"] >= 10_000 and got["p99_ms"] <= 10,
                f"HTTP by wrk on the same machine, one worker process, fsync on; {got['errors']:.0f} errors")]


def cache(options, folder):
    station = Station(options, folder, "--scripted", "tokens=16,interval-ms=0")
    with station.running():
        script = wrk_script(folder, chat(temperature=0))
        load(station.port, 1, 1, script)
        got = median_of([load(station.port, 1, options.seconds, script) for _ in range(options.runs)])
        hits = station.metric("waystation_cache_hits_total")
    return [row("exact cache hit, 1 connection: median", f"{got['median_ms']:.3f} ms, p99 {got['p99_ms']:.2f} ms",
                "", None, "<= 0.15 ms", got["median_ms"] <= 0.15,
                f"HTTP by wrk; fdatasync {sync_ms(folder):.3f} ms; {hits:,.0f} hits")]


def streams(options, folder):
    count, tokens, interval, ramp = 2000, 350, 40, 5000
    tool = options.bin.parent / "src/front/sse_load"
    if not tool.exists():
        sys.exit(f"bench: {tool} is not built: cmake --build build/release --target sse_load")
    station = Station(options, folder, "--scripted", f"tokens={tokens},interval-ms={interval},slots=4096",
                      "--cache", "off")
    with station.running():
        done = subprocess.run([tool, str(station.port), str(count), str(tokens), str(interval), str(ramp)],
                              capture_output=True, text=True, check=False)
    got = json.loads(done.stdout)
    return [row(f"{count:,} streams × {1000 // interval} tokens/s: p99 added delay of a token",
                f"{got['p99_ms']:.1f} ms (median {got['median_ms']:.1f}, max {got['max_ms']:.0f}), "
                f"{got['whole']:,} of {got['streams']:,} whole", "", None, "<= 10 ms, none broken",
                got["p99_ms"] <= 10 and got["whole"] == count,
                f"{got['tokens']:,} tokens, each durable before it is sent, {got['counted']:,} of them counted "
                f"while all streams ran; the client on the same two cores")]


def gap_ms(station, body):
    """Kills the worker of a running stream; the longest silence after that."""
    connection = http.client.HTTPConnection("127.0.0.1", station.port, timeout=60)
    connection.request("POST", "/v1/chat/completions", json.dumps({**body, "stream": True}),
                       {"content-type": "application/json"})
    reply = connection.getresponse()
    moments, killed = [], None
    while True:
        line = reply.readline()
        if not line or line.startswith(b"data: [DONE]"):
            break
        if b'"content":"' not in line or b'"content":""' in line:
            continue
        moments.append(time.monotonic())
        if len(moments) == 12:
            os.kill(worker_of(station, reply.getheader("x-request-id")), signal.SIGKILL)
            killed = time.monotonic()
    if killed is None or len(moments) < 20:
        sys.exit(f"bench: the stream ended after {len(moments)} pieces")
    after = [moment for moment in moments if moment >= killed]
    connection.close()
    return 1000 * max(b - a for a, b in zip([killed, *after], after))


def worker_of(station, request):
    with urllib.request.urlopen(f"http://127.0.0.1:{station.port}/v1/requests/{request}") as reply:
        told = json.load(reply)
    name = told["attempts"][-1]["worker"]
    for pid in station.workers():
        words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if name.encode() in words:
            return pid
    sys.exit(f"bench: the worker {name} isn't among {station.workers()}")


def failover(options, folder):
    rows = []
    kinds = {"scripted, a token each 5 ms": ("scripted", ("--scripted", "tokens=400,interval-ms=5"))}
    if MODEL_FILE.exists():
        kinds["SmolLM2-135M, 1 thread a worker"] = (MODEL_FILE.stem, ("--model", str(MODEL_FILE)))
    for name, (model, flags) in kinds.items():
        station = Station(options, folder, *flags, "--workers", "2", "--cache", "off")
        gaps = []
        with station.running():
            deadline = time.monotonic() + 30
            for _ in range(options.runs):
                while len(station.workers()) < 2 or station.metric("waystation_workers") < 2:
                    if time.monotonic() > deadline:
                        sys.exit("bench: no second worker")
                    time.sleep(0.05)
                gaps.append(gap_ms(station, chat(model, "Write a long story about a courier.", max_tokens=200)))
                deadline = time.monotonic() + 30
        gaps.sort()
        rows.append(row(f"a worker dies, another is ready: gap in the stream ({name})",
                        f"{statistics.median(gaps):.0f} ms (max {gaps[-1]:.0f})", "", None, "<= 300 ms",
                        statistics.median(gaps) <= 300, f"kill -9 in mid-stream, median of {len(gaps)}"))
        for left in folder.glob("data"):
            left.rename(folder / f"data-{len(rows)}")
    return rows


def recovery(options, folder):
    station = Station(options, folder, "--scripted", "tokens=40,interval-ms=1", "--cache", "off",
                      "--queue-max", "1000")
    times = []
    with station.running():
        script = wrk_script(folder, chat())
        while True:
            load(station.port, 256, 5, script)
            records = station.metric("waystation_journal_records_total")
            print(f"bench: {records:,.0f} records", file=sys.stderr, flush=True)
            if records >= 1_000_000:
                break
        os.kill(station.pid, signal.SIGKILL)
    for _ in range(options.runs):
        began = time.monotonic()
        with process(station.command(), folder / "server.log") as child:
            while True:
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{station.port}/healthz", timeout=1):
                        break
                except OSError:
                    time.sleep(0.002)
            times.append(time.monotonic() - began)
            child.kill()
    return [row("start after kill -9 with 1 M retained records: until it answers",
                f"{statistics.median(times):.2f} s (max {max(times):.2f})", "", None, "<= 1 s",
                statistics.median(times) <= 1.0, f"{records:,.0f} records, from exec to /healthz, "
                f"file cache warm, median of {len(times)}")]


ROWS = {"round-trip": round_trip, "streams": streams, "cache": cache, "failover": failover,
        "recovery": recovery}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="*", metavar="ROW")
    parser.add_argument("--bin", type=pathlib.Path, default=BIN)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--folder", default=str(ROOT / "build"), help="on the disk to measure")
    parser.add_argument("--out", help="write the rows as JSON")
    options = parser.parse_args()
    print(machine())
    rows = []
    for name in options.rows or ROWS:
        with tempfile.TemporaryDirectory(dir=options.folder, prefix=f"bench-{name}-") as made:
            rows += ROWS[name](options, pathlib.Path(made))
            print(f"bench: {rows[-1]['row']}: {rows[-1]['ours']}", file=sys.stderr, flush=True)
    write_rows(rows, options.out)


if __name__ == "__main__":
    main()
