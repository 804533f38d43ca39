"""What another process of the same user changes about a process that it cannot look into, and what becomes of it.

The victim is a real process that has hidden itself as the runner does; the attacker is another one. Neither has a capability.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from security.unprivileged import command

_VICTIM = """
import sys
from dbt_runner import identity
from dbt_runner.process_state import Changed, ProcessState
identity.hide()
state = ProcessState.now()
print("ready", flush=True)
for line in sys.stdin:
    try:
        if line.strip() == "restore":
            state.restore()
        print("as it was" if ProcessState.now() == state else "changed", flush=True)
    except Changed as exc:
        print(f"refused: {exc}", flush=True)
"""
_ATTACKER = "import ctypes, os, platform, resource, sys\npid = int(sys.argv[1])\n"
_SOFT = """
hard = resource.prlimit(pid, resource.{0})[1]
resource.prlimit(pid, resource.{0}, ({1} if hard < 0 else min(hard, {1}), hard))
"""
_HARD = "resource.prlimit(pid, resource.{0}, ({1}, {1}))\n"
# Low enough to be another value, high enough for a process to go on and say so.
_LIMITS = {
    "RLIMIT_NOFILE": 20,
    "RLIMIT_FSIZE": 4096,
    "RLIMIT_AS": 1 << 32,
    "RLIMIT_DATA": 1 << 31,
    "RLIMIT_STACK": 1 << 22,
    "RLIMIT_CPU": 3600,
    "RLIMIT_NPROC": 100,
    "RLIMIT_MEMLOCK": 4096,
    "RLIMIT_CORE": 0,
    "RLIMIT_SIGPENDING": 10,
    "RLIMIT_MSGQUEUE": 4096,
}
_RESTORED = {
    **{f"soft {name}": _SOFT.format(name, value) for name, value in _LIMITS.items() if name != "RLIMIT_CORE"},
    "batch scheduler": "os.sched_setscheduler(pid, os.SCHED_BATCH, os.sched_param(0))",
    "one processor": "os.sched_setaffinity(pid, {min(os.sched_getaffinity(pid))})",
    "input and output when idle": "ctypes.CDLL(None).syscall(251 if platform.machine() == 'x86_64' else 30, 1, pid, 3 << 13)",
}
_SPOILED = {
    **{f"hard {name}": _HARD.format(name, value) for name, value in _LIMITS.items()},
    "idle scheduler": "os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))",
    "lowest priority": "os.setpriority(os.PRIO_PROCESS, pid, 19)",
    "scheduler that children lose": "os.sched_setscheduler(pid, os.SCHED_OTHER | 0x40000000, os.sched_param(0))",
}


class Victim:
    def __init__(self) -> None:
        self._process = subprocess.Popen(
            command([sys.executable, "-c", _VICTIM]), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        assert self._said() == "ready"

    def attacked(self, code: str) -> subprocess.CompletedProcess[str]:
        argv = command([sys.executable, "-S", "-c", _ATTACKER + code, str(self._process.pid)])
        return subprocess.run(argv, capture_output=True, text=True, check=False)

    def asked(self, what: str) -> str:
        assert self._process.stdin
        self._process.stdin.write(f"{what}\n")
        return self._said()

    def _said(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def victim() -> Iterator[Victim]:
    victim = Victim()
    yield victim
    victim.close()


@pytest.mark.attack("warm sandbox")
@pytest.mark.parametrize("name", _RESTORED)
def test_a_change_that_can_be_undone_is_undone(name: str, victim: Victim) -> None:
    assert (attack := victim.attacked(_RESTORED[name])).returncode == 0, attack.stderr
    if name == "one processor" and victim.asked("look") == "as it was":
        pytest.skip("this machine has one processor")
    # Taken out, the defence is not missed: the change is there.
    assert victim.asked("look") == "changed"
    assert victim.asked("restore") == "as it was"


@pytest.mark.attack("warm sandbox")
@pytest.mark.parametrize("name", _SPOILED)
def test_a_change_that_cannot_be_undone_is_noticed(name: str, victim: Victim) -> None:
    assert (attack := victim.attacked(_SPOILED[name])).returncode == 0, attack.stderr
    assert victim.asked("look") == "changed"
    assert victim.asked("restore").startswith("refused: another process changed this one's")


@pytest.mark.control("warm sandbox")
def test_control_a_process_that_nobody_changed_goes_on(victim: Victim) -> None:
    assert (victim.asked("look"), victim.asked("restore")) == ("as it was", "as it was")


@pytest.mark.attack("warm sandbox")
@pytest.mark.parametrize("file", ["environ", "mem", "fd/0", "cwd"])
def test_what_proc_offers_of_a_hidden_process_is_closed_to_its_user(file: str, victim: Victim) -> None:
    """What else is in there belongs to root, whom the image's user is not."""
    failed = victim.attacked(f"open(f'/proc/{{pid}}/{file}', 'rb')")
    assert failed.returncode != 0 and "PermissionError" in failed.stderr, failed.stderr
