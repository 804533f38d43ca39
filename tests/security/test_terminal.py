"""What others wrote neither drives a terminal nor a CI system, whichever command prints it.

Every command is called as the console script calls it, over records in which every text is hostile, on a terminal and into a pipe.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import io
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import boto3
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from dbt_runner import bundle, ci, ci_report, cli, release, stage
from dbt_runner.cli import aws, guard, terminal
from dbt_runner.errors import RUNNER_ERROR, TypedError
from dbt_runner.runs import RunDetail
from dbt_runner.store import Store
from runner import projects
from runner.conftest import audit_store, environment, no_outside_settings, store
from runner.recorded_runs import LiveAlias, create_machine, node_item, record_outcome, record_run, step_result
from runner.report_runs import node as node_of
from runner.report_runs import run_of
from runner.test_cli_insight import Logs
from security.fuzzing import bounded

__all__ = ["audit_store", "environment", "no_outside_settings", "store"]  # fixtures

ESCAPES = {
    "colour": "\x1b[31m",
    "clear the screen": "\x1b[2J\x1b[H",
    "move the cursor up": "\x1b[10A",
    "set the title": "\x1b]0;evil\x07",
    "hyperlink": "\x1b]8;;https://evil.example\x1b\\click\x1b]8;;\x1b\\",
    "hyperlink, ended by BEL": "\x1b]8;;https://evil.example\x07click",
    "clipboard": "\x1b]52;c;ZXZpbA==\x07",
    "clipboard, without an end": "\x1b]52;c;ZXZpbA==",
    "device control": '\x1bP$q"p\x1b\\',
    "sixel": "\x1bPq#0;2;0;0;0~~\x1b\\",
    "application command": "\x1b_Gf=24;AAAA\x1b\\",
    "privacy message": "\x1b^x\x1b\\",
    "start of string": "\x1bXx\x1b\\",
    "report the position": "\x1b[6n",
    "answer back": "\x05",
    "mouse": "\x1b[?1000h",
    "alternate screen": "\x1b[?1049h",
    "character set": "\x1b(0",
    "shift out": "\x0e",
    "reset": "\x1bc",
    "CSI in eight bits": "\x9b2J",
    "OSC in eight bits": "\x9d52;c;ZXZpbA==\x9c",
    "DCS in eight bits": "\x90x\x9c",
    "lone escape": "\x1b",
    "carriage return": "ok\rBAD",
    "backspace": "BAD\b\b\bok",
    "delete": "a\x7fb",
    "vertical tab and form feed": "a\x0bb\x0cc",
    "bell": "\a",
    "null": "\0",
    "next line": "a\x85b",
    "line separator": "a\u2028b\u2029c",
    "right to left override": "\u202egnp.exe",
    "right to left isolate": "\u2067x\u2069",
    "embeddings": "\u202ax\u202bx\u202cx\u202d",
    "marks of direction": "\u200e\u200f\u061c",
    "byte order mark": "\ufeff",
    "zero width space": "a\u200bb",
    "invisible operators": "a\u2060\u2061\u2062\u2063\u2064b",
    "deprecated format characters": "\u206a\u206f",
    "annotations": "\ufff9a\ufffab\ufffb",
    "tags": "\U000e0001\U000e0041\U000e007f",
    "soft hyphen": "a\u00adb",
    "nested": "\x1b\x1b[31m[31m",
    "half a character": "\ud83d",
}
MARKUP = {"markup": "[bold]x[/bold]", "link in markup": "[link=https://evil.example]click[/link]", "emoji": ":bomb:", "closing tag": "[/]"}
COMMANDS = {
    "error": "\n::error file=a::b",
    "mask": "\n::add-mask::x",
    "output": "\n::set-output name=a::b",
    "environment": "\n  ::set-env name=PATH::b",
    "stop": "\n\t::stop-commands::x",
    "behind an escape": "\n\x1b[0m::error::x",
    "behind a byte order mark": "\n\ufeff::error::x",
    "behind a carriage return": "x\r::error::x",
    "behind a line separator": "x\u2028::error::x",
    "old form": "text ##[error]x",
    "old form, masked": "text #\x00#[error]x",
    "Azure": "text ##vso[task.setvariable variable=a]b",
    "TeamCity": "\n##teamcity[buildStatus status='SUCCESS']",
    "three colons": "\n:::error::x",
}
# What neither a terminal nor a stream's reader may get. Tabs are spaces by then.
BAD = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f\ud800-\udfff]"
)
CI_COMMAND = re.compile(r"^\s*::|##\w*\[", re.MULTILINE)


@pytest.mark.attack("terminal")
@pytest.mark.parametrize("text", [*ESCAPES.values(), *MARKUP.values()], ids=[*ESCAPES, *MARKUP])
def test_a_text_drives_no_terminal(text: str) -> None:
    assert not BAD.search(guard.harmless(f"before {text} after"))
    assert guard.harmless(f"before {text} after").startswith("before ")
    for tty in (True, False):
        screen = Screen(tty)
        rows = terminal.Rows([terminal.Column("Name", cut=True), terminal.Column("Other")], [(text, Text(text))])
        terminal.write(text, Text(text), rows, terminal.facts([("A", text), ("B", Text(text))]), stream=screen)
        assert not BAD.search(screen.unstyled())


@pytest.mark.attack("terminal")
@pytest.mark.parametrize("text", COMMANDS.values(), ids=COMMANDS.keys())
def test_a_text_is_no_command_to_ci(text: str) -> None:
    assert not CI_COMMAND.search(guard.harmless(text))
    stream = io.StringIO()
    guarded = guard.Guarded(stream)
    for piece in ("", "  ", text.lstrip("\n"), "\n", text):
        guarded.write(piece)
    assert not CI_COMMAND.search(stream.getvalue())


@pytest.mark.control("terminal")
@pytest.mark.parametrize("text", [*ESCAPES.values(), *COMMANDS.values()], ids=[*ESCAPES, *COMMANDS])
def test_without_the_guard_it_would(text: str) -> None:
    assert BAD.search(text) or CI_COMMAND.search(text)


@bounded(200)
@given(st.text(st.characters(codec=None), max_size=60))
def test_any_text_comes_out_harmless_and_once_is_enough(text: str) -> None:
    said = guard.harmless(text)
    assert not BAD.search(said) and not CI_COMMAND.search(said)
    assert guard.harmless(said) == said


def test_what_people_write_comes_out_as_it_is() -> None:
    texts = ["naïve café", "日本語", "שלום", "مرحبا", "👩‍👩‍👧 🇩🇪", "a\nb", "select a::int", "x ## heading", "\N{ZERO WIDTH NON-JOINER}"]
    for text in texts:
        assert guard.harmless(text) == text


# JSON is exact


@bounded(80)
@given(
    st.recursive(
        st.text(st.characters(codec=None), max_size=20),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
        max_leaves=6,
    )
)
def test_json_is_the_value_and_harmless(value: Any) -> None:
    text = guard.exact_json(value)
    assert json.loads(text) == value
    assert guard.harmless(text) == text


# Every command


class Screen(io.StringIO):
    """A stream that may say it is a terminal."""

    def __init__(self, tty: bool) -> None:
        super().__init__()
        self._tty = tty

    def isatty(self) -> bool:
        return self._tty

    def unstyled(self) -> str:
        """What was written, without what rich itself writes: colours and the live view's cursor."""
        return (
            re.sub(r"\x1b\[[0-9;]*m|\x1b\[\?25[lh]|\x1b\[[0-9]*[AK]|\x1b\[2K|\r(?=\x1b)", "", self.getvalue())
            if self._tty
            else self.getvalue()
        )


