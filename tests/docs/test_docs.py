"""The pages say what is true: their links lead somewhere, their commands exist, their errors, statements and figures are the code's."""

from __future__ import annotations

import itertools
import json
import re
import shlex
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import click
import pytest
from moto import mock_aws

from asl import containers, render
from asl.ended import ENDED, FAILED, leave, node
from asl.endings import event
from asl.fakes import EXECUTION, OTHER_EXECUTION, RUN_ID, RUN_KEY, SUCCEEDS, Attempt, Cloud, config, fails, make_cloud
from dbt_runner.cli import cli
from dbt_runner.costs import load_prices, transitions_of
from dbt_runner.errors import ERRORS, ErrorKind
from runner.report_runs import run_of, step_of
from terraform.tool import ROOT, Terraform, environment

# What tools write into a checkout, and what is none of ours.
NOT_OURS = {"target", "logs", "build", "dist", "dbt_packages", "node_modules"}
OPERATIONS = ROOT / "docs" / "operations.md"


def pages() -> list[Path]:
    """Every page of the checkout, without hidden folders and what tools write."""

    def ours(folder: Path) -> Iterator[Path]:
        for entry in sorted(folder.iterdir()):
            if entry.is_dir() and not entry.name.startswith(".") and entry.name not in NOT_OURS and not entry.name.endswith(".egg-info"):
                yield from ours(entry)
            elif entry.suffix == ".md":
                yield entry

    return list(ours(ROOT))


PAGES = pages()


def name_of(page: object) -> str:
    return str(page.relative_to(ROOT)) if isinstance(page, Path) else str(page)


# --- what a page is made of ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """A fenced block: its language ("" for none) and its text, without the indentation of the list that it stands in."""

    language: str
    text: str


FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)[^\n`]*\n(?P<text>.*?)^(?P=indent)```[ ]*$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")


def blocks(text: str) -> list[Block]:
    return [Block(found["language"], textwrap.dedent(found["text"])) for found in FENCE.finditer(text)]


def prose(text: str) -> str:
    """The text without its fenced blocks."""
    return FENCE.sub("", text)


def spans(text: str) -> list[str]:
    """The code in the prose. A span may go over the end of a line."""
    return [" ".join(span.split()) for span in SPAN.findall(prose(text))]


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as the usual renderers make them."""
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", prose(text), re.MULTILINE):
        words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        anchor = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        found.add(next(a for a in (anchor, *(f"{anchor}-{n}" for n in range(1, 100))) if a not in found))
    return found


def test_blocks_spans_and_anchors_are_found() -> None:
    page = "# A `b`\n\n1. x `one\n   two`:\n\n   ```sh\n   ls `x`\n   ```\n\n## Dbt.Error, and: so\n## A b\n"
    assert blocks(page) == [Block("sh", "ls `x`\n")]
    assert spans(page) == ["b", "one two"]
    assert anchors(page) == {"a-b", "dbterror-and-so", "a-b-1"}


# --- links ---------------------------------------------------------------------------------------------------------------


def broken_links(page: Path, root: Path = ROOT) -> list[str]:
    """The relative links of a page that lead to nothing below `root`, or to no heading of a page."""
    text = SPAN.sub("", prose(page.read_text(encoding="utf-8")))
    targets = re.findall(r"\]\(\s*<?([^)\s>]+)>?[^)]*\)", text) + re.findall(r"^ *\[[^]]+\]: +(\S+)", text, re.MULTILINE)
    broken = []
    for target in targets:
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        exists = file.exists() and file.is_relative_to(root)
        if exists and anchor:
            exists = file.suffix == ".md" and anchor in anchors(file.read_text(encoding="utf-8"))
        if not exists:
            broken.append(target)
    return broken


def test_the_pages_are_found() -> None:
    expected = {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "runner/README.md", "docs/operations.md", "docs/adr/0001-state-machine.md"}
    assert expected <= {name_of(page) for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    assert broken_links(page) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "b.md").write_text("# There\n")
    page = tmp_path / "a.md"
    page.write_text(
        "[1](b.md#there) [2](b.md#not) [3](c.md) [4](https://example.com/x) [5](../) `[6](d.md)` [7](#me)\n\n[r]: e.md\n\n# Me\n"
    )
    assert broken_links(page, tmp_path) == ["b.md#not", "c.md", "../", "e.md"]


# --- commands ------------------------------------------------------------------------------------------------------------


Words = tuple[str, ...]


def shell_commands(line: str) -> Iterator[Words]:
    """The commands of a shell line in words: of a pipe, a list or a substitution each by itself, without assignments before it."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="();&|")
    lexer.whitespace_split = True
    words: list[str] = []
    for token in [*lexer, ";"]:
        if set(token) <= set("();&|"):
            yield tuple(itertools.dropwhile(lambda word: re.match(r"[A-Za-z_]\w*=", word), words))
            words = []
        else:
            words.append(token)


def command_lines(text: str) -> Iterator[tuple[Words, bool]]:
    """The `dbt-runner` commands of a page, and whether each is shown in full (in a block) or only mentioned (in the prose)."""
    for block in blocks(text):
        for line in re.sub(r"\\\n\s*", " ", block.text).splitlines():
            # A console's block also holds what commands print; of another block, only what begins like a command is taken for one.
            shell = line.startswith("$ ") if block.language == "console" else block.language == "sh" or line.startswith("dbt-runner ")
            if shell and "dbt-runner" in line:
                yield from ((words, True) for words in shell_commands(line.removeprefix("$ ")) if is_ours(words))
    for span in spans(text):
        if is_ours(tuple(span.split())):
            yield tuple(shlex.split(span)), False


def is_ours(words: Words) -> bool:
    return bool(words) and words[0].rpartition("/")[2] == "dbt-runner"


def problem_with(words: Words, *, in_full: bool = True) -> str | None:
    """What the real command line has against a command; None for nothing. Nothing is run, and no file has to exist.

    Args:
        in_full: whether the command must be complete. One that is not may lack its subcommand and what is required.
    """
    arguments = list(words[1:])
    command: click.Command = cli
    context = click.Context(cli, info_name="dbt-runner")
    while isinstance(command, click.Group) and not (arguments and arguments[0].startswith("-")):
        if not arguments:
            return "lacks a subcommand" if in_full else None
        found = command.get_command(context, arguments[0])
        if found is None:
            return f"no command {arguments[0]}"
        command = found
        context = click.Context(command, info_name=arguments.pop(0), parent=context)
    try:
        values, rest, _ = command.make_parser(context).parse_args(arguments)
    except click.UsageError as exc:
        return exc.format_message()
    if rest:
        return f"too many arguments: {' '.join(rest)}"
    for parameter in command.params:
        given = isinstance(values.get(parameter.name or ""), (str, list, tuple))
        if given and isinstance(parameter.type, (click.Choice, click.IntRange, click.FloatRange)):
            try:
                parameter.type_cast_value(context, values[parameter.name or ""])
            except click.BadParameter as exc:
                return exc.format_message()
        if in_full and parameter.required and parameter.envvar is None and not given:
            return f"lacks {parameter.get_error_hint(context)}"
    return None


COMMANDS = [(page, words, in_full) for page in PAGES for words, in_full in command_lines(page.read_text(encoding="utf-8"))]


def test_the_pages_show_most_commands() -> None:
    shown = {words[1:3] for _, words, in_full in COMMANDS if in_full}
    assert {("release", "publish"), ("release", "promote"), ("local", "run")} <= shown
    assert {"start", "status", "show"} <= {words[0] for words in shown}


@pytest.mark.parametrize(
    ("page", "words", "in_full"), COMMANDS, ids=lambda value: shlex.join(value) if isinstance(value, tuple) else name_of(value)
)
def test_every_command_that_is_shown_exists(page: Path, words: Words, in_full: bool) -> None:
    assert problem_with(words, in_full=in_full) is None


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("dbt-runner rollback", "no command"),
        ("dbt-runner release delete", "no command"),
        ("dbt-runner release", "lacks a subcommand"),
        ("dbt-runner start --job hourly --force", "No such option"),
        ("dbt-runner status last more", "too many"),
        ("dbt-runner list --status open", "is not one of"),
        ("dbt-runner list --limit 0", "0 is not in the range"),
        ("dbt-runner release promote --reason x", "lacks '--version'"),
        ("dbt-runner start --job", "requires an argument"),
    ],
)
def test_a_wrong_command_is_found(line: str, problem: str) -> None:
    assert problem in (problem_with(tuple(line.split())) or "")


