"""The init process of a local sandbox: starts what a function's image starts, each time anew, in an environment that stays.

    python -I -m dbt_runner.local.lambda_init REPORTS FOLDER[:FOLDER...]

Each line on standard input is a start: `{"argv": [...], "env": {...}, "cwd": "/"}`. Each line on the descriptor REPORTS tells what became
of it: `{"started": PID}`, then `{"ended": PID}`. When standard input ends, so does everything that was started.

What is started can write to these folders only, as a function of Lambda can write to /tmp only: by Landlock, which needs no privileges and
holds for all that the program starts. Where the kernel has none (other systems, old kernels) the program starts without that limit.
Processes that a program leaves behind become children of this one, as they become Lambda's own init's, and are not ended when a
program ends: whether Lambda does that is not documented, so nothing here may rest on it.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence

from dbt_runner import descendants

# https://docs.kernel.org/userspace-api/landlock.html; the numbers of these calls are the same on every architecture.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION = 1
_PATH_BENEATH = 1
_WRITE_FILE = 1 << 1
# WRITE_FILE, REMOVE_*, MAKE_*; then what later versions tell apart: REFER (rename into another folder), TRUNCATE.
_WRITES = _WRITE_FILE | sum(1 << bit for bit in range(4, 13))
_REFER, _TRUNCATE = 1 << 13, 1 << 14
_PR_SET_NO_NEW_PRIVS = 38


class _Ruleset(ctypes.Structure):
    _fields_ = [("handled_access_fs", ctypes.c_uint64)]


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32)]


def version() -> int:
    """The kernel's version of Landlock; 0 where there is none."""
    if sys.platform != "linux":
        return 0
    found: int = _libc().syscall(_CREATE_RULESET, None, 0, _VERSION)
    return max(found, 0)


def restrict(folders: Sequence[str]) -> bool:
    """Takes from this process, and from all that it starts, the right to write elsewhere than into these folders and to devices.

    Returns:
        whether the kernel can do that. For renaming a file into another folder it needs version 2.
    """
    known = version()
    if known < 2:
        return False
    rights = _WRITES | _REFER | (_TRUNCATE if known >= 3 else 0)
    ruleset = _call(_CREATE_RULESET, ctypes.byref(_Ruleset(rights)), ctypes.sizeof(_Ruleset), 0)
    for folder, allowed in [*((folder, rights) for folder in folders), ("/dev", _WRITE_FILE)]:
        descriptor = os.open(folder, os.O_PATH)
        _call(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(_PathBeneath(allowed, descriptor)), 0)
        os.close(descriptor)
    if _libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_NO_NEW_PRIVS)")
    _call(_RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)
    return True


def _call(number: int, *arguments: object) -> int:
    result: int = _libc().syscall(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Serves standard input until it ends."""
    reports = open(int(sys.argv[1]), "w", buffering=1, encoding="utf-8")  # noqa: SIM115  # for the life of this process
    descendants.adopt_orphans()
    restrict([folder for folder in sys.argv[2].split(":") if folder])
    for line in sys.stdin:
        start = json.loads(line)
        try:
            program = subprocess.Popen(
                start["argv"],
                env=start["env"],
                cwd=start["cwd"],
                stdin=subprocess.DEVNULL,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as exc:
            print(exc, flush=True)
            print(json.dumps({"started": 0}), file=reports)
            continue
        print(json.dumps({"started": program.pid}), file=reports)
        threading.Thread(target=_wait, args=(program, reports.fileno()), daemon=True).start()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    descendants.end()


def _wait(program: subprocess.Popen[bytes], reports: int) -> None:
    program.wait()
    os.write(reports, f"{json.dumps({'ended': program.pid})}\n".encode())


if __name__ == "__main__":
    main()
