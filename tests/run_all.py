#!/usr/bin/env python3
"""Runs every test and ends with one plain line that counts them: "N passed, N failed".

    run_all.py --build build/release              all of it
    run_all.py --build build/tsan --only unit     only the unit tests

Unit tests are counted by case: GoogleTest programs write XML, and a program that ends without
having written it counts as one failure. Skipped tests are listed with their reason, so that nothing
is left out silently.
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as xml

ROOT = pathlib.Path(__file__).resolve().parent.parent

SANITIZER_ENVIRONMENT = {
    "asan": {
        "ASAN_OPTIONS": "detect_leaks=1:abort_on_error=1:strict_string_checks=1",
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
        "LSAN_OPTIONS": "report_objects=0",
    },
    "tsan": {"TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1"},
}


class Tally:
    def __init__(self):
        self.passed = 0
        self.failed = []
        self.skipped = []
        self.expected = []  # failures that a test declares, with the reason

    def add_case(self, name, case):
        """One <testcase> of a JUnit or GoogleTest file."""
        skipped = case.find("skipped")
        if skipped is not None and skipped.get("type") == "pytest.xfail":
            self.expected.append((name, (skipped.get("message") or "").strip()))
            return
        if case.find("failure") is not None or case.find("error") is not None:
            self.failed.append(name)
        elif skipped is not None:
            self.skipped.append((name, (skipped.get("message") or "").strip()))
        elif case.get("status") != "notrun":  # GoogleTest: DISABLED_
            self.passed += 1


def run_unit(build, environment, tally, scratch):
    results = scratch / "gtest"
    results.mkdir()
    junit = scratch / "ctest.xml"
    done = subprocess.run(
        ["ctest", "--test-dir", str(build), "--output-on-failure", "--no-tests=error",
         "--output-junit", str(junit)],
        env={**environment, "GTEST_OUTPUT": f"xml:{results}/", "GTEST_COLOR": "no"}, check=False)
    if not junit.exists():
        tally.failed.append("ctest")
        return
    for program in xml.parse(junit).getroot().iter("testcase"):
        name = program.get("name")
        failed = program.find("failure") is not None or program.get("status") == "fail"
        written = results / f"{name}.xml"
        if not written.exists():
            tally.failed.append(f"{name} (ended before its results)") if failed else None
            tally.passed += 0 if failed else 1
            continue
        before = len(tally.failed)
        for case in xml.parse(written).getroot().iter("testcase"):
            tally.add_case(f"{name}: {case.get('classname')}.{case.get('name')}", case)
        if failed and len(tally.failed) == before:
            tally.failed.append(f"{name} (failed at its end)")
    if done.returncode != 0 and not tally.failed:
        tally.failed.append(f"ctest (exit code {done.returncode})")


def run_pytest(name, paths, environment, tally, scratch, arguments, python=sys.executable):
    junit = scratch / f"{name}.xml"
    command = [python, "-m", "pytest", "-p", "no:cacheprovider", f"--junitxml={junit}",
               *arguments, *paths]
    done = subprocess.run(command, cwd=ROOT, env=environment, check=False)
    if not junit.exists():
        tally.failed.append(f"pytest {name} (exit code {done.returncode})")
        return
    before = len(tally.failed)
    for case in xml.parse(junit).getroot().iter("testcase"):
        tally.add_case(f"{case.get('classname')}.{case.get('name')}", case)
    if done.returncode not in (0, 1) and len(tally.failed) == before:
        tally.failed.append(f"pytest {name} (exit code {done.returncode})")


def run_clients(environment, tally, scratch, arguments):
    """Other people's clients. LangChain has a Python environment of its own."""
    run_pytest("clients", ["tests/clients", "--ignore=tests/clients/langchain"], environment, tally,
               scratch, arguments)
    where = subprocess.run([ROOT / "tests/clients/setup", "--where"], env=environment, check=True,
                           capture_output=True, text=True).stdout.strip()
    python = pathlib.Path(where) / "venv/bin/python"
    if not (pathlib.Path(where) / "stamp").exists():
        tally.skipped.append(("tests/clients/langchain", "not installed: run tests/clients/setup"))
        return
    run_pytest("langchain", ["tests/clients/langchain"], environment, tally, scratch, arguments,
               python)


PARTS = ("unit", "rules", "e2e", "openapi", "clients")


def main():
    parser = argparse.ArgumentParser(description="Run every test and count.")
    parser.add_argument("--build", type=pathlib.Path, required=True, help="a configured build folder")
    parser.add_argument("--only", choices=PARTS, action="append")
    parser.add_argument("--sanitizer", choices=list(SANITIZER_ENVIRONMENT))
    parser.add_argument("pytest_arguments", nargs="*", help="after --: handed to pytest")
    options = parser.parse_args()
    build = options.build.resolve()
    parts = options.only or PARTS
    if options.sanitizer and not options.only:
        parts = ("unit", "rules", "e2e", "openapi")  # the clients' own speed is not what is checked

    environment = {**os.environ, **SANITIZER_ENVIRONMENT.get(options.sanitizer, {})}
    environment["WAYSTATION_BIN"] = str(build / "waystation")
    if options.sanitizer:
        environment["WAYSTATION_SANITIZER"] = options.sanitizer
        environment.setdefault("WAYSTATION_SIM_SEEDS", "50")  # each takes many times as long

    tally = Tally()
    scratch = pathlib.Path(tempfile.mkdtemp(prefix="waystation-tests-"))
    try:
        if "unit" in parts:
            print("== unit tests", flush=True)
            run_unit(build, environment, tally, scratch)
        if "rules" in parts:
            print("== include rules, tools", flush=True)
            run_pytest("rules", ["tests/include_rules_test.py", "tools/fetch_test.py"], environment,
                       tally, scratch, ["-q", "--timeout=120"])
        if "e2e" in parts:
            print("== end to end", flush=True)
            run_pytest("e2e", ["tests/e2e"], environment, tally, scratch,
                       ["-v", *options.pytest_arguments])
        if "openapi" in parts:
            print("== answers against OpenAI's description, random requests", flush=True)
            run_pytest("openapi", ["tests/openapi"], environment, tally, scratch,
                       ["-q", *options.pytest_arguments])
        if "clients" in parts:
            print("== other people's clients", flush=True)
            run_clients(environment, tally, scratch, ["-v", *options.pytest_arguments])
    finally:
        shutil.rmtree(scratch, ignore_errors=True)

    print()
    for name, reason in tally.skipped:
        print(f"skipped: {name}: {reason}")
    for name, reason in tally.expected:
        print(f"expected failure: {name}: {reason}")
    for name in tally.failed:
        print(f"FAILED: {name}")
    line = f"{tally.passed} passed, {len(tally.failed)} failed"
    if tally.skipped or tally.expected:
        line += f", {len(tally.skipped) + len(tally.expected)} skipped"
    print(line, flush=True)
    return 1 if tally.failed or not tally.passed else 0


if __name__ == "__main__":
    sys.exit(main())
