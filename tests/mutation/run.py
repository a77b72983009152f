#!/usr/bin/env python3
"""Shows that the simulator bites: builds it with one deliberate bug at a time, and wants it to fail.

    run.py                        every mutant of mutants.py
    run.py --only no-fdatasync    one of them
    run.py --seeds 2000           give each more seeds before it counts as missed

Works in a copy of the tree (build/mutation), which it keeps, so that the next run builds little.
Ends with a table, and with 1 if a bug was missed or an edit doesn't fit the code any more.
"""

import argparse
import os
import pathlib
import re
import subprocess
import sys

from mutants import MUTANTS

ROOT = pathlib.Path(__file__).resolve().parents[2]
COPY = ROOT / "build" / "mutation"
CAUGHT = re.compile(r"^seed (\d+) breaks (I\d+): (.*)$", re.MULTILINE)
CRASHED = re.compile(r"^seed (\d+) ends the program$", re.MULTILINE)


def refresh_copy():
    """Copies what git knows of; leaves the times of unchanged files alone, for the build's sake."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT,
                            check=True, capture_output=True).stdout.decode().split("\0")
    for name in filter(None, listed):
        source, target = ROOT / name, COPY / "tree" / name
        if not source.is_file():
            continue
        content = source.read_bytes()
        if not target.exists() or target.read_bytes() != content:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)


def build(jobs):
    folder = COPY / "tree" / "build" / "dev"  # where it lies in any tree, so that ccache knows it
    environment = {**os.environ, "CCACHE_BASEDIR": str(COPY / "tree"), "CCACHE_NOHASHDIR": "1"}
    if not (folder / "build.ninja").exists():
        subprocess.run(["cmake", "--preset", "dev", "-DWAYSTATION_CORE_ONLY=ON"],
                       cwd=COPY / "tree", check=True, stdout=subprocess.DEVNULL, env=environment)
    done = subprocess.run(["cmake", "--build", folder, "--target", "simulate", "--", f"-j{jobs}"],
                          check=False, capture_output=True, text=True, env=environment)
    return "" if done.returncode == 0 else done.stdout[-3000:]


def simulate(seeds, first):
    command = [COPY / "tree/build/dev/tests/sim/simulate", "--seeds", str(seeds), "--first-seed", str(first)]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=900)
    except subprocess.TimeoutExpired:
        raise SystemExit("no end after 15 minutes: a run hangs, or the machine is very busy")
    if caught := CAUGHT.search(done.stdout):
        return int(caught[1]) - first + 1, f"{caught[2]}: {caught[3]}"
    if crashed := CRASHED.search(done.stdout):
        reason = next((line for line in done.stderr.splitlines() if "CHECK" in line), "a crash")
        return int(crashed[1]) - first + 1, reason
    if done.returncode != 0:
        return None, f"exit code {done.returncode}: {done.stdout[-300:]}"
    return None, None


def edited(mutant):
    """The texts of the mutant's files, or raises: an edit must fit exactly one place."""
    texts = {}
    for name, find, replace in mutant.edits:
        text = texts.get(name) or (ROOT / name).read_text(encoding="utf-8")
        if text.count(find) != 1:
            raise SystemExit(f"mutant {mutant.name}: {name} has {text.count(find)} places that read\n"
                             f"    {find}\nbring tests/mutation/mutants.py up to date")
        texts[name] = text.replace(find, replace)
    return texts


def main():
    parser = argparse.ArgumentParser(description="Deliberate bugs, which the simulator must find.")
    parser.add_argument("--only", action="append", help="the name of a mutant")
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    options = parser.parse_args()
    mutants = [m for m in MUTANTS if not options.only or m.name in options.only]
    if not mutants:
        raise SystemExit("no such mutant; there are: " + ", ".join(m.name for m in MUTANTS))
    plans = [(mutant, edited(mutant)) for mutant in mutants]  # all edits fit, or nothing is built

    rows, missed = [], []
    refresh_copy()
    for mutant, texts in plans:
        for name, text in texts.items():
            (COPY / "tree" / name).write_text(text, encoding="utf-8")
        broken = build(options.jobs)
        if broken:
            raise SystemExit(f"mutant {mutant.name} doesn't build:\n{broken}")
        seeds, how = simulate(options.seeds, options.first_seed)
        for name in texts:
            (COPY / "tree" / name).write_bytes((ROOT / name).read_bytes())
        print(f"{mutant.name}: {how or 'MISSED'}" + (f" (after {seeds} seeds)" if seeds else ""), flush=True)
        rows.append((mutant, seeds, how))
        if how is None:
            missed.append(mutant.name)

    print("\n| deliberate bug | after seeds | found as |\n| --- | --- | --- |")
    for mutant, seeds, how in rows:
        print(f"| {mutant.what} (`{mutant.name}`) | {seeds or '-'} | {how or 'MISSED'} |")
    print(f"\n{len(rows) - len(missed)} of {len(rows)} deliberate bugs found"
          + (f"; missed: {', '.join(missed)}" if missed else ""))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
