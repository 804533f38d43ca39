"""Each patch of ministack is still needed: one that is not is taken out."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from second_aws import engine

pytestmark = pytest.mark.slow


def test_ministack_lacks_what_is_patched() -> None:
    if not engine.installed():
        pytest.skip(f"there is no second AWS in {engine.VENV.name}: make test-second-aws installs it")
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(engine.HERE.parent), "AWS_ACCESS_KEY_ID": "test"}
    command = [str(engine.PYTHON), "-m", "second_aws.server.canaries"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=True)
    needed: dict[str, bool] = json.loads(done.stdout.splitlines()[-1])
    assert len(needed) > 10
    assert [name for name, still in needed.items() if not still] == []
