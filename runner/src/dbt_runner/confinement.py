"""Keeps a Python process from writing, looking and reaching where it has no business: for dbt's parse of other people's Jinja.

dbt's Jinja is a sandbox with doors: `config.model.write_node` writes any file of the user. An audit hook sees every file that Python code
opens, and cannot be removed. It holds against what Jinja reaches, Python code of dbt and its libraries, and not against native code or the
kernel.
https://docs.python.org/3/library/audit_events.html
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

# Which arguments of an event are paths that it changes.
_CHANGES = {
    "os.chflags": (0,),
    "os.chmod": (0,),
    "os.chown": (0,),
    "os.link": (0, 1),
    "os.mkdir": (0,),
    "os.remove": (0,),
    "os.removexattr": (0,),
    "os.rename": (0, 1),
    "os.rmdir": (0,),
    "os.setxattr": (0,),
    "os.symlink": (1,),
    "os.truncate": (0,),
    "os.utime": (0,),
    "sqlite3.connect": (0,),
}
# Other programs, other machines, and other processes' memory.
_FORBIDDEN = (
    *(
        "subprocess.Popen",
        "os.system",
        "os.exec",
        "os.posix_spawn",
        "os.spawn",
        "os.fork",
        "os.forkpty",
        "pty.spawn",
        "os.kill",
        "os.killpg",
    ),
    *(
        "socket.connect",
        "socket.bind",
        "socket.sendto",
        "socket.sendmsg",
        "socket.getaddrinfo",
        "socket.gethostbyname",
        "socket.gethostbyaddr",
    ),
    *("ftplib.connect", "http.client.connect", "urllib.Request", "smtplib.connect"),
)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_PROC = "/proc"


def confine(*, writable: Sequence[str], hidden: Sequence[str] = (), visible: Sequence[str] = (), modules: Sequence[str] = ()) -> None:
    """Confines this process, for good. A refused operation raises PermissionError.

    It writes below `writable` only, and reads below `hidden` only what lies below `visible`, `writable` or, also by a link, `modules`. It
    reads nothing of other processes in /proc, starts no program and opens no connection.
    """
    # Resolved once: what these names mean does not change any more.
    may_write = _resolved([*writable, os.devnull])
    may_not_read, may_read = _resolved(hidden), _resolved([*visible, *modules, *writable])
    # An installer may make an environment of links into its cache.
    modules = [os.path.abspath(path) for path in modules]
    own = f"{_PROC}/{os.getpid()}"
    # Compiled modules would be written beside the libraries.
    sys.dont_write_bytecode = True

    def check(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments[0], arguments[1], arguments[2] or 0
            if isinstance(path, int):
                return
            real = os.path.realpath(os.fsdecode(path))
            if flags & _WRITING or (isinstance(mode, str) and set(mode) & set("wax+")):
                if not _below(real, may_write):
                    raise PermissionError(f"{real} may not be written while a project is parsed")
            elif _below(real, may_not_read) and not (_below(real, may_read) or _below(os.path.abspath(os.fsdecode(path)), modules)):
                raise PermissionError(f"{real} may not be read while a project is parsed")
            elif real.startswith(f"{_PROC}/") and real[len(_PROC) + 1].isdigit() and not _below(real, (own,)):
                raise PermissionError("other processes may not be read while a project is parsed")
        elif event in _CHANGES:
            for place in _CHANGES[event]:
                path = arguments[place] if place < len(arguments) else None
                if isinstance(path, (str, bytes, os.PathLike)):
                    # What is changed is the link itself, not its target.
                    folder, name = os.path.split(os.path.abspath(os.fsdecode(path)))
                    if event == "sqlite3.connect" and name == ":memory:":
                        continue
                    if not _below(os.path.join(os.path.realpath(folder), name), may_write):
                        raise PermissionError(f"{os.fsdecode(path)} may not be changed while a project is parsed")
        elif event in _FORBIDDEN:
            raise PermissionError(f"{event} is not allowed while a project is parsed")

    sys.addaudithook(check)


def _resolved(paths: Sequence[str]) -> tuple[str, ...]:
    return tuple(os.path.realpath(path) for path in paths)


def _below(path: str, folders: Sequence[str]) -> bool:
    return any(path == folder or path.startswith(folder.rstrip("/") + "/") for folder in folders)
