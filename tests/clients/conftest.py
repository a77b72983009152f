"""Fixtures of the tests of other people's clients."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from shared_fixtures import (binary, real, rng, scripted, servers, shared,  # noqa: E402,F401
                             pytest_collection_modifyitems, pytest_runtest_makereport)
