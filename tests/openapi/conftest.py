"""Fixtures of the checks against OpenAI's description."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from shared_fixtures import (binary, real, rng, scripted, servers,  # noqa: E402,F401
                             pytest_collection_modifyitems as add_timeouts,
                             pytest_runtest_makereport)

import description as descriptions  # noqa: E402
from recorder import Api  # noqa: E402


def pytest_collection_modifyitems(items):
    """The test of what was covered comes last."""
    add_timeouts(items)
    items.sort(key=lambda item: item.path.name == "test_routes.py")


@pytest.fixture(scope="session")
def description():
    """The description, or None: then only the rules are checked, and one skipped test says so."""
    return descriptions.load()


@pytest.fixture(scope="session")
def seen():
    """Routes that answered with 2xx, and how often."""
    return {}


@pytest.fixture
def api(real, description, seen):
    """To the real model; what was wrong with any answer fails the test at its end."""
    made = Api(real, description, seen)
    yield made
    made.verdict()


@pytest.fixture
def quick(scripted, description, seen):
    """To the scripted engine."""
    made = Api(scripted, description, seen)
    yield made
    made.verdict()
