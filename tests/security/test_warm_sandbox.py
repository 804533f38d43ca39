"""A sandbox of Lambda serves one run after another. A hostile one leaves what it can; the next one finds none of it.

Each test of a kind looks at what became of its own variant; the runs are shared, because a sandbox starts slowly. The controls do the same
in a sandbox whose process cleans nothing, compares nothing and puts nothing right.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from dbt_runner.local.lambda_sandbox import LambdaSandbox
from dbt_runner.store import CLAIM
from runner.sandboxes import invoke
from security.worlds import PROJECT, AuditStore, Hostile, audit_store, hostile

__all__ = ["audit_store"]

_BEFORE = """
import ctypes, fcntl, pathlib, resource, signal, socket, stat, subprocess, time
top = os.environ["TMPDIR"]
release = spec["project"]
releases = os.path.join(top, "releases")
"""
_CARELESS = """
import pathlib, shutil
from dbt_runner import descendants, isolation, process_state, release_cache, removal
isolation.require = lambda environment: None
removal.empty = lambda folder, *_, **__: [shutil.rmtree(path) for path in folder.iterdir()] if folder.name == "releases" else None
pathlib.Path.chmod = lambda *_, **__: None
descendants.end = descendants.end_others = lambda *_, **__: 0
process_state.ProcessState.restore = lambda self: None
release_cache.tree_digest = lambda folder: ""
from dbt_runner.lambda_handler import handler
"""

# --- files -------------------------------------------------------------------------------------------------------------

# Each makes what `name` says, below its own name in the folder.
FILES: Mapping[str, str] = {
    "file": "open(path, 'w').close()",
    "file-without-rights": "open(path, 'w').close(); os.chmod(path, 0)",
    "folder-without-rights": "os.mkdir(path); open(path + '/x', 'w').close(); os.chmod(path, 0)",
    "folders-without-rights": """
os.makedirs(path + '/a/b/c')
for folder in (path + '/a/b/c', path + '/a/b', path + '/a', path):
    open(folder + '/x', 'w').close()
    os.chmod(folder, 0)
""",
    "folder-that-is-read-only": "os.mkdir(path); open(path + '/x', 'w').close(); os.chmod(path, 0o500)",
    "folder-that-is-not-listed": "os.mkdir(path); os.mkdir(path + '/y'); open(path + '/y/x', 'w').close(); os.chmod(path, 0o300)",
    "deeper-than-a-path": """
os.mkdir(path)
at = os.open(path, os.O_RDONLY)
for _ in range(1500):
    os.mkdir("depth" * 4, dir_fd=at)
    below = os.open("depth" * 4, os.O_RDONLY, dir_fd=at)
    os.close(at)
    at = below
os.close(os.open("x", os.O_CREAT, dir_fd=at))
os.close(at)
""",
    "deep-without-rights": """
os.mkdir(path)
at, opened = os.open(path, os.O_RDONLY), []
for _ in range(200):
    os.mkdir("d" * 255, dir_fd=at)
    opened.append(at)
    at = os.open("d" * 255, os.O_RDONLY, dir_fd=at)
for descriptor in (at, *reversed(opened)):
    os.fchmod(descriptor, 0)
    os.close(descriptor)
""",
    "not-utf-8": "os.mkdir(path); open(os.fsencode(path) + b'/\\xff\\xfe\\n', 'w').close()",
    "odd-names": "os.mkdir(path); [open(os.path.join(path, n), 'w').close() for n in ('-rf', ' ', '\\n', '\\\\', '*', 'x' * 255, '\\x01')]",
    "fifo": "os.mkfifo(path)",
    "socket": "socket.socket(socket.AF_UNIX).bind(path)",
    "device": "os.symlink('/dev/full', path)",
    "link-to-itself": "os.symlink(path, path)",
    "link-loop": "os.mkdir(path); os.symlink('..', path + '/up'); os.symlink('b', path + '/a'); os.symlink('a', path + '/b')",
    "link-to-root": "os.symlink('/', path)",
    "link-out": "os.mkdir(path); os.symlink(os.environ['MARKS'], path + '/out')",
    "hard-link-into-the-release": "os.link(release + '/dbt_project.yml', path)",
    "hard-links-to-each-other": "open(path, 'w').close(); os.mkdir(path + '-2'); os.link(path, path + '-2/other')",
    "huge-and-sparse": "open(path, 'w').truncate(1 << 40)",
    "many": "os.mkdir(path); [open(f'{path}/{n}', 'w').close() for n in range(2500)]",
    "wide": "[os.makedirs(f'{path}/{n}/{m}') for n in range(20) for m in range(20)]",
    "set-group-id": "os.mkdir(path); os.chmod(path, 0o2700); os.mkdir(path + '/x'); os.chmod(path, 0o7000)",
    "locked": "file = open(path, 'w'); fcntl.flock(file, fcntl.LOCK_EX)",
    "names-that-the-removal-uses": """
