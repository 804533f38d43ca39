"""`dbt-runner release`: publish a dbt project, and say which release an environment runs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from dbt_runner import config, release
from dbt_runner.cli.aws import aws_errors, client, open_store
from dbt_runner.errors import INVALID_REQUEST, TypedError

_version = click.option("--version", "-V", required=True, help="The release's version, such as 1.4.2.")
_table = click.option("--table", envvar="DBT_RUNNER_TABLE", show_envvar=True, help="The audit table.")
_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


@click.group("release")
def release_command() -> None:
    """Publishes releases, and moves an environment from one to another."""


@release_command.command("publish")
@click.option(
    "--project",
    type=click.Path(path_type=Path),
    default=Path("."),
    show_default="the working directory",
    help="The dbt project's folder.",
)
@_version
@click.option(
    "--environment",
    "-e",
    envvar="DBT_RUNNER_ENVIRONMENT",
    show_envvar=True,
    help="An environment that will run it: says the warehouse type and the bucket. The release is for all environments.",
)
@_table
@click.option("--bucket", envvar="DBT_RUNNER_BUCKET", show_envvar=True, help="The audit bucket; the environment knows it too.")
@click.option("--adapter", help="The warehouse type to parse for, such as snowflake.")
@_json
def publish_command(
    project: Path, version: str, environment: str | None, table: str | None, bucket: str | None, adapter: str | None, as_json: bool
) -> None:
    """Publishes a dbt project as an immutable release.

    The project's packages are installed and become part of it. The project has to parse; the warehouse is not contacted.
    """
    from dbt_runner import publish

    release.check_version(version)
    with aws_errors():
        target = config.load(open_store(table), environment) if environment else None
        bucket = bucket or (target.bucket if target else None)
        if bucket is None:
            raise TypedError(
                INVALID_REQUEST,
                "set DBT_RUNNER_BUCKET or --bucket to the audit bucket, or name an environment (--environment): "
                "terraform output -json cli says both",
            )
        chosen = publish.choose_adapter(adapter, target.warehouse.type if target else None)
        published = publish.publish(
            open_store(table, bucket),
            project,
            version,
            adapter=chosen,
            author=_caller(),
            on_progress=lambda line: click.echo(line, err=True),
        )
    about = published.release
    if as_json:
        click.echo(json.dumps({**asdict(about), "new": published.new}, indent=2))
        return
    counts = ", ".join(f"{number} {kind}" for kind, number in about.counts.items()) or "nothing to run"
    done = "published" if published.new else "already published, with the same content:"
    click.echo(f"{done} {version} of project {about.project}: {counts}")
    click.echo(f"sha256 {about.digest}, {about.size:,} bytes, dbt {about.dbt_version}, parsed for {about.adapter}, by {about.author}")


@release_command.command("promote")
@_version
@click.option("--environment", "-e", envvar="DBT_RUNNER_ENVIRONMENT", show_envvar=True, required=True, help="The environment.")
@_table
@click.option("--reason", help="Why, for the audit trail.")
@_json
def promote_command(version: str, environment: str, table: str | None, reason: str | None, as_json: bool) -> None:
    """Makes a release the current one of an environment.

    It is effective from the next run on; a run that has started keeps its release. Promoting an earlier version is the
    rollback.
    """
    with aws_errors():
        promotion = release.promote(open_store(table), environment, version, by=_caller(), reason=reason)
    if as_json:
        click.echo(json.dumps(asdict(promotion), indent=2))
    elif promotion.changed:
        before = f"before: {promotion.previous}" if promotion.previous else "its first release"
        click.echo(f"{environment} runs {version} from the next run on ({before})")
    else:
        click.echo(f"{environment} runs {version} already, since {promotion.promoted_at} ({promotion.promoted_by})")


def _caller() -> str:
    arn: str = client("sts").get_caller_identity()["Arn"]
    return arn
