"""Ten times what the workers can do: what is answered, what is refused, how long that takes, and
what it costs. For test_overload.py, and for `make overload`, which is stricter:

    python tests/e2e/overload.py --seconds 60
"""

import argparse
import collections
import dataclasses
import itertools
import pathlib
import sys
import tempfile
import threading
import time

import harness
from harness import Server, chat_body

SLOTS, TOKENS, INTERVAL_MS = 10, 25, 20
CAPACITY = SLOTS * 1000 / (TOKENS * INTERVAL_MS)  # requests a second
QUEUE_MAX = 60
OFFERED = 10 * CAPACITY
ARGUMENTS = ("--queue-max", QUEUE_MAX, "--cache", "off")
SCRIPTED = f"tokens={TOKENS},interval-ms={INTERVAL_MS},slots={SLOTS}"
# The last one to be let in waits for all others.
LATENCY_MAX_S = QUEUE_MAX / CAPACITY + TOKENS * INTERVAL_MS / 1000


def rss_mb(pid):
    pages = int(pathlib.Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1])
    return pages * 4096 / (1 << 20)


def gauge(server, name):
    for line in server.get("/metrics").body.decode().splitlines():
        if line.startswith(name + " "):
            return float(line.rsplit(" ", 1)[1])
    raise AssertionError(f"/metrics has no {name}")


def quantile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


@dataclasses.dataclass
class Outcome:
    seconds: float = 0
    offered: int = 0
    answered: list = dataclasses.field(default_factory=list)  # (when it ended, its latency)
    refused: int = 0
    unhelpful: list = dataclasses.field(default_factory=list)  # refusals without a time to come back
    odd: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    first: list = dataclasses.field(default_factory=list)  # latencies of `priority`
    first_ended: list = dataclasses.field(default_factory=list)
    first_refused: int = 0
    live_max: float = 0
    rss_before: float = 0
    rss_max: float = 0

    @property
    def latencies(self):
        return [latency for _, latency in self.answered]

    @property
    def goodput(self):
        """Answers a second while it was full, as a share of the capacity. The start, when the
        queue fills, and the end, when it empties, don't count."""
        edge = min(2, self.seconds / 5)
        ended = [when for when, _ in self.answered] + [when for when, _ in self.first_ended]
        inside = [when for when in ended if edge <= when <= self.seconds]
        return len(inside) / (self.seconds - edge) / CAPACITY

    def table(self):
        rows = [
            ("capacity", f"{CAPACITY:.0f} requests/s ({SLOTS} slots of {TOKENS * INTERVAL_MS} ms)"),
            ("offered", f"{self.offered / self.seconds:.0f} requests/s for {self.seconds:.0f} s"),
            ("goodput", f"{100 * self.goodput:.1f} % of the capacity"),
            ("answered, refused", f"{len(self.answered) + len(self.first)}, {self.refused}"),
            ("other answers", f"{dict(self.odd) or 'none'}"),
            ("latency of answers", f"median {quantile(self.latencies, .5):.2f} s, longest "
                                   f"{max(self.latencies, default=0):.2f} s "
                                   f"(a full queue is {LATENCY_MAX_S:.2f} s)"),
            ("of service_tier priority", f"median {quantile(self.first, .5):.2f} s, longest "
                                         f"{max(self.first, default=0):.2f} s, "
                                         f"{len(self.first)} answered, {self.first_refused} refused"),
            ("queued and running at most", f"{self.live_max:.0f} of {QUEUE_MAX}"),
            ("memory of the server", f"{self.rss_before:.1f} MiB before, {self.rss_max:.1f} at most"),
        ]
        return "\n".join(f"{name:28} {value}" for name, value in rows)


class Flood:
    """An open loop: requests come when they are due, whatever became of those before."""

    def __init__(self, server, seconds):
        self.server, self.outcome = server, Outcome(seconds=seconds)
        self.lock = threading.Lock()
        self.numbers = itertools.count()
        self.began = 0

    def run(self):
        out = self.outcome
        for n in range(2 * SLOTS):  # what is made once only isn't growth
            assert self.server.chat(f"warm {n}", max_tokens=1).status == 200
        out.rss_before = out.rss_max = rss_mb(self.server.pid)
        self.began = time.monotonic()
        # Each waits for its answer: as many as can be let in, and some who are being refused.
        threads = [threading.Thread(target=self.send) for _ in range(QUEUE_MAX + 20)]
        threads += [threading.Thread(target=self.send_first) for _ in range(2)]
        threads.append(threading.Thread(target=self.watch))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return out

    def left(self):
        return self.began + self.outcome.seconds - time.monotonic()

    def ask(self, body):
        began = time.monotonic()
        try:
            reply = self.server.post("/v1/chat/completions", body)
        except OSError as error:
            return None, type(error).__name__, time.monotonic() - began
        return reply, reply.status, time.monotonic() - began

    def send(self):
        out = self.outcome
        while True:
            with self.lock:
                number = next(self.numbers)
            due = self.began + number / OFFERED
            if due > self.began + out.seconds:
                return
            time.sleep(max(0, due - time.monotonic()))
            if self.left() < 0:
                return
            reply, status, latency = self.ask(chat_body(f"{number}"))
            with self.lock:
                out.offered += 1
                if status == 200:
                    out.answered.append((time.monotonic() - self.began, latency))
                elif status == 429:
                    out.refused += 1
                    if not int(reply.headers.get("retry-after-ms", 0)):
                        out.unhelpful.append(reply)
                else:
                    out.odd[status] += 1

    def send_first(self):
        out = self.outcome
        while self.left() > 0:
            _, status, latency = self.ask(chat_body("first", service_tier="priority"))
            with self.lock:
                if status == 200:
                    out.first.append(latency)
                    out.first_ended.append((time.monotonic() - self.began, latency))
                elif status == 429:
                    out.first_refused += 1
                else:
                    out.odd[status] += 1

    def watch(self):
        out = self.outcome
        while self.left() > 0:
            time.sleep(0.25)
            out.rss_max = max(out.rss_max, rss_mb(self.server.pid))
            live = gauge(self.server, 'waystation_requests{state="queued"}') + \
                gauge(self.server, 'waystation_requests{state="running"}')
            out.live_max = max(out.live_max, live)


def check_counts(outcome):
    """What must hold on any machine, however slow."""
    assert not outcome.odd, f"neither an answer nor a refusal: {outcome.odd}"
    assert not outcome.unhelpful, f"refused without a time to come back: {outcome.unhelpful[:1]}"
    assert outcome.live_max <= QUEUE_MAX, f"{outcome.live_max} live requests"
    assert outcome.first_refused == 0, f"{outcome.first_refused} requests of priority were refused"
    assert outcome.rss_max - outcome.rss_before < 48, "a flood of refusals takes memory"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="waystation-overload-") as folder:
        server = Server(folder, *ARGUMENTS, scripted=SCRIPTED, workers=1)
        try:
            server.start()
            outcome = Flood(server, options.seconds).run()
        finally:
            server.clean_up()
    print(outcome.table())
    check_counts(outcome)
    service_s = TOKENS * INTERVAL_MS / 1000
    strict = [
        (outcome.offered / outcome.seconds >= 0.9 * OFFERED, "so much wasn't offered"),
        (outcome.goodput >= 0.95, "goodput is below 95 % of the capacity"),
        (max(outcome.latencies) <= 1.5 * LATENCY_MAX_S, "an answer took longer than a full queue"),
        (quantile(outcome.first, 0.95) <= 2 * service_s, "requests of priority had to wait"),
    ]
    missed = [what for good, what in strict if not good]
    print("\n".join(missed) or "all bounds are kept")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
