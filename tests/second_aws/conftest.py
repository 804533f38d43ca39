"""One campaign for the session. Its tests are slow ones: `make test-second-aws` runs them, and the default run says that it does not."""

from __future__ import annotations

import pytest

from second_aws import campaign, engine


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> campaign.Results:
    """Both implementations, the module on each, and everything that the tests look at."""
    if not engine.installed():
        pytest.skip(f"there is no second AWS in {engine.VENV.name}: make test-second-aws installs it")
    return campaign.run(tmp_path_factory.mktemp("second-aws"))