def test_commands_are_found_in_blocks_and_in_the_prose() -> None:
    page = """\
```sh
A=1 .venv/bin/dbt-runner list --job x | cat   # dbt-runner no
x=$(dbt-runner show --json) && ls
dbt-runner start --vars '{"a": "b | c"}' \\
  --wait
echo dbt-runner
```
See `dbt-runner
start` and `dbt`.
```console
$ dbt-runner status
dbt-runner says something
```
"""
    assert list(command_lines(page)) == [
        ((".venv/bin/dbt-runner", "list", "--job", "x"), True),
        (("dbt-runner", "show", "--json"), True),
        (("dbt-runner", "start", "--vars", '{"a": "b | c"}', "--wait"), True),
        (("dbt-runner", "status"), True),
        (("dbt-runner", "start"), False),
    ]


def test_every_make_target_that_is_shown_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown = {
        target
        for page in PAGES
        for code in [*(b.text for b in blocks(page.read_text(encoding="utf-8"))), *spans(page.read_text(encoding="utf-8"))]
        for target in re.findall(r"^make ([a-z-]+)", code, re.MULTILINE)
    }
    assert {"demo", "test", "lint"} <= shown
    assert shown - targets == set()


# --- Terraform -----------------------------------------------------------------------------------------------------------


HCL = [
    (page, block.text)
    for page in PAGES
    for block in blocks(page.read_text(encoding="utf-8"))
    if block.language == "hcl" and re.search(r"\b(module|environments)\b", block.text)
]


@pytest.fixture(scope="module")
def terraform(tmp_path_factory: pytest.TempPathFactory) -> Terraform:
    return Terraform(environment(tmp_path_factory.mktemp("terraform")))


@pytest.mark.terraform
@pytest.mark.parametrize(("page", "block"), HCL, ids=lambda value: name_of(value) if isinstance(value, Path) else "block")
def test_every_terraform_block_is_valid_and_formatted(page: Path, block: str, terraform: Terraform, tmp_path: Path) -> None:
    assert terraform.check(tmp_path, "fmt", "-", stdin=block) == block


@pytest.mark.terraform
def test_a_broken_terraform_block_is_found(terraform: Terraform, tmp_path: Path) -> None:
    assert terraform.run(tmp_path, "fmt", "-", stdin='module "dbt" {\n  environments = {\n}\n').returncode != 0


# --- errors --------------------------------------------------------------------------------------------------------------


@cache
def error_sections() -> dict[str, str]:
    """The sections of the runbook that are about an error, by its name."""
    parts = re.split(r"^### +(Dbt\.\w+)\n", OPERATIONS.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_the_runbook_has_a_section_for_every_error_and_for_no_other() -> None:
    assert list(error_sections()) == list(ERRORS)


@pytest.mark.parametrize("kind", ERRORS.values(), ids=lambda kind: kind.name)
def test_a_section_says_the_exit_code_who_acts_and_whether_to_try_again(kind: ErrorKind) -> None:
    facts = error_sections()[kind.name].strip().split("\n\n")[0].replace("\n", " ")
    assert facts.startswith(f"Exit code {kind.exit_code}. Who: ")
    assert [word for word in re.findall(r"\w+", kind.owner) if not re.search(rf"\b{word}\b", facts)] == []
    assert ("Not worth a retry" in facts, "Worth a retry" in facts) == (not kind.retryable, kind.retryable)


def test_no_page_names_an_error_that_does_not_exist() -> None:
    named = {name for page in PAGES for name in re.findall(r"\bDbt\.[A-Z]\w+", page.read_text(encoding="utf-8"))}
    assert named - set(ERRORS) == set()


# --- security ------------------------------------------------------------------------------------------------------------


def test_the_security_page_names_every_statement_of_the_roles() -> None:
    files = [*ROOT.glob("modules/identity/*.tf"), *ROOT.glob("modules/oidc_federation/*.tf")]
    # A statement that goes on in a managed policy has that one's number behind its sid.
    sids = {sid for path in files for sid in re.findall(r'\bsid\s*=\s*"(\w+)(?:\$\{local\.numbers\[count\.index\]\})?"', path.read_text())}
    assert len(sids) > 20
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    assert {sid for sid in sids if f"`{sid}`" not in page} == set()
    # And no other: what is written like a statement in the table of the roles is one.
    table = page.split("## Roles")[1].split("\n## ")[0]
    assert set(re.findall(r"`([A-Z][a-z]\w+)`", table)) - sids == set()


def test_the_security_page_says_what_every_command_needs() -> None:
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*?) \|", page.split("## People and CI")[1].split("\n## ")[0], re.MULTILINE)
    shown = {name for row in rows for name in re.findall(r"`([a-z ]+?)(?: --.*?)?`", row)}
    commands = set()
    for name in cli.list_commands(click.Context(cli)):
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        if isinstance(command, click.Group):
            commands |= {f"{name} {word}" for word in command.list_commands(click.Context(command))}
        elif not command.hidden:
            commands.add(name)
    # The local stack is nobody's account.
    assert {name for name in commands if not name.startswith("local")} - shown == set()
    assert shown - commands == set()


