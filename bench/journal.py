#!/usr/bin/env python3
"""The journal's append beside the plainest loop that is as durable: one pwritev, one fdatasync.

    bench/journal.py [--runs 3] [--out FILE.json]
"""

import argparse
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile

from common import BIN, ROOT, machine, row, write_rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", type=pathlib.Path, default=BIN)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", default=str(ROOT / "build"), help="on the disk to measure")
    parser.add_argument("--out", help="write the rows as JSON")
    options = parser.parse_args()
    tool = options.bin.parent / "src/journal/journal_bench"
    if not tool.exists():
        sys.exit(f"bench: {tool} is not built: cmake --build build/release --target journal_bench")
    got = {}
    for _ in range(options.runs):
        with tempfile.TemporaryDirectory(dir=options.folder, prefix="journal-") as folder:
            said = subprocess.run([tool, folder], capture_output=True, text=True, check=True).stdout
        print(said)
        for count, raw, ours in re.findall(r"(\d+) in flight: raw loop +(\d+)/s, FileJournal +(\d+)/s", said):
            got.setdefault(int(count), []).append((float(raw), float(ours)))
    print(machine())
    rows = []
    for count, runs in got.items():
        raw, ours = (statistics.median(one[i] for one in runs) for i in (0, 1))
        rows.append(row(f"in-process journal append, {count} × 1 KiB in flight: records/s", f"{ours:,.0f}",
                        f"pwritev + fdatasync loop {raw:,.0f}", ours / raw, ">= 0.7", ours / raw >= 0.7,
                        f"file preallocated, group commit; median of {options.runs}"))
    write_rows(rows, options.out)


if __name__ == "__main__":
    main()
