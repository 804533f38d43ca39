"""Bad input is refused at plan, before any provider is asked, by a message that says what to do."""

from __future__ import annotations

import copy
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from terraform.tool import ROOT, Terraform

# One worker runs each case once.
pytestmark = [pytest.mark.terraform, pytest.mark.xdist_group("terraform-validations")]

DIGEST = "sha256:" + "0f" * 32
SECRET = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:git-AbCdEf"
STEP = {"name": "build", "commands": ["build"]}

GOOD: dict[str, Any] = {
    "name": "analytics",
    "image": f"registry.example.com:5000/dbt-runner@{DIGEST}",
    "network": {"subnet_ids": ["subnet-0a"], "security_group_ids": ["sg-0a"]},
    "environments": {
        "prod": {
            "warehouse": {
                "type": "postgres",
                "settings": {"host": "db.example.com", "port": 5432, "user": "dbt", "keepalives_idle": 0},
                "identity": {"method": "rds_iam", "resource_id": "db-ABC123"},
            },
            "jobs": {
                "hourly": {
                    "schedule": "rate(1 hour)",
                    "steps": [
                        {"name": "freshness", "commands": ["source freshness"], "on_failure": "continue", "timeout_seconds": 60},
                        {"name": "build", "commands": ["dbt build --select tag:hourly", "run-operation grant --args '{a: 1}'"]},
                    ],
                },
                "nightly": {"schedule": "cron(0 3 ? * MON-FRI *)", "timezone": "America/Argentina/Buenos_Aires", "steps": [STEP]},
                "once": {"schedule": "at(2026-11-22T03:00:00)", "steps": [STEP]},
            },
            "env_vars": {"DBT_TARGET_SUFFIX": "x"},
            "secrets": {"DBT_ENV_SECRET_GIT": f"{SECRET}:token::", "KEY": "arn:aws-cn:ssm:cn-north-1:123456789012:parameter/dbt/key"},
        },
        "local_2": {"warehouse": {"type": "duckdb", "settings": {"path": "/tmp/x.duckdb"}}},
    },
    "oidc": {
        "providers": {
            "github": {"url": "https://token.actions.githubusercontent.com", "audiences": ["sts.amazonaws.com"]},
            "gitlab": {"arn": "arn:aws:iam::123456789012:oidc-provider/gitlab.com", "audiences": ["https://gitlab.com"]},
            "hcp": {"url": "https://app.terraform.io", "audiences": ["aws.workload.identity"]},
            "okta": {"arn": "arn:aws:iam::123456789012:oidc-provider/acme.okta.com/oauth2/aus1", "audiences": ["api://ci", "0oaPeople"]},
        },
        "environments": {
            "prod": {
                "deployer": {
                    "github": {"subjects": ["repo:acme/analytics:environment:prod", "repo:acme/*", "environment:prod:repository_id:7"]},
                    "gitlab": {"subjects": ["project_path:acme/analytics:ref_type:branch:ref:main"]},
                    "hcp": {"subjects": ["organization:acme:p?:*"]},
                },
                "operator": {"okta": {"subjects": ["ada@example.com", "00uAda"], "audiences": ["0oaPeople"]}},
            }
        },
    },
    "notifications": {"emails": ["team@example.com"]},
    "iam": {"path": "/data/dbt/", "permissions_boundary": "arn:aws:iam::aws:policy/PowerUserAccess", "name_prefix": "x-"},
    "kms_key_arn": "arn:aws:kms:eu-central-1:123456789012:key/mrk-1234",
}


@dataclass(frozen=True)
class Case:
    """A change of the good input that one validation must refuse.

    Attributes:
        at: where the change is, as a path with dots; a number is an index.
        value: what stands there instead.
        message: a part of the message that no other validation has.
    """

    at: str
    value: Any
    message: str

    def variables(self, good: Mapping[str, Any] = GOOD) -> dict[str, Any]:
        document: dict[str, Any] = copy.deepcopy(dict(good))
        *parents, last = (int(part) if part.isdigit() else part for part in self.at.split("."))
        place: Any = document
        for part in parents:
            place = place.setdefault(part, {}) if isinstance(place, dict) else place[part]
        place[last] = self.value
        return document


DUCKDB = {"warehouse": {"type": "duckdb"}}
PROD = "environments.prod"
HOURLY = f"{PROD}.jobs.hourly"
FIRST = f"{HOURLY}.steps.0"
COMPUTES = (f"{PROD}.compute.type", f"{PROD}.health_check.compute", f"{FIRST}.compute")
OIDC = "oidc.environments.prod"
GRANTS = (("deployer", "github"), ("operator", "okta"))
OWNED = "The runner sets --project-dir"