# --- figures -------------------------------------------------------------------------------------------------------------


def steps(number: int) -> dict[str, object]:
    return {"steps": [{"name": f"step-{place}", "commands": ["run"]} for place in range(1, number + 1)]}


def _succeeds(cloud: Cloud, n: int) -> tuple[int, int]:
    return len(cloud.run(steps(n)).states), 0


def _fails(cloud: Cloud, k: int) -> tuple[int, int]:
    return _failing(cloud, str(k), k + 1)


def _fails_at_once(cloud: Cloud, n: int) -> tuple[int, int]:
    return _failing(cloud, "0", n)


def _failing(cloud: Cloud, place: str, number: int) -> tuple[int, int]:
    cloud.attempts[place] = fails("Dbt.ModelError", 10)
    execution = cloud.run(steps(number))
    assert execution.error == "Dbt.ModelError"
    return len(execution.states), len(cloud.finalize(event(execution)).states)


def _refused(cloud: Cloud, n: int) -> tuple[int, int]:
    execution = cloud.run({"job": "nobody"})
    return len(execution.states), len(cloud.finalize(event(execution)).states)


def _held(cloud: Cloud, overlap: str) -> None:
    cloud.put("CONFIG", config=json.dumps(config(overlap=overlap)))
    cloud.hold_lock()
    cloud.statuses[OTHER_EXECUTION] = "RUNNING"


def _skipped(cloud: Cloud, n: int) -> tuple[int, int]:
    _held(cloud, "skip")
    return len(cloud.run(steps(n)).states), 0


def _busy(cloud: Cloud, n: int) -> tuple[int, int]:
    _held(cloud, "fail")
    execution = cloud.run(steps(n))
    return len(execution.states), len(cloud.finalize(event(execution)).states)


def _queued(cloud: Cloud, w: int) -> tuple[int, int]:
    _held(cloud, "queue")
    cloud.on_wait = lambda: cloud.delete("LOCK") if len(cloud.waits) == w else None
    return len(cloud.run(steps(w)).states), 0


def _aborted(cloud: Cloud, n: int) -> tuple[int, int]:
    cloud.hold_lock(EXECUTION, RUN_ID)
    cloud.containers.start(containers.key(RUN_ID, 1, "build", 1)).polls = n
    return 0, len(cloud.finalize(event(status="ABORTED")).states)


# The beginning of a row of the page's table, and what a run of that kind does for the number that the row's letter stands for.
TRANSITIONS: dict[str, Callable[[Cloud, int], tuple[int, int]]] = {
    "succeeds": _succeeds,
    "fails in its k-th step": _fails,
    "fails in the health check": _fails_at_once,
    "is refused for its request": _refused,
    "is skipped": _skipped,
    "is refused as busy": _busy,
    "waits W times": _queued,
    "is aborted": _aborted,
}


@pytest.mark.parametrize("number", [1, 2, 5])
@pytest.mark.parametrize("kind", TRANSITIONS)
def test_a_run_makes_the_transitions_that_the_cost_page_says(kind: str, number: int) -> None:
    page = (ROOT / "docs" / "cost.md").read_text(encoding="utf-8")
    (row,) = [line for line in page.splitlines() if line.startswith(f"| {kind}")]
    run, finalize = (
        sum(int(constant) * (number if letter else 1) for constant, letter in re.findall(r"(\d+)(?: \u00d7 ([NkW]))?", cell))
        for cell in row.split("|")[2:4]
    )
    with mock_aws():
        assert TRANSITIONS[kind](make_cloud(), number) == (run, finalize)


def announced(record: dict[str, str], *owners: str, chat: str = "off") -> int:
    """How many states announce enters for a run, with one failed node for each owner."""
    with mock_aws():
        cloud = make_cloud()
        cloud.definitions["announce.asl.json"] = render.load("announce.asl.json", {**render.SAMPLE, "chat": chat})
        leave(cloud, record, *(node(f"model.shop.{owner}", owner={"S": owner}) for owner in owners))
        return len(cloud.announce(RUN_KEY).states)


