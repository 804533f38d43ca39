"""What holds for all tests."""

from __future__ import annotations

import pytest


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Stops when pytest-xdist does not keep groups together: the tests would pass, with an apply for each worker."""
    if not hasattr(config, "workerinput") or not config.getoption("loadgroup", False):
        return
    loose = [item.nodeid for item in items if item.get_closest_marker("xdist_group") and "@" not in item.nodeid]
    if loose:
        raise pytest.UsageError(f"this pytest-xdist does not apply xdist_group (to {loose[0]}, ...): use the versions of the lock")