# Vars with one character more than the runner takes. It counts JSON in ASCII, with blanks.
TOO_LONG = (
    json.dumps({"text": "x" * 49_989}),
    json.dumps({"text": "ä" * 8_332}, ensure_ascii=False),
    json.dumps({"text": "\U0001f9e8" * 4_166}, ensure_ascii=False),
    json.dumps({"numbers": list(range(9_000))}, separators=(",", ":")),
)

CASES = [
    *(Case(f"{HOURLY}.vars", bad, "vars must be a JSON object; write vars = jsonencode") for bad in ("day: x", "[1]", "3")),
    # name, image, network
    *(Case("name", bad, "name must be 2 to 28 characters") for bad in ("Analytics", "a", "1st", "data-", "a_b", "n" * 29)),
    *(
        Case("image", bad, "must name a digest, not a tag")
        for bad in ("dbt-runner:latest", "dbt-runner", "dbt-runner@sha256:abc", f"@{DIGEST}", f"dbt-runner@{DIGEST}0")
    ),
    Case("network.subnet_ids", [], "at least one subnet"),
    Case("network.security_group_ids", [], "at least one security group"),
    Case("network.security_group_ids", [f"sg-{n}" for n in range(6)], "5 security_group_ids"),
    Case("network.subnet_ids", [f"subnet-{n}" for n in range(17)], "at most 16 subnet_ids"),
    # environments
    Case("environments", {}, "at least one environment"),
    *(
        Case(f"environments.{bad}", DUCKDB, f"(the names of the other topics and state machines): {bad}.")
        for bad in ("Prod", "a#b", "a*", "1a", "a-", "x-finalize", "x-announce", "x-chat", "x-alarms")
    ),
    Case(f"environments.{'e' * 50}", DUCKDB, 'Limit "name of a role" of IAM'),
    Case("iam.name_prefix", "p" * 41, "must fit in IAM's 64 characters"),
    # compute
    *(Case(at, "ec2", "must be fargate or lambda: prod.") for at in COMPUTES),
    *(Case(at, "lambda", "on_timeout of a step must be fail, or fargate") for at in (f"{PROD}.compute.on_timeout", f"{FIRST}.on_timeout")),
    *(
        Case(at, "lambda", "image must be in a private repository of ECR")
        for at in COMPUTES
    ),
    *(
        Case(f"{PROD}.compute.lambda.{field}", bad, "must be whole numbers of MiB from 512 to 10240: prod")
        for field in ("memory", "ephemeral_storage")
        for bad in (511, 10241, 1024.5)
    ),
    *(Case(f"{PROD}.compute.lambda.timeout_seconds", bad, f"longer steps belong on fargate: prod ({bad}).") for bad in (59, 901, 60.5)),
    *(Case(f"{PROD}.compute.lambda.reserved_concurrency", bad, f"with 0 the function could never run): prod ({bad}).") for bad in (0, 1.5)),
    Case(f"{PROD}.compute.architecture", "arm64", "must be ARM64 or X86_64"),
    Case(f"{PROD}.compute.sizes", [], "at least one size"),
    Case(f"{PROD}.compute.sizes", [{"cpu": 1024, "memory": 1024}], "prod (cpu 1024, memory 1024; with this cpu the memory is one of 2048"),
    Case(f"{PROD}.compute.sizes", [{"cpu": 1, "memory": 2048}], "prod (cpu 1, memory 2048). cpu is one of"),
    Case(f"{PROD}.compute.sizes", [{"cpu": 8192, "memory": 17408}], "Fargate has no such compute.sizes"),
    Case(f"{PROD}.compute.sizes", [{"cpu": 1024, "memory": 4096}, {"cpu": 2048, "memory": 4096}], "compute.sizes must grow"),
    # behaviour
    *(Case(f"{PROD}.retry.max_attempts", bad, "retry.max_attempts must be") for bad in (0, 11, 1.5)),
    *(Case(f"{PROD}.retry.interval_seconds", bad, "retry.max_attempts must be") for bad in (0, 3601, 1.5)),
    *(Case(f"{PROD}.retry.backoff_rate", bad, "retry.max_attempts must be") for bad in (0.5, 11)),
    Case(f"{PROD}.overlap", "wait", "overlap must be skip, queue or fail: prod."),
    Case("environments.long", {**DUCKDB, "overlap": "queue", "timeout_seconds": 36001}, "timeout_seconds must be at most 36000"),
    *(
        Case(f"{PROD}.requests.operations", [bad], f"such as drop_schemas or shop.drop_schemas: prod ({bad}).")
        for bad in ("", "a b", "a-b", "1a", "a.b.c", "--args")
    ),
    *(
        Case(f"{PROD}.requests", {"steps": False, **more}, "are about steps of callers, which requests.steps = false refuses")
        for more in ({"inline": True}, {"operations": ["drop_schemas"]})
    ),
    Case(f"{PROD}.slim_ci", {"state_target": "pro d"}, "slim_ci.state_target must be the name of a dbt target"),
    Case(f"{PROD}.slim_ci", {"schema_suffixes": "pr_("}, "slim_ci.schema_suffixes a regular expression such as pr_[0-9]+: prod."),
    *(Case(f"{PROD}.timeout_seconds", bad, "timeout_seconds of an environment must be") for bad in (299, 31536001, 600.5)),
    *(Case(f"{PROD}.health_check.timeout_seconds", bad, "health_check.timeout_seconds must be") for bad in (9, 14400, 60.5)),
    # jobs
    *(Case(f"{PROD}.jobs.{bad}", {"steps": [STEP]}, f"letter or digit: prod.jobs: {bad}.") for bad in ("Hourly", "-x", "j" * 41)),
    # Schedules and time zones are tried one by one in test_schedules.py.
    Case(f"{HOURLY}.schedule", "cron(0 3 * * *)", "prod.jobs.hourly (cron(0 3 * * *))"),
    Case(f"{HOURLY}.timezone", "Europe/Berln", "IANA database such as UTC or Europe/Berlin: prod.jobs.hourly (Europe/Berln)."),
    # steps
    Case(f"{HOURLY}.steps", [], "A job must have 1 to 50 steps"),
    Case(f"{HOURLY}.steps", [{"name": f"s{n}", "commands": ["build"]} for n in range(51)], "A job must have 1 to 50 steps"),
    *(Case(f"{FIRST}.name", bad, "A step's name must be 1 to 40") for bad in ("Build", "a b", "", "s" * 41, "a#b", "health_check")),
    Case(f"{FIRST}.name", "build", "The names of a job's steps must differ: prod.jobs.hourly."),
    Case(f"{FIRST}.commands", [], "A step must have 1 to 20 commands"),
    Case(f"{FIRST}.commands", ["build"] * 21, "A step must have 1 to 20 commands"),
    *(
        Case(f"{FIRST}.commands", [bad], f"prod.jobs.hourly.freshness ({bad})")
        for bad in ("deps", "retry", "clean", "bash -c x", "docs serve", "docs", "source", "builds", "", "dbt", "echo build")
    ),
    *(Case(f"{FIRST}.commands", [bad], "must be one line of at most") for bad in ("build\nrun", "build \u0000", "build " + "x" * 8192)),
    *(
        Case(f"{FIRST}.commands", [bad], f"prod.jobs.hourly.freshness ({bad})")
        for bad in ("build --target prod", "build -tprod", "build --vars '{a: 1}'", "build --profiles-dir=/tmp")
    ),
    *(Case(f"{FIRST}.on_failure", bad, "on_failure must be fail or continue") for bad in ("ignore", "")),
    *(Case(f"{FIRST}.timeout_seconds", bad, "A step's timeout_seconds must be") for bad in (0, 14400, 1.5)),
    # environment variables
    *(
        Case(f"{PROD}.{where}.{name}", SECRET, f"which the runner and AWS set: prod: {name}.")
        for where in ("env_vars", "secrets")
        for name in ("DBT_RUNNER_TABLE", "AWS_REGION", "ECS_CONTAINER_METADATA_URI_V4", "LAMBDA_TASK_ROOT", "_HANDLER", "A-B", "1A")
    ),
    *(
        Case(f"{PROD}.{where}.{name}", SECRET, f"in profiles.yml or in an image of your own: prod: {name}.")
        for where, names in {
            "env_vars": ("PYTHONPATH", "PYTHONSTARTUP", "LD_PRELOAD", "LD_LIBRARY_PATH", "HOME", "BOTO_CONFIG", "OPENSSL_CONF"),
            "secrets": ("PYTHONHOME", "GLIBC_TUNABLES", "NETRC", "TMPDIR", "SSLKEYLOGFILE", "OPENLINEAGE_CONFIG", "OPENLINEAGE__FILTERS"),
        }.items()
        for name in names
    ),
    *(
        Case(f"{PROD}.env_vars.{name}", value, f"outside of /tmp, where a run could replace them: prod.env_vars: {name}.")
        for name, value in {
            "SSL_CERT_FILE": "/tmp/ca.pem", "SSL_CERT_DIR": "certificates", "REQUESTS_CA_BUNDLE": "/etc/../tmp/ca.pem",
            "CURL_CA_BUNDLE": "//tmp/ca.pem",
        }.items()
    ),
    *(
        Case(f"{PROD}.env_vars.{name}", "x", f"prod.env_vars: {name}.")
        for name in ("DBT_ENV_SECRET_X", "PGPASSWORD", "GIT_TOKEN", "db_pass")
    ),
    Case(f"{PROD}.secrets.DBT_TARGET_SUFFIX", SECRET, "not in both: prod: DBT_TARGET_SUFFIX."),
    *(
        Case(f"{PROD}.secrets.KEY", bad, "must be ARNs of Secrets Manager secrets")
        for bad in ("hunter2", f"{SECRET}*", f"{SECRET}-${{aws:userid}}", "arn:aws:s3:::bucket/key")
    ),
    # oidc
    Case("oidc.providers.Git-Hub", {"url": "https://gitlab.com", "audiences": ["x"]}, "begin with a letter, for example github: Git-Hub."),
    *(
        Case("oidc.providers.github", {"audiences": ["sts.amazonaws.com"], **bad}, "which adopts it: github.")
        for bad in (
            {}, {"url": "http://gitlab.com"}, {"url": "gitlab.com"}, {"url": "https://gitlab.com:8443"}, {"url": "https://gitlab.com?x"},
            {"arn": "gitlab.com"}, {"arn": "arn:aws:iam::123456789012:oidc-provider/*"},
            {"arn": "arn:aws:iam::123456789012:oidc-provider/${aws:userid}"},
            {"url": "https://gitlab.com", "arn": "arn:aws:iam::123456789012:oidc-provider/gitlab.com"},
        )
    ),
    Case("oidc.providers.twice", {"url": "https://acme.okta.com/oauth2/aus1", "audiences": ["x"]}, "have the same issuer"),
    *(Case("oidc.providers.github.audiences", bad, "in full, without") for bad in ([], [""], ["*"], ["sts.*"], ["a b"], ["${aws:x}"])),
    Case("oidc.environments.dev", {}, "what is not in environments: dev."),
    Case(f"{OIDC}.operator.bitbucket", {"subjects": ["x"]}, "not in oidc.providers: prod: bitbucket."),
    *(Case(f"{OIDC}.{role}.{key}.subjects", [], f"would do otherwise: prod.{role}.{key}.") for role, key in GRANTS),
    # Subjects are tried one by one in tests/security/test_oidc_subjects.py.
    Case(f"{OIDC}.deployer.github.subjects", ["repo:acme/a:environment:b", "repo:${aws:x}/*"], 'prod.deployer.github ("repo:${aws:x}/*").'),
    Case(f"{OIDC}.deployer.gitlab.subjects", ["ref_type:tag:*"], 'prod.deployer.gitlab ("ref_type:tag:*"): write project_path:<group>'),
    *(Case(f"{OIDC}.operator.okta.audiences", bad, "some of the provider's audiences") for bad in ([], ["sts.amazonaws.com"])),
    *(Case("oidc.max_session_seconds", bad, "max_session_seconds must be a whole number") for bad in (3599, 43201, 3600.5)),
    # audit, notifications, iam, kms_key_arn
    *(
        Case(f"audit.{field}", bad, "must be whole numbers of days")
        for field in ("runs_retention_days", "noncurrent_retention_days", "cache_retention_days", "incomplete_upload_days")
        for bad in (-1, 1.5)
    ),
    *(
        Case(f"audit.{field}", bad, message)
        for field, bad, message in (
            ("rows_retention_days", -1, "audit.rows_retention_days must be a whole number of days"),
            ("rows_retention_days", 1.5, "audit.rows_retention_days must be a whole number of days"),
            ("items_retention_days", 90, "audit.items_retention_days must be 0 (for ever) or a whole number of at least 91 days"),
            ("items_retention_days", 100.5, "audit.items_retention_days must be 0"),
            ("former_environments", ["Prod!"], "audit.former_environments must be names of environments"),
            ("object_lock", {"mode": "LEGAL", "days": 30}, "audit.object_lock must be"),
            ("object_lock", {"mode": "GOVERNANCE", "days": 0}, "audit.object_lock must be"),
        )
    ),
    Case("audit", {"object_lock": {"mode": "GOVERNANCE", "days": 30}, "force_destroy": True}, "choose one"),
    Case("audit.log_retention_days", 10, "audit.log_retention_days must be one of"),
    *(Case("notifications.emails", [bad], f"team@example.com: {bad}.") for bad in ("team", "a@b", "a b@example.com")),
    Case("notifications.owners", {"finance": ["x"]}, "notifications.owners must hold lists of addresses such as team@example.com: x."),
    Case("observability.alarm_actions", ["on-call"], "at most 4 ARNs: CloudWatch takes 5 actions, and the alarms' topic is one: on-call."),
    *(
        Case(f"{PROD}.jobs.nightly.fresh_within_minutes", bad, f"must be 5 to 10080 (a week): prod.jobs.nightly ({bad}).")
        for bad in (4, 10081)
    ),
    *(Case("iam.path", bad, "iam.path must begin and end with a slash") for bad in ("data", "/data", "data/", "//")),
    Case("iam.name_prefix", "a b", "iam.name_prefix may hold"),
    Case("iam.permissions_boundary", "boundary", "must be the ARN of a managed policy"),
    *(
        Case("kms_key_services", [bad], f"kms_key_services must be service principals, such as cloudwatch.amazonaws.com: {bad}.")
        for bad in ("cloudwatch", "*", "arn:aws:iam::123456789012:root")
    ),
    # Limits of docs/limits.md, each with one more than AT_LIMIT has.
    *(Case(f"{HOURLY}.vars", bad, 'Limit "vars of a job"') for bad in TOO_LONG),
    Case("oidc.providers.github.audiences", [f"audience-{n}" for n in range(101)], 'Limit "identity provider" of IAM'),
    Case("oidc.providers.github.audiences", ["a" * 256], 'Limit "identity provider" of IAM'),
    *(Case("oidc.trust_characters", bad, "as Service Quotas shows it") for bad in (2047, 8193, 4096.5)),
    Case("iam.path", f"/{'p' * 511}/", 'Limit "path of a role" of IAM: iam.path has 513 of 512'),
    Case(
        "notifications", {"emails": ["a@example.com"], "owners": {"finance": [f"p{n}@example.com" for n in range(200)]}},
        'Limit "filter policies of a topic" of SNS',
    ),
    Case(
        "environments", {f"e{n}": {**DUCKDB, "jobs": {f"j{m}": {"steps": [STEP]} for m in range(167)}} for n in range(3)},
        'Limit "anomaly detection models"',
    ),
    Case("tags", {f"tag-{n}": "x" for n in range(51)}, 'Limit "tags of a resource" of AWS'),
    Case("tags", {"t": "x" * 257}, "of 128 characters for a key and 256 for a value: t "),
    *(
        Case("kms_key_arn", bad, "must be the ARN of a key")
        for bad in ("", "alias/dbt", *(f"arn:aws:kms:eu-central-1:123456789012:{key}" for key in ("alias/dbt", "key/*")))
    ),
]  # fmt: skip