EVIL = "".join(text for name, text in ESCAPES.items() if name not in ("half a character", "clipboard, without an end", "null")) + "".join(
    COMMANDS.values()
)
RUN = "my-run"
STARTED, ENDED = "2026-11-22T10:00:00.000Z", "2026-11-22T10:02:05.000Z"


@pytest.fixture
def hostile(store: Store, environment: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Store:
    """An environment in whose records every text is hostile."""
    stepfunctions = boto3.client("stepfunctions")
    create_machine(stepfunctions)
    logs = Logs()
    logs.write(EVIL, RUN, "2026-11-22T10:01:00.000Z", node=EVIL, more=EVIL, level=EVIL)
    monkeypatch.setattr(
        aws, "client", lambda service: {"stepfunctions": LiveAlias(stepfunctions), "logs": logs, "sts": boto3.client("sts")}[service]
    )
    monkeypatch.setenv("DBT_RUNNER_TABLE", store.table)
    monkeypatch.setenv("DBT_RUNNER_ENVIRONMENT", "prod")
    monkeypatch.chdir(tmp_path)
    record_run(
        store, RUN, STARTED, status="FAILED", error=EVIL, cause=EVIL, ended_at=ENDED, job=EVIL, trigger=EVIL, release="1.4.2", reason=EVIL,
        image=EVIL, git_commit=EVIL, release_digest=EVIL, schema_suffix=EVIL, resumed_from=EVIL,
        results=[step_result("build", {"error": 1, EVIL: 2}, error=EVIL, message=EVIL)],
    )  # fmt: skip
    record_outcome(
        store, RUN, 1, "build", exit_code=10, error=EVIL, message=EVIL, why=EVIL, fault=EVIL, counts={"error": 1, EVIL: 2},
        failures=[{"unique_id": EVIL, "message": EVIL, "status": EVIL, "name": EVIL, "resource_type": EVIL}],
        commands=[{"command": EVIL, "success": False, "selected": 1, "seconds": 1}],
        artifacts=[{"key": EVIL, "sha256": EVIL, "bytes": 1}], versions={EVIL: EVIL}, compute=EVIL, image=EVIL,
        parse={"cache": EVIL, "reason": EVIL}, release={"version": EVIL, "digest": EVIL, "git_commit": EVIL},
    )  # fmt: skip
    for number, status in enumerate(("error", "success", EVIL)):
        item = node_item(
            RUN,
            "build",
            f"n{number}",
            status,
            message=EVIL,
            relation=EVIL,
            thread=EVIL,
            resource_type=EVIL,
            unique_id=f"model.{EVIL}.n{number}",
        )
        store.put({**item, "name": f"n{number}{EVIL}"})
    pk = "ENV#prod"
    store.put(
        {
            "pk": pk,
            "sk": "RELEASE#CURRENT",
            "version": "1.4.2",
            "previous": EVIL,
            "promoted_at": STARTED,
            "promoted_by": EVIL,
            "reason": EVIL,
        }
    )
    store.put(
        {
            "pk": pk,
            "sk": f"PROMOTION#{STARTED}",
            "version": "1.4.2",
            "previous": EVIL,
            "promoted_at": STARTED,
            "promoted_by": EVIL,
            "reason": EVIL,
        }
    )
    for version in ("1.4.2", "1.4.3"):
        published(store, tmp_path, version)
    return store


def published(store: Store, folder: Path, version: str) -> None:
    """A release whose texts are hostile."""
    path = folder / f"{version}.tar.gz"
    bundle.pack(stage.files(projects.write(folder / version, {"dbt_project.yml": "name: tiny"})), path)
    ids = {f"model.shop.{EVIL}{version}": "x", f"model.shop.{EVIL}": version}
    nodes = {
        key: {"unique_id": key, "package_name": EVIL, "resource_type": "model", "checksum": {"checksum": sum_}} for key, sum_ in ids.items()
    }
    manifest = json.dumps({"metadata": {"adapter_type": "duckdb"}, "nodes": nodes}).encode()
    texts = {"project": EVIL, "dbt_version": EVIL, "adapter": EVIL, "author": EVIL, "git_commit": EVIL, "git_branch": EVIL}
    release.commit(store, release.Candidate(version=version, bundle=path, manifest=manifest, git_dirty=True, counts={EVIL: 1}, **texts))


CALLS = {
    "status": ["status"],
    "status of a run": ["status", RUN],
    "status, followed": ["status", RUN, "--follow", "--interval", "0.1"],
    "show": ["show", RUN],
    "show what failed": ["show", RUN, "--nodes", "failed"],
    "list": ["list"],
    "logs": ["logs", RUN],
    "history": ["history", "--node", f"model.{EVIL}.n0"],
    "cost": ["cost", "--month", "2026-11"],
    "report": ["report", RUN],
    "resume": ["resume", RUN],
    "releases": ["release", "list"],
    "a release": ["release", "show", "--version", "1.4.2"],
    "difference of releases": ["release", "diff", "1.4.2", "1.4.3"],
    "promote": ["release", "promote", "--version", "1.4.3", "--reason", EVIL],
    "rollback": ["release", "rollback", "--to", EVIL, "--reason", EVIL],
    "prune": ["release", "prune", "--dry-run"],
    "verify": ["verify", "--run", RUN],
    "verify a release": ["verify", "--version", "1.4.2"],
    "no such run": ["show", EVIL],
    "no such command": [EVIL],
    "no such option": ["show", f"--{EVIL}"],
    "no such job": ["start", "--job", EVIL],
    "bad step": ["start", "--step", EVIL],
    "no such file": ["ci", "--project", f"/nowhere/{EVIL}".replace("\0", ""), "--schema-suffix", EVIL],
    "bad choice": ["list", "--status", EVIL],
}


def printed(arguments: list[str], monkeypatch: pytest.MonkeyPatch, *, tty: bool) -> tuple[Screen, Screen]:
    """What the console script prints."""
    out, err = Screen(tty), Screen(tty)
    monkeypatch.setattr(sys, "argv", ["dbt-runner", *arguments])
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    with contextlib.suppress(SystemExit):
        cli.main()
    monkeypatch.undo()
    return out, err


@pytest.mark.attack("terminal")
@pytest.mark.parametrize("tty", [True, False], ids=["terminal", "pipe"])
@pytest.mark.parametrize("name", CALLS)
def test_no_command_lets_it_through(hostile: Store, monkeypatch: pytest.MonkeyPatch, name: str, tty: bool) -> None:
    out, err = printed(CALLS[name], monkeypatch, tty=tty)
    assert out.getvalue() + err.getvalue()
    for screen in (out, err):
        text = screen.unstyled()
        found = BAD.search(text) or CI_COMMAND.search(text)
        assert not found, text[max(0, found.start() - 80) : found.end() + 20]


@pytest.mark.parametrize("name", ["show", "list", "status of a run", "releases", "a release", "logs"])
def test_json_keeps_every_text(hostile: Store, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    out, _ = printed([*CALLS[name], "--json"], monkeypatch, tty=False)
    assert EVIL in json.dumps(json.loads(out.getvalue()), ensure_ascii=False).replace("\\\\", "\\") or EVIL in texts(
        json.loads(out.getvalue())
    )
    assert not BAD.search(out.getvalue())


def texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for key, inner in value.items() for text in [key, *texts(inner)]]
    if isinstance(value, list):
        return [text for inner in value for text in texts(inner)]
    return [value] if isinstance(value, str) else []


@pytest.mark.control("terminal")
def test_without_the_guarded_streams_an_error_drives_the_terminal(hostile: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "clean", lambda text: text)
    _, err = printed(CALLS["history"], monkeypatch, tty=True)
    assert "\x1b]52;" in err.getvalue()


def test_the_streams_are_what_they_were_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = Screen(False), Screen(False)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    with pytest.raises(TypedError), guard.guarded():
        raise TypedError(RUNNER_ERROR, "x")
    assert (sys.stdout, sys.stderr) == (out, err)


def test_no_module_of_the_command_line_writes_past_the_streams() -> None:
    """What opens a file descriptor, or takes the stream behind the guard, would pass it."""
    allowed = {"guard.py": {"buffer"}, "terminal.py": {"unguarded"}, "report.py": {"unguarded"}}
    folder = Path(cli.__file__).parent
    for path in folder.glob("*.py"):
        names = {
            node.attr if isinstance(node, ast.Attribute) else node.id
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Attribute | ast.Name)
        }
        past = names & {"__stdout__", "__stderr__", "buffer", "unguarded", "open_file", "get_binary_stream", "get_text_stream"}
        assert past <= allowed.get(path.name, set()), path.name


