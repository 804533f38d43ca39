from __future__ import annotations

from collections.abc import Iterator

import pytest
from moto import mock_aws

from asl.fakes import Cloud, make_cloud


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    """An environment of its own for each test."""
    with mock_aws():
        yield make_cloud()
