"""A project is other people's code: publishing it gives it nothing of the publisher's, and follows it nowhere."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dbt_runner import checkout, confinement, publish, publish_dbt, release_parse, stage, tree
from dbt_runner.errors import INVALID_REQUEST, TypedError
from dbt_runner.publisher import Publisher

ALICE = "arn:aws:sts::123456789012:assumed-role/deployer/alice"

pytestmark = pytest.mark.xdist_group("publishing")


def write(folder: Path, contents: dict[str, str]) -> Path:
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


def value_of(name: str) -> str:
    return f"value-of-{name.lower().replace('_', '-')}-9f2c"


# --- variables of the publisher --------------------------------------------------------------------------------------

VARIABLES = (
    *("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_CONTAINER_AUTHORIZATION_TOKEN", "AWS_PROFILE"),
    *("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "ACTIONS_RUNTIME_TOKEN", "GITHUB_TOKEN", "GH_TOKEN", "CI_JOB_TOKEN", "CI_REGISTRY_PASSWORD"),
    *("NPM_TOKEN", "TWINE_PASSWORD", "SNOWFLAKE_PRIVATE_KEY", "DATABASE_URL", "HTTPS_PROXY", "PIP_INDEX_URL", "SLACK_WEBHOOK"),
    *("PGPASSWORD", "DBT_ENV_SECRET_GIT", "DBT_ENV_CUSTOM_ENV_NOTE", "SSH_AUTH_SOCK", "A_NAME_NOT_ON_ANY_LIST"),
)
# dbt itself refuses its own secrets in models.
ASKED = tuple(name for name in VARIABLES if not name.startswith("DBT_ENV_SECRET_"))
GIVEN = "DEPLOY_TOKEN"


def leak(names: tuple[str, ...], way: str) -> str:
    return ", ".join(f"'{way}_{name}': env_var('{name}', 'absent')" for name in names)


def greedy(folder: Path) -> Path:
    """A project that takes every variable of its process by each way that leads into the manifest."""
    one = "{{ env_var('%s', 'absent') }}"
    return write(
        folder,
        {
            "dbt_project.yml": json.dumps(
                {
                    "name": "shop",
                    "models": {"+meta": {f"project_{name}": one % name for name in ASKED}},
                    "on-run-start": [f"select '{name}' -- {one % name}" for name in ASKED],
                    "vars": {"v": 1},
                }
            ),
            "models/config.sql": "{{ config(meta={" + leak(ASKED, "config") + "}) }} select 1 as id",
            "models/sql.sql": "{{ take() }} select 1 as id",
            "macros/take.sql": "{% macro take() %}{% set all = {" + leak(ASKED, "macro") + "} %}"
            "{{ config(meta={'by_macro': all|string, 'given': env_var('" + GIVEN + "')}) }}{% do log(all, info=true) %}"
            "{% do print(all) %}{% endmacro %}",
            "models/yaml.yml": json.dumps(
                {
                    "models": [
                        {
                            "name": "config",
                            "config": {"meta": {f"yaml_{name}": one % name for name in ASKED}, "tags": [one % n for n in ASKED]},
                        }
                    ],
                    "sources": [{"name": "s", "database": one % ASKED[0], "schema": one % ASKED[1], "tables": [{"name": "t"}]}],
                }
            ),
        },
    )


@dataclass(frozen=True)
class Parsed:
    """What became of the greedy project: the refusal, and the manifest that dbt wrote."""

    refusal: str
    manifest: str


def parse(project: Path, folder: Path) -> Parsed:
    folder.mkdir()
    own = {**os.environ, **{name: value_of(name) for name in (*VARIABLES, GIVEN)}}
    publisher = Publisher.of(own, [GIVEN])
    packed = publish.pack(project, "1.0.0", "duckdb", folder, lambda _: None, publisher=publisher)
    refusal = ""
    try:
        publish.parse(packed, ALICE, lambda _: None)
    except TypedError as exc:
        refusal = exc.message
    target = folder / "dbt" / "target" / "manifest.json"
    return Parsed(refusal, target.read_text() if target.exists() else "")


@pytest.fixture(scope="module")
def contained(tmp_path_factory: pytest.TempPathFactory) -> Parsed:
    top = tmp_path_factory.mktemp("contained")
    return parse(greedy(top / "shop"), top / "work")


# What Jinja reaches beyond its variables: dbt's own objects.
WRITER = "{% do config.model.write_node('/', 'PATH', 'written by Jinja') %} select 1 as id"


@pytest.fixture(scope="module")
def uncontained(tmp_path_factory: pytest.TempPathFactory) -> Parsed:
    """The same with the defences taken out: all variables, no confinement, no search for secrets."""
    top = tmp_path_factory.mktemp("uncontained")
    project = write(greedy(top / "shop"), {"models/writer.sql": WRITER.replace("PATH", str(top / "written"))})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Publisher, "parse_environment", lambda self, folder: dict(self.own))
        patch.setattr(Publisher, "check", lambda self, contents: None)
        patch.setattr(
            publish_dbt, "_PARSE", f"from dbt_runner import confinement; confinement.confine = lambda **_: None; {publish_dbt._PARSE}"
        )
        return parse(project, top / "work")


@pytest.mark.attack("publisher's variables")
@pytest.mark.parametrize("name", ASKED)
def test_a_project_sees_no_variable_of_the_publisher(contained: Parsed, name: str) -> None:
    assert contained.manifest and value_of(name) not in contained.manifest


@pytest.mark.control("publisher's variables")
def test_with_the_whole_environment_it_sees_all_of_them(uncontained: Parsed) -> None:
    # A profile's name has nothing to do with it; DBT_ENV_CUSTOM_ENV_* is metadata by dbt's own rule.
    assert [name for name in ASKED if value_of(name) not in uncontained.manifest] == []


@pytest.mark.attack("publisher's variables")
def test_a_secret_that_was_given_by_name_is_not_published(contained: Parsed) -> None:
    assert value_of(GIVEN) in contained.manifest
    assert f"the value of {GIVEN}" in contained.refusal and value_of(GIVEN) not in contained.refusal


@pytest.mark.parametrize(
    "given",
    [
        *("AWS_SECRET_ACCESS_KEY=x", "AWS_PROFILE=x", "AWS_SESSION_TOKEN", "ACTIONS_RUNTIME_TOKEN", "ACTIONS_ID_TOKEN_REQUEST_URL=x"),
        *("DBT_RUNNER_TABLE=x", "ECS_CONTAINER_METADATA_URI_V4=x", "LAMBDA_X=x", "PATH=/x", "HOME=/x", "PYTHONPATH=/x", "LD_PRELOAD=/x"),
        *("=x", "A B=x", "1X=x", "NOT_SET", "X\n=1", "NUL=a\0b", ""),
    ],
)
@pytest.mark.attack("publisher's variables")
def test_names_that_no_project_gets_are_refused_also_when_they_are_given(given: str) -> None:
    own = {name: value_of(name) for name in VARIABLES}
    with pytest.raises(TypedError) as raised:
        Publisher.of(own, [given])
    assert raised.value.kind is INVALID_REQUEST and raised.value.message.startswith("--env: ")
    assert "value-of-" not in raised.value.message


def test_what_dbt_needs_is_there_and_what_is_given_too(tmp_path: Path) -> None:
    own = {
        "PATH": "/bin",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "HOME": "/home/alice",
        "DBT_ENV_SECRET_GIT": "t0ken-t0ken",
        "GIT_DIR": "/x",
        "A": "1",
    }
    publisher = Publisher.of(own, ["A", "B=2=3"])
    parsed = publisher.parse_environment(tmp_path)
    assert parsed.pop("HOME").startswith(str(tmp_path)) and parsed.pop("TMPDIR").startswith(str(tmp_path))
    assert parsed == {"PATH": "/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC", "A": "1", "B": "2=3"}
    deps = publisher.packages_environment(tmp_path)
    assert deps["HOME"] == "/home/alice" and deps["DBT_ENV_SECRET_GIT"] == "t0ken-t0ken" and "GIT_DIR" not in deps


# --- secrets in files and messages -----------------------------------------------------------------------------------

SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "GITHUB_TOKEN": "ghs_16C7e42F292c6912E7710c838347Ae178B4a",
    "db_password": "correct horse battery",
    "API_KEY": "0123456789abcdef",
    "PGPASS": "p4ss!word+more",
    "GIT_CONFIG_VALUE_0": "AUTHORIZATION: basic eDp5",
    "HTTPS_PROXY": "http://alice:pr0xy-s3cret@proxy:3128",
    "DATABASE_URL": "postgres://u:dsn%20s3cret@db/x",
}
HELD = {**SECRETS, "HTTPS_PROXY": "pr0xy-s3cret", "DATABASE_URL": "dsn s3cret"}


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.attack("secrets in a release")
def test_a_file_with_a_secret_of_the_publisher_is_refused(name: str) -> None:
    publisher = Publisher.of(SECRETS)
    with pytest.raises(TypedError) as raised:
        publisher.check([("models/ok.sql", b"select 1"), ("seeds/x.csv", f"id,note\n1,{HELD[name]}\n".encode())])
    assert f"seeds/x.csv holds the value of {name}" in raised.value.message and HELD[name] not in raised.value.message


@pytest.mark.attack("secrets in a release")
def test_a_secret_in_a_files_name_or_of_the_aws_session_is_refused() -> None:
    publisher = Publisher.of({}, credentials={"the AWS session token": "FwoGZXIvYXdzEXAMPLE"})
    for name, content in (("models/FwoGZXIvYXdzEXAMPLE.sql", b""), ("the manifest", b'{"x": "FwoGZXIvYXdzEXAMPLE"}')):
        with pytest.raises(TypedError, match="the value of the AWS session token") as raised:
            publisher.check([(name, content)])
        assert "FwoGZXIvYXdzEXAMPLE" not in raised.value.message


@pytest.mark.parametrize(
    "content",
    [
        "-----BEGIN PRIVATE KEY-----\n" + "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC" * 2,
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,AB\n\n" + "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC" * 2,
        "-----BEGIN OPENSSH PRIVATE KEY-----\r\n" + "b3BlbnNzaC1rZXktdjEAAAAABG5vbmUA" * 2,
        json.dumps({"private_key": "-----BEGIN PRIVATE KEY-----\n" + "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC" * 2}),
    ],
    ids=["PKCS 8", "encrypted", "OpenSSH", "service account"],
)
@pytest.mark.attack("secrets in a release")
def test_a_private_key_is_refused(content: str) -> None:
    with pytest.raises(TypedError, match=r"keys/prod.pem holds a private key"):
        Publisher.of({}).check([("keys/prod.pem", content.encode())])


@pytest.mark.control("secrets in a release")
def test_the_same_files_pass_where_they_hold_no_secret() -> None:
    mention = b"-----BEGIN PRIVATE KEY-----\n is how such a file begins. -----BEGIN CERTIFICATE-----\n" + b"A" * 64
    Publisher.of({"API_KEY": "short", "PWD": "/home/alice/shop", "KEY_FILE": "/etc/hostname"}).check(
        [("models/ok.sql", b"select 'short' -- /home/alice/shop /etc/hostname"), ("ca.pem", mention)]
    )


@pytest.mark.parametrize("place", ["start", "middle", "beyond the cut"])
@pytest.mark.attack("secrets in a release")
def test_dbts_words_for_a_failure_hold_no_secret(tmp_path: Path, place: str) -> None:
    secret = SECRETS["GITHUB_TOKEN"]
    filler = "x" * {"start": 0, "middle": 100, "beyond the cut": 5000}[place]
    # Cut in its middle, the secret's rest is not found any more: it has to be masked before.
    words = f"{secret}{filler}{secret}" + "y" * (3_990 if place == "beyond the cut" else 0)
    dbt = publish_dbt.Dbt(tmp_path, "duckdb", {}, {}, Publisher.of({"GITHUB_TOKEN": secret}))
    event = json.dumps({"info": {"level": "error", "msg": words}, "data": {}})
    done = subprocess.CompletedProcess([], 2, event.encode(), b"")
    message = dbt._failed("parse", done, "it does not parse", (tmp_path, tmp_path)).message
    assert "*****" in message
    assert not any(secret[at : at + 8] in message for at in range(len(secret) - 8))


def test_a_variable_that_dbt_misses_is_named_with_its_option() -> None:
    said = "Parsing Error\n  Env var required but not provided: 'REGION'"
    assert "pass --env REGION for the value" in Publisher.of({}).hint(said)
    assert "a project never gets it" in Publisher.of({}).hint(said.replace("REGION", "AWS_PROFILE"))
    assert Publisher.of({}).hint("Compilation Error") == ""


# --- links and special files -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trap:
    """A project with something in it that leads elsewhere; `make` puts it there."""

    name: str
    make: Callable[[Path, Path], object]


def _loop(project: Path, _: Path) -> None:
    (project / "models/a.md").symlink_to("b.md")
    (project / "models/b.md").symlink_to("a.md")


def _chain(project: Path, outside: Path) -> None:
    (project / "models/first.md").symlink_to("../second.md")
    (project / "second.md").symlink_to(outside / "secret.txt")


def _by_folder(project: Path, outside: Path) -> None:
    (project / "docs").symlink_to(outside)
    (project / "models/leak.md").symlink_to("../docs/secret.txt")


def _socket(project: Path, _: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server, contextlib.chdir(project / "models"):
        server.bind("s.md")


TRAPS = [
    Trap("environ of the publisher", lambda project, _: (project / "models/leak.md").symlink_to("/proc/self/environ")),
    Trap("environ of another process", lambda project, _: (project / "models/leak.md").symlink_to(f"/proc/{os.getppid()}/environ")),
    Trap("absolute file", lambda project, outside: (project / "models/leak.md").symlink_to(outside / "secret.txt")),
    Trap("relative file", lambda project, _: (project / "models/leak.md").symlink_to("../../outside/secret.txt")),
    Trap("absolute folder", lambda project, outside: (project / "docs").symlink_to(outside)),
    Trap("relative folder", lambda project, _: (project / "models/more").symlink_to("../../outside")),
    Trap("the folder that dbt searches", lambda project, outside: (project / "macros").symlink_to(outside)),
    Trap("a link to a link", _chain),
    Trap("through a linked folder", _by_folder),
    Trap("the root", lambda project, _: (project / "all").symlink_to("/")),
    Trap("the parent", lambda project, _: (project / "up").symlink_to("..")),
    Trap("a sibling with the same beginning", lambda project, _: (project / "x.md").symlink_to("../shop-of-others/x.md")),
    Trap("left-out file", lambda project, _: (project / "models/leak.md").symlink_to("../.env")),
    Trap("file of a left-out folder", lambda project, _: (project / "models/leak.md").symlink_to("../.aws/credentials")),
    Trap("profiles", lambda project, _: (project / "models/leak.yml").symlink_to("../profiles.yml")),
    Trap("a link to itself", _loop),
    Trap("named pipe", lambda project, _: os.mkfifo(project / "models/pipe.sql")),
    Trap("socket", _socket),
    Trap("device", lambda project, _: (project / "models/null.sql").symlink_to("/dev/null")),
    Trap("standard input", lambda project, _: (project / "models/stdin.sql").symlink_to("/dev/stdin")),
]
SECRET = "a secret of the publisher"


def trapped(folder: Path, trap: Trap) -> Path:
    write(folder / "outside", {"secret.txt": SECRET, "dbt_project.yml": "name: outside"})
    write(folder / "shop-of-others", {"x.md": SECRET})
    project = write(folder / "shop", {"dbt_project.yml": "name: shop", "models/a.sql": "select 1", ".env": SECRET, "profiles.yml": SECRET})
    write(project, {".aws/credentials": SECRET})
    trap.make(project, folder / "outside")
    return project


@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.name)
@pytest.mark.attack("links")
def test_nothing_leads_out_of_the_project(tmp_path: Path, trap: Trap) -> None:
    project = trapped(tmp_path, trap)
    with pytest.raises(TypedError) as raised:
        stage.stage(stage.read_project(project), tmp_path / "copy")
    assert raised.value.kind is INVALID_REQUEST
    assert str(project) in raised.value.message and SECRET not in raised.value.message


@pytest.mark.parametrize(
    "trap", [trap for trap in TRAPS if trap.name in ("absolute file", "relative folder", "a link to a link", "left-out file")]
)
@pytest.mark.control("links")
def test_where_links_are_followed_the_secret_is_in_the_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trap: Trap) -> None:
    monkeypatch.setattr(tree._Walk, "_target", lambda self, link, name: link.resolve())
    monkeypatch.setattr(stage, "_searched", lambda root: None)
    project = trapped(tmp_path, trap)
    stage.stage(stage.read_project(project), tmp_path / "copy")
    assert any(SECRET in path.read_text() for path in (tmp_path / "copy").rglob("*") if path.is_file())


def test_links_inside_of_the_project_and_to_its_local_packages_are_replaced_by_their_targets(tmp_path: Path) -> None:
    write(tmp_path / "shared", {"dbt_project.yml": "name: shared", "macros/m.sql": "shared macro"})
    project = write(
        tmp_path / "shop", {"dbt_project.yml": "name: shop\nmodel-paths: [linked]", "packages.yml": "packages: [{local: ../shared}]"}
    )
    write(project, {"src/a.sql": "select 1", "src/sub/b.sql": "select 2"})
    (project / "linked").symlink_to("src")
    (project / "src/again").symlink_to("sub")
    (project / "one.sql").symlink_to("../shared/macros/m.sql")
    copy = stage.stage(stage.read_project(project), tmp_path / "copy").project.root
    assert (copy / "one.sql").read_text() == "shared macro"
    assert (copy / "linked/a.sql").read_text() == "select 1" and not (copy / "linked/a.sql").is_symlink()
    # dbt follows a link that it searches, and none below it.
    assert (copy / "linked/sub/b.sql").is_file() and not (copy / "linked/again").exists()


def _swap_file(path: Path, outside: Path) -> None:
    path.unlink()
    path.symlink_to(outside / "a.sql")


def _swap_folder(path: Path, outside: Path) -> None:
    path.parent.rename(path.parent.with_name("before"))
    path.parent.symlink_to(outside)


def _swap_for_pipe(path: Path, _: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _swap_for_folder(path: Path, _: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("swap", [_swap_file, _swap_folder, _swap_for_pipe, _swap_for_folder])
@pytest.mark.attack("links")
def test_a_link_that_appears_while_the_project_is_copied_is_not_followed(tmp_path: Path, swap: Callable[[Path, Path], None]) -> None:
    write(tmp_path / "outside", {"a.sql": SECRET})
    project = write(tmp_path / "shop", {"dbt_project.yml": "name: shop", "models/a.sql": "select 1"})
    path = stage.files(project)["models/a.sql"]
    swap(path, tmp_path / "outside")
    with pytest.raises(TypedError, match="was replaced while it was published"):
        tree.copy(path, tmp_path / "copied")
    assert not (tmp_path / "copied").exists() or not (tmp_path / "copied").read_bytes()


@pytest.mark.parametrize("swap", [_swap_file, _swap_folder])
@pytest.mark.control("links")
def test_a_plain_open_follows_it(tmp_path: Path, swap: Callable[[Path, Path], None]) -> None:
    write(tmp_path / "outside", {"a.sql": SECRET})
    project = write(tmp_path / "shop", {"dbt_project.yml": "name: shop", "models/a.sql": "select 1"})
    path = stage.files(project)["models/a.sql"]
    swap(path, tmp_path / "outside")
    assert path.read_text() == SECRET


@pytest.mark.parametrize(
    "name",
    [
        *(".env", ".ENV", ".env.prod", ".envrc", ".netrc", ".pgpass", ".aws/credentials", ".ssh/config", "keys/id_rsa", "id_ed25519"),
        *("prod.p12", "k.PFX", "terraform.tfstate", "prod.tfvars", ".git/config", "w.duckdb", "w.duckdb.wal", "profiles.yml", ".npmrc"),
    ],
)
@pytest.mark.attack("secrets in a release")
def test_files_that_hold_credentials_by_their_names_are_left_out(tmp_path: Path, name: str) -> None:
    write(tmp_path, {"dbt_project.yml": "name: shop", "models/orders.duckdb.sql": "select 1", name: SECRET})
    assert sorted(stage.files(tmp_path)) == ["dbt_project.yml", "models/orders.duckdb.sql"]


# --- what dbt's process may do ---------------------------------------------------------------------------------------

DEEDS = {
    "write": "open(outside + '/written', 'w')",
    "append": "open(outside + '/a.txt', 'a')",
    "write by descriptor": "os.open(outside + '/written', os.O_WRONLY | os.O_CREAT)",
    "write through a link": "os.symlink(outside, own + '/link'); open(own + '/link/written', 'w')",
    "write through dots": "open(own + '/../outside/written', 'w')",
    "remove": "os.remove(outside + '/a.txt')",
    "rename away": "os.rename(outside + '/a.txt', own + '/a.txt')",
    "rename there": "open(own + '/x', 'w').close(); os.rename(own + '/x', outside + '/written')",
    "link there": "os.symlink('/etc/passwd', outside + '/written')",
    "folder": "os.mkdir(outside + '/written')",
    "mode": "os.chmod(outside + '/a.txt', 0o777)",
    "read": "open(outside + '/a.txt').read()",
    "read by descriptor": "os.open(outside + '/a.txt', os.O_RDONLY)",
    "read of the parent": f"open('/proc/{os.getpid()}/environ').read()",
    "program": "subprocess.run(['/bin/true'])",
    "shell": "os.system('true')",
    "fork": "os.fork()",
    "exec": "os.execv('/bin/true', ['true'])",
    "kill": f"os.kill({os.getpid()}, 0)",
    "connection": "socket.create_connection(('127.0.0.1', 9), 0.1)",
    "name look-up": "socket.getaddrinfo('example.org', 80)",
    "datagram": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))",
}


def _do(deed: str, folder: Path, *, confined: bool) -> subprocess.CompletedProcess[str]:
    own, outside = folder / "own", folder / "outside"
    for path in (own, outside):
        path.mkdir()
    (outside / "a.txt").write_text(SECRET)
    code = f"import os, socket, subprocess, sys; own, outside = {str(own)!r}, {str(outside)!r}\n"
    if confined:
        code += "from dbt_runner import confinement; confinement.confine(writable=[own], hidden=[outside])\n"
    code += f"open(own + '/allowed', 'w').write('x'); open(own + '/allowed').read()\n{DEEDS[deed]}\n"
    return subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("deed", DEEDS)
@pytest.mark.attack("dbt's parse")
def test_a_confined_process_reaches_only_its_own_folder(tmp_path: Path, deed: str) -> None:
    done = _do(deed, tmp_path, confined=True)
    assert done.returncode == 1 and "PermissionError" in done.stderr and "while a project is parsed" in done.stderr
    assert [path.name for path in (tmp_path / "outside").iterdir()] == ["a.txt"]
    assert (tmp_path / "outside/a.txt").read_text() == SECRET


@pytest.mark.control("dbt's parse")
def test_without_confinement_the_same_deeds_succeed(tmp_path: Path) -> None:
    # Not those that need a network, or end the process by another's code.
    for number, deed in enumerate(sorted(DEEDS.keys() - {"connection", "name look-up", "fork", "datagram"})):
        (tmp_path / str(number)).mkdir()
        done = _do(deed, tmp_path / str(number), confined=False)
        assert done.returncode == 0, (deed, done.stderr)


def test_a_confined_process_reads_its_modules_also_by_links_and_what_is_made_visible(tmp_path: Path) -> None:
    write(tmp_path / "home", {"cache/mod.py": "found = 1", "shop/a.sql": "select 1", "secret": SECRET})
    (tmp_path / "home/site").mkdir()
    (tmp_path / "home/site/mod.py").symlink_to("../cache/mod.py")
    home = str(tmp_path / "home")
    code = f"""