# What a CI system reads as a file


def hostile_check() -> ci.Check:
    nodes = [node_of(f"n{EVIL}", status="error", message=text) for text in [EVIL, *MARKDOWN.values()]]
    run = dataclasses.replace(run_of("FAILED", release="ci-1", defer_to=EVIL, schema_suffix=EVIL, error=EVIL, cause=EVIL))
    return ci.judged("prod", EVIL, RunDetail(run, (), tuple(nodes)))


MARKDOWN = {
    "HTML": "<img src=x onerror=alert(1)>",
    "script": "</code></pre><script>alert(1)</script>",
    "link": "[click](https://evil.example)",
    "image": "![x](https://evil.example/x.png)",
    "scheme": "[x](javascript:alert(1))",
    "address": "https://evil.example www.evil.example",
    "mention": "@octocat @acme/team",
    "reference": "#1 acme/analytics#2 GH-3",
    "backticks": "`` ` ``` x",
    "ends the code": "` <b>x</b> `",
    "table": "a | b | c",
    "escaped pipe": "a \\| b",
    "new row": "a\n| b | c |",
    "heading": "# x\n===",
    "fence": "```\nx\n```",
    "math": "$\\unicode{x}$",
    "comment": "<!-- x",
    "details": "<details open><summary>ok</summary>",
}


