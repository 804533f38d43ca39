"""What no role of an environment can ever do, as questions for the prover. docs/security.md makes the same promises in words.

Each claim is a question that no request may answer: "an allowed request on something of the other environment". The names are those of
the deployment in inputs/two_environments.tfvars.json.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import z3

from terraform.prover import Question, Request

ACCOUNT, REGION, NAME = "123456789012", "eu-central-1", "analytics"
TABLE = f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{NAME}-audit"
BUCKET = f"arn:aws:s3:::{NAME}-audit-{ACCOUNT}-{REGION}"
LEADING, ATTRIBUTES = "dynamodb:LeadingKeys", "dynamodb:Attributes"

FLOW = ("states", "task", "warehouse", "execution", "scheduler", "events")
FEDERATED = ("deployer", "operator")
ROLES = (*FLOW, *FEDERATED)

# The secrets of each environment in the inputs, its databases, and the pointer's attributes.
SECRETS = {
    "prod": (f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:git-AbCdEf", f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/dbt/key"),
    "prod-eu": (),
}
DATABASES = {"prod": "cluster-PROD0/dbt_prod", "prod-eu": "cluster-PRODEU0/dbt_eu"}
# The tables of the long-term audit, folders of the bucket.
TABLES = ("runs", "attempts", "nodes", "promotions")
POINTER = ("pk", "sk", "version", "digest", "manifest_digest", "project", "previous", "promoted_at", "promoted_by", "reason")

# Actions that know no resource, so that IAM cannot hold them to an environment (docs/security.md#roles).
ACCOUNT_WIDE = (
    "cloudwatch:PutMetricData", "ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets", "ecr:GetAuthorizationToken",
    "logs:CreateLogDelivery", "logs:DeleteLogDelivery", "logs:DescribeLogGroups",
    "logs:DescribeResourcePolicies", "logs:GetLogDelivery", "logs:ListLogDeliveries", "logs:PutResourcePolicy", "logs:UpdateLogDelivery",
    "xray:GetSamplingRules", "xray:GetSamplingTargets", "xray:PutTelemetryRecords", "xray:PutTraceSegments",
)  # fmt: skip

# What Lambda itself does under the role of a function that is in a VPC; its code may not.
INTERFACES = (
    "ec2:AssignPrivateIpAddresses", "ec2:CreateNetworkInterface", "ec2:DeleteNetworkInterface", "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets", "ec2:UnassignPrivateIpAddresses",
)  # fmt: skip

# What makes, changes, gives away or removes: roles, policies, code, configuration; and what of it is a role's task. A wildcard of ours
# could stand for anything, so that those two of KMS are named.
VERBS = """
    Add Associate Attach Authorize Create Delete Detach Disable Enable Execute Grant Import Invite Modify Pass Publish Put Register Remove
    Replace Restore Revoke Set Share Transfer Update
