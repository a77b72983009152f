#!/usr/bin/env python3
"""Builds the fuzz targets with clang and libFuzzer, and runs them. `make fuzz` calls it.

    run.py                       every target, a minute each
    run.py --seconds 600 --target multipart

What is found goes to build/fuzz/corpus/<target>, and is begun with the next time; inputs that break
something go to build/fuzz/found. Ends with a table, and with 1 if something was found.
"""

import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = ROOT / "tests" / "fuzz"
BUILD = ROOT / "build" / "fuzz"
CLANG = "clang++-16"
INPUT_BYTES_MAX = 16 << 10
MEMORY_MB_MAX = 2048
ENVIRONMENT = {
    # Memory that was let go is soon used again, which keeps big buffers cheap. Binutils name the
    # places in a report: LLVM's own tool for that would be one more package.
    "ASAN_OPTIONS": "quarantine_size_mb=16:external_symbolizer_path="
                    f"{shutil.which('addr2line') or ''}",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}


def missing_packages():
    """What Debian calls the packages that are needed and not here."""
    if shutil.which(CLANG) is None:
        return ["clang-16", "libclang-rt-16-dev"]
    runtime = subprocess.run([CLANG, "-print-file-name=libclang_rt.fuzzer-x86_64.a"], check=True,
                             capture_output=True, text=True).stdout.strip()
    folder = subprocess.run([CLANG, "-print-runtime-dir"], check=True, capture_output=True,
                            text=True).stdout.strip()
    found = pathlib.Path(runtime).is_file() or any(
        pathlib.Path(folder).glob("libclang_rt.fuzzer*"))
    return [] if found else ["libclang-rt-16-dev"]


def targets():
    listed = re.findall(r"^ws_fuzz\((\w+)", (HERE / "CMakeLists.txt").read_text(), re.MULTILINE)
    return sorted(listed)


def build(names, jobs):
    if not (BUILD / "build.ninja").exists():
        subprocess.run(["cmake", "--preset", "fuzz"], cwd=ROOT, check=True,
                       stdout=subprocess.DEVNULL)
    programs = [f"fuzz_{name}" for name in names]
    subprocess.run(["cmake", "--build", BUILD, "--target", *programs, "--", f"-j{jobs}"],
                   check=True)


class Run:
    """One target's run: what libFuzzer says of it, as it comes."""

    def __init__(self, name, seconds):
        self.name = name
        self.kept = BUILD / "corpus" / name
        self.found = BUILD / "found"
        self.kept.mkdir(parents=True, exist_ok=True)
        self.found.mkdir(parents=True, exist_ok=True)
        self.program = BUILD / "tests" / "fuzz" / f"fuzz_{name}"
        self.log = BUILD / f"{name}.log"
        self.command = [
            self.program, self.kept, HERE / "corpus" / name, f"-max_total_time={seconds}",
            f"-max_len={INPUT_BYTES_MAX}", f"-rss_limit_mb={MEMORY_MB_MAX}", "-timeout=25",
            "-jobs=0", "-print_final_stats=1", f"-artifact_prefix={self.found / name}-"]

    def go(self):
        with open(self.log, "w", encoding="utf-8") as log:
            done = subprocess.run(self.command, stdout=log, stderr=subprocess.STDOUT, check=False,
                                  env={**ENVIRONMENT, **os.environ})
        self.text = self.log.read_text(encoding="utf-8", errors="replace")
        return done.returncode == 0

    def number(self, pattern):
        found = re.findall(pattern, self.text)
        return int(found[-1]) if found else 0

    def row(self):
        return (f"{self.name:16} {self.number(r'number_of_executed_units: ([0-9]+)'):10} "
                f"{self.number(r'average_exec_per_sec: +([0-9]+)'):8} "
                f"{self.number(r' cov: ([0-9]+)'):8} {self.number(r' ft: ([0-9]+)'):8} "
                f"{len(list(self.kept.iterdir())):7}")

    def artefact(self):
        found = re.findall(r"Test unit written to (\S+)", self.text)
        return found[-1] if found else None


def tell(run):
    lines = run.text.splitlines()
    interesting = [line for line in lines if re.search(
        r"broken promise|ERROR|runtime error|CHECK failed|SUMMARY|terminate|what\(\)", line)]
    print(f"\n{run.name}: something was found (all of it: {run.log})")
    print("  " + "\n  ".join(interesting[:8]))
    if artefact := run.artefact():
        print(f"  the input:   {artefact}")
        print(f"  once more:   {run.program} {artefact}")
        print(f"  smaller:     {run.program} -minimize_crash=1 -runs=100000 {artefact}")
        print(f"  to keep it:  cp {artefact} {HERE / 'corpus' / run.name}/NAME_OF_WHAT_IT_SHOWS")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--target", action="append", choices=targets())
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="of the build")
    options = parser.parse_args()
    if missing := missing_packages():
        print(f"fuzzing needs clang 16 with libFuzzer: apt-get install {' '.join(missing)}",
              file=sys.stderr)
        return 1
    names = options.target or targets()
    build(names, options.jobs)
    rows, failed = [], []
    for name in names:
        print(f"{name}: {options.seconds} s …", flush=True)
        run = Run(name, options.seconds)
        if not run.go():
            failed.append(name)
            tell(run)
        rows.append(run.row())
    print(f"\n{'target':16} {'executions':>10} {'a second':>8} {'edges':>8} {'features':>8} "
          f"{'inputs':>7}")
    print("\n".join(rows))
    print(f"found something: {', '.join(failed)}" if failed else "nothing was found")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