@pytest.mark.attack("terminal")
@pytest.mark.parametrize("text", MARKDOWN.values(), ids=MARKDOWN.keys())
@pytest.mark.parametrize("where", ["node", "run"])
def test_a_summary_says_it_and_does_nothing_else(text: str, where: str) -> None:
    nodes = (node_of("a", status="error", message=text),) if where == "node" else ()
    run = run_of("FAILED", release="ci-1", error="Dbt.ModelError", cause=text)
    written = ci_report.markdown(ci.judged("prod", "ci-1", RunDetail(run, (), nodes)))
    outside = re.sub(r"`[^`\n]*`", "", written.replace("<!-- -->", ""))
    assert "`" not in outside
    for piece in ("<", "http", "www", "@", "[x]", "[click]", "javascript", "$", "![", "#1", "GH-3"):
        assert piece not in outside, written
    rows = [line for line in written.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} <= {4}


@pytest.mark.control("terminal")
@pytest.mark.parametrize("text", MARKDOWN.values(), ids=MARKDOWN.keys())
def test_as_it_stands_it_would_be_markdown(text: str) -> None:
    assert re.search(r"[<|@#`$]|https?:|www|\]\(", text)


@pytest.mark.attack("terminal")
def test_junit_is_xml_whatever_it_says() -> None:
    document = ci_report.junit(hostile_check()).decode()
    ElementTree.fromstring(document)
    assert not BAD.search(document)
    assert not BAD.search(ci_report.markdown(hostile_check()))


@pytest.fixture(autouse=True)
def no_terminal_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("FORCE_COLOR", "NO_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    yield
