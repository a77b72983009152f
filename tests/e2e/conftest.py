"""Fixtures of the end-to-end tests: servers that are always cleaned up, and their logs on failure."""

import os
import random

import pytest

import harness


def pytest_collection_modifyitems(items):
    for item in items:
        if not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(120 * harness.SLOWNESS))


@pytest.fixture(scope="session", autouse=True)
def binary():
    if not harness.BIN.exists():
        pytest.fail(f"{harness.BIN} is not there: run 'make build', or set WAYSTATION_BIN", False)
    return harness.BIN


class Keeper:
    """Makes servers and other processes, and ends every one of them."""

    def __init__(self, folder):
        self.folder = folder
        self.servers = []
        self.processes = []

    def make(self, *arguments, **how):
        """A server that isn't started yet."""
        folder = self.folder / f"server{len(self.servers)}"
        folder.mkdir()
        server = harness.Server(folder, *arguments, **how)
        self.servers.append(server)
        return server

    def start(self, *arguments, **how):
        return self.make(*arguments, **how).start()

    def process(self, *arguments, **how):
        process = harness.Process(arguments, **how)
        self.processes.append(process)
        return process

    def logs(self):
        parts = [f"=== {server.data}\n{server.log()}" for server in self.servers]
        parts += [f"=== {' '.join(process.arguments)}\n{process.log()}" for process in self.processes]
        return "\n".join(parts)

    def clean_up(self):
        for process in self.processes:
            process.stop_by_force()
        for server in self.servers:
            server.clean_up()
        # A worker that a sanitizer ended is started again, and its test passes all the same.
        logs = self.logs() if harness.SANITIZER else ""
        for mark in ("ERROR: AddressSanitizer", "ERROR: LeakSanitizer", "runtime error: "):
            assert mark not in logs, logs[max(0, logs.index(mark) - 500):][:8000]


@pytest.fixture
def servers(tmp_path):
    """Servers of one test."""
    keeper = Keeper(tmp_path)
    yield keeper
    keeper.clean_up()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Servers that the tests of one file share."""
    keeper = Keeper(tmp_path_factory.mktemp("shared"))
    yield keeper
    keeper.clean_up()


@pytest.fixture
def rng():
    """Random choices that can be had again: the seed is printed, WAYSTATION_SEED sets it."""
    seed = int(os.environ.get("WAYSTATION_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"seed: WAYSTATION_SEED={seed}")
    return random.Random(seed)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    report = (yield).get_result()
    if report.when == "call" and report.failed:
        for name in ("servers", "shared"):
            keeper = getattr(item, "funcargs", {}).get(name)
            if keeper is not None:
                log = keeper.logs()
                report.sections.append((f"logs of {name}", log[-12000:]))
