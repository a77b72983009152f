#!/usr/bin/env python3
"""Tokens a second of the real model: through Waystation, and by llama-server of the same build.

    make bench                                     both, 1 and 8 streams, 7 runs
    bench/model_stream.py --streams 8 --runs 3     what you like; --help lists it all

Both servers run at once with the same model, threads, slots and context, and are asked in turns, so
that a machine which slows down slows both. Whoever is not asked sleeps; the processor time that it
takes meanwhile is shown. A run is counted from the moment when every stream has its first token
until the first stream ends: prompts, which both compute at once, are not in it. Each run asks
something new, so nothing comes from a cache but the chat template's beginning.

The client is one thread that only counts, since it takes its time from the same cores. Run it on a
machine that does nothing else: llama.cpp's threads spin, and anything beside them costs far more than
its own time.
"""

import argparse
import json
import os
import pathlib
import re
import selectors
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

from common import BIN, ROOT, first_line, free_port, machine, row, write_rows

BAR = 0.95
CONTENT = re.compile(rb'"content":"((?:[^"\\]|\\.)+)"')
USAGE = re.compile(rb'"completion_tokens":\s*(\d+)')
SETTLE_S = 0.5  # llama.cpp's threads spin for a moment after their last work
TICKS = os.sysconf("SC_CLK_TCK")


# ---- one run ------------------------------------------------------------------------------------


class Reader:
    """One stream: when each piece of text came, and how long it was."""

    def __init__(self, port, model, prompt, tokens):
        body = json.dumps({
            "model": model, "stream": True, "temperature": 0, "max_tokens": tokens,
            "stream_options": {"include_usage": True},
            "messages": [{"role": "user", "content": prompt}]}).encode()
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=120)
        self.socket.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
                            b"content-type: application/json\r\nconnection: close\r\n"
                            b"content-length: %d\r\n\r\n" % len(body) + body)
        self.pieces = []  # (moment, bytes of text)
        self.tokens = 0
        self.tail = b""
        self.head = b""

    def take(self):
        """Reads what is there. False at the end."""
        piece = self.socket.recv(65536)
        now = time.monotonic()
        if len(self.head) < 200:
            self.head += piece[:200]
        lines, _, self.tail = (self.tail + piece).rpartition(b"\n")
        self.pieces += [(now, len(text)) for text in CONTENT.findall(lines)]
        for count in USAGE.findall(lines):
            self.tokens = int(count)
        return bool(piece)

    def tokens_between(self, begin, end):
        """A chunk may carry several tokens: counted by the text's share of the whole answer."""
        text = sum(size for moment, size in self.pieces if begin < moment <= end)
        return self.tokens * text / sum(size for _, size in self.pieces)


def run(port, model, streams, tokens, number):
    """Tokens a second of `streams` answers at once."""
    readers = [Reader(port, model, f"Write a long story about the number {number * 100 + i}.", tokens)
               for i in range(streams)]
    selector = selectors.DefaultSelector()
    for reader in readers:
        selector.register(reader.socket, selectors.EVENT_READ, reader)
    while selector.get_map():
        for key, _ in selector.select(120) or sys.exit("bench: nothing came for two minutes"):
            if not key.data.take():
                selector.unregister(key.fileobj)
                key.fileobj.close()
    short = [reader for reader in readers if reader.tokens < tokens * 0.8]
    if short:
        sys.exit(f"bench: a stream had {short[0].tokens} tokens of {tokens}: {short[0].head!r}")
    begin = max(reader.pieces[0][0] for reader in readers)
    end = min(reader.pieces[-1][0] for reader in readers)
    return sum(reader.tokens_between(begin, end) for reader in readers) / (end - begin)


# ---- the two servers ----------------------------------------------------------------------------


