from __future__ import annotations

from collections.abc import Iterator

import pytest

from local.support import World


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A started emulator; each test makes its own resources in it."""
    world = World(tmp_path_factory.mktemp("logs"))
    world.emulator.start()
    try:
        world.prepare()
        yield world
    finally:
        world.emulator.stop()
