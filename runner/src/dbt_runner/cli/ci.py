"""`dbt-runner ci`: a pull request's tree against the release that is current."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from dbt_runner import admission, ci, release
from dbt_runner.cli import aws
from dbt_runner.cli.common import common_options, env_option, json_object, open_here, print_json, project_option
from dbt_runner.errors import TypedError
from dbt_runner.request import CURRENT, check_caller, validate_input
from dbt_runner.runs import RunDetail


@click.command("ci")
@project_option
@click.option(
    "--schema-suffix",
    required=True,
    metavar="SUFFIX",
    help="What the schemas that are built into end in, such as pr_12: 1 to 30 of a-z, 0-9, _.",
)
@click.option(
    "--defer-to", default=CURRENT, show_default=True, metavar="VERSION", help="The release to compare with, and to take the rest from."
)
@click.option(
    "--command",
    "-c",
    "commands",
    multiple=True,
    default=ci.COMMANDS,
    show_default=True,
    help="A dbt command; again for another one after it.",
)
@click.option("--vars", "vars_", metavar="JSON", help="dbt's --vars as a JSON object, also for the parse.")
@env_option
@click.option("--full-refresh", is_flag=True, help="Rebuild incremental models and seeds from scratch.")
@click.option("--reason", help="Why, for the audit; such as the pull request's address.")
@click.option(
    "--patience",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    metavar="MINUTES",
    help="For how long to try again while another run holds the environment.",
)
@click.option(
    "--junit", type=click.Path(path_type=Path), default=Path("target/dbt-ci.xml"), show_default=True, help="Where to write the JUnit XML."
)
@click.option(
    "--summary", type=click.Path(path_type=Path), default=Path("target/dbt-ci.md"), show_default=True, help="Where to write the summary."
)
@click.option("--interval", type=click.FloatRange(min=0.1), default=1.0, show_default=True, help="Seconds between two looks at the run.")
@common_options
def ci_command(
    *,
    table: str | None,
    environment: str,
    as_json: bool,
    project: Path,
    schema_suffix: str,
    defer_to: str,
    commands: Sequence[str],
    vars_: str | None,
    env: Sequence[str],
    full_refresh: bool,
    reason: str | None,
    patience: float,
    junit: Path,
    summary: Path,
    interval: float,
) -> None:
    """Checks a pull request: builds what it changes beside the current release, into schemas of its own.

    The project is published as a release that cannot be promoted (ci-...). A run of it compares with the current release, builds the
    nodes that differ and those behind them, and takes all others from the environment's own tables. Nothing else changes. The exit
    code is that of the run's error; a project that differs in no node passes.

    The result is written as JUnit XML and as Markdown, the latter also to $GITHUB_STEP_SUMMARY where that is set.
    """
    from dbt_runner import profile, publish
    from dbt_runner.publisher import Publisher

    def say(text: str) -> None:
        click.echo(text, err=True)

    def watch(details: Iterator[RunDetail]) -> RunDetail:
        from dbt_runner.cli import progress

        return progress.show_progress(details, stream=sys.stderr)

    variables = json_object("--vars", vars_)
    document = ci.request("ci-0", commands, defer_to, schema_suffix, vars=variables, full_refresh=full_refresh, reason=reason)
    validate_input(document)
    Publisher.of(os.environ, env)
    version: str | None = None
    try:
        with aws.aws_errors():
            here = open_here(table, environment)
            check_caller(here.config, document)
            # Before anything is published that could not run here.
            admission.check_name(here.config, f"{release.CI_PREFIX}{'0' * release.CI_DIGITS}", "release")
            adapter = publish.choose_adapter(None, here.config.warehouse.type)
            author = aws.caller()
            done = publish.publish(
                here.store,
                project,
                release.CI,
                adapter=adapter,
                author=author,
                on_progress=say,
                vars=variables,
                with_profiles=here.config.warehouse.profile == profile.FROM_PROJECT,
                publisher=Publisher.of(os.environ, env, aws.credentials()),
            )
            version = document["release"] = done.release.version
            say(f"{'published' if done.new else 'already published:'} {version}")
            detail = ci.run(
                here.store,
                here.stepfunctions,
                here.config,
                document,
                watch=watch,
                say=say,
                patience_seconds=patience * 60,
                interval=interval,
            )
            check = ci.judged(environment, version, detail)
    except TypedError as exc:
        check = ci.refused(environment, version, exc)
    _report(check, junit, summary, as_json)
    sys.exit(check.exit_code)


def _report(check: ci.Check, junit: Path, summary: Path, as_json: bool) -> None:
    from dbt_runner import ci_report

    text = ci_report.markdown(check)
    for path, body in ((junit, ci_report.junit(check)), (summary, text.encode())):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    if step_summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        with open(step_summary, "a", encoding="utf-8") as file:
            file.write(text)
    if as_json:
        detail = dataclasses.asdict(check.detail) if check.detail else {"run": None, "outcomes": [], "nodes": []}
        about = {"passed": check.passed, "error": check.error, "message": check.message, "release": check.release}
        print_json({**about, "junit": str(junit), "summary": str(summary), **detail})
        return
    click.echo(text, nl=False)
    if check.error:
        click.echo(f"dbt-runner: {check.error}: {check.message}", err=True)