os.mkdir(path)
for n in range(50):
    there = f"{top}/.removed-{os.getppid()}-{n}"
    if n % 2:
        open(there, 'w').close()
    else:
        os.makedirs(there + '/x')
os.makedirs(path + '/a/b')
""",
    "beside-the-release": "os.mkdir(path); open(releases + '/beside', 'w').close()",
    "beside-the-release-without-rights": "os.mkdir(path); os.mkdir(releases + '/beside-2'); os.chmod(releases + '/beside-2', 0)",
}
# What is not seen by a name in the folder: the folder itself.
FOLDER: Mapping[str, str] = {
    "mode": "os.chmod(top, 0)",
    "attribute": "os.setxattr(top, 'user.note', b'x')",
    "access-list-for-new-files": (
        "os.setxattr(top, 'system.posix_acl_default', bytes.fromhex('0200000001000700ffffffff04000500ffffffff20000500ffffffff'))"
    ),
}


def prepared(world: Hostile, careless: bool) -> LambdaSandbox:
    """A sandbox as the module applies it, or one whose process does nothing of what this file is about."""
    sandbox = world.unprivileged()
    if careless:
        (world.folder / "careless.py").write_text(_CARELESS)
        sandbox.function = replace(
            sandbox.function,
            environ={**sandbox.function.environ, "PYTHONPATH": f"{world.folder}:{world.worker['PYTHONPATH']}"},
            command=(sys.executable, "-u", "-m", "awslambdaric", "careless.handler"),
        )
    return sandbox


def attempt(world: Hostile, sandbox: LambdaSandbox, code: str) -> dict[str, Any]:
    """One run, whose worker does this; the answer."""
    world.tell(f"{_BEFORE}\n{code}\ndone()\n")
    return invoke(sandbox)


def run(world: Hostile, sandbox: LambdaSandbox, code: str, *, answers: bool = True) -> dict[str, Any]:
    """The same. Its outcome has to be good, whatever became of the sandbox."""
    answer = attempt(world, sandbox, code)
    assert world.outcome_of_last()["exit_code"] == 0, world.lines[-10:]
    if answers:
        assert answer == {"exit_code": 0, "error": None}, world.lines[-10:]
    return answer


@dataclass(frozen=True)
class Left:
    """What the second run saw: names in the folder, and what the folder itself had become."""

    names: set[str]
    folder: Mapping[str, str]


def left(world: Hostile, careless: bool) -> Left:
    sandbox = prepared(world, careless)
    told = world.folder / "found"
    run(world, sandbox, "pass")
    mode = sandbox.folder.stat().st_mode
    makes = "\n".join(f"path = os.path.join(top, {name!r})\n{code}" for name, code in FILES.items())
    run(world, sandbox, makes)
    sees = f"""
