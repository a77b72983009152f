#!/usr/bin/env python3
"""Durable publish, 1 KiB, acknowledged after a sync: our queues beside Redis, NATS and Kafka.

    bench/publish.py [--runs 3] [--seconds 5] [--out FILE.json]

windowed      4 clients with 256 messages on their way each. Ours: frames of 64, a consumer draining.
              Redis: redis-benchmark with a pipeline of 256, `appendfsync always`, the faster of XADD and
              RPUSH, nobody reading. NATS: `nats bench js pub async`, `sync_interval: always`. Kafka: its
              own performance tool with its defaults for batching, `flush.messages=1`.
closed loop   64 clients, a connection each, that wait for each acknowledgement. Ours: wrk on the HTTP call, a
              consumer draining over gRPC; then the same over gRPC, whose client costs as much as the server.
              Redis and NATS as above without a window.

What each peer is spared is told in the table. Peers come from `bench/setup_peers.sh` and Debian.
"""

import argparse
import contextlib
import json
import pathlib
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

from common import (BIN, PEERS, ROOT, WRK_SCRIPT, first_line, free_port, load, machine, process, row, sync_ms, wait_for,
                    write_rows)

BYTES = 1024


def wait_port(port, within_s=60):
    deadline = time.monotonic() + within_s
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if time.monotonic() > deadline:
            sys.exit(f"bench: nothing listens on port {port}")
        time.sleep(0.05)


def output_of(command, timeout_s=300, **more):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False,
                          timeout=timeout_s, **more)
    if done.returncode != 0:
        sys.exit(f"bench: {command[0]} failed:\n{done.stdout[-1500:]}{done.stderr[-1500:]}")
    return done.stdout + done.stderr


class Waystation:
    name = "Waystation"

    def __init__(self, options):
        self.options = options
        self.tool = options.bin.parent / "src/queue/queue_load"
        self.version = first_line([options.bin, "--version"])

    @contextlib.contextmanager
    def running(self, folder):
        self.port, self.http, self.folder = free_port(), free_port(), folder
        with process([self.options.bin, "serve", "--listen", f"127.0.0.1:{self.http}", "--data", folder / "data",
                      "--queue-listen", f"127.0.0.1:{self.port}", "--scripted", "tokens=1", "--log-level",
                      "warn"], folder / "waystation.log"):
            wait_for(f"http://127.0.0.1:{self.http}/readyz")
            yield

    def load(self, *words):
        said = output_of([self.tool, "--target", f"127.0.0.1:{self.port}", "--bytes", BYTES, "--seconds",
                          self.options.seconds, *words])
        got = json.loads(said.strip().splitlines()[-1])
        if got["errors"]:
            sys.exit(f"bench: {got['errors']} publications failed: {got}")
        return got | {"per_s": got["published_per_s"]}

    def windowed(self):
        return self.load("--publishers", 4, "--window", 256, "--frame", 64, "--consumers", 1)

    def closed(self):
        script = self.folder / "publish.lua"
        script.write_text(WRK_SCRIPT.format(body=json.dumps({"payload": "x" * BYTES})))
        with process([self.tool, "--target", f"127.0.0.1:{self.port}", "--seconds", str(self.options.seconds + 60),
                      "--publishers", "0", "--consumers", "1"], self.folder / "consumer.log"):
            got = load(self.http, 64, self.options.seconds, script, "/v1/queues/load/messages")
        if got["errors"]:
            sys.exit(f"bench: {got['errors']} publications failed")
        return got

    def closed_grpc(self):
        return self.load("--publishers", 64, "--window", 1, "--frame", 1, "--consumers", 1)


class Redis:
    name = "Redis, appendfsync always"

    def __init__(self, options):
        self.options = options
        self.version = first_line(["redis-server", "--version"])

    @contextlib.contextmanager
    def running(self, folder):
        self.port = free_port()
        with process(["redis-server", "--port", str(self.port), "--dir", str(folder), "--appendonly", "yes",
                      "--appendfsync", "always", "--save", "", "--auto-aof-rewrite-percentage", "0"],
                     folder / "redis.log"):
            wait_port(self.port)
            yield

    def load(self, clients, pipeline, command):
        # A tenth of a second's worth tells how many make `seconds`.
        count, rate = clients * pipeline * 8, 0
        for _ in range(2):
            said = output_of(["redis-benchmark", "-p", self.port, "-c", clients, "-P", pipeline, "-n", count,
                              "--csv", *command])
            rate = float(said.strip().splitlines()[-1].split('","')[1].strip('"'))
            output_of(["redis-cli", "-p", self.port, "FLUSHALL"])
            count = max(count, int(rate * self.options.seconds))
        return {"per_s": rate}

    def fastest(self, clients, pipeline):
        payload = "x" * BYTES
        return max((self.load(clients, pipeline, command) for command in
                    (["XADD", "q", "*", "d", payload], ["RPUSH", "q", payload])), key=lambda got: got["per_s"])

    def windowed(self):
        return self.fastest(4, 256)

    def closed(self):
        return self.fastest(64, 1)


