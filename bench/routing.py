#!/usr/bin/env python3
"""Chats of several turns on two copies of a model: does a turn find its history in a cache?

    bench/routing.py [--chats 6] [--turns 5] [--runs 3] [--out FILE.json]

Each turn sends the whole history, as clients of OpenAI's API do, and names no conversation. Waystation
with two workers, of one thread each, beside what people put together for the same: two llama-servers of
the same build behind nginx, which gives each request to the next one. Counted: milliseconds from the
request until its first piece of text, from the second turn on. Needs nginx and the real model.
"""

import argparse
import contextlib
import http.client
import json
import os
import pathlib
import random
import statistics
import sys
import tempfile
import threading
import time

from common import BIN, ROOT, first_line, free_port, machine, process, row, wait_for, write_rows
from gateway import NGINX

MODEL = ROOT / "models/SmolLM2-135M-Instruct.Q4_1.gguf"
WORDS = ("courier horse station road letter winter river bridge night lamp market king answer gate "
         "saddle storm village song bread wall").split()


def question(chat, turn):
    """About 80 tokens, other ones for each chat and turn."""
    dice = random.Random(chat * 1000 + turn)
    return f"Question {turn} of chat {chat}: tell me about " + " ".join(dice.choices(WORDS, k=60)) + "?"


def ask(port, messages):
    """Milliseconds to the first text, and the text."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    body = json.dumps({"model": MODEL.stem, "messages": messages, "stream": True, "temperature": 0,
                       "max_tokens": 48})
    began = time.monotonic()
    connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
    reply = connection.getresponse()
    if reply.status != 200:
        sys.exit(f"bench: {reply.status} {reply.read()[:300]}")
    first, text = None, ""
    for line in reply:
        if not line.startswith(b"data: {"):
            continue
        choices = json.loads(line[6:])["choices"]
        piece = choices[0]["delta"].get("content") if choices else None
        if piece:
            first = first or time.monotonic()
            text += piece
    connection.close()
    return (first - began) * 1000, text


def talk(port, chat, turns, times):
    messages = []
    for turn in range(turns):
        messages.append({"role": "user", "content": question(chat, turn)})
        took, text = ask(port, messages)
        messages.append({"role": "assistant", "content": text})
        if turn > 0:
            times.append(took)


def measure(port, options, run):
    """All chats, three at a time: with an even number, turn and turn about happens to send each back home."""
    times, left = [], list(range(run * options.chats, (run + 1) * options.chats))

    def work():
        while left:
            talk(port, left.pop(), options.turns, times)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times


def start_ours(stack, folder, options):
    port = free_port()
    stack.enter_context(process(
        [options.bin, "serve", "--listen", f"127.0.0.1:{port}", "--data", folder / "data", "--model", MODEL,
         "--workers", "2", "--slots", "4", "--context", "4096", "--cache", "off", "--log-level", "warn"],
        folder / "waystation.log"))
    wait_for(f"http://127.0.0.1:{port}/readyz", 60)
    return port


def start_theirs(stack, folder):
    prefix = pathlib.Path(first_line([ROOT / "tools/build_llama.sh", "--print-prefix"]))
    backs = []
    for number in range(2):
        port = free_port()
        stack.enter_context(process(
            [prefix / "bin/llama-server", "--model", MODEL, "--port", str(port), "--threads", "1",
             "--parallel", "4", "--ctx-size", str(4 * 4096)], folder / f"llama-{number}.log"))
        wait_for(f"http://127.0.0.1:{port}/health", 60)
        backs.append(port)
    port = free_port()
    path = folder / "front.conf"
    servers = " ".join(f"server 127.0.0.1:{back};" for back in backs)
    path.write_text(NGINX.format(
        folder=folder, name="front", port=port,
        server='location / { proxy_pass http://two; proxy_buffering off; proxy_http_version 1.1; }',
        extra=f"upstream two {{ {servers} }}"))
    stack.enter_context(process(["/usr/sbin/nginx", "-c", path, "-p", folder, "-e", folder / "front.err"],
                                folder / "nginx.log"))
    wait_for(f"http://127.0.0.1:{port}/health")
    return port


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", type=pathlib.Path, default=BIN)
    parser.add_argument("--chats", type=int, default=6)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--out", help="write the rows as JSON")
    options = parser.parse_args()
    print(f"{machine()}; {first_line(['nginx', '-v'])}")
    times = {"ours": [], "theirs": []}
    with tempfile.TemporaryDirectory(prefix="bench-routing-") as made, contextlib.ExitStack() as stack:
        folder = pathlib.Path(made)
        ports = {"ours": start_ours(stack, folder, options), "theirs": start_theirs(stack, folder)}
        for run in range(options.runs):
            for name, port in ports.items():
                got = measure(port, options, run)
                times[name] += got
                print(f"run {run + 1}, {name}: mean {statistics.mean(got):.0f} ms, median "
                      f"{statistics.median(got):.0f}, longest {max(got):.0f}", flush=True)
    # The mean: by turns, half of the others' requests are lucky, so their median says little.
    ours, theirs = (statistics.mean(times[name]) for name in ("ours", "theirs"))
    write_rows([row("two copies, chats of several turns: time to first token, mean", f"{ours:.0f} ms",
                    f"nginx round robin, two llama-servers {theirs:.0f} ms", ours / theirs, "<= 0.6",
                    ours / theirs <= 0.6,
                    f"model, build, 1 thread and 4 slots a copy, history in each request; "
                    f"{options.chats} chats of {options.turns} turns, three at a time; turns 2 on, "
                    f"{options.runs} runs, interleaved")], options.out)


if __name__ == "__main__":
    os.environ["PATH"] += ":/usr/sbin"
    main()