def test_announcing_a_run_makes_the_transitions_that_the_cost_page_says() -> None:
    page = (ROOT / "docs" / "cost.md").read_text(encoding="utf-8")
    said = re.search(r"(\d+) more where a job's run succeeded, (\d+) and one for each owner where it failed\n\((\d+) with", page)
    assert said is not None
    assert announced(FAILED, chat="on") == int(said[3])
    assert (announced(ENDED), announced(FAILED), announced(FAILED, "sales", "finance")) == (int(said[1]), int(said[2]), int(said[2]) + 2)


@pytest.mark.parametrize("number", [1, 3])
def test_the_cost_command_counts_the_transitions_of_a_run_as_the_page_does(number: int) -> None:
    told, told_of_failure = announced(ENDED), announced(FAILED)
    checked = step_of("health_check")
    ended = [step_of(f"step-{place}") for place in range(number)]
    with mock_aws():
        assert transitions_of(run_of(steps=(checked, *ended))) == sum(_succeeds(make_cloud(), number)) + told
    with mock_aws():
        assert transitions_of(run_of("FAILED", steps=(checked, *ended))) == sum(_fails(make_cloud(), number)) + told_of_failure
    with mock_aws():
        assert transitions_of(run_of("FAILED", steps=(checked,))) == sum(_fails_at_once(make_cloud(), number)) + told_of_failure
    with mock_aws():
        assert transitions_of(run_of("FAILED", release=None)) == sum(_refused(make_cloud(), number)) + told_of_failure
    with mock_aws():
        assert transitions_of(run_of("SKIPPED")) == sum(_skipped(make_cloud(), number))


def test_a_run_without_the_health_check_saves_what_the_cost_page_says() -> None:
    with mock_aws():
        cloud = make_cloud()
        checked = len(cloud.run(steps(2)).states)
    with mock_aws():
        cloud = make_cloud()
        cloud.put("CONFIG", config=json.dumps(config(health_check={"enabled": False, "compute": "fargate", "timeout_seconds": 60})))
        unchecked = len(cloud.run(steps(2)).states)
    assert f"`health_check = {{ enabled = false }}` saves {checked - unchecked}." in (ROOT / "docs" / "cost.md").read_text(encoding="utf-8")


def test_a_step_that_moves_to_fargate_makes_the_transitions_that_the_cost_page_says() -> None:
    def of(*attempts: Attempt) -> int:
        with mock_aws():
            cloud = make_cloud()
            cloud.attempts["1"] = list(attempts)
            return len(cloud.run({"steps": [{"name": "build", "commands": ["run"], "compute": "lambda", "on_timeout": "fargate"}]}).states)

    more = of(fails("Dbt.Interrupted", 40), SUCCEEDS) - of(SUCCEEDS)
    assert f"one that goes on on Fargate after Lambda {more}." in (ROOT / "docs" / "cost.md").read_text(encoding="utf-8")


def test_the_cost_page_says_how_long_lambda_is_cheaper() -> None:
    prices = load_prices()
    minute = (prices.fargate_vcpu_hour["ARM64"] + 4 * prices.fargate_gb_hour["ARM64"]) / 60
    on_demand, spot = (
        (price - prices.lambda_request) / (2 * prices.lambda_gb_second["ARM64"]) for price in (minute, minute * prices.fargate_spot_factor)
    )
    page = (ROOT / "docs" / "cost.md").read_text(encoding="utf-8")
    said = re.search(r"less than (\d+) seconds, and less than\s+(\d+) seconds where the task is on Spot", page)
    assert said is not None and (int(said[1]), int(said[2])) == (int(on_demand), int(spot))


def test_the_cost_page_reckons_right() -> None:
    page = (ROOT / "docs" / "cost.md").read_text(encoding="utf-8")
    said = re.search(
        r"three steps makes (\d+) transitions a run; in 30 days that is (\d+) runs, ([\d,]+) transitions, \*\*\$([\d.]+)\*\*", page
    )
    assert said is not None
    transitions, runs, total, dollars = (float(figure.replace(",", "")) for figure in said.groups())
    assert (transitions, runs, total) == (17 + 4 * 3 + 8, 30 * 24, transitions * runs)
    assert dollars == round(total * 0.025 / 1000, 2)