names = os.listdir(top) + os.listdir(releases)
json.dump(names, open({str(told)!r}, "w"))
"""
    run(world, sandbox, sees)
    names = set(json.loads(told.read_text()))
    found: dict[str, str] = {}
    for name, code in FOLDER.items():
        # It may be that a run's own attempt comes to nothing by it.
        attempt(world, sandbox, code)
        after = sandbox.folder.stat().st_mode
        attributes = [attribute for attribute in os.listxattr(sandbox.folder) if attribute.startswith(("user.", "system.posix"))]
        found[name] = f"{after ^ mode:o} {attributes}"
        sandbox.folder.chmod(mode & 0o7777)
        for attribute in attributes:
            os.removexattr(sandbox.folder, attribute)
        run(world, sandbox, "pass")
    return Left(names, found)


@pytest.fixture(scope="module")
def what_is_left(audit_store: AuditStore, tmp_path_factory: pytest.TempPathFactory) -> Left:
    with hostile(audit_store, tmp_path_factory.mktemp("files")) as world:
        return left(world, careless=False)


@pytest.fixture(scope="module")
def what_a_careless_one_leaves(audit_store: AuditStore, tmp_path_factory: pytest.TempPathFactory) -> Left:
    with hostile(audit_store, tmp_path_factory.mktemp("careless")) as world:
        return left(world, careless=True)


@pytest.mark.attack("warm sandbox")
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_a_run_left_is_not_there_for_the_next(name: str, what_is_left: Left) -> None:
    assert name not in what_is_left.names
    assert not {found for found in what_is_left.names if found.startswith((".removed", "beside"))}


@pytest.mark.control("warm sandbox")
@pytest.mark.parametrize("name", FILES)
def test_control_a_file_stays_where_nothing_is_removed(name: str, what_a_careless_one_leaves: Left) -> None:
    assert name in what_a_careless_one_leaves.names


@pytest.mark.attack("warm sandbox")
@pytest.mark.parametrize("name", FOLDER)
def test_the_folder_itself_is_what_it_was(name: str, what_is_left: Left) -> None:
    assert what_is_left.folder[name] == "0 []"


@pytest.mark.control("warm sandbox")
@pytest.mark.parametrize("name", FOLDER)
def test_control_the_folder_stays_changed_where_nothing_is_put_right(name: str, what_a_careless_one_leaves: Left) -> None:
    assert what_a_careless_one_leaves.folder[name] != "0 []"


def test_what_lies_outside_is_not_removed(audit_store: AuditStore, tmp_path: Path) -> None:
    with hostile(audit_store, tmp_path) as world:
        (world.marks / "kept").write_text("x")
        sandbox = world.unprivileged()
        run(world, sandbox, "os.symlink(os.environ['MARKS'], top + '/out'); os.mkdir(top + '/in'); os.symlink(top, top + '/in/up')")
        assert {path.name for path in sandbox.folder.iterdir()} == {"releases"}
        assert (world.marks / "kept").read_text() == "x"


# --- the release that is kept -------------------------------------------------------------------------------------------

RELEASE: Mapping[str, str] = {
    "changed": "open(release + '/models/orders.sql', 'a').write('-- changed')",
    "changed-at-the-same-time": """
path = release + '/models/orders.sql'
was = os.stat(path)
open(path, 'w').write('select 9 as id')
os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
""",
    "another-time": "os.utime(release + '/models/orders.sql', (0, 0))",
    "added": "open(release + '/models/deep/added.sql', 'w').write('select 1')",
    "added-folder": "os.mkdir(release + '/models/empty')",
    "added-without-rights": "os.mkdir(release + '/macros'); open(release + '/macros/x.sql', 'w').close(); os.chmod(release + '/macros', 0)",
    "removed": "os.unlink(release + '/models/deep/answers.sql')",
    "linked": "os.unlink(release + '/models/orders.sql'); os.symlink('/etc/passwd', release + '/models/orders.sql')",
    "fifo": "os.mkfifo(release + '/models/fifo.sql')",
    "mode": "os.chmod(release + '/models/orders.sql', 0o600)",
    "file-without-rights": "os.chmod(release + '/models/orders.sql', 0)",
    "folder-without-rights": "os.chmod(release + '/models', 0)",
    "release-without-rights": "os.chmod(release, 0)",
    "releases-without-rights": "os.chmod(releases, 0)",
    "attribute": "os.setxattr(release + '/models/orders.sql', 'user.note', b'x')",
    "renamed": "os.rename(releases, top + '/other'); os.mkdir(releases)",
    "a-link-elsewhere": "os.rename(releases, top + '/other'); os.symlink('other', releases)",
    "a-file": "os.rename(releases, top + '/other'); open(releases, 'w').close()",
    "deeper-than-a-path": FILES["deeper-than-a-path"].replace("path", "(release + '/models/more')"),
}
_LOOKS = """
def look(folder):
    found = {}
    for at, folders, files in os.walk(folder):
        for name in folders + files:
            one = os.path.join(at, name)
            status = os.lstat(one)
            text = open(one).read() if stat.S_ISREG(status.st_mode) else ""
            kind = [stat.filemode(status.st_mode), status.st_mtime if text else 0, os.listxattr(one, follow_symlinks=False)]
            found[os.path.relpath(one, folder)] = [*kind, text]
    return found