class Nats:
    name = "NATS JetStream, sync_interval always"

    def __init__(self, options):
        self.options = options
        self.version = first_line([PEERS / "nats-server", "--version"])

    @contextlib.contextmanager
    def running(self, folder):
        self.port = free_port()
        config = folder / "nats.conf"
        config.write_text(f'listen: "127.0.0.1:{self.port}"\n'
                          f'jetstream {{ store_dir: "{folder}/js", sync_interval: always }}\n')
        with process([PEERS / "nats-server", "-c", config], folder / "nats.log"):
            wait_port(self.port)
            yield

    def load(self, how, clients, count):
        said = output_of([PEERS / "nats", "-s", f"nats://127.0.0.1:{self.port}", "bench", "js", "pub", how,
                          "--clients", clients, "--msgs", count, "--size", BYTES, "--storage", "file",
                          "--purge", "--create", "--no-progress", "bench",
                          *(["--batch", "256"] if how == "async" else [])])
        rate = re.findall(r"([\d,.]+) msgs/sec", said)
        if not rate:
            sys.exit(f"bench: nats said:\n{said[-1500:]}")
        return {"per_s": float(rate[-1].replace(",", ""))}

    def windowed(self):
        return self.load("async", 4, 4_000 * self.options.seconds)

    def closed(self):
        return self.load("sync", 64, 4_000 * self.options.seconds)


class Kafka:
    name = "Kafka, flush.messages=1"

    def __init__(self, options):
        self.options = options
        jar = next(iter(sorted((PEERS / "kafka").glob("kafka_2.13-*.jar"))), None)
        self.version = jar.stem if jar else "absent"

    def java(self, *words):
        return ["java", "-Xmx1g", "-cp", f"{PEERS / 'kafka'}/*", *words]

    @contextlib.contextmanager
    def running(self, folder):
        self.port, controller = free_port(), free_port()
        config = folder / "server.properties"
        config.write_text(f"""
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{self.port}
controller.listener.names=CONTROLLER
log.dirs={folder}/kafka
num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
log.flush.interval.messages=1
""")
        output_of(self.java("kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qk", "-c", config))
        with process(self.java("kafka.Kafka", config), folder / "kafka.log"):
            wait_port(self.port)
            yield

    def windowed(self):
        count, rate = 20_000, 0.0
        for _ in range(2):  # the first warms up, and tells how many make `seconds`
            said = output_of(self.java(
                "org.apache.kafka.tools.ProducerPerformance", "--topic", "bench", "--num-records", str(count),
                "--record-size", str(BYTES), "--throughput", "-1", "--producer-props",
                f"bootstrap.servers=127.0.0.1:{self.port}", "acks=all"))
            rate = float(re.findall(r"([\d.]+) records/sec", said)[-1])
            count = max(count, int(rate * self.options.seconds))
        return {"per_s": rate}


def available(options):
    yield Waystation(options)
    if shutil.which("redis-server"):
        yield Redis(options)
    else:
        print("bench: without Redis: apt-get install redis-server", file=sys.stderr)
    for made, file in ((Nats, PEERS / "nats-server"), (Kafka, PEERS / "kafka")):
        if file.exists():
            yield made(options)
        else:
            print(f"bench: without {made.__name__}: run bench/setup_peers.sh", file=sys.stderr)


def measure(options):
    """{(peer, kind): [what a run gave]}. One server at a time: each has the machine to itself."""
    got, peers, syncs = {}, list(available(options)), []
    for run in range(options.runs):
        for peer in peers:
            with tempfile.TemporaryDirectory(dir=options.folder, prefix="publish-") as made:
                folder = pathlib.Path(made)
                syncs.append(sync_ms(folder))
                with peer.running(folder):
                    for kind in ("windowed", "closed", "closed_grpc"):
                        if hasattr(peer, kind):
                            result = getattr(peer, kind)()
                            got.setdefault((peer.name, kind), []).append(result)
                            print(f"run {run + 1}, {peer.name}, {kind}: {result}", flush=True)
    return peers, got, statistics.median(syncs)


def rate(got, name, kind):
    results = got.get((name, kind))
    return statistics.median(one["per_s"] for one in results) if results else None


def rows_of(got, runs):
    spared = "nobody reads from the peer, a consumer drains ours; clients on the same two cores; "
    rows = []
    for kind, title, bars in (
            ("windowed", "durable publish, 1 KiB, 4 clients × 256 in flight: messages/s",
             {Redis.name: 2.0, Nats.name: None, Kafka.name: None}),
            ("closed", "durable publish, 1 KiB, 64 closed-loop clients: messages/s",
             {Redis.name: 0.5, Nats.name: 5.0}),
            ("closed_grpc", "the same, ours over gRPC: messages/s", {Redis.name: None})):
        ours = rate(got, Waystation.name, kind)
        for name, bar in bars.items():
            theirs = rate(got, name, kind.removesuffix("_grpc"))
            if theirs is None:
                continue
            rows.append(row(title, f"{ours:,.0f}", f"{name} {theirs:,.0f}", ours / theirs,
                            f">= {bar} ×" if bar else "", ours / theirs >= bar if bar else None,
                            f"{spared}median of {runs}"))
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", type=pathlib.Path, default=BIN)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--folder", default=str(ROOT / "build"), help="on the disk to measure")
    parser.add_argument("--out", help="write the rows as JSON")
    options = parser.parse_args()
    peers, got, sync = measure(options)
    print(f"\n{machine()}; fdatasync after 1 KiB {sync:.3f} ms; " + "; ".join(
        f"{peer.name.partition(',')[0]}: {peer.version}" for peer in peers))
    write_rows(rows_of(got, options.runs), options.out)


if __name__ == "__main__":
    main()