import sys; sys.path.append({home!r} + '/site')
from dbt_runner import confinement
confinement.confine(writable=[], hidden=[{home!r}], visible=[{home!r} + '/shop'], modules=[{home!r} + '/site'])
import mod; open({home!r} + '/shop/a.sql').read(); open('/etc/hosts').read(); open('/proc/self/status').read()
try:
    open({home!r} + '/secret')
except PermissionError:
    print(mod.found)
"""
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "1\n", done.stderr


@pytest.mark.attack("dbt's parse")
def test_jinja_writes_no_file_of_the_publisher(tmp_path: Path) -> None:
    project = write(
        tmp_path / "shop", {"dbt_project.yml": "name: shop", "models/writer.sql": WRITER.replace("PATH", str(tmp_path / "written"))}
    )
    done = parse(project, tmp_path / "work")
    assert not (tmp_path / "written").exists()
    assert "may not be written while a project is parsed" in done.refusal


@pytest.mark.parametrize(
    "written", ["", "[]", "{}", '{"unreadable": 1, "missing": 2}', '{"unreadable": null, "more": []}', "[" * 100_000, "\x00\xff", "null"]
)
@pytest.mark.attack("dbt's parse")
def test_a_report_that_jinja_wrote_ends_typed(tmp_path: Path, written: str) -> None:
    (tmp_path / "report.json").write_text(written)
    assert "dbt's process left a report that is none" in str(release_parse.Report.read(tmp_path / "report.json").unreadable)


@pytest.mark.parametrize("at", [0, 1, 31, 32, 33, 60, 64, 90, 200])
@pytest.mark.attack("secrets in a release")
def test_a_secret_in_a_large_file_is_found_wherever_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    monkeypatch.setattr(publish, "_PIECE", 64)
    monkeypatch.setattr(publish, "_OVERLAP", 48)
    secret = SECRETS["GITHUB_TOKEN"]
    (tmp_path / "seed.csv").write_text(("." * at + secret).ljust(256, "."))
    contents = list(publish._contents(tmp_path, b"{}", checkout.Git()))
    with pytest.raises(TypedError, match=r"seed\.csv holds the value of GITHUB_TOKEN"):
        Publisher.of(SECRETS).check(contents)


@pytest.mark.control("dbt's parse")
def test_jinja_writes_where_it_likes_without_confinement(uncontained: Parsed, tmp_path_factory: pytest.TempPathFactory) -> None:
    (written,) = tmp_path_factory.getbasetemp().glob("uncontained0/written")
    assert written.read_text() == "written by Jinja"


# --- git -------------------------------------------------------------------------------------------------------------


def _disguised(folder: Path) -> Path:
    """A project that is a bare repository as well, whose settings name a program for git to run."""
    project = write(folder / "shop", {"dbt_project.yml": "name: shop"})
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    subprocess.run(["git", "init", "-q", "--bare", str(project)], env=environment, check=True)
    program = write(folder, {"program": f"#!/bin/sh\ntouch {folder}/ran\n"}) / "program"
    program.chmod(0o755)
    for setting in (("core.bare", "false"), ("core.worktree", str(project)), ("core.fsmonitor", str(program))):
        subprocess.run(["git", "--git-dir", str(project), "config", *setting], env=environment, check=True)
    ours = (
        "git",
        "--git-dir",
        str(project),
        "--work-tree",
        str(project),
        "-c",
        "core.fsmonitor=false",
        "-c",
        "user.name=a",
        "-c",
        "user.email=a@b",
    )
    for command in (("add", "dbt_project.yml"), ("-c", "commit.gpgsign=false", "commit", "-q", "-m", "all")):
        subprocess.run([*ours, *command], env=environment, check=True)
    return project


@pytest.mark.attack("git")
def test_a_project_that_looks_like_a_repository_runs_no_program(tmp_path: Path) -> None:
    checkout.read(_disguised(tmp_path))
    assert not (tmp_path / "ran").exists()


@pytest.mark.control("git")
def test_without_the_settings_it_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkout, "_SAFE", ())
    checkout.read(_disguised(tmp_path))
    assert (tmp_path / "ran").exists()


PROGRAM = "touch ran; git-upload-pack"


def _fetch(folder: Path, environment: dict[str, str]) -> bool:
    """Whether a repository that lies in the project runs a program, when its revision is an option, as dbt gives it to git."""
    work = folder / "work"
    quiet = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null"}
    subprocess.run(["git", "init", "-q", "--bare", str(folder / "hostile")], env=quiet, check=True)
    subprocess.run(["git", "init", "-q", str(work)], env=quiet, check=True)
    subprocess.run(["git", "-C", str(work), "remote", "add", "origin", f"file://{folder}/hostile"], env=quiet, check=True)
    command = ["git", "fetch", "origin", "--depth", "1", "--tags", f"--upload-pack={PROGRAM}"]
    subprocess.run(command, cwd=work, env=environment, capture_output=True, check=False)
    return (work / "ran").exists()


@pytest.mark.attack("git")
def test_a_repository_in_the_project_runs_no_program(tmp_path: Path) -> None:
    assert not _fetch(tmp_path, Publisher.of(os.environ).packages_environment(tmp_path))


@pytest.mark.control("git")
def test_with_all_protocols_it_does(tmp_path: Path) -> None:
    assert _fetch(tmp_path, {**os.environ})


@pytest.mark.parametrize("name", ["dbt_project.yml", "packages.yml", "package-lock.yml"])
@pytest.mark.attack("links")
def test_no_message_quotes_a_file_that_a_link_leads_to(tmp_path: Path, name: str) -> None:
    write(tmp_path / "home", {"credentials": f"[default]\naws_secret_access_key = '{SECRET}"})
    project = write(tmp_path / "shop", {"dbt_project.yml": "name: shop", "packages.yml": "packages: [{package: a/b, version: 1.0.0}]"})
    write(project, {"dbt_packages/b/dbt_project.yml": "name: b"})
    (project / name).unlink(missing_ok=True)
    (project / name).symlink_to(tmp_path / "home/credentials")
    (tmp_path / "work").mkdir()
    with pytest.raises(TypedError) as raised:
        publish.pack(project, "1.0.0", "duckdb", tmp_path / "work", lambda _: None)
    assert name in raised.value.message and SECRET not in raised.value.message and "aws_secret" not in raised.value.message


# --- the listing's own inputs ----------------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(confinement, "confine", lambda **_: None)
    yield


HOSTILE_FILES = {
    "models/latin.yml": ("models: [{name: größe}]".encode("latin-1"), "models/latin.yml is not UTF-8: byte 0xf6 in line 1"),
    "models/second.sql": (b"select 1\n-- \xff", "models/second.sql is not UTF-8: byte 0xff in line 2"),
    "models/nul.yml": (b"models:\n- {name: a\0b}", "models/nul.yml holds a NUL in line 2"),
    "models/utf16.yml": ("models: []".encode("utf-16"), "models/utf16.yml is not UTF-8"),
    "models/bomb.yml": (
        ("a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}]\n" for n in range(1, 30))).encode(),
        "models/bomb.yml holds more than 1,000,000 values",
    ),
    "models/merges.yml": (
        ("a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 40))).encode(),
        "models/merges.yml holds more than 1,000,000 values",
    ),
    "models/itself.yml": (b"a: &a [*a]", "models/itself.yml holds more than 1,000,000 values"),
    "models/deep.yml": (b"a: " + b"[" * 100_000, "models/deep.yml nests its values more than 200 deep"),
    "models/dashes.yml": (b"- " * 100_000 + b"a", "models/dashes.yml nests its values more than 200 deep"),
    "models/block.yml": ("".join(" " * n + "a:\n" for n in range(500)).encode(), "models/block.yml nests its values more than 200 deep"),
}


@pytest.mark.parametrize("name", HOSTILE_FILES)
@pytest.mark.attack("a project's files")
def test_a_file_that_dbt_would_choke_on_is_refused_by_name(tmp_path: Path, name: str) -> None:
    content, says = HOSTILE_FILES[name]
    (tmp_path / "file").with_suffix(Path(name).suffix).write_bytes(content)
    with pytest.raises(TypedError) as raised:
        release_parse._readable((tmp_path / "file").with_suffix(Path(name).suffix), name)
    assert raised.value.message.startswith(says)


@pytest.mark.parametrize("name", [name for name in HOSTILE_FILES if name.endswith(".yml")])
@pytest.mark.attack("a project's files")
def test_a_hostile_project_file_is_refused_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "dbt_project.yml").write_bytes(HOSTILE_FILES[name][0])
    with pytest.raises(TypedError) as raised:
        stage.read_project(tmp_path)
    assert raised.value.kind is INVALID_REQUEST and f"{tmp_path}/dbt_project.yml" in raised.value.message


@pytest.mark.control("a project's files")
def test_honest_yaml_with_anchors_passes(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text("defaults: &d {tags: [a]}\nmodels: [{name: a, config: *d}, {name: größe, config: {<<: *d}}]\n")
    release_parse._readable(tmp_path / "a.yml", "a.yml")
