#!/usr/bin/env python3
"""Shows that the tests bite: builds the simulator, or the test program that a mutant names, with
one deliberate bug at a time, and wants it to fail.

    run.py                        every mutant of mutants.py
    run.py --only no-fdatasync    one of them
    run.py --only queue-          all whose name begins so
    run.py --seeds 2000           give each more seeds before it counts as missed
    run.py --preset release       built so, where ccache knows the files of that build already

Works in a copy of the tree (build/mutation), which it keeps, so that the next run builds little.
Ends with a table for either kind, and with 1 if a bug was missed or an edit doesn't fit the code
any more.
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
SIMULATOR = "tests/sim/simulate"
CAUGHT = re.compile(r"^seed (\d+) breaks (I\d+): (.*)$", re.MULTILINE)
CRASHED = re.compile(r"^seed (\d+) ends the program$", re.MULTILINE)
FAILED = re.compile(r"^\[  FAILED  \] (\S+)", re.MULTILINE)
FAILURE = re.compile(r": Failure\n(.*?)\n(?:Google Test trace:|\n|\[|\S+:\d+: Failure)", re.DOTALL)
FAILED_SEED = re.compile(r"^seed: \S+=(\d+)$", re.MULTILINE)


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


def build(program, preset, jobs):
    folder = COPY / "tree" / "build" / preset  # where it lies in any tree, so that ccache knows it
    environment = {**os.environ, "CCACHE_BASEDIR": str(COPY / "tree"), "CCACHE_NOHASHDIR": "1"}
    if not (folder / "build.ninja").exists():
        subprocess.run(["cmake", "--preset", preset, "-DWAYSTATION_CORE_ONLY=ON"],
                       cwd=COPY / "tree", check=True, stdout=subprocess.DEVNULL, env=environment)
    target = pathlib.Path(program or SIMULATOR).name
    done = subprocess.run(["cmake", "--build", folder, "--target", target, "--", f"-j{jobs}"],
                          check=False, capture_output=True, text=True, env=environment)
    return "" if done.returncode == 0 else done.stdout[-3000:]


def simulate(preset, seeds, first):
    command = [COPY / "tree/build" / preset / SIMULATOR, "--seeds", str(seeds), "--first-seed", str(first)]
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


def said_in(output):
    """What the test says to its first failure, if it says something of its own."""
    failure = FAILURE.search(output)
    last = failure[1].strip().splitlines()[-1].strip() if failure else "Which is nothing"
    return "" if re.match(r"Which is|Expected|Actual|\W*\w*\W*$", last) else f": {last[:100]}"


def test(program, preset, seeds, first):
    """Runs a test program. Those of random operations print the seed that failed."""
    environment = {**os.environ, "WAYSTATION_SEED": str(first), "WAYSTATION_SEEDS": str(seeds),
                   "WS_JOURNAL_SEED": str(first), "WS_JOURNAL_RUNS": str(seeds)}
    try:
        done = subprocess.run([COPY / "tree/build" / preset / program], check=False, timeout=300,
                              capture_output=True, text=True, errors="replace", env=environment)
    except subprocess.TimeoutExpired:
        return None, "no end after 5 minutes"
    if done.returncode == 0:
        return None, None
    if failed := FAILED.search(done.stdout):
        seed = FAILED_SEED.search(done.stdout)
        return int(seed[1]) - first + 1 if seed else None, failed[1] + said_in(done.stdout)
    reason = next((line for line in done.stderr.splitlines() if "CHECK" in line), "")
    return None, reason or f"exit code {done.returncode}: {done.stdout[-300:]}"


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
    parser = argparse.ArgumentParser(description="Deliberate bugs, which the tests must find.")
    parser.add_argument("--only", action="append", help="the name of a mutant, or how it begins")
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--preset", default="dev")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    options = parser.parse_args()
    mutants = [m for m in MUTANTS if not options.only or is_chosen(m.name, options.only)]
    if not mutants:
        raise SystemExit("no such mutant; there are: " + ", ".join(m.name for m in MUTANTS))
    plans = [(mutant, edited(mutant)) for mutant in mutants]  # all edits fit, or nothing is built

    rows, missed = [], []
    how_run = (options.preset, options.seeds, options.first_seed)
    refresh_copy()
    for program in sorted({mutant.test for mutant, _ in plans} - {""}):
        broken = build(program, options.preset, options.jobs) or test(program, *how_run)[1]
        if broken:
            raise SystemExit(f"{program} fails without a mutant:\n{broken}")
    for mutant, texts in plans:
        for name, text in texts.items():
            (COPY / "tree" / name).write_text(text, encoding="utf-8")
        broken = build(mutant.test, options.preset, options.jobs)
        if broken:
            raise SystemExit(f"mutant {mutant.name} doesn't build:\n{broken}")
        seeds, how = test(mutant.test, *how_run) if mutant.test else simulate(*how_run)
        for name in texts:
            (COPY / "tree" / name).write_bytes((ROOT / name).read_bytes())
        print(f"{mutant.name}: {how or 'MISSED'}" + (f" (after {seeds} seeds)" if seeds else ""), flush=True)
        rows.append((mutant, seeds, how))
        if how is None:
            missed.append(mutant.name)

    print_table([row for row in rows if not row[0].test], "after seeds", lambda row: row[1] or "-")
    print_table([row for row in rows if row[0].test], "found by",
                lambda row: f"`{pathlib.Path(row[0].test).name}`")
    print(f"\n{len(rows) - len(missed)} of {len(rows)} deliberate bugs found"
          + (f"; missed: {', '.join(missed)}" if missed else ""))
    return 1 if missed else 0


def is_chosen(name, only):
    return any(name == wanted or (wanted.endswith("-") and name.startswith(wanted)) for wanted in only)


def print_table(rows, middle, middle_of):
    if not rows:
        return
    print(f"\n| deliberate bug | {middle} | found as |\n| --- | --- | --- |")
    for mutant, seeds, how in rows:
        shown = middle_of((mutant, seeds, how))
        print(f"| {mutant.what} (`{mutant.name}`) | {shown} | {how or 'MISSED'} |")


if __name__ == "__main__":
    sys.exit(main())