# What is just allowed. `jobs` is a number: that of all environments.
AT_LIMIT: dict[str, Any] = {
    f"{HOURLY}.vars": json.dumps({"text": "x" * 49_988}),
    f"{PROD}.jobs.nightly.vars": json.dumps({"text": "\U0001f9e8" * 4_165}, ensure_ascii=False),
    "oidc.providers.github.audiences": ["sts.amazonaws.com", *("a" * 252 + f"{n:03}" for n in range(99))],
    "iam.path": f"/{'p' * 510}/",
    "notifications.emails": [f"team-{n}@example.com" for n in range(200)],
    "tags": {f"tag-{n}{'k' * 120}": "x" * 256 for n in range(50)},
    "jobs": 500,
}


class Variables:
    """A folder that holds the root's variables.tf and its list of time zones, and what a plan of it said."""

    def __init__(self, terraform: Terraform, folder: Path) -> None:
        self._terraform = terraform
        self._folder = folder
        self._said: dict[str, list[str]] = {}
        for name in ("variables.tf", "timezones.tf"):
            shutil.copyfile(ROOT / name, folder / name)

    def errors(self, variables: Mapping[str, Any]) -> list[str]:
        """The details of the errors of a plan with these variables."""
        given = json.dumps(variables, sort_keys=True)
        if given not in self._said:
            (self._folder / "case.tfvars.json").write_text(given)
            done = self._terraform.run(self._folder, "plan", "-input=false", "-json", "-var-file=case.tfvars.json")
            events = [json.loads(line) for line in done.stdout.splitlines()]
            said = [e["diagnostic"] for e in events if e.get("type") == "diagnostic" and e["diagnostic"]["severity"] == "error"]
            assert bool(said) == (done.returncode != 0), done.stdout + done.stderr
            self._said[given] = [d.get("detail", d["summary"]) for d in said]
        return self._said[given]

    def console(self, expression: str) -> Any:
        """The value of an expression, such as a local."""
        (self._folder / "case.tfvars.json").write_text(json.dumps(GOOD))
        said = self._terraform.check(self._folder, "console", "-var-file=case.tfvars.json", stdin=f"jsonencode({expression})\n")
        return json.loads(json.loads(said))