json.dump([look(release), oct(os.stat(release).st_mode), os.path.islink(releases)], open(FOUND, "w"))
"""


def tampered(world: Hostile, variants: Mapping[str, str], careless: bool) -> dict[str, object]:
    """What each run found of the release, after the run before it had done something to it; `untouched` is the first."""
    sandbox, told = prepared(world, careless), world.folder / "found"
    looks = _LOOKS.replace("FOUND", repr(str(told)))
    found: dict[str, object] = {}
    for before, code in zip(["untouched", *variants], [*variants.values(), "pass"], strict=True):
        run(world, sandbox, f"{looks}\n{code}")
        found[before] = json.loads(told.read_text())
    return found


@pytest.fixture(scope="module")
def what_becomes_of_the_release(audit_store: AuditStore, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    with hostile(audit_store, tmp_path_factory.mktemp("release")) as world:
        return tampered(world, RELEASE, careless=False)


_STAYS = ("changed", "added", "attribute")


@pytest.fixture(scope="module")
def what_a_careless_one_keeps(audit_store: AuditStore, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    with hostile(audit_store, tmp_path_factory.mktemp("careless")) as world:
        return tampered(world, {name: RELEASE[name] for name in _STAYS}, careless=True)


@pytest.mark.attack("warm sandbox")
@pytest.mark.parametrize("name", RELEASE)
def test_a_release_that_a_run_has_touched_is_unpacked_anew(name: str, what_becomes_of_the_release: dict[str, object]) -> None:
    untouched = what_becomes_of_the_release["untouched"]
    assert PROJECT["models/orders.sql"] in json.dumps(untouched)
    assert what_becomes_of_the_release[name] == untouched


@pytest.mark.control("warm sandbox")
@pytest.mark.parametrize("name", _STAYS)
def test_control_a_release_stays_changed_where_nothing_is_compared(name: str, what_a_careless_one_keeps: dict[str, object]) -> None:
    assert what_a_careless_one_keeps[name] != what_a_careless_one_keeps["untouched"]


# --- processes ----------------------------------------------------------------------------------------------------------

_CHILD = """
def child(name, what):
    if os.fork() == 0:
        try:
            os.setsid()
            if os.fork() == 0:
                for descriptor in range(3, 64):
                    try:
                        os.close(descriptor)
                    except OSError:
                        pass
                null = os.open("/dev/null", os.O_RDWR)
                for descriptor in (0, 1, 2):
                    os.dup2(null, descriptor)
                if what is not moves:
                    open(os.environ["MARKS"] + "/" + name, "w").write(str(os.getpid()))
                what(name)
                time.sleep(600)
        finally:
            os._exit(0)
    os.wait()

def nothing(name): pass
def deaf(name):
    for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)
def stopped(name): os.kill(os.getpid(), signal.SIGSTOP)
def moves(name):
    until = time.monotonic() + 60  # it must not go on for ever where a test fails to end it
    while time.monotonic() < until:
        open(os.environ["MARKS"] + "/" + name, "w").write(str(os.getpid()))
        if os.fork():
            os._exit(0)
        os.setsid()
        time.sleep(0.001)
def many(name):
    for _ in range(30):
        if os.fork() == 0:
            time.sleep(600)
def adopts(name):
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
    if os.fork() == 0 and os.fork() == 0:
        open(os.environ["MARKS"] + "/" + name, "w").write(str(os.getpid()))
def traced(name):
    if (pid := os.fork()) == 0:
        ctypes.CDLL(None).ptrace(0, 0, 0, 0)
        os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(600)
    open(os.environ["MARKS"] + "/" + name, "w").write(str(pid))
def first_thread_ends(name):
    import threading
    threading.Thread(target=time.sleep, args=(600,)).start()
    ctypes.CDLL(None).syscall(60 if os.uname().machine == "x86_64" else 93, 0)
def namespaced(name):
    libc = ctypes.CDLL(None)
    if libc.unshare(0x10000000 | 0x20000000) == 0 and os.fork() == 0:
        time.sleep(600)
