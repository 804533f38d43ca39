"""`dbt-runner report`: a run as one HTML file."""

from __future__ import annotations

import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import click

from dbt_runner import runs
from dbt_runner.cli import aws
from dbt_runner.cli.common import common_options, found_run, open_here, print_json, run_argument
from dbt_runner.cli.guard import unguarded
from dbt_runner.errors import INVALID_REQUEST, TypedError
from dbt_runner.run_records import Run
from dbt_runner.runs import LAST
from dbt_runner.store import Store


@click.command("report")
@run_argument(default=LAST)
@click.option(
    "--output", "-o", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True), help="The file to write; - for standard output."
)
@click.option("--open", "show", is_flag=True, help="Open it in the browser.")
@click.option("--new", "anew", is_flag=True, help="Make it from the audit store, also where the run has published one.")
@common_options
def report_command(*, table: str | None, environment: str, as_json: bool, run: str, output: Path | None, show: bool, anew: bool) -> None:
    """Gets the report of a run: one HTML file that needs nothing else, fit to be sent by mail.

    A run that has ended has mostly published its own. Otherwise it is made now, from what the audit store has.

    RUN is a run id, the beginning of one, or the word last, which is also what it is when it is left out. Without --output it is written
    to <run id>.html in the working directory, with --open alone to a temporary file. --json prints the run's id, the file and its size.
    """
    to_stdout = output is not None and str(output) == "-"
    if to_stdout and (show or as_json):
        raise TypedError(INVALID_REQUEST, "--output -: goes neither with --open nor with --json; give a file")
    from dbt_runner import report

    with aws.aws_errors():
        here = open_here(table, environment)
        found = found_run(here, run)
        page = None if anew else _published(here.store, found)
        if page is None:
            detail = runs.detail_of(here.store, found)
            page = report.render(report.find(report.from_store(here.store, here.config, detail)), now=datetime.now(UTC)).encode()
    if to_stdout:
        _print(page)
        return
    name = f"{found.run_id}.html"
    path = output or (Path(tempfile.mkdtemp(prefix="dbt-report-")) / name if show else Path(name))
    try:
        path.write_bytes(page)
    except OSError as exc:
        raise TypedError(INVALID_REQUEST, f"--output {path}: {exc.strerror}") from exc
    if as_json:
        print_json({"run_id": found.run_id, "status": found.status, "file": str(path), "bytes": len(page)})
    else:
        click.echo(f"{path} ({len(page):,} bytes)")
    if show:
        import webbrowser

        webbrowser.open(path.resolve().as_uri())


def _print(page: bytes) -> None:
    """The page as it is into a file or a pipe; on a terminal like any other text."""
    if sys.stdout.isatty():
        click.echo(page.decode(errors="replace"), nl=False)
    else:
        click.echo(page, nl=False, file=unguarded(sys.stdout))


def _published(store: Store, run: Run) -> bytes | None:
    """The report that the run's last attempt has published; None where there is none, or the run has ended otherwise than that says."""
    from dbt_runner import report

    if not run.closed or run.artifacts is None:
        return None
    with tempfile.TemporaryDirectory(prefix="dbt-report-") as folder:
        path = Path(folder, report.FILE)
        if not store.download(run.artifacts.partition("//")[2].partition("/")[2] + report.FILE, path):
            return None
        page = path.read_bytes()
    return page if report.is_of(page, run) else None