@pytest.fixture(scope="module")
def variables(offline: Terraform, tmp_path_factory: pytest.TempPathFactory) -> Variables:
    folder = tmp_path_factory.mktemp("variables")
    return Variables(offline, folder)


def test_good_input_is_accepted(variables: Variables) -> None:
    assert variables.errors(GOOD) == []


def test_what_is_just_within_the_limits_is_accepted(variables: Variables) -> None:
    document = copy.deepcopy(GOOD)
    for at, value in AT_LIMIT.items():
        if at != "jobs":
            document = Case(at, value, "").variables(document)
    more = AT_LIMIT["jobs"] - len(document["environments"]["prod"]["jobs"])
    document["environments"]["prod"]["jobs"].update({f"job-{n}": {"steps": [STEP]} for n in range(more)})
    assert variables.errors(document) == []


def test_what_is_not_given_has_a_default(variables: Variables) -> None:
    required = {key: GOOD[key] for key in ("name", "image", "network")}
    assert variables.errors(required | {"environments": {"dev": DUCKDB}}) == []


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.at}={str(case.value)[:40]!r}")
def test_bad_input_is_refused_with_advice(variables: Variables, case: Case) -> None:
    errors = variables.errors(case.variables())
    assert any(case.message in error for error in errors), errors


def test_every_validation_is_tripped_by_a_case(variables: Variables) -> None:
    lines = (ROOT / "variables.tf").read_text().splitlines()
    rules = {number for number, line in enumerate(lines, start=1) if re.match(r"\s*validation \{", line)}
    checked = re.compile(r"validation rule at variables\.tf:(\d+),")
    tripped = {int(line) for case in CASES for error in variables.errors(case.variables()) for line in checked.findall(error)}
    assert rules
    assert rules - tripped == set(), "no case trips the validations at these lines of variables.tf"


