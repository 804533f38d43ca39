"""What no warehouse role can ever do, by the kind of its warehouse; the names are those of examples/multi_warehouse."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import z3

from terraform.claims import ACCOUNT, REGION, Claim
from terraform.prover import Question, Request

WAREHOUSE = ("warehouse",)
AUDIENCES = {
    "snowflake_token": "snowflakecomputing.com",
    "bigquery": "//iam.googleapis.com/projects/123456789012/locations/global/workloadIdentityPools/aws/providers/dbt",
}
AUDIENCE, SECONDS, TAGS = "sts:IdentityTokenAudience", "sts:DurationSeconds", "aws:TagKeys"
DATABASE_USER, DATABASE_ROLES = "aws:RequestTag/RedshiftDbUser", "aws:RequestTag/RedshiftDbRoles"
SESSION_TAGS = {"redshift_serverless": {DATABASE_USER: "dbt_prod", DATABASE_ROLES: "transformer"}, "redshift_cluster": {}}

GLUE = f"arn:aws:glue:{REGION}:{ACCOUNT}"
BUILT = tuple(f"{GLUE}:{kind}" for name in ("analytics", "analytics_marts") for kind in (f"database/{name}", f"table/{name}/*"))
READ = (f"{GLUE}:database/raw", f"{GLUE}:table/raw/*")
WRITTEN = ("arn:aws:s3:::acme-lake/athena/*", "arn:aws:s3:::acme-lake/analytics/*")


def warehouse_claims(environment: str) -> Iterator[Claim]:
    """What the warehouse role of an environment of the example can never do."""
    yield Claim("do anything but what its warehouse needs", WAREHOUSE, lambda r: z3.Not(_NEEDS[environment](r)))
    if environment in AUDIENCES:
        yield Claim(
            "have a token that lives longer than five minutes",
            WAREHOUSE,
            lambda r: z3.And(r.does("sts:GetWebIdentityToken"), r.present(SECONDS), z3.Not(r.has(SECONDS, "<= 300"))),
        )


def becomes_warehouse(environment: str) -> Question:
    """A caller who must not become the warehouse role: not its task role, without the run's name, or as another database user."""
    task = f"AWS:arn:aws:iam::{ACCOUNT}:role/analytics-{environment}-task"
    tags = SESSION_TAGS.get(environment)

    def tagged(r: Request) -> Any:
        if tags is None:
            return z3.BoolVal(True)
        return z3.And(*(r.has(key, tags[key]) if key in tags else z3.Not(r.present(key)) for key in (DATABASE_USER, DATABASE_ROLES)))

    return lambda r: z3.Not(
        z3.And(r.by(task), r.has("aws:RequestTag/environment", environment), r.present("sts:SourceIdentity"), tagged(r))
    )


def _does_on(action: str, resource: str) -> Question:
    return lambda r: z3.And(r.does(action), r.on(resource))


def _gets_tokens(audience: str, *names: str) -> Question:
    """Tokens for one audience; with tags of these names, where there are any."""

    def needs(r: Request) -> Any:
        named = z3.And(r.does("sts:TagGetWebIdentityToken"), z3.Or(z3.Not(r.present(TAGS)), r.has(TAGS, *names)))
        token = z3.And(r.does("sts:GetWebIdentityToken"), r.has(AUDIENCE, audience))
        return z3.Or(token, named) if names else token

    return needs


def _athena(r: Request) -> Any:
    reads = ("glue:BatchGetPartition", "glue:GetDatabase", "glue:GetPartition*", "glue:GetTable*")
    builds = (
        *reads,
        "glue:CreateDatabase",
        *(f"glue:{verb}*{thing}*" for verb in ("*Create", "*Delete", "Update") for thing in ("Table", "Partition")),
    )
    queries = ("athena:*Query*", "athena:GetWorkGroup")
    return z3.Or(
        z3.And(r.does(*queries), r.on(f"arn:aws:athena:{REGION}:{ACCOUNT}:workgroup/analytics")),
        z3.And(r.does("glue:GetDatabases"), r.on(f"{GLUE}:catalog", f"{GLUE}:database/*")),
        z3.And(r.does(*reads), r.on(f"{GLUE}:catalog", *READ)),
        # Glue asks for the catalog and the database besides the table; the table's own fence is the one that counts.
        z3.And(r.does(*builds), r.on(f"{GLUE}:catalog", *BUILT)),
        z3.And(r.does("s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:*MultipartUpload*"), r.on(*WRITTEN)),
        z3.And(r.does("s3:GetObject"), r.on("arn:aws:s3:::acme-raw/exports/*")),
        z3.And(r.does("s3:GetBucketLocation"), r.on("arn:aws:s3:::acme-lake", "arn:aws:s3:::acme-raw")),
        z3.And(r.does("s3:ListBucket"), r.on("arn:aws:s3:::acme-lake"), r.has("s3:prefix", "athena/*", "analytics/*")),
        z3.And(r.does("s3:ListBucket"), r.on("arn:aws:s3:::acme-raw"), r.has("s3:prefix", "exports/*")),
    )


_NEEDS: Mapping[str, Callable[[Request], Any]] = {
    "postgres": _does_on("rds-db:connect", f"arn:aws:rds-db:{REGION}:{ACCOUNT}:dbuser:db-ABCDEFGHIJKL01234/dbt"),
    # A signature of its own is all that it gives.
    "snowflake": lambda _: z3.BoolVal(False),
    "snowflake_token": _gets_tokens(AUDIENCES["snowflake_token"]),
    "snowflake_okta": lambda r: z3.And(
        r.does("kms:Sign"),
        r.on(f"arn:aws:kms:{REGION}:{ACCOUNT}:key/0a1b2c3d-0a1b-2c3d-4e5f-0a1b2c3d4e5f"),
        r.has("kms:SigningAlgorithm", "RSASSA_PKCS1_V1_5_SHA_256"),
    ),
    "redshift_serverless": _does_on(
        "redshift-serverless:GetCredentials",
        f"arn:aws:redshift-serverless:{REGION}:{ACCOUNT}:workgroup/0a1b2c3d-0a1b-2c3d-4e5f-0a1b2c3d4e5f",
    ),
    "redshift_cluster": _does_on(
        "redshift:GetClusterCredentialsWithIAM", f"arn:aws:redshift:{REGION}:{ACCOUNT}:dbname:analytics/analytics"
    ),
    "bigquery": _gets_tokens(AUDIENCES["bigquery"], "environment", "run"),
    "athena": _athena,
}
ENVIRONMENTS = tuple(_NEEDS)
