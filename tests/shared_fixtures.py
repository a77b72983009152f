"""What the tests of `openapi` and `clients` share: the fixtures of `e2e`, and two servers, each
started once a session: the real small model, and the scripted engine."""

import importlib.util
import pathlib
import sys

import pytest

E2E = pathlib.Path(__file__).resolve().parent / "e2e"
sys.path.insert(0, str(E2E))

import harness  # noqa: E402

_spec = importlib.util.spec_from_file_location("e2e_fixtures", E2E / "conftest.py")
_fixtures = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_fixtures)

binary, servers, shared, rng = (_fixtures.binary, _fixtures.servers, _fixtures.shared, _fixtures.rng)
pytest_collection_modifyitems = _fixtures.pytest_collection_modifyitems

EMBEDDER = "embedder"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    report = (yield).get_result()
    if report.when == "call" and report.failed:
        for name in ("servers", "shared", "real", "scripted"):
            there = getattr(item, "funcargs", {}).get(name)
            if there is not None:
                log = there.logs() if hasattr(there, "logs") else there.log()
                report.sections.append((f"logs of {name}", log[-6000:]))


def one_server(folder, *arguments, **how):
    keeper = _fixtures.Keeper(folder)
    try:
        yield keeper.start(*arguments, **how)
    finally:
        keeper.clean_up()


@pytest.fixture(scope="session")
def real(tmp_path_factory):
    """The real small model, once for text and once for embeddings. One thread a worker: the tests
    share the machine, and llama.cpp's threads spin when they don't get a core."""
    yield from one_server(tmp_path_factory.mktemp("real"), "--threads", 1,
                          "--embed-model", f"{EMBEDDER}={harness.MODEL_FILE}",
                          models=[harness.MODEL_FILE], workers=1)


@pytest.fixture(scope="session")
def scripted(tmp_path_factory):
    """The scripted engine: quick, and never at a loss for words."""
    yield from one_server(tmp_path_factory.mktemp("scripted"), workers=1,
                          scripted="tokens=6,interval-ms=1,embed=16,tools=1")
