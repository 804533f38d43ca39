"""Snowflake's door in front of fakesnow: the login verifies who comes, the queries are answered by DuckDB.

The protocol is what snowflake/connector speaks; its sources are the reference.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
import secrets
import threading
from collections.abc import Callable, Mapping
from typing import Any

import jwt
import snowflake.connector.errors
from fakesnow.arrow import to_ipc, to_sf
from fakesnow.dialect import parse_one
from fakesnow.fakes import FakeSnowflakeConnection
from fakesnow.instance import FakeSnow
from fakesnow.rowtype import describe_as_rowtype
from fakesnow.statement_type import DML_TYPE_IDS, statement_type_id
from werkzeug.wrappers import Request, Response

from warehouses.aws import ROLE, Aws
from warehouses.okta import CLIENT, Okta
from warehouses.sigv4 import Refused, signed_header

AUDIENCE = "snowflakecomputing.com"


class Snowflake:
    """An account with one user of type SERVICE.

    Attributes:
        arn: of the user's workload identity: the role that it is.
        audience: for whom a token has to be.
        login_name: of the same user, by which External OAuth finds it.
        oauth_audience: for whom Okta's tokens have to be.
        accepted: told each token of Okta with which somebody is let in.
        over: tokens of Okta that are not good any more.
        roles: that are granted to the user.
        warehouses, databases, schemas: that the role may use.
        privileges: that the role has on the database or on its schemas.
        explains: whether the account has EXPLAIN_PRIVILEGES.
        lapses: the next query finds its session over, and has to renew it first.
        renewals: how many sessions went on that way.
        logins: how those that were let in said who they are, in order.
    """

    def __init__(self, cloud: Aws, okta: Okta) -> None:
        self._cloud = cloud
        self._okta = okta
        self._database = FakeSnow()
        self._database.connect("ANALYTICS", "PUBLIC")
        self._sessions: dict[str, FakeSnowflakeConnection] = {}
        self._asked_for: dict[str, tuple[str, str, str]] = {}
        self._masters: dict[str, str] = {}
        # One DuckDB, one statement at a time.
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        self.arn = ROLE
        self.audience = AUDIENCE
        self.login_name = CLIENT
        self.accepted: Callable[[str], None] = lambda _: None
        self.over: set[str] = set()
        self.oauth_audience = "https://org-acct.snowflakecomputing.com"
        self.roles = {"TRANSFORMER"}
        self.warehouses = {"WH"}
        self.databases = {"ANALYTICS"}
        self.schemas = {"PUBLIC"}
        self.privileges = {"CREATE TABLE", "CREATE VIEW", "CREATE SCHEMA"}
        self.explains = True
        self.lapses = False
        self.renewals = 0
        self.logins: list[str] = []

    def handle(self, request: Request) -> Response:
        raw = request.get_data()
        body = json.loads(gzip.decompress(raw) if request.headers.get("Content-Encoding") == "gzip" else raw) if raw else {}
        token = request.headers.get("Authorization", "").partition('Token="')[2].rstrip('"')
        with self._lock:
            try:
                if request.path == "/session/v1/login-request":
                    answer = self._login(request.args, body["data"])
                elif request.path == "/session/token-request":
                    answer = self._renew(token, body["oldSessionToken"])
                elif token not in self._sessions:
                    raise Refused("390104", "User must login again to access the service.")
                elif request.path == "/queries/v1/query-request":
                    if self.lapses:
                        self.lapses = False
                        raise Refused("390112", "Your session has expired. Please login again.")
                    answer = _query(self._sessions[token], self._as_granted(token, body["sqlText"]))
                else:
                    if request.args.get("delete"):
                        del self._sessions[token]
                    answer = {}
            except Refused as exc:
                # With what it was asked, as no server should.
                told = f"{exc.message} (asked with {body['data']['TOKEN'] if request.path.endswith('/login-request') else token})"
                return _json({"data": {}, "code": exc.code, "message": told, "success": False})
            except snowflake.connector.errors.ProgrammingError as exc:
                code = f"{exc.errno:06d}"
                return _json({"data": {"errorCode": code, "sqlState": exc.sqlstate}, "code": code, "message": exc.msg, "success": False})
        return _json({"data": answer, "success": True})

    def _login(self, place: Mapping[str, str], given: Mapping[str, Any]) -> dict[str, Any]:
        if given["AUTHENTICATOR"] == "OAUTH":
            kind = self._oauth(given["TOKEN"], place.get("roleName", ""))
        elif (given["AUTHENTICATOR"], given.get("PROVIDER")) == ("WORKLOAD_IDENTITY", "AWS"):
            try:
                role, kind = self._identity(given["TOKEN"])
                if role != self.arn:
                    raise Refused("", f"no user has the workload identity {role}")
            except Refused as exc:
                raise Refused("394400", f"Workload identity federation failed: {exc.message}") from exc
        else:
            raise Refused("394300", "Incorrect username or password was specified.")
        if place.get("roleName") not in self.roles:
            raise Refused("390189", f"Role '{place.get('roleName')}' specified in the connect string is not granted to this user.")
        self.logins.append(kind)
        token, master = self._tokens()
        self._asked_for[token] = (place.get("warehouse", ""), place.get("databaseName", ""), place.get("schemaName", ""))
        self._sessions[token] = self._database.connect(place.get("databaseName"), place.get("schemaName"))
        where = {"databaseName": place.get("databaseName"), "schemaName": place.get("schemaName")}
        return {"token": token, "masterToken": master, "parameters": [{"name": "AUTOCOMMIT", "value": True}], "sessionInfo": where}

    def _tokens(self) -> tuple[str, str]:
        token, master = (f"ver:3-hint:{secrets.randbits(40)}-{secrets.token_urlsafe(40)}" for _ in range(2))
        self._cloud.secrets += [token, master]
        self._masters[token] = master
        return token, master

    def _renew(self, master: str, session: str) -> dict[str, Any]:
        if master != self._masters.get(session):
            raise Refused("390114", "Authentication token has expired. The user must authenticate again.")
        token, master = self._tokens()
        self._sessions[token] = self._sessions.pop(session)
        self._asked_for[token] = self._asked_for.pop(session)
        self.renewals += 1
        return {"sessionToken": token, "masterToken": master}

    def _as_granted(self, token: str, sql: str) -> str:
        """A login that asks for what it may not use has none; fakesnow takes every database, and knows no warehouse."""
        warehouse, database, schema = self._asked_for[token]
        sql = sql.replace("current_warehouse()", f"'{warehouse}'" if warehouse in self.warehouses else "null")
        sql = sql if database in self.databases else sql.replace("current_database()", "null")
        sql = sql if schema in self.schemas else sql.replace("current_schema()", "null")
        return re.sub(
            r"explain_privileges\(statement => '((?:[^']|'')+)', missing_only => true\)", lambda m: self._explained(m[1], schema), sql
        )

    def _explained(self, quoted: str, schema: str) -> str:
        """https://docs.snowflake.com/en/sql-reference/functions/explain_privileges"""
        if not self.explains:
            raise Refused("000002", "Unsupported feature 'EXPLAIN_PRIVILEGES'.")
        statement = parse_one(quoted.replace("''", "'"))
        kind = str(statement.args["kind"])
        if kind != "SCHEMA" and schema not in self.schemas:
            raise Refused("003001", "EXPLAIN_PRIVILEGES requires access on all objects in the statement")
        place = ("DATABASE", "ANALYTICS") if kind == "SCHEMA" else ("SCHEMA", f"ANALYTICS.{schema}")
        missing = {"privilege": f"CREATE {kind}", "objectType": place[0], "objectName": place[1]}
        answer: dict[str, Any] = {"authorized": True} if f"CREATE {kind}" in self.privileges else {"allOf": [missing]}
        return f"'{json.dumps(answer)}'"

    def _oauth(self, token: str, role: str) -> str:
        """External OAuth, as the security integration of docs/warehouses/snowflake.md. https://docs.snowflake.com/en/user-guide/oauth-ext-errors"""
        try:
            claims = self._okta.claims(token, self.oauth_audience, self._cloud.ahead)
        except jwt.ExpiredSignatureError as exc:
            raise Refused("390318", "OAuth access token expired.") from exc
        except jwt.InvalidTokenError as exc:
            raise Refused("390303", f"Invalid OAuth access token. {exc}") from exc
        if claims["sub"] != self.login_name:
            raise Refused("390302", "User in the OAuth access token was not found.")
        if f"session:role:{role}" not in claims["scp"]:
            asked = f"The role requested in the connection or the default role if none was requested in the connection ('{role}')"
            raise Refused("390317", f"{asked} is not listed in the Access Token or was filtered.")
        if token in self.over:
            raise Refused("390318", "OAuth access token expired.")
        self.accepted(token)
        return "oauth"

    def _identity(self, given: str) -> tuple[str, str]:
        """The role that an attestation shows, and of which kind that is."""
        if given.count(".") == 2:
            return self._cloud.claims(given, self.audience)["sub"], "token"
        attestation = json.loads(base64.b64decode(given))
        # Snowflake sends the request to AWS, after a look at where it would go.
        signed = signed_header(attestation["method"], attestation["url"], attestation["headers"], b"")
        if signed.headers.get("x-snowflake-audience") != self.audience or not signed.headers["host"].endswith(".amazonaws.com"):
            raise Refused("", "the request is not for this account")
        if f"https://{signed.headers['host']}/?Action=GetCallerIdentity&Version=2011-06-15" != signed.url:
            raise Refused("", "the request is not for GetCallerIdentity")
        return self._cloud.caller(signed, self._cloud.ahead).role, "attestation"


def _query(connection: FakeSnowflakeConnection, sql: str) -> dict[str, Any]:
    cursor = connection.cursor()
    type_id = statement_type_id(parse_one(sql))
    cursor.execute(sql, server=True)
    rowtype = describe_as_rowtype(cursor._describe_last_sql())
    table = cursor._arrow_table
    result: dict[str, Any] = {"queryResultFormat": "arrow", "rowsetBase64": ""}
    if table and type_id in DML_TYPE_IDS:
        rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
        result = {"queryResultFormat": "json", "rowset": [[None if value is None else str(value) for value in row] for row in rows]}
    elif table:
        result["rowsetBase64"] = base64.b64encode(to_ipc(to_sf(table, rowtype))).decode()
    return {
        "parameters": [{"name": "TIMEZONE", "value": "Etc/UTC"}],
        "rowtype": rowtype,
        "total": table.num_rows if table else 0,
        "queryId": cursor.sfqid,
        "statementTypeId": type_id,
        "finalDatabaseName": connection.database,
        "finalSchemaName": connection.schema,
        **result,
    }


def _json(document: Any) -> Response:
    return Response(json.dumps(document), content_type="application/json")
