"""`dbt-runner report`: a run as one HTML file."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from pathlib import Path

import click

from dbt_runner import runs
from dbt_runner.cli import aws
from dbt_runner.cli.common import common_options, open_here, print_json
from dbt_runner.errors import INVALID_REQUEST, TypedError
from dbt_runner.runs import LAST


@click.command("report")
@click.argument("run", default=LAST)
@click.option(
    "--output", "-o", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True), help="The file to write; - for standard output."
)
@click.option("--open", "show", is_flag=True, help="Open it in the browser.")
@common_options
def report_command(*, table: str | None, environment: str, as_json: bool, run: str, output: Path | None, show: bool) -> None:
    """Makes the report of a run: one HTML file that needs nothing else, fit to be sent by mail.

    RUN is a run id, the beginning of one, or the word last, which is also what it is when it is left out. Without --output it is written
    to <run id>.html in the working directory, with --open alone to a temporary file. --json prints the run's id, the file and its size.
    """
    to_stdout = output is not None and str(output) == "-"
    if to_stdout and (show or as_json):
        raise TypedError(INVALID_REQUEST, "--output -: goes neither with --open nor with --json; give a file")
    from dbt_runner import report

    with aws.aws_errors():
        here = open_here(table, environment)
        detail = runs.detail_of(here.store, runs.find_run(here.store, here.stepfunctions, here.config, run))
        found = report.find(report.from_store(here.store, here.config, detail))
    page = report.render(found, now=datetime.now(UTC)).encode()
    if to_stdout:
        click.echo(page, nl=False)
        return
    name = f"{detail.run.run_id}.html"
    path = output or (Path(tempfile.mkdtemp(prefix="dbt-report-")) / name if show else Path(name))
    try:
        path.write_bytes(page)
    except OSError as exc:
        raise TypedError(INVALID_REQUEST, f"--output {path}: {exc.strerror}") from exc
    if as_json:
        print_json({"run_id": detail.run.run_id, "status": detail.run.status, "file": str(path), "bytes": len(page)})
    else:
        click.echo(f"{path} ({len(page):,} bytes)")
    if show:
        import webbrowser

        webbrowser.open(path.resolve().as_uri())