def memory(name): deaf(name)
"""
PROCESSES = ("nothing", "deaf", "stopped", "moves", "many", "adopts", "traced", "first_thread_ends", "namespaced")


def running(sandbox: LambdaSandbox) -> dict[int, str]:
    """All processes of a sandbox but those that the stand-in itself is made of."""
    own = psutil.Process(sandbox.pid)
    found = {}
    for process in own.parent().children(recursive=True):  # type: ignore[union-attr]
        if process.pid != own.pid:
            fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split() if process.is_running() else ["Z"] * 18
            if fields[0] not in "ZX" or int(fields[17]) > 1:
                found[process.pid] = fields[0]
    return found


def left_running(world: Hostile, careless: bool) -> dict[str, bool]:
    """By name, whether the process is there after the run that started it."""
    sandbox = prepared(world, careless)
    run(world, sandbox, "pass")
    # What has another number every millisecond is caught by nothing but the defence, and would go on beside all later tests.
    names = [name for name in PROCESSES if not (careless and name == "moves")]
    waits = f"""
{_CHILD}
for name in {names!r}:
    child(name, globals()[name])
while set(os.listdir(os.environ["MARKS"])) < set({names!r}):
    time.sleep(0.01)
"""
    run(world, sandbox, waits)
    there = running(sandbox)
    found = {}
    for name in names:
        pid = int((world.marks / name).read_text() or 0)
        found[name] = pid in there if name != "moves" else len(there) > 0
    if not careless:
        assert there == {}
    return found


@pytest.fixture(scope="module")
def processes(audit_store: AuditStore, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bool]:
    with hostile(audit_store, tmp_path_factory.mktemp("processes")) as world:
        return left_running(world, careless=False)


@pytest.fixture(scope="module")
def careless_processes(audit_store: AuditStore, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bool]:
    with hostile(audit_store, tmp_path_factory.mktemp("careless")) as world:
        return left_running(world, careless=True)


@pytest.mark.attack("warm sandbox")
@pytest.mark.parametrize("name", PROCESSES)
def test_a_process_that_a_run_left_has_ended(name: str, processes: dict[str, bool]) -> None:
    assert not processes[name]


@pytest.mark.control("warm sandbox")
@pytest.mark.parametrize("name", sorted({*PROCESSES} - {"moves"}))
def test_control_a_process_goes_on_where_none_is_ended(name: str, careless_processes: dict[str, bool]) -> None:
    assert careless_processes[name]


def survivor(world: Hostile, careless: bool) -> tuple[LambdaSandbox, Callable[[], bool]]:
    """A sandbox whose process was killed by its worker, which left another process."""
    sandbox = prepared(world, careless)
    run(world, sandbox, "pass")
    world.tell(f"{_BEFORE}\n{_CHILD}\nchild('survivor', deaf)\nmark = os.environ['MARKS'] + '/survivor'\n"
               f"while not os.path.exists(mark) or not open(mark).read():\n    time.sleep(0.01)\n"
               f"os.kill(os.getppid(), {int(signal.SIGKILL)})\nos._exit(0)")  # fmt: skip
    assert invoke(sandbox)["errorType"] == "Runtime.ExitError"
    pid = int((world.marks / "survivor").read_text())

    def lives() -> bool:
        try:
            return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    assert lives(), "it has to be there when the next process begins"
    return sandbox, lives


@pytest.mark.attack("warm sandbox")
def test_a_process_that_outlives_the_sandboxes_own_is_ended_before_an_attempt(audit_store: AuditStore, tmp_path: Path) -> None:
    with hostile(audit_store, tmp_path) as world:
        sandbox, lives = survivor(world, careless=False)
        world.tell("done()\n")
        assert invoke(sandbox)["errorType"] == "Runtime.ExitError", "it may have changed the new process, too: one more is started"
        assert not lives()
        assert world.run.store.get("RUN#prod#r-3", CLAIM) is None
        assert "1 processes of an earlier run were still there" in "".join(world.lines)
        run(world, sandbox, "pass")


@pytest.mark.control("warm sandbox")
def test_control_a_process_outlives_a_careless_one(audit_store: AuditStore, tmp_path: Path) -> None:
    with hostile(audit_store, tmp_path) as world:
        sandbox, lives = survivor(world, careless=True)
        run(world, sandbox, "pass")
        assert lives()


# --- out of service -----------------------------------------------------------------------------------------------------


def state_of_parent(world: Hostile, sandbox: LambdaSandbox) -> str:
    """What a run's worker sees of the process that started it."""
    told = world.folder / "state"
    run(world, sandbox, f"""
parent = os.getppid()
limits = [resource.prlimit(parent, limit) for limit in range(16) if limit != 10]
rest = [os.getpriority(os.PRIO_PROCESS, parent), os.sched_getscheduler(parent), sorted(os.sched_getaffinity(parent))]
open({str(told)!r}, "w").write(json.dumps([limits, rest]))
""")  # fmt: skip
    return told.read_text()


