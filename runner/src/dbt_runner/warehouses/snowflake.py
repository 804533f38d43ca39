"""Snowflake by workload identity federation, or by External OAuth with Okta.

https://docs.snowflake.com/en/user-guide/workload-identity-federation: the warehouse role is the identity. `aws_attestation` sends
Snowflake a signed GetCallerIdentity, `aws_token` a token of AWS's own OIDC issuer (sts:GetWebIdentityToken); the connector makes either
at every login, from the credentials that the supervisor serves.

https://docs.snowflake.com/en/user-guide/oauth-ext-overview: with `okta` an application of Okta is the identity, whose key in KMS the
warehouse role may sign with. The supervisor gets its tokens (dbt_runner.broker.okta), the worker asks for one at each login.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from dbt_runner.config import Warehouse
from dbt_runner.errors import ACCESS_DENIED, WAREHOUSE_UNAVAILABLE, ErrorKind
from dbt_runner.warehouses import aws
from dbt_runner.warehouses.adapter import Adapter, Credential, invalid, require_identity, require_method
from dbt_runner.warehouses.faults import Faults
from dbt_runner.warehouses.inquiry import Inquiry, NeedNotMet, NotUsable, literal

# The connector's own are in snowflake/connector/errorcode.py, the server's in snowflake/connector/network.py and on
# https://docs.snowflake.com/en/user-guide/troubleshooting-login. All failed logins have SQLSTATE 08001: it says nothing.
_ERRNOS: Mapping[str, ErrorKind | None] = {
    **dict.fromkeys(
        (
            "250001",  # failed to connect
            "250002",  # connection is closed
            "250003",  # failed to request
            "250005",  # failed to reach the server
            "251011",  # connection timeout
            "251012",  # an answer that the connector itself would try again
            "252010",  # a part of the result could not be fetched
            "252013",
            "290429",  # 290000 and the status of HTTP
            "2905*",
            "390110",  # a session or its token ended; a new login is all it takes
            "390111",
            "390112",
            "390113",
            "390114",
            "390115",
        ),
        WAREHOUSE_UNAVAILABLE,
    ),
    **dict.fromkeys(
        (
            "000606",  # no active warehouse: it does not exist, or the role may not use it
            "003001",  # insufficient privileges
            "250011",  # invalid certificate
            "251017",  # workload identity: wrong settings,
            "251018",  # no credentials of AWS,
            "251021",  # or a host that is not Snowflake's
            "290401",
            "290403",
            "290404",  # no such account
            "390*",  # the login: identity, role, database, network policy
            "394*",
            "395*",
        ),
        ACCESS_DENIED,
    ),
}


def _by_token(warehouse: Warehouse) -> bool:
    return warehouse.identity.get("method") == "aws_token"


# Of an application of Okta.
_APPLICATION = ("issuer", "client_id", "kms_key_arn")
_BY_WORKLOAD_IDENTITY: Mapping[str, str | float] = {
    "authenticator": "workload_identity",
    "workload_identity_provider": "AWS",
    # It would ask the metadata services of three clouds at every login.
    "platform_detection_timeout_seconds": 0.0,
}


def _by_okta(warehouse: Warehouse) -> bool:
    return warehouse.identity.get("method") == "okta"


def _check(warehouse: Warehouse) -> None:
    require_method(warehouse, "aws_attestation", "aws_token", "okta")
    if _by_okta(warehouse):
        require_identity(warehouse, *_APPLICATION)
    elif given := [key for key in _APPLICATION if key in warehouse.identity]:
        raise invalid(f"identity.{given[0]}", "is for identity.method okta only")


def _ask(inquiry: Inquiry) -> None:
    """A login with a warehouse, a database or a schema that is not there or not granted succeeds, and so does `select 1`, without any."""
    for kind, name in (("warehouse", str(inquiry.credentials.warehouse)), ("database", inquiry.database)):
        if not inquiry.answer(f"select current_{kind}() is not null"):
            raise NotUsable(f"the role can use no {kind} {name}: it does not exist, or USAGE on it is not granted")
    if inquiry.answer("select current_schema() is not null"):
        # A project may be one of views.
        missing = _missing(inquiry, "create table if not exists dbt_runner_check (id int)")
        if missing and _missing(inquiry, "create view if not exists dbt_runner_check as select 1 as id"):
            raise NeedNotMet(f"the role may not build in schema {inquiry.schema}: {missing}")
    elif missing := _missing(inquiry, f"create schema if not exists {_identifier(inquiry.schema)}"):
        raise NeedNotMet(f"there is no schema {inquiry.schema} that the role can use, and it may not create one: {missing}")


def _missing(inquiry: Inquiry, statement: str) -> str:
    """The privileges that the session lacks for a statement, which is not executed; empty where Snowflake does not say.

    https://docs.snowflake.com/en/sql-reference/functions/explain_privileges, which not every account has.
    """
    from dbt_common.exceptions import DbtDatabaseError

    try:
        answer = json.loads(inquiry.answer(f"select explain_privileges(statement => {literal(statement)}, missing_only => true)"))
    except (DbtDatabaseError, TypeError, ValueError):
        return ""
    return f"it lacks {_told(answer)}" if isinstance(answer, dict) and answer.get("authorized") is not True else ""


def _told(node: Mapping[str, Any]) -> str:
    for key, word in (("allOf", " and "), ("oneOf", " or ")):
        if key in node:
            return word.join(_told(inner) for inner in node[key])
    if "privilege" not in node:
        return "a privilege"
    privilege = "USAGE" if node["privilege"] == "<ANY>" else node["privilege"]
    return f"{privilege} on {node.get('objectType', '')} {node.get('objectName', '')}".rstrip()


def _identifier(name: str) -> str:
    # As dbt writes it: Snowflake has what is not quoted in capital letters.
    return name if re.fullmatch(r"[A-Za-z_][\w$]*", name) else '"' + name.replace('"', '""') + '"'


ADAPTER = Adapter(
    type="snowflake",
    settings={
        "account": str,
        "user": str,
        "role": str,
        "warehouse": str,
        "database": str,
        "schema": str,
        "threads": int,
        "query_tag": str,
        "host": str,
        "port": int,
        "protocol": str,
        "connect_retries": int,
        "connect_timeout": int,
        "client_session_keep_alive": bool,
        "reuse_connections": bool,
        "retry_on_database_errors": bool,
        "s3_stage_vpce_dns_name": str,
    },
    required=("account", "role", "warehouse", "database", "schema"),
    identity=frozenset({"method", *_APPLICATION}),
    check=_check,
    # The token is none of the profile's: dbt_runner.snowflake_login has it asked for at each login.
    derived=lambda warehouse: {"authenticator": "oauth"} if _by_okta(warehouse) else _BY_WORKLOAD_IDENTITY,
    # snowflake/connector/connection.py: the one way to ask for AWS's token instead of the signed request.
    environment=lambda warehouse: {"SNOWFLAKE_ENABLE_AWS_WIF_OUTBOUND_TOKEN": "true"} if _by_token(warehouse) else {},
    credential=lambda warehouse: Credential.ACCESS_TOKEN if _by_okta(warehouse) else Credential.AWS,
    ask=_ask,
    faults=Faults(
        codes={"errno": _ERRNOS, "sqlstate": {"42501": ACCESS_DENIED}, **aws.CODES},
        types={
            **aws.TYPES,
            # snowflake/connector/errors.py, by status of HTTP.
            **dict.fromkeys(
                (
                    "BadGatewayError",
                    "GatewayTimeoutError",
                    "InternalServerError",
                    "OtherHTTPRetryableError",
                    "RequestExceedMaxRetryError",
                    "RequestTimeoutError",
                    "ServiceUnavailableError",
                    "TooManyRequests",
                ),
                WAREHOUSE_UNAVAILABLE,
            ),
            "ForbiddenError": ACCESS_DENIED,
            "TokenNotServed": ACCESS_DENIED,
            "UnknownSnowflakeAdapter": ACCESS_DENIED,
        },
    ),
)
