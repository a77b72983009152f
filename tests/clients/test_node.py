"""Makes each `test("…")` of node/*.test.mjs one test here. A file is run once, by Node's own test
runner, when the first of its tests is asked for; its report says how each one went."""

import os
import pathlib
import re
import shutil
import subprocess
import xml.etree.ElementTree as xml

import pytest

import harness

NODE = pathlib.Path(__file__).resolve().parent / "node"
FILE_WITHIN_S = 240


def named():
    """(file, name) of every JavaScript test."""
    found = []
    for file in sorted(NODE.glob("*.test.mjs")):
        names = re.findall(r'^test\("([^"]+)"', file.read_text(encoding="utf-8"), re.M)
        assert names and len(set(names)) == len(names), f"{file}: no tests, or one name twice"
        found += [(file.name, name) for name in names]
    return found


@pytest.fixture(scope="session")
def where():
    """The folder that tests/clients/setup made."""
    done = subprocess.run([NODE.parent / "setup", "--where"], capture_output=True, text=True,
                          check=True)
    folder = pathlib.Path(done.stdout.strip())
    if not (folder / "stamp").exists():
        pytest.skip("the JavaScript clients are not installed: run tests/clients/setup")
    return folder


@pytest.fixture(scope="session")
def results(where, real, scripted, tmp_path_factory):
    """A function: file name → ({test name: its element in the report}, what Node said)."""
    done = {}

    def of(name):
        if name not in done:
            done[name] = run(name, where, real, scripted, tmp_path_factory.mktemp("node"))
        return done[name]
    return of


def run(name, where, real, scripted, folder):
    (folder / "node_modules").symlink_to(where / "node_modules")
    for file in NODE.glob("*.mjs"):
        shutil.copy(file, folder)
    report = folder / "report.xml"
    try:
        done = subprocess.run(
            [where / "venv/bin/node", "--test", "--test-reporter=junit",
             f"--test-reporter-destination={report}", name],
            cwd=folder, capture_output=True, text=True, check=False,
            timeout=FILE_WITHIN_S * harness.SLOWNESS,
            env={**os.environ, "WAYSTATION_REAL": real.url, "WAYSTATION_SCRIPTED": scripted.url,
                 "WAYSTATION_MODEL": harness.MODEL, "NODE_NO_WARNINGS": "1"})
        said = done.stdout + done.stderr
    except subprocess.TimeoutExpired as error:
        said = str(error)
    found = {}
    if report.exists() and report.stat().st_size:
        found = {case.get("name"): case for case in xml.parse(report).getroot().iter("testcase")}
    return found, said


@pytest.mark.timeout(FILE_WITHIN_S * 1.5 * harness.SLOWNESS)
@pytest.mark.parametrize("file, name", named(), ids=lambda value: value)
def test_node(results, file, name):
    found, said = results(file)
    case = found.get(name)
    assert case is not None, f"it did not run. Node said:\n{said[-4000:]}"
    failure = case.find("failure")
    if failure is not None:
        pytest.fail(failure.text or failure.get("message") or "failed", pytrace=False)
    skipped = case.find("skipped")
    if skipped is not None:
        pytest.skip(skipped.get("message") or "skipped")
