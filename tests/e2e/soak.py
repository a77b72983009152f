"""Mixed traffic for a long time: does the server's memory stay where it is?

    python tests/e2e/soak.py --minutes 30        (or: make soak MINUTES=30)

What has ended is kept for half a minute here, so that a steady state is reached; a straight line is
fitted to the memory after the first third, without SQLite's page cache, which fills up to 16 MiB as
its database grows. It fails when that line climbs by more than 6 % of the memory, or 4 MiB, in the
time measured, and when a client sees something that is wrong.
"""

import argparse
import random
import sys
import tempfile
import time

from harness import Server
from history import History, Seen
from load import MIX, Load
from overload import gauge, rss_mb

SAMPLE_S = 2
RETAIN_HOURS = 0.5 / 60
PAGE_CACHE_MB = 16  # of src/store/sql.cc


class ShortHistory(History):
    """Compares what one request's client saw, and keeps nothing of it afterwards."""

    KEPT = 200

    def __init__(self):
        super().__init__(forgets=True)
        self.count = 0

    def acknowledged(self, request_id, tokens, asked, key=None, lane=None):
        with self.lock:
            if request_id not in self.requests:
                self.count += 1
                self.requests[request_id] = Seen(request_id)
            while len(self.requests) > self.KEPT:
                del self.requests[next(iter(self.requests))]
        self.files.clear()
        self.talks.clear()


def fit(points):
    """Least squares: (slope, value at the first point)."""
    count = len(points)
    mean_x = sum(x for x, _ in points) / count
    mean_y = sum(y for _, y in points) / count
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0
    return slope, mean_y + slope * (points[0][0] - mean_x)


def page_cache_mb(server):
    """At most: the pages that there are, as far as they are kept."""
    size = (server.data / "store" / "waystation.db").stat().st_size
    return min(PAGE_CACHE_MB, size / (1 << 20))


def soak(server, minutes, seed):
    """[(minute, MiB beside the page cache)], how many requests there were."""
    history, points = ShortHistory(), []
    began = time.monotonic()
    with Load(server, history, random.Random(seed), kinds=MIX, kill_every_s=(5, 20)) as load:
        while (now := (time.monotonic() - began) / 60) < minutes:
            load.stopping.wait(SAMPLE_S)
            load.raise_failure()
            memory, cache = rss_mb(server.pid), page_cache_mb(server)
            points.append((now, memory - cache))
            if len(points) % 30 == 0:
                kept = gauge(server, 'waystation_requests{state="ended"}')
                print(f"{now:6.1f} min {memory:8.1f} MiB, {cache:.1f} of them page cache, "
                      f"{history.count:8} requests, {kept:.0f} kept", flush=True)
    return points, history.count


def judge(points, requests, minutes):
    """The exit status."""
    steady = [point for point in points if point[0] > minutes / 3]
    slope, first = fit(steady)
    growth = slope * (steady[-1][0] - steady[0][0])
    allowed = max(4.0, 0.06 * first)
    values = [value for _, value in steady]
    print(f"{requests} requests in {minutes:.0f} minutes; memory beside the page cache after the "
          f"first third: {min(values):.1f} to {max(values):.1f} MiB ({len(steady)} samples)\n"
          f"a line from {first:.1f} MiB with {60 * slope:+.2f} MiB an hour: {growth:+.2f} MiB in this "
          f"time, {allowed:.1f} are allowed")
    return 0 if growth <= allowed else 1


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="waystation-soak-") as folder:
        server = Server(folder, "--retain-hours", RETAIN_HOURS, "--idempotency-ttl-hours",
                        RETAIN_HOURS, "--segment-bytes", 1 << 20, "--journal-bytes-max", 32 << 20,
                        scripted="tokens=40,interval-ms=4", workers=2)
        try:
            server.start()
            points, requests = soak(server, options.minutes, options.seed)
            assert server.chat("after").status == 200
        finally:
            server.clean_up()
        return judge(points, requests, options.minutes)


if __name__ == "__main__":
    sys.exit(main())
