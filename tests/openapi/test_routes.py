"""Every route of design §7 was asked, and answered, by the tests before this one."""

import pathlib

import pytest

from recorder import ROUTES


def test_every_route_was_seen(request, seen):
    here = pathlib.Path(__file__).parent
    ran = {item.path for item in request.session.items}
    wanted = {path for path in here.glob("test_*.py")}
    if not wanted <= ran or request.config.option.keyword:
        pytest.skip("only a part of the tests ran")
    missing = [f"{method} {path}" for method, path, _, _ in ROUTES if (method, path) not in seen]
    missing += [f"{method} {path} (stream)" for method, path, _, data in ROUTES
                if data and (method, path, "stream") not in seen]
    assert not missing