_TAMPERS = """
parent = os.getppid()
resource.prlimit(parent, resource.RLIMIT_NOFILE, (64, 64))
resource.prlimit(parent, resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
os.setpriority(os.PRIO_PROCESS, parent, 5)
"""


@pytest.mark.attack("warm sandbox")
def test_a_sandbox_whose_process_a_run_has_spoiled_takes_no_more_attempts(audit_store: AuditStore, tmp_path: Path) -> None:
    """The outcome of that run stands. The next attempt is a new process's, with everything as it was at first."""
    with hostile(audit_store, tmp_path) as world:
        sandbox = prepared(world, careless=False)
        before = state_of_parent(world, sandbox)
        assert run(world, sandbox, _TAMPERS, answers=False)["errorType"] == "Runtime.ExitError"
        assert "this sandbox is taken out of service" in "".join(world.lines)
        assert state_of_parent(world, sandbox) == before


@pytest.mark.control("warm sandbox")
def test_control_a_careless_process_stays_spoiled(audit_store: AuditStore, tmp_path: Path) -> None:
    with hostile(audit_store, tmp_path) as world:
        sandbox = prepared(world, careless=True)
        before = state_of_parent(world, sandbox)
        run(world, sandbox, _TAMPERS)
        assert state_of_parent(world, sandbox) != before


@pytest.mark.attack("warm sandbox")
def test_what_can_be_put_right_costs_no_process(audit_store: AuditStore, tmp_path: Path) -> None:
    with hostile(audit_store, tmp_path) as world:
        sandbox = prepared(world, careless=False)
        before = state_of_parent(world, sandbox)
        softly = "parent = os.getppid()\nfor limit in (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE):\n"
        softly += "    resource.prlimit(parent, limit, (64, resource.prlimit(parent, limit)[1]))\n"
        pid = sandbox.pid
        run(world, sandbox, softly)
        assert (state_of_parent(world, sandbox), sandbox.pid) == (before, pid)


def test_an_attempt_in_a_sandbox_that_cannot_be_emptied_is_not_begun(audit_store: AuditStore, tmp_path: Path) -> None:
    """Nobody has claimed its place, so that the state machine's next attempt can begin at once."""
    with hostile(audit_store, tmp_path) as world:
        sandbox = world.unprivileged()
        (world.folder / "stuck.py").write_text(
            "import os\nfrom dbt_runner import isolation, removal\nisolation.require = lambda environment: None\nempty = removal.empty\n"
            "def stuck(*arguments, **options):\n    empty(*arguments, **options)\n"
            "    if os.path.exists(os.environ['STUCK']):\n        raise removal.NotEmpty('x is left')\n"
            "removal.empty = stuck\nfrom dbt_runner.lambda_handler import handler\n"
        )
        sandbox.function = replace(
            sandbox.function,
            environ={
                **sandbox.function.environ,
                "PYTHONPATH": f"{world.folder}:{world.worker['PYTHONPATH']}",
                "STUCK": str(tmp_path / "stuck"),
            },
            command=(sys.executable, "-u", "-m", "awslambdaric", "stuck.handler"),
        )
        run(world, sandbox, "pass")
        (tmp_path / "stuck").touch()
        for _ in range(2):
            world.tell("done()\n")
            assert invoke(sandbox)["errorType"] == "Runtime.ExitError"
            assert world.run.store.get(f"RUN#prod#r-{world.runs}", CLAIM) is None
        assert "x is left" in "".join(world.lines)
        (tmp_path / "stuck").unlink()
        run(world, sandbox, "pass")
