"""What a person sees when a command fails in a way that nobody foresaw."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import click
import pytest

from dbt_runner import cli


@pytest.mark.parametrize("exc", [KeyError("model.shop.a"), ValueError("a\nb \ud83d"), RecursionError(), OSError(28, "No space left")])
def test_an_unforeseen_exception_is_one_line_and_its_traceback_is_in_a_file(
    exc: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    @click.command()
    def fails() -> None:
        raise exc

    monkeypatch.setattr(cli, "cli", click.Group(commands={"fails": fails}))
    monkeypatch.setattr(sys, "argv", ["dbt-runner", "fails"])
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.startswith(f"dbt-runner: Dbt.RunnerError: {type(exc).__name__}: ") and "Traceback" not in said
    [path] = re.findall(r"and (\S+)\)$", said.strip())
    assert "Traceback" in Path(path).read_text() and Path(path).stat().st_mode & 0o077 == 0


def test_where_no_file_can_be_written_the_line_is_said_all_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(**_: object) -> None:
        raise KeyError("x")

    monkeypatch.setattr(cli, "cli", fails)
    monkeypatch.setattr("tempfile.tempdir", "/proc/nowhere")
    with pytest.raises(SystemExit):
        cli.main()
    assert (
        capsys.readouterr().err
        == "dbt-runner: Dbt.RunnerError: KeyError: 'x' (a bug of dbt-runner: report it with the command that you ran)\n"
    )
