#!/usr/bin/env python3
"""All benches, one table. What people use today is measured in the same run.

    make bench                          all of it
    bench/run.py journal service        only these
    bench/run.py --docs                 also writes the table into docs/benchmarks.md

Wants a machine with nothing else to do.
"""

import argparse
import datetime
import json
import os
import pathlib
import subprocess
import sys
import tempfile

from common import ROOT, first_line, machine, show_rows

BENCHES = ["journal", "publish", "service", "gateway", "model_stream", "routing"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("benches", nargs="*", metavar="BENCH", help=" ".join(BENCHES))
    parser.add_argument("--runs", type=int, help="of each; otherwise as each bench likes")
    parser.add_argument("--docs", action="store_true", help="write docs/benchmarks.md")
    options = parser.parse_args()
    unknown = set(options.benches) - set(BENCHES)
    if unknown:
        sys.exit(f"bench: there is no {', '.join(unknown)}; there are {', '.join(BENCHES)}")
    rows, failed = [], []
    for name in options.benches or BENCHES:
        print(f"\n== {name}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            out = pathlib.Path(folder) / "rows.json"
            command = [sys.executable, ROOT / f"bench/{name}.py", "--out", out]
            if options.runs:
                command += ["--runs", str(options.runs)]
            subprocess.run(command, check=False)
            if out.exists():
                rows += json.loads(out.read_text())
            else:
                failed.append(name)
    head = (f"{datetime.date.today()}, {machine()}, load at the end {os.getloadavg()[0]:.2f}; commit "
            f"{first_line(['git', 'describe', '--always', '--dirty'])}")
    print(f"\n{head}\n\n{show_rows(rows)}")
    if failed:
        print(f"\nfailed: {', '.join(failed)}")
    if options.docs:
        page = ROOT / "docs/benchmarks.md"
        before, mark, rest = page.read_text().partition("<!-- table -->\n")
        _, end, after = rest.partition("<!-- end -->")
        page.write_text(f"{before}{mark}{head}\n\n{show_rows(rows)}\n{end}{after}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