"""
MACHINES = tuple(f"{machine}{qualifier}" for machine in ("", "-finalize", "-announce") for qualifier in ("", ":*"))
POWERS = tuple(f"*:{verb}*" for verb in VERBS.split())
KEYS = ("kms:GenerateDataKey*", "kms:ReEncrypt*")
TASKS = {
    "states": (
        "dynamodb:DeleteItem", "dynamodb:PutItem", "dynamodb:UpdateItem", "events:PutRule", "events:PutTargets", "iam:PassRole",
        "events:PutEvents", "s3:PutObject", "sns:Publish", *KEYS, *ACCOUNT_WIDE,
    ),
    "task": ("dynamodb:PutItem", "dynamodb:UpdateItem", "s3:PutObject", "sts:SetSourceIdentity", *KEYS,
        "ec2:CreateNetworkInterface", "ec2:DeleteNetworkInterface", "logs:CreateLogStream", "logs:PutLogEvents"),
    "execution": ("logs:CreateLogStream", "logs:PutLogEvents"),
    "deployer": ("dynamodb:PutItem", "s3:PutObject", *KEYS),
}  # fmt: skip


@dataclass(frozen=True)
class Claim:
    """Something that these roles can never do.

    Attributes:
        never: what they cannot do, in words.
        roles: by role word.
        question: is true of a request that breaks the claim.
    """

    never: str
    roles: tuple[str, ...]
    question: Question


def role_arn(environment: str, role: str) -> str:
    return f"arn:aws:iam::{ACCOUNT}:role/data/x-{NAME}-{environment}-{role}"


def machine_arn(environment: str, kind: str = "stateMachine", suffix: str = "") -> str:
    return f"arn:aws:states:{REGION}:{ACCOUNT}:{kind}:{NAME}-{environment}{suffix}"


def things_of(environment: str) -> list[str]:
    """Patterns of the ARNs of everything that belongs to one environment alone."""
    own, regional = f"{NAME}-{environment}", f"{REGION}:{ACCOUNT}"
    return [
        *(role_arn(environment, role) for role in ROLES),
        *(machine_arn(environment, suffix=suffix) for suffix in MACHINES),
        *(machine_arn(environment, "execution", suffix) for suffix in (":*", "-finalize:*", "-announce:*")),
        *(f"arn:aws:ecs:{regional}:{thing}" for thing in (f"cluster/{own}", f"task/{own}/*", f"task-definition/{own}:*")),
        *(f"arn:aws:lambda:{regional}:function:{own}{suffix}" for suffix in ("", ":*")),
        *(f"arn:aws:sns:{regional}:{own}{suffix}" for suffix in ("", "-chat")),
        f"arn:aws:events:{regional}:rule/{own}-finalize",
        *(f"arn:aws:scheduler:{regional}:{thing}" for thing in (f"schedule-group/{own}", f"schedule/{own}/*")),
        *(f"arn:aws:logs:{regional}:log-group:{group}" for group in _groups(environment)),
        *(f"{BUCKET}/{prefix}/{environment}/*" for prefix in ("runs", "cache", "docs", "pins")),
        *(f"{BUCKET}/audit/{table}/env={environment}/*" for table in TABLES),
        f"arn:aws:rds-db:{regional}:dbuser:{DATABASES[environment]}",
        *SECRETS[environment],
    ]


def _groups(environment: str) -> tuple[str, ...]:
    own = f"{NAME}-{environment}"
    return f"/{NAME}/{environment}/*", f"/aws/vendedlogs/states/{own}:*", f"/aws/lambda/{own}:*"


def items_of(environment: str) -> tuple[str, str, str]:
    """Patterns of the partition keys of one environment."""
    return f"ENV#{environment}", f"POINTER#{environment}", f"RUN#{environment}#*"


def claims(mine: str, other: str) -> Iterator[Claim]:
    """What the roles of one environment can never do, to another one and to what they share."""
    yield Claim("touch a thing of another environment", ROLES, lambda r: z3.And(r.on(*things_of(other)), _not(r.does(*ACCOUNT_WIDE))))
    yield from _about_items(mine, other)
    yield from _about_objects(mine)
    yield from _about_secrets(mine)
    yield from _about_power(mine)
    yield from _about_runs(mine)


def _about_items(mine: str, other: str) -> Iterator[Claim]:
    writes = ("dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:BatchWriteItem", "dynamodb:DeleteItem")

    def on_table(r: Request) -> Any:
        return z3.And(r.on(TABLE, f"{TABLE}/*"), _not(r.does(*ACCOUNT_WIDE)))

    def writes_outside(*keys: str) -> Question:
        return lambda r: z3.And(on_table(r), r.does(*writes), _not(r.has(LEADING, *keys)))

    yield Claim("read or write an item of another environment", ROLES, lambda r: z3.And(on_table(r), r.has(LEADING, *items_of(other))))
    yield Claim("use the table without naming a partition", ROLES, lambda r: z3.And(on_table(r), _not(r.present(LEADING))))
    yield Claim("use the audit table at all", ("warehouse", "execution", "scheduler", "events"), on_table)
    yield Claim("write an item that is not of a run", ("task",), writes_outside(f"RUN#{mine}#*"))
    yield Claim(
        "write an outcome, a claim or a release",
        ("states",),
        lambda r: z3.And(on_table(r), r.does(*(w for w in writes if w != "dynamodb:UpdateItem")), _not(r.has(LEADING, f"ENV#{mine}"))),
    )
    yield Claim(
        "change an item of a run but to close its claim",
        ("states",),
        lambda r: z3.And(
            r.on(TABLE),
            r.does("dynamodb:UpdateItem"),
            _not(r.has(LEADING, f"ENV#{mine}")),
            _not(z3.And(r.has(LEADING, f"RUN#{mine}#*"), r.has(ATTRIBUTES, "pk", "sk", "closed_up_to"))),
        ),
    )
    yield Claim("delete an item", ("task", *FEDERATED), lambda r: z3.And(on_table(r), r.does("dynamodb:Delete*", "dynamodb:PartiQL*")))
    yield Claim(
        "write an outcome, configuration, a lock, a job's state or a run's record",
        ("deployer",),
        writes_outside(f"POINTER#{mine}", "RELEASE#*"),
    )
    yield Claim(
        "write anything but a pointer where the pointer is",
        ("deployer",),
        lambda r: z3.And(
            on_table(r),
            r.does(*writes),
            r.has(LEADING, f"POINTER#{mine}"),
            _not(z3.And(r.present(ATTRIBUTES), r.has(ATTRIBUTES, *POINTER))),
        ),
    )
    yield Claim(
        "move the pointer, or rewrite the record of its moves",
        tuple(role for role in ROLES if role != "deployer"),
        lambda r: z3.And(
            on_table(r), r.has(LEADING, "POINTER#*"), _not(r.does("dynamodb:BatchGetItem", "dynamodb:GetItem", "dynamodb:Query"))
        ),
    )
    yield Claim(
        "write an item",
        ("operator",),
        lambda r: z3.And(on_table(r), _not(r.does("dynamodb:BatchGetItem", "dynamodb:GetItem", "dynamodb:Query"))),
    )


def _about_objects(mine: str) -> Iterator[Claim]:
    def on_objects(r: Request) -> Any:
        return z3.And(r.on(f"{BUCKET}/*"), _not(r.does(*ACCOUNT_WIDE)))

    def on_bucket(r: Request) -> Any:
        return z3.And(r.on(BUCKET, f"{BUCKET}/*"), _not(r.does(*ACCOUNT_WIDE)))

    releases, runs, cache = f"{BUCKET}/releases/*", f"{BUCKET}/runs/{mine}/*", f"{BUCKET}/cache/{mine}/*"
    docs, freshness = f"{BUCKET}/docs/{mine}/*", f"{BUCKET}/runs/{mine}/*/sources.json"
    rows = {table: f"{BUCKET}/audit/{table}/env={mine}/*" for table in TABLES}
    pins = f"{BUCKET}/pins/{mine}/*"
    once = [pins, *(pattern for table, pattern in rows.items() if table != "runs")]
    prefixes = [f"docs/{mine}/*", *(f"audit/{table}/env={mine}/*" for table in TABLES)]
    yield Claim("touch the audit bucket", ("warehouse", "execution", "scheduler", "events"), on_bucket)
    yield Claim(
        "do more to the audit bucket than write the rows of its runs",
        ("states",),
        lambda r: z3.And(on_bucket(r), _not(z3.And(r.on(rows["runs"]), r.does("s3:PutObject")))),
    )
    others = tuple(role for role in ROLES if role != "states")
    yield Claim("write the row of a run", others, lambda r: z3.And(r.on(rows["runs"]), r.does("s3:Put*", "s3:Replicate*")))
    yield Claim(
        "touch an object but releases, its own runs, pins, rows of the long-term audit, documentation and parse cache",
        ROLES,
        lambda r: z3.And(on_objects(r), _not(r.on(releases, runs, cache, docs, pins, *rows.values()))),
    )
    yield Claim(
        "do more to the bucket than list releases, its own runs, pins, rows, documentation and parse cache",
        ROLES,
        lambda r: z3.And(
            r.on(BUCKET),
            _not(r.does(*ACCOUNT_WIDE)),
            _not(
                z3.And(
                    r.does("s3:ListBucket"),
                    r.has("s3:prefix", "releases/*", f"pins/{mine}/*", f"runs/{mine}/*", f"cache/{mine}/*", *prefixes),
                )
            ),
        ),
    )
    yield Claim(
        "remove an object, or read an old version", ROLES, lambda r: r.does("s3:Delete*", "s3:*Version*", "s3:*Retention", "s3:Bypass*")
    )
    yield Claim("write a release", ("task", "operator"), lambda r: z3.And(r.on(releases), _not(r.does("s3:GetObject", *ACCOUNT_WIDE))))
    yield Claim(
        "overwrite a published file, a pin or a row",
        ROLES,
        lambda r: z3.And(r.on(releases, *once), r.does("s3:Put*", "s3:Replicate*"), _not(r.present("s3:if-none-match"))),
    )
    yield Claim(
        "pin a version",
        tuple(role for role in ROLES if role not in ("task", "deployer")),
        lambda r: z3.And(r.on(pins), _not(r.does("s3:GetObject", *ACCOUNT_WIDE))),
    )
    yield Claim(
        "do more to a pin than read it and write it once",
        ("task", "deployer"),
        lambda r: z3.And(r.on(pins), _not(r.does("s3:GetObject", "s3:PutObject", *ACCOUNT_WIDE))),
    )
    yield Claim("write a promotion's row", ("task", "operator"), lambda r: z3.And(r.on(rows["promotions"]), r.does("s3:Put*")))
    yield Claim("write an attempt's row", FEDERATED, lambda r: z3.And(r.on(rows["attempts"], rows["nodes"]), r.does("s3:Put*")))
    yield Claim("read a row", ("task", "deployer"), lambda r: z3.And(r.on(*rows.values()), r.does("s3:Get*")))
    yield Claim("touch a parse cache", FEDERATED, lambda r: z3.And(r.on(cache), _not(r.does(*ACCOUNT_WIDE))))
    yield Claim("read an artifact but sources.json", ("task",), lambda r: z3.And(r.on(runs), r.does("s3:Get*"), _not(r.on(freshness))))
    yield Claim("read documentation", ("task", "deployer"), lambda r: z3.And(r.on(docs), r.does("s3:Get*")))
    yield Claim("write documentation", FEDERATED, lambda r: z3.And(r.on(docs), r.does("s3:Put*")))
    yield Claim("write an artifact", FEDERATED, lambda r: z3.And(r.on(runs), _not(r.does("s3:GetObject", *ACCOUNT_WIDE))))


def _about_secrets(mine: str) -> Iterator[Claim]:
    secrets = ("secretsmanager:*", "ssm:*")
    # On Lambda the runner reads by itself what the ECS agent injects into a task.
    readers = ("execution", "task")
    yield Claim("read a secret", tuple(role for role in ROLES if role not in readers), lambda r: r.does(*secrets))
    yield Claim("read a secret that the environment does not name", readers, lambda r: z3.And(r.does(*secrets), _not(r.on(*SECRETS[mine]))))
    context = "kms:EncryptionContext:"
    theirs: dict[str, Callable[[Request], Any]] = {
        role: lambda r: z3.Or(
            r.has(f"{context}aws:dynamodb:tableName", f"{NAME}-audit"), r.has(f"{context}aws:s3:arn", BUCKET, f"{BUCKET}/*")
        )
        for role in FEDERATED
    }
    theirs["states"] = lambda r: z3.Or(
        r.has(f"{context}aws:dynamodb:tableName", f"{NAME}-audit"),
        r.has(f"{context}aws:sns:topicArn", *(f"arn:aws:sns:{REGION}:{ACCOUNT}:{NAME}-{mine}{suffix}" for suffix in ("", "-chat"))),
        r.has(f"{context}aws:s3:arn", BUCKET, f"{BUCKET}/audit/runs/env={mine}/*"),
    )
    theirs["task"] = lambda r: z3.Or(
        r.has(f"{context}aws:dynamodb:tableName", f"{NAME}-audit"),
        r.has(f"{context}aws:s3:arn", BUCKET, f"{BUCKET}/*"),
        r.has(f"{context}SecretARN", *SECRETS[mine]),
        r.has(f"{context}PARAMETER_ARN", *SECRETS[mine]),
    )
    theirs["execution"] = lambda r: z3.Or(r.has(f"{context}SecretARN", *SECRETS[mine]), r.has(f"{context}PARAMETER_ARN", *SECRETS[mine]))
    for role, its in theirs.items():
        yield Claim(
            "use a key for what is not its own",
            (role,),
            lambda r, its=its: z3.And(r.does("kms:*"), _not(r.does("kms:DescribeKey")), _not(its(r))),  # type: ignore[misc]
        )
    yield Claim("use a key but through a service", ROLES, lambda r: z3.And(r.does("kms:*"), _not(r.present("kms:ViaService"))))
    yield Claim("use a key", ("scheduler", "events"), lambda r: r.does("kms:*"))


def _about_power(mine: str) -> Iterator[Claim]:
    passes = ("execution", "task")
    yield Claim("use IAM", tuple(role for role in ROLES if role != "states"), lambda r: r.does("iam:*"))
    yield Claim(
        "use IAM but to hand its two roles to ECS tasks",
        ("states",),
        lambda r: z3.And(
            r.does("iam:*"),
            _not(
                z3.And(
                    r.does("iam:PassRole"),
                    r.on(*(role_arn(mine, role) for role in passes)),
                    r.has("iam:PassedToService", "ecs-tasks.amazonaws.com"),
                )
            ),
        ),
    )
    becomes = ("sts:Assume*", "sts:TagSession", "sts:SetSourceIdentity", "sts:GetFederationToken", "sts:GetSessionToken")
    yield Claim("become another role", tuple(role for role in ROLES if role != "task"), lambda r: r.does(*becomes))
    yield Claim("become a role but the warehouse's", ("task",), lambda r: z3.And(r.does("sts:*"), _not(r.on(role_arn(mine, "warehouse")))))
    for role in ROLES:
        yield Claim(
            "make, change, share or remove what is not its task",
            (role,),
            lambda r, role=role: z3.And(r.does(*POWERS), _not(r.does(*TASKS.get(role, ())))),  # type: ignore[misc]
        )


def _about_runs(mine: str) -> Iterator[Claim]:
    yield Claim(
        "start a run but by the alias",
        tuple(role for role in ROLES if role not in ("events", "states")),
        lambda r: z3.And(r.does("states:Start*"), _not(r.has("states:StateMachineQualifier", "live"))),
    )
    yield Claim(
        "start anything but announce",
        ("states",),
        lambda r: z3.And(r.does("states:Start*"), _not(r.on(machine_arn(mine, suffix="-announce")))),
    )
    yield Claim(
        "start anything but finalize", ("events",), lambda r: z3.And(r.does("states:*"), _not(r.on(machine_arn(mine, suffix="-finalize"))))
    )
    told = f"dbt/{NAME}/{mine}"
    yield Claim(
        "measure anything but its own runs",
        ROLES,
        lambda r: z3.And(r.does("cloudwatch:Put*"), _not(r.has("cloudwatch:namespace", told))),
    )
    yield Claim(
        "publish events but its own, or elsewhere than on the default bus",
        ROLES,
        lambda r: z3.And(
            r.does("events:PutEvents"),
            _not(z3.And(r.has("events:source", told), r.on(f"arn:aws:events:{REGION}:{ACCOUNT}:event-bus/default"))),
        ),
    )
    yield Claim("stop a run", tuple(role for role in ROLES if role != "operator"), lambda r: r.does("states:Stop*", "states:Redrive*"))
    yield Claim(
        "run or stop a task outside of its cluster",
        ("states",),
        lambda r: z3.And(
            r.does("ecs:*"),
            _not(r.does("ecs:TagResource")),
            _not(r.has("ecs:cluster", f"arn:aws:ecs:{REGION}:{ACCOUNT}:cluster/{NAME}-{mine}")),
        ),
    )
    yield Claim(
        "call a function but its own, as one of its versions",
        tuple(role for role in ROLES),
        lambda r: z3.And(
            r.does("lambda:*"),
            _not(z3.And(r.does("lambda:InvokeFunction"), r.on(f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{NAME}-{mine}:*"))),
        ),
    )
    yield Claim("touch the network but for a function's interfaces", ROLES, lambda r: z3.And(r.does("ec2:*"), _not(r.does(*INTERFACES))))
    yield Claim(
        "tag a task that it does not start",
        ("states",),
        lambda r: z3.And(r.does("ecs:TagResource"), _not(r.has("ecs:CreateAction", "RunTask"))),
    )


def _not(formula: Any) -> Any:
    return z3.Not(formula)


# Trust: who can become a role


def becomes(environment: str, trusted: Mapping[str, Any]) -> Iterator[Claim]:
    """Who can never become a role of an environment.

    Args:
        trusted: oidc as in the inputs.
    """
    services = {
        "states": ("states", [machine_arn(environment, suffix=s) for s in MACHINES]),
        "execution": ("ecs-tasks", [f"arn:aws:ecs:{REGION}:{ACCOUNT}:*"]),
        "scheduler": ("scheduler", [f"arn:aws:scheduler:{REGION}:{ACCOUNT}:schedule-group/{NAME}-{environment}"]),
        "events": ("events", [f"arn:aws:events:{REGION}:{ACCOUNT}:rule/{NAME}-{environment}-finalize"]),
    }
    ecs = _but_service("ecs-tasks", [f"arn:aws:ecs:{REGION}:{ACCOUNT}:*"])
    yield Claim(
        "be anybody but ecs-tasks for this account's own resources, or Lambda for another account",
        ("task",),
        lambda r: z3.And(ecs(r), _not(z3.And(r.by("Service:lambda.amazonaws.com"), _mine_or_unsaid(r)))),
    )
    for role, (service, sources) in services.items():
        yield Claim(f"be anybody but {service} for this account's own resources", (role,), _but_service(service, sources))
    yield Claim(
        "be anybody but the task role, with this environment and a source identity",
        ("warehouse",),
        lambda r: _not(
            z3.And(
                r.by(f"AWS:{role_arn(environment, 'task')}"),
                r.has("aws:RequestTag/environment", environment),
                r.present("sts:SourceIdentity"),
            )
        ),
    )
    for role in FEDERATED:
        yield Claim(
            "be a token of another issuer, audience or subject", (role,), _but_tokens(trusted, trusted["environments"][environment][role])
        )


def _but_service(service: str, sources: list[str]) -> Question:
    return lambda r: _not(
        z3.And(r.by(f"Service:{service}.amazonaws.com"), r.has("aws:SourceAccount", ACCOUNT), r.has("aws:SourceArn", *sources))
    )


def _mine_or_unsaid(r: Request) -> Any:
    return z3.Or(_not(r.present("aws:SourceAccount")), r.has("aws:SourceAccount", ACCOUNT))


def _but_tokens(trusted: Mapping[str, Any], grants: Mapping[str, Any]) -> Question:
    def question(r: Request) -> Any:
        known = []
        for key, grant in grants.items():
            provider = trusted["providers"][key]
            issuer = provider["url"].removeprefix("https://") if "url" in provider else provider["arn"].split(":oidc-provider/")[1]
            known.append(
                z3.And(
                    r.by(f"Federated:arn:aws:iam::{ACCOUNT}:oidc-provider/{issuer}"),
                    r.has(f"{issuer}:aud", *grant.get("audiences", provider["audiences"])),
                    r.has(f"{issuer}:sub", *grant["subjects"]),
                )
            )
        return _not(z3.Or(*known))

    return question