class Server:
    def __init__(self, name, port, command, ready_path, log):
        self.name, self.port = name, port
        with open(log, "wb") as output:
            self.process = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL,
                                            stdout=output, stderr=output)
        deadline = time.monotonic() + 120
        while True:
            if self.process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"bench: {name} did not start:\n{pathlib.Path(log).read_text()[-2000:]}")
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{ready_path}", timeout=5) as reply:
                    if reply.status == 200:
                        break
            except (OSError, urllib.error.URLError):
                time.sleep(0.1)

    def processes(self):
        """Itself and its children."""
        found = [self.process.pid]
        for entry in pathlib.Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    fields = (entry / "stat").read_text().rpartition(")")[2].split()
                except OSError:
                    continue
                if int(fields[1]) == self.process.pid:
                    found.append(int(entry.name))
        return found

    def cpu_s(self):
        """Processor seconds so far, of itself and of its children apart."""
        spent = []
        for pid in self.processes():
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            spent.append((int(fields[11]) + int(fields[12])) / TICKS)
        return spent[0], sum(spent[1:])

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start(options, folder, prefix):
    model, threads = options.model, str(options.threads)
    port = free_port()
    ours = Server("Waystation", port, [
        options.binary, "serve", "--cache", "off", "--listen", f"127.0.0.1:{port}", "--data", folder / "data", "--model",
        model, "--threads", threads, "--slots", options.slots, "--context", options.context],
        "/readyz", folder / "waystation.log")
    port = free_port()
    try:
        theirs = Server("llama-server", port, [
            prefix / "bin/llama-server", "--model", model, "--port", port, "--threads", threads,
            "--parallel", options.slots, "--ctx-size", options.slots * options.context],
            "/health", folder / "llama-server.log")
    except BaseException:
        ours.stop()
        raise
    return ours, theirs


# ---- the table ----------------------------------------------------------------------------------


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", type=pathlib.Path, default=BIN)
    parser.add_argument("--model", type=pathlib.Path,
                        default=ROOT / "models/SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--context", type=int, default=4096, help="tokens of a slot")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", help="write the rows as JSON")
    options = parser.parse_args()
    for file in (options.binary, options.model):
        if not file.exists():
            sys.exit(f"bench: {file} is not there: run 'make build' and 'make models'")
    prefix = pathlib.Path(first_line([ROOT / "tools/build_llama.sh", "--print-prefix"]))
    if not (prefix / "stamp").exists():
        sys.exit(f"bench: llama.cpp is not built ({prefix}): run 'make setup'")

    print(f"machine: {machine()}, load {os.getloadavg()[0]:.2f}")
    print(f"Waystation {first_line([options.binary, '--version'])}, commit "
          f"{first_line(['git', 'describe', '--always', '--dirty'])}; llama.cpp {prefix.name}; "
          f"{options.model.stem}, {options.threads} threads, {options.slots} slots of "
          f"{options.context} tokens, answers of {options.tokens}", flush=True)
    speeds, failed = {}, False
    with tempfile.TemporaryDirectory(prefix="waystation-bench-") as scratch:
        ours, theirs = start(options, pathlib.Path(scratch), prefix)
        try:
            for number in range(options.runs + 1):  # the first one warms up
                for streams in options.streams:
                    line = []
                    for server, idle in ((ours, theirs), (theirs, ours)):
                        time.sleep(SETTLE_S)
                        before, idle_before, began = server.cpu_s(), idle.cpu_s(), time.monotonic()
                        speed = run(server.port, options.model.stem, streams, options.tokens, number)
                        seconds = time.monotonic() - began
                        spent = [(b - a) / seconds for a, b in zip(before, server.cpu_s())]
                        beside = (sum(idle.cpu_s()) - sum(idle_before)) / seconds
                        if number:
                            speeds.setdefault((server, streams), []).append(speed)
                        line.append(f"{server.name} {speed:.1f} (cores: {spent[0]:.2f} server, "
                                    f"{spent[1]:.2f} workers, {beside:.2f} the idle one)")
                    print(f"{'warm-up' if number == 0 else f'run {number}'}, streams {streams}: "
                          f"{'; '.join(line)}", flush=True)
        finally:
            ours.stop()
            theirs.stop()
    rows = []
    for streams in options.streams:
        mine, other = (statistics.median(speeds[server, streams]) for server in (ours, theirs))
        failed |= mine / other < BAR
        rows.append(row(f"real model through the whole path, {streams} stream{'s' * (streams > 1)}: tokens/s",
                        f"{mine:.1f}", f"llama-server {other:.1f}", mine / other, f">= {BAR}",
                        mine / other >= BAR, f"model, build of llama.cpp, {options.threads} threads, "
                        f"{options.slots} slots, prompts; median of {options.runs}, interleaved"))
    write_rows(rows, options.out)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
