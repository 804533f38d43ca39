"""`dbt-runner release`: publish a dbt project, and say which release an environment runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import click

from dbt_runner import config, promotion, release
from dbt_runner.cli import aws
from dbt_runner.cli.aws import aws_errors, open_store
from dbt_runner.cli.common import RunReference, env_option, found_run, json_object, open_here, print_json, project_option
from dbt_runner.errors import INVALID_REQUEST, RELEASE_CORRUPT, RUNNER_ERROR, TypedError
from dbt_runner.store import Store

_version = click.option("--version", "-V", required=True, help="The release's version, such as 1.4.2.")
_table = click.option("--table", envvar="DBT_RUNNER_TABLE", show_envvar=True, help="The audit table.")
_bucket = click.option("--bucket", envvar="DBT_RUNNER_BUCKET", show_envvar=True, help="The audit bucket; an environment knows it too.")
_environment = click.option(
    "--environment", "-e", envvar="DBT_RUNNER_ENVIRONMENT", show_envvar=True, required=True, help="The environment."
)
_optional_environment = click.option(
    "--environment", "-e", envvar="DBT_RUNNER_ENVIRONMENT", show_envvar=True, help="Any environment: it knows the bucket."
)
_reason = click.option("--reason", help="Why, for the audit trail.")
_other_project = click.option(
    "--other-project", is_flag=True, help="Also if the release is of another dbt project than the environment's current one."
)
_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


@click.group("release")
def release_command() -> None:
    """Publishes releases, and moves an environment from one to another."""


@release_command.command("publish")
@project_option
@click.option(
    "--version",
    "-V",
    required=True,
    help="The release's version, such as 1.4.2; auto for the version that HEAD is tagged with, or else the commit.",
)
@click.option(
    "--environment",
    "-e",
    envvar="DBT_RUNNER_ENVIRONMENT",
    show_envvar=True,
    help="An environment that will run it: says the warehouse type and the bucket. The release is for all environments.",
)
@_table
@_bucket
@click.option("--adapter", help="The warehouse type to parse for, such as snowflake.")
@click.option("--vars", "vars_", metavar="JSON", help='Variables that the project needs in order to parse, such as {"day": "2026-11-22"}.')
@env_option
@click.option("--with-profiles", is_flag=True, help="Make profiles.yml a part of it, for environments with warehouse.profile = project.")
@_json
def publish_command(
    project: Path,
    version: str,
    environment: str | None,
    table: str | None,
    bucket: str | None,
    adapter: str | None,
    vars_: str | None,
    env: Sequence[str],
    with_profiles: bool,
    as_json: bool,
) -> None:
    """Publishes a dbt project as an immutable release.

    The project's packages are installed and become part of it. The project has to parse; the warehouse is not contacted.
    With --version auto, a checkout with changes that are not committed is refused.

    dbt gets none of your environment variables but those named by --env. A project that holds one of your secrets is refused.
    """
    from dbt_runner import publish
    from dbt_runner.publisher import Publisher

    release.check_version(version)
    variables = json_object("--vars", vars_)
    Publisher.of(os.environ, env)
    with aws_errors():
        target = config.load(open_store(table), environment) if environment else None
        store = _store_with_bucket(table, bucket or (target.bucket if target else None), None)
        chosen = publish.choose_adapter(adapter, target.warehouse.type if target else None)
        published = publish.publish(
            store,
            project,
            version,
            adapter=chosen,
            author=aws.caller(),
            on_progress=lambda line: click.echo(line, err=True),
            vars=variables,
            with_profiles=with_profiles,
            publisher=Publisher.of(os.environ, env, aws.credentials()),
        )
        warnings = _differences(store, target, published.release) if target else []
    about = published.release
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    if as_json:
        print_json({**asdict(about), "new": published.new, "warnings": warnings})
        return
    counts = ", ".join(f"{number} {kind}" for kind, number in about.counts.items()) or "nothing to run"
    done = "published" if published.new else "already published, with the same content:"
    click.echo(f"{done} {about.version} of project {about.project}: {counts}")
    click.echo(f"sha256 {about.digest}, {about.size:,} bytes, dbt {about.dbt_version}, parsed for {about.adapter}, by {about.author}")


@release_command.command("promote")
@_version
@_environment
@_table
@_reason
@_other_project
@_json
def promote_command(version: str, environment: str, table: str | None, reason: str | None, other_project: bool, as_json: bool) -> None:
    """Makes a release the current one of an environment.

    Its files are read first: one that is damaged is refused, and one that is not what the environment ran under this version before.
    It is effective from the next run on; a run that has started keeps its release.
    """
    with aws_errors():
        store = _store_with_bucket(table, None, environment)
        moved = promotion.promote(store, environment, version, by=aws.caller(), reason=reason, other_project=other_project)
    _show_move(moved, as_json)


@release_command.command("rollback")
@click.option("--to", "version", metavar="VERSION", help="To this one, instead of the release that the current one replaced.")
@_environment
@_table
@_reason
@_other_project
@_json
def rollback_command(
    version: str | None, environment: str, table: str | None, reason: str | None, other_project: bool, as_json: bool
) -> None:
    """Makes an earlier release the current one again: nothing is rebuilt, nothing is applied.

    It is effective from the next run on. A second rollback goes one release further back, never forward again.
    """
    with aws_errors():
        store = _store_with_bucket(table, None, environment)
        moved = promotion.rollback(store, environment, version, by=aws.caller(), reason=reason, other_project=other_project)
    _show_move(moved, as_json)


@release_command.command("list")
@click.option("--environment", "-e", envvar="DBT_RUNNER_ENVIRONMENT", show_envvar=True, help="Mark the release that it runs.")
@_table
@_bucket
@click.option("--promotions", is_flag=True, help="Instead, who moved the environment from release to release, when and why.")
@_json
def list_command(environment: str | None, table: str | None, bucket: str | None, promotions: bool, as_json: bool) -> None:
    """Lists the published releases, the newest first.

    A release whose item is damaged is named on standard error, beside the list of all others.
    """
    with aws_errors():
        if promotions:
            if environment is None:
                raise TypedError(INVALID_REQUEST, "set DBT_RUNNER_ENVIRONMENT or --environment: promotions are an environment's")
            moves = promotion.history(open_store(table), environment)[::-1]
            rows = [(move.promoted_at, move.version, move.previous or "", move.promoted_by, move.reason or "") for move in moves]
            _show_table(("PROMOTED AT", "VERSION", "BEFORE", "BY", "WHY"), rows, [asdict(move) for move in moves] if as_json else None)
            return
        store = _store_with_bucket(table, bucket, environment)
        problems, standing = [], None
        try:
            standing = promotion.current(store, environment) if environment else None
        except TypedError as exc:
            problems.append(exc.message)
        found = release.catalog(store)
    current = standing.version if standing else None
    _show_table(
        ("VERSION", "PROJECT", "ADAPTER", "PUBLISHED AT", "COMMIT", "DBT", "BY", ""),
        [
            (
                meta.version,
                meta.project,
                meta.adapter,
                meta.published_at,
                (meta.git_commit or "")[:10],
                meta.dbt_version,
                meta.author,
                f"current in {environment}" if meta.version == current else "",
            )
            for meta in found.releases
        ],
        [{**asdict(meta), "current": meta.version == current} for meta in found.releases] if as_json else None,
    )
    problems += found.damaged.values()
    for problem in problems:
        click.echo(f"warning: {problem}", err=True)


@release_command.command("show")
@_version
@_optional_environment
@_table
@_bucket
@_json
def show_command(version: str, environment: str | None, table: str | None, bucket: str | None, as_json: bool) -> None:
    """Says everything that was recorded about a release."""
    with aws_errors():
        about = release.describe(_store_with_bucket(table, bucket, environment), version)
    if as_json:
        print_json(asdict(about))
        return
    counts = ", ".join(f"{number} {kind}" for kind, number in about.counts.items())
    dirty = " with changes that were not committed" if about.git_dirty else ""
    for label, value in (
        ("Version", about.version),
        ("Project", f"{about.project}: {counts or 'nothing to run'}"),
        ("Published", f"{about.published_at} by {about.author}"),
        ("Git", f"{about.git_commit} ({about.git_branch or 'no branch'}){dirty}" if about.git_commit else "not from a git checkout"),
        ("Parsed by", f"dbt {about.dbt_version} for {about.adapter}"),
        ("Bundle", f"sha256 {about.digest}, {about.size:,} bytes"),
        ("Manifest", f"sha256 {about.manifest_digest}"),
    ):
        click.echo(f"{label:<10}{value}")


@release_command.command("prune")
@click.option("--older-than", type=click.IntRange(min=1), default=90, show_default=True, metavar="DAYS", help="Since it was last current.")
@click.option(
    "--keep", type=click.IntRange(min=1), default=10, show_default=True, metavar="N", help="The newest releases that stay anyway."
)
@click.option(
    "--ci-older-than",
    type=click.IntRange(min=1),
    default=14,
    show_default=True,
    metavar="DAYS",
    help="The same for the releases of pull requests, which --keep does not count.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@_optional_environment
@_table
@_bucket
@_json
def prune_command(
    older_than: int,
    keep: int,
    ci_older_than: int,
    dry_run: bool,
    environment: str | None,
    table: str | None,
    bucket: str | None,
    as_json: bool,
) -> None:
    """Removes releases that nobody needs.

    What stays, whatever its age: the release that an environment runs, the one before it, the one that a rollback goes to, and those of
    runs that go on, can be resumed, or whose artifacts are kept. It reads the whole table. Calling it again finishes what was interrupted.
    """
    from dbt_runner import prune

    rules = prune.Rules(timedelta(days=older_than), keep, timedelta(days=ci_older_than))
    with aws_errors():
        verdicts = prune.prune(_store_with_bucket(table, bucket, environment), rules, by=aws.caller(), dry_run=dry_run)
    going = [verdict for verdict in verdicts if verdict.kept_for is None]
    rows = [(v.version, v.published_at, f"{v.size:,}", v.kept_for or ("would go" if dry_run else "gone")) for v in verdicts]
    document = {"dry_run": dry_run, "releases": [{**asdict(v), "kept": v.kept_for is not None} for v in verdicts]}
    _show_table(("VERSION", "PUBLISHED AT", "BYTES", "WHY IT STAYS"), rows, document if as_json else None)
    if not as_json:
        click.echo(f"{'would remove' if dry_run else 'removed'} {len(going)} of {len(verdicts)} releases")


@release_command.command("diff")
@click.argument("before")
@click.argument("after")
@_optional_environment
@_table
@_bucket
@_json
def diff_command(before: str, after: str, environment: str | None, table: str | None, bucket: str | None, as_json: bool) -> None:
    """Says what changes from release BEFORE to release AFTER: nodes, sources, tests and macros."""
    from dbt_runner.release_diff import difference

    with aws_errors():
        store = _store_with_bucket(table, bucket, environment)
        found = difference(before, release.manifest(store, before), after, release.manifest(store, after))
    if as_json:
        print_json(asdict(found))
        return
    for sign, names in (("+", found.added), ("-", found.removed)):
        for name in names:
            click.echo(f"{sign} {name}")
    for change in found.changed:
        click.echo(f"~ {change.unique_id} ({', '.join(change.what)})")
    click.echo(f"{before} to {after}: {len(found.added)} added, {len(found.removed)} removed, {len(found.changed)} changed")


@release_command.command("verify")
@click.option("--version", "-V", help="A release: its three files.")
@click.option("--run", type=RunReference(), help="A run of the environment: every artifact of all its attempts.")
@click.option(
    "--promotions",
    is_flag=True,
    help="The environment's pointer and the record of its promotions, against the rows of the long-term audit.",
)
@click.option("--archive", is_flag=True, help="With --run: from the bucket alone, by the rows of the long-term audit.")
@_optional_environment
@_table
@_bucket
@_json
def verify_command(
    version: str | None,
    run: str | None,
    promotions: bool,
    archive: bool,
    environment: str | None,
    table: str | None,
    bucket: str | None,
    as_json: bool,
) -> None:
    """Reads a release or a run's artifacts again, and holds every byte against the digest that was recorded.

    RUN is a run id, the beginning of one, or the word last.

    With --environment a release is also held against what the environment ran under its version before.

    With --archive the table is not asked, so that it works when the run's items have expired, and first says what the run was: its
    release, who had promoted that, what it ran and how it ended. With --bucket it does without the table altogether.

    With --promotions the pointer and the record of its moves, which the deployer could replace, are held against the rows of the
    long-term audit, which were written once.

    The exit code is 32 (Dbt.ReleaseCorrupt) for a release or promotions, and 1 for a run, that are not what they were.
    """
    from dbt_runner import account, integrity, pins, promotion_audit
    from dbt_runner.cli import render, terminal

    one = [version is not None, run is not None, promotions].count(True) == 1
    if not one or ((run is not None or promotions) and not environment) or (archive and run is None):
        raise TypedError(
            INVALID_REQUEST, "give either --version, or --run with --environment (and --archive), or --promotions with --environment"
        )
    told = None
    with aws_errors():
        store = _store_with_bucket(table, bucket, environment)
        if version is not None:
            what, kind, checks = f"release {version}", RELEASE_CORRUPT, integrity.check_release(store, version)
            pinned = pins.check(store, environment, release.find(store, version)) if environment else None
            checks += [pinned] if pinned else []
        elif promotions:
            assert environment is not None
            what, kind = f"the record of promotions of {environment}", RELEASE_CORRUPT
            checks = promotion_audit.check_promotions(store, environment)
        elif archive:
            assert run is not None and environment is not None
            told = account.read(store, environment, account.find(store, environment, run))
            what, kind, checks = f"run {told.run['run_id']}", RUNNER_ERROR, list(told.checks)
        else:
            assert run is not None and environment is not None
            run_id = found_run(open_here(table, environment), run).run_id
            what, kind, checks = f"run {run_id}", RUNNER_ERROR, integrity.check_run(store, environment, run_id)
    bad = [check for check in checks if check.problem]
    if as_json:
        print_json(asdict(told) if told else [asdict(check) for check in checks])
    else:
        if told:
            terminal.write(render.account(told))
        for check in checks:
            click.echo(f"{'BAD' if check.problem else 'ok ':<4}{check.key}{f': {check.problem}' if check.problem else ''}")
    if bad:
        found = "entries" if promotions else "files"
        raise TypedError(
            kind, f"{what} is not what was recorded: {len(bad)} of {len(checks)} {found} differ, {bad[0].key} {bad[0].problem}"
        )
    click.echo(f"{what}: {len(checks)} {'entries' if promotions else 'files'}, unaltered", err=as_json)


def _differences(store: Store, target: config.EnvironmentConfig, about: release.Description) -> list[str]:
    """What will keep a release from running in the environment that its publisher named."""
    found = []
    if about.adapter != target.warehouse.type:
        found.append(
            f"{about.version} was parsed for {about.adapter}, and the warehouse of {target.environment} is {target.warehouse.type}"
        )
    standing = promotion.current(store, target.environment)
    if standing is not None and standing.project != about.project:
        found.append(
            f"{about.version} is of the dbt project {about.project}, and {target.environment} runs {standing.version} "
            f"of {standing.project}: to promote it there, pass --other-project"
        )
    return found


def _store_with_bucket(table: str | None, bucket: str | None, environment: str | None) -> Store:
    """The store with its bucket, which an environment knows too.

    Raises:
        TypedError: Dbt.InvalidRequest when neither is said.
    """
    if not bucket and environment:
        bucket = config.load(open_store(table), environment).bucket
    if not bucket:
        raise TypedError(
            INVALID_REQUEST,
            "set DBT_RUNNER_BUCKET or --bucket to the audit bucket, or name an environment (--environment): "
            "terraform output -json cli says both",
        )
    return open_store(table, bucket)


def _show_move(moved: promotion.Promotion, as_json: bool) -> None:
    if as_json:
        print_json(asdict(moved))
    elif moved.changed:
        before = f"before: {moved.previous}" if moved.previous else "its first release"
        click.echo(f"{moved.environment} runs {moved.version} from the next run on ({before})")
    else:
        click.echo(f"{moved.environment} runs {moved.version} already, since {moved.promoted_at} ({moved.promoted_by})")


def _show_table(head: Sequence[str], rows: Sequence[Sequence[str]], document: object) -> None:
    """Aligned columns, or the document as JSON if there is one."""
    if document is not None:
        print_json(document)
        return
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    for row in (head, *rows):
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
