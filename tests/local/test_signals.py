"""How `dbt-runner local` is stopped, whoever started it."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

_WAITS = """
import signal, time
from dbt_runner.local.session import exit_on_sigterm
with exit_on_sigterm():
    print("ready", flush=True)
    time.sleep(60)
"""


def _ignores_sigint() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 128 + signal.SIGTERM)])
def test_a_command_that_was_started_in_a_scripts_background_is_stopped_by_both_signals(number: signal.Signals, code: int) -> None:
    """A shell has such a command ignore SIGINT, and Python keeps that."""
    with subprocess.Popen(
        [sys.executable, "-c", _WAITS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=_ignores_sigint
    ) as ran:
        assert ran.stdout is not None and ran.stdout.readline() == b"ready\n"
        ran.send_signal(number)
        assert ran.wait(30) == code
