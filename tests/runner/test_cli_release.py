"""`dbt-runner release` and the AWS session of the commands that people call."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from botocore import exceptions
from click.testing import CliRunner, Result

from dbt_runner import cli as command_line
from dbt_runner import config, release
from dbt_runner.cli import aws
from dbt_runner.cli import release as release_commands
from dbt_runner.errors import ACCESS_DENIED, INVALID_REQUEST, RELEASE_CORRUPT, RELEASE_NOT_FOUND, RUNNER_ERROR, ErrorKind, TypedError
from dbt_runner.store import CONFIG, CURRENT_RELEASE, Store, environment_pk, pointer_pk
from runner.releases import candidate, objects, write

CALLER = "arn:aws:sts::123456789012:user/moto"


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(command_line.cli, ["release", *arguments])


def output(*arguments: str) -> str:
    result = invoke(*arguments)
    assert result.exception is None, result.output
    return result.stdout


def error(*arguments: str) -> TypedError:
    result = invoke(*arguments)
    assert isinstance(result.exception, TypedError), result.output
    assert result.stdout == ""
    return result.exception


@pytest.fixture
def settings(store: Store, environment: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Store:
    """A shell in which everything that `terraform output -json cli` says is set."""
    monkeypatch.setenv("DBT_RUNNER_TABLE", store.table)
    monkeypatch.setenv("DBT_RUNNER_ENVIRONMENT", "prod")
    return store


def test_publish_and_promote(settings: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(write(tmp_path / "shop", {"dbt_project.yml": "name: shop", "models/a.sql": "select 1 as id"}))
    published = invoke("publish", "--version", "1.4.2")
    assert published.exception is None
    assert published.stdout.startswith("published 1.4.2 of project shop: 1 model\nsha256 ")
    # The adapter is the environment's, although another one is installed as well; the bucket is the environment's too.
    assert "parsing it for duckdb" in published.stderr
    assert "releases/1.4.2/bundle.tar.gz" in objects(settings)
    assert release.find(settings, "1.4.2").author == CALLER

    again = json.loads(output("publish", "--version", "1.4.2", "--json"))
    assert (again["new"], again["digest"], again["counts"]) == (False, release.find(settings, "1.4.2").digest, {"model": 1})

    assert output("promote", "--version", "1.4.2") == "prod runs 1.4.2 from the next run on (its first release)\n"
    assert output("promote", "--version", "1.4.2").startswith("prod runs 1.4.2 already, since 20")


def test_promote_as_json_says_what_the_audit_trail_says(settings: Store, tmp_path: Path) -> None:
    for version in ("1.0", "1.1"):
        release.commit(settings, candidate(tmp_path / version, version, version=version))
    output("promote", "-V", "1.0")
    promotion = json.loads(output("promote", "-V", "1.1", "-e", "prod", "--reason", "ticket 7", "--json"))
    pointer = settings.get(pointer_pk("prod"), CURRENT_RELEASE)
    assert pointer is not None
    assert promotion == {
        "environment": "prod",
        "version": "1.1",
        **{name: pointer[name] for name in ("digest", "manifest_digest", "project")},
        "previous": "1.0",
        "promoted_at": pointer["promoted_at"],
        "promoted_by": CALLER,
        "reason": "ticket 7",
        "changed": True,
    }


def test_a_release_of_another_project_is_named_and_promoted_only_by_the_word(settings: Store, tmp_path: Path) -> None:
    for version, project in (("1.0", "shop"), ("2.0", "stock")):
        release.commit(settings, replace(candidate(tmp_path / version, version, version=version), project=project, adapter="postgres"))
    output("promote", "-V", "1.0")
    listed = output("list", "-e", "prod").splitlines()
    assert listed[0].split()[:3] == ["VERSION", "PROJECT", "ADAPTER"]
    assert {tuple(line.split()[:3]) for line in listed[1:]} == {("1.0", "shop", "postgres"), ("2.0", "stock", "postgres")}
    refusal = error("promote", "-V", "2.0")
    assert refusal.kind is INVALID_REQUEST
    assert "of the dbt project stock, and prod runs 1.0 of shop: pass --other-project" in refusal.message
    assert output("promote", "-V", "2.0", "--other-project").startswith("prod runs 2.0 from the next run on")
    assert "--other-project" in error("rollback").message
    assert output("rollback", "--other-project").startswith("prod runs 1.0 from the next run on")


def test_publishing_what_the_environment_will_not_run_is_warned_of(settings: Store, tmp_path: Path) -> None:
    made = release.commit(settings, replace(candidate(tmp_path / "1.0", version="1.0"), project="stock", adapter="postgres"))
    release.commit(settings, candidate(tmp_path / "0.9", version="0.9"))
    output("promote", "-V", "0.9")
    target = config.load(settings, "prod")
    assert release_commands._differences(settings, target, made.release) == [
        "1.0 was parsed for postgres, and the warehouse of prod is duckdb",
        "1.0 is of the dbt project stock, and prod runs 0.9 of shop: to promote it there, pass --other-project",
    ]
    assert release_commands._differences(settings, target, release.describe(settings, "0.9")) == []


def test_promotions_are_held_against_the_long_term_audit(settings: Store, tmp_path: Path) -> None:
    release.commit(settings, candidate(tmp_path / "1.0", version="1.0"))
    output("promote", "-V", "1.0")
    assert output("verify", "--promotions", "-e", "prod").endswith("the record of promotions of prod: 3 entries, unaltered\n")
    pointer = settings.get(pointer_pk("prod"), CURRENT_RELEASE) or {}
    settings.put({**pointer, "promoted_by": "somebody else"})
    refusal = invoke("verify", "--promotions", "-e", "prod")
    assert isinstance(refusal.exception, TypedError) and refusal.exception.kind is RELEASE_CORRUPT
    assert "BAD POINTER#prod RELEASE#CURRENT: stands at 1.0" in refusal.output
    assert error("verify", "--promotions", "--version", "1.0", "-e", "prod").kind is INVALID_REQUEST


def test_list_show_and_rollback(settings: Store, tmp_path: Path) -> None:
    for version in ("1.0", "1.1"):
        release.commit(settings, candidate(tmp_path / version, version, version=version))
        output("promote", "-V", version)
    assert output("rollback", "--reason", "ticket 8") == "prod runs 1.0 from the next run on (before: 1.1)\n"
    assert {meta["version"]: meta["current"] for meta in json.loads(output("list", "--json"))} == {"1.1": False, "1.0": True}
    head, *rows = output("list").splitlines()
    assert head.split()[0] == "VERSION" and [row.split()[0] for row in rows] == ["1.1", "1.0"]
    assert rows[1].endswith("current in prod")
    moves = json.loads(output("list", "--promotions", "--json"))
    assert [(move["version"], move["reason"]) for move in moves] == [("1.0", "ticket 8"), ("1.1", None), ("1.0", None)]
    assert json.loads(output("show", "-V", "1.0", "--json"))["digest"] == release.find(settings, "1.0").digest
    assert "not from a git checkout" in output("show", "-V", "1.0")


def test_an_error_is_one_line_and_an_exit_code(
    settings: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["dbt-runner", "release", "promote", "--version", "9.9"])
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    assert ended.value.code == RELEASE_NOT_FOUND.exit_code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("dbt-runner: Dbt.ReleaseNotFound: release 9.9 is not published: publish it") and err.count("\n") == 1


@pytest.mark.parametrize("command", ["publish", "promote"])
def test_without_a_table_it_says_where_to_find_its_name(store: Store, command: str) -> None:
    problem = error(command, "--version", "1", "-e", "prod")
    assert problem.kind is INVALID_REQUEST
    assert problem.message == "set DBT_RUNNER_TABLE or --table to the audit table: terraform output -json cli says it"


def test_without_a_bucket_and_an_environment_it_says_what_to_set(store: Store) -> None:
    problem = error("publish", "--version", "1", "--table", store.table)
    assert problem.kind is INVALID_REQUEST
    assert "DBT_RUNNER_BUCKET" in problem.message and "--environment" in problem.message


def test_a_bucket_is_enough_without_an_environment(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBT_RUNNER_BUCKET", store.bucket)
    problem = error("publish", "--version", "1", "--table", store.table, "--adapter", "duckdb", "--project", str(tmp_path))
    assert "has no dbt_project.yml" in problem.message


def test_a_bad_version_is_refused_before_aws_is_asked(store: Store) -> None:
    assert error("publish", "--version", "1/2").message.startswith("version '1/2'")


@pytest.mark.parametrize("vars_", ["[]", "{day: 1}", "1"])
def test_variables_that_are_no_object_are_refused_before_aws_is_asked(store: Store, vars_: str) -> None:
    message = error("publish", "--version", "1", "--vars", vars_).message
    assert message.startswith("--vars: ") and message.endswith('such as {"day": "2026-11-22"}')


def test_the_warehouse_of_the_environment_decides_the_adapter(settings: Store, environment: dict[str, Any], tmp_path: Path) -> None:
    document = {**environment, "warehouse": {"type": "teradata", "settings": {}, "identity": {}}}
    settings.put({"pk": environment_pk("prod"), "sk": CONFIG, "config": json.dumps(document)})
    problem = error("publish", "--version", "1", "--project", str(tmp_path))
    assert (problem.kind, "unknown adapter teradata" in problem.message) == (INVALID_REQUEST, True)


def test_an_environment_or_a_table_that_is_not_there_is_named(settings: Store) -> None:
    assert "no environment staging" in error("publish", "--version", "1", "-e", "staging").message
    problem = error("promote", "--version", "1", "--table", "other-audit")
    assert problem.kind is INVALID_REQUEST
    assert "--table" in problem.message


# --- the session -----------------------------------------------------------------------------------------------------


def test_without_a_region_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    for call in (lambda: aws.open_store("analytics-audit"), lambda: aws.client("stepfunctions")):
        with pytest.raises(TypedError, match="no AWS region is set: set AWS_REGION") as raised:
            call()
        assert raised.value.kind is INVALID_REQUEST


def test_the_region_may_come_from_either_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    assert aws.client("sts").meta.region_name == "eu-central-1"
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    aws._session.cache_clear()  # as in another process
    assert aws.client("sts").meta.region_name == "eu-west-1"


def test_without_credentials_it_says_how_to_sign_in(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"):
        monkeypatch.delenv(name, raising=False)
    problem = error("promote", "--version", "1", "-e", "prod", "--table", "analytics-audit")
    assert (problem.kind, "AWS_PROFILE" in problem.message) == (ACCESS_DENIED, True)


def test_a_profile_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "somebody")
    with pytest.raises(TypedError, match="somebody") as raised:
        aws.open_store("analytics-audit")
    assert raised.value.kind is ACCESS_DENIED


@pytest.mark.parametrize(
    ("code", "kind", "says"),
    [
        ("AccessDenied", ACCESS_DENIED, "an identity that may"),
        ("AccessDeniedException", ACCESS_DENIED, "an identity that may"),
        ("ExpiredTokenException", ACCESS_DENIED, "sign in again"),
        ("ResourceNotFoundException", INVALID_REQUEST, "terraform output"),
        ("NoSuchBucket", INVALID_REQUEST, "terraform output"),
        ("InternalServerError", RUNNER_ERROR, "InternalServerError"),
    ],
)
def test_what_aws_answers_becomes_advice(code: str, kind: ErrorKind, says: str) -> None:
    with pytest.raises(TypedError) as raised, aws.aws_errors():
        raise exceptions.ClientError({"Error": {"Code": code, "Message": "User: alice may not"}}, "PutItem")
    assert raised.value.kind is kind
    assert raised.value.message.startswith("PutItem failed: User: alice may not") and says in raised.value.message


def test_a_network_that_is_down_is_no_bug_of_ours() -> None:
    with pytest.raises(TypedError, match="cannot be reached") as raised, aws.aws_errors():
        raise exceptions.EndpointConnectionError(endpoint_url="https://dynamodb.eu-central-1.amazonaws.com")
    assert raised.value.kind is INVALID_REQUEST


def test_our_own_errors_pass_through() -> None:
    ours = TypedError(RELEASE_NOT_FOUND, "not there")
    with pytest.raises(TypedError) as raised, aws.aws_errors():
        raise ours
    assert raised.value is ours


DAMAGE: dict[str, dict[str, Any]] = {
    "no digest": {"digest": None},
    "a digest that is none": {"digest": "abc"},
    "a number for a text": {"project": 7},
    "a time that is none": {"published_at": 7},
    "another version": {"version": "9.9"},
    "a text for a number": {"size": "many"},
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_release_hides_no_other(settings: Store, tmp_path: Path, damage: dict[str, Any]) -> None:
    for version in ("1.0", "1.1"):
        release.commit(settings, candidate(tmp_path / version, version=version))
    item = settings.get("RELEASE#1.0", "META")
    assert item is not None
    settings.put({name: value for name, value in {**item, **damage}.items() if value is not None})
    result = invoke("list", "-e", "prod")
    assert (result.exit_code, [line.split()[0] for line in result.stdout.splitlines()]) == (0, ["VERSION", "1.1"])
    assert result.stderr.startswith("warning: release 1.0 is damaged: ")
    assert [meta["version"] for meta in json.loads(invoke("list", "--json").stdout)] == ["1.1"]


def test_a_damaged_pointer_hides_no_release(settings: Store, tmp_path: Path) -> None:
    release.commit(settings, candidate(tmp_path / "1.0", version="1.0"))
    settings.put({"pk": pointer_pk("prod"), "sk": CURRENT_RELEASE, "version": "1.0"})
    result = invoke("list", "-e", "prod")
    assert (result.exit_code, [line.split()[0] for line in result.stdout.splitlines()]) == (0, ["VERSION", "1.0"])
    assert result.stderr.startswith(f"warning: the item {CURRENT_RELEASE} of")