def test_a_secret_given_by_mistake_is_not_printed(variables: Variables) -> None:
    errors = variables.errors(Case("environments.prod.secrets.KEY", "hunter2-the-secret", "").variables())
    assert errors
    assert "hunter2" not in "".join(errors)


# What Terraform accepts is what the runner takes.


def test_vars_are_as_long_as_the_runner_takes_them() -> None:
    from dbt_runner.errors import TypedError
    from dbt_runner.variables import parse

    assert all(parse(value) for at, value in AT_LIMIT.items() if at.endswith(".vars"))
    for text in TOO_LONG:
        with pytest.raises(TypedError, match="50,000"):
            parse(text)


def test_known_commands_are_the_runners(variables: Variables) -> None:
    from dbt_runner.request import VERBS

    assert sorted(variables.console("local.dbt_commands")) == sorted(" ".join(verb) for verb in VERBS)


def test_every_command_of_the_runner_is_accepted(variables: Variables) -> None:
    commands = [f"{name} --select x" for name in variables.console("local.dbt_commands")]
    assert variables.errors(Case(f"{FIRST}.commands", commands, "").variables()) == []


def test_flags_that_the_runner_owns_are_refused_by_both(variables: Variables) -> None:
    from dbt_runner.errors import TypedError
    from dbt_runner.request import parse_command

    flags = variables.console("local.owned_flags")
    assert "--vars" in flags
    written = [(f"build {f} x", f"build {f}=x" if f.startswith("--") else f"build {f}x", f"build --select a '{f}' x") for f in flags]
    for commands in zip(*written, strict=True):
        (refusal,) = variables.errors(Case(f"{FIRST}.commands", commands, "").variables())
        assert OWNED in refusal
        assert [c for c in commands if f"({c})" not in refusal] == []
        for command in commands:
            with pytest.raises(TypedError):
                parse_command(command, "commands")
