"""Google's side: STS and IAM credentials that verify whom they make into whom, and as much of BigQuery's REST API as dbt needs, on DuckDB.

https://cloud.google.com/iam/docs/reference/sts/rest/v1/TopLevel/token, https://cloud.google.com/iam/docs/reference/credentials/rest,
https://cloud.google.com/bigquery/docs/reference/rest
"""

from __future__ import annotations

import json
import re
import secrets
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import sqlglot
from werkzeug.wrappers import Request, Response

from warehouses.aws import LEEWAY, ROLE, Aws
from warehouses.sigv4 import Refused

PROJECT = "acme-data"
AUDIENCE = "//iam.googleapis.com/projects/1234567/locations/global/workloadIdentityPools/aws/providers/dbt"
SERVICE_ACCOUNT = "dbt-prod@acme-data.iam.gserviceaccount.com"
_TYPES = {"INTEGER": "INTEGER", "BIGINT": "INTEGER", "HUGEINT": "INTEGER", "BOOLEAN": "BOOLEAN", "DOUBLE": "FLOAT"}
_API = f"/bigquery/v2/projects/{PROJECT}"

Rows = tuple[Sequence[tuple[str, str]], Sequence[Sequence[Any]]]


class BigQuery:
    """One project, one pool with one provider, one service account.

    Attributes:
        subject: the role that may become the service account.
        audience: of the provider; a token has to be for it.
        lifetime: of the tokens that Google gives out.
        granted: whether the service account may do anything in the project.
        permissions: that it has on the project's datasets, of those that are needed to build.
        datasets: that there are.
        planned: statements that were asked for as a dry run, in order.
        exchanges: the tags of the subject tokens that were exchanged, in order.
    """

    def __init__(self, cloud: Aws) -> None:
        self._cloud = cloud
        self._database = duckdb.connect()
        self.datasets: set[str] = set()
        self._jobs: dict[str, tuple[dict[str, Any], Rows]] = {}
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        self.subject = ROLE
        self.audience = AUDIENCE
        self.lifetime = timedelta(hours=1)
        self.granted = True
        self.permissions = {"bigquery.tables.list", "bigquery.tables.create", "bigquery.datasets.create"}
        self.planned: list[str] = []
        self.exchanges: list[Mapping[str, str]] = []
        self._tokens: dict[str, tuple[str, datetime]] = {}

    def handle(self, request: Request) -> Response:
        with self._lock:
            try:
                if request.path == "/v1/token":
                    return _json(self._exchange(request.form))
                who = self._bearer(request)
                if request.path.endswith(":generateAccessToken"):
                    return _json(self._impersonate(request.path, who))
                if who != SERVICE_ACCOUNT or not self.granted:
                    raise Refused("accessDenied", f"Access Denied: Project {PROJECT}: User does not have bigquery.jobs.create permission")
                return self._api(request.method, request.path.removeprefix(_API), request)
            except Refused as exc:
                if request.path == "/v1/token":
                    return _json({"error": "invalid_grant", "error_description": exc.message}, 400)
                status = 401 if exc.code == "authError" else 403
                # With what it was asked, as no server should.
                return _error(status, exc.code, f"{exc.message} (asked with {request.headers.get('Authorization')})")

    # --- identity --------------------------------------------------------------------------------------------------------

    def _exchange(self, form: Mapping[str, str]) -> dict[str, Any]:
        claims = self._cloud.claims(form["subject_token"], self.audience)
        if form["audience"] != AUDIENCE or claims["sub"] != self.subject:
            raise Refused("invalid_grant", "The given credential is rejected by the attribute condition.")
        self.exchanges.append(claims["https://sts.amazonaws.com/"]["request_tags"])
        token, _ = self._token(f"principal:{claims['sub']}")
        kind = "urn:ietf:params:oauth:token-type:access_token"
        return {"access_token": token, "issued_token_type": kind, "token_type": "Bearer", "expires_in": int(self.lifetime.total_seconds())}

    def _impersonate(self, path: str, who: str) -> dict[str, Any]:
        if who != f"principal:{self.subject}" or f"/serviceAccounts/{SERVICE_ACCOUNT}:" not in path:
            raise Refused("forbidden", "Permission 'iam.serviceAccounts.getAccessToken' denied on resource (or it may not exist).")
        token, expires_at = self._token(SERVICE_ACCOUNT)
        return {"accessToken": token, "expireTime": f"{expires_at:%Y-%m-%dT%H:%M:%SZ}"}

    def _token(self, who: str) -> tuple[str, datetime]:
        token, expires_at = secrets.token_hex(16), datetime.now(UTC) + self.lifetime
        self._tokens[token] = (who, expires_at)
        self._cloud.secrets.append(token)
        return token, expires_at

    def _bearer(self, request: Request) -> str:
        who, expires_at = self._tokens.get(request.headers.get("Authorization", "").removeprefix("Bearer "), ("", datetime.min))
        if not who or datetime.now(UTC) > expires_at + LEEWAY:
            raise Refused("authError", "Request had invalid authentication credentials.")
        return who

    # --- the API ---------------------------------------------------------------------------------------------------------

    def _api(self, method: str, path: str, request: Request) -> Response:
        match method, path.strip("/").split("/"):
            case "GET", ["datasets"]:
                return _json({"datasets": [_dataset(name) for name in sorted(self.datasets)]})
            case "GET", ["datasets", name] if name in self.datasets:
                return _json(_dataset(name))
            case "POST", ["datasets"]:
                name = json.loads(request.get_data())["datasetReference"]["datasetId"]
                self._execute(f"create schema if not exists `{name}`")
                return _json(_dataset(name))
            case "GET", ["datasets", name, "tables"] if name in self.datasets:
                self._require("bigquery.tables.list", f"dataset {PROJECT}:{name}")
                return _json({"tables": [_table(name, *row) for row in self._tables(name)]})
            case "GET", ["datasets", "_answers", "tables", job]:
                return _json({**_table("_answers", job, "TABLE"), "schema": _schema(self._jobs[job][1]), "numRows": "1"})
            case "GET", ["datasets", name, "tables", table] if found := [row for row in self._tables(name) if row[0] == table]:
                columns = self._database.execute(f"select * from {name}.{table} limit 0").description
                rows: Rows = ([(column[0], _TYPES.get(str(column[1]), "STRING")) for column in columns or []], [])
                return _json({**_table(name, *found[0]), "schema": _schema(rows), "numRows": "1", "numBytes": "1"})
            case (("PATCH" | "DELETE"), ["datasets", name, "tables", table]):
                return _json(_table(name, table, "TABLE"))
            case "POST", ["jobs"]:
                return _json(self._run(json.loads(request.get_data())))
            case "GET", ["jobs", job]:
                return _json(self._jobs[job][0])
            case "GET", ["queries", job]:
                answer, result = self._jobs[job]
                return _json({"jobReference": answer["jobReference"], "jobComplete": True, "schema": _schema(result), **_rows(result)})
            case "GET", ["datasets", "_answers", "tables", job, "data"]:
                return _json(_rows(self._jobs[job][1]))
        return _error(404, "notFound", f"Not found: {path}")

    def _tables(self, dataset: str) -> list[tuple[str, str]]:
        sql = "select table_name, table_type from information_schema.tables where table_schema = ?"
        return [(name, "VIEW" if kind == "VIEW" else "TABLE") for name, kind in self._database.execute(sql, [dataset]).fetchall()]

    def _run(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        configuration, reference = asked["configuration"], asked["jobReference"]
        job, sql = reference["jobId"], configuration["query"]["query"]
        if told := re.search(r"\bcreate (?:or replace )?(table|view|schema)\b.*?`([^`]+)`\.`([^`]+)`", sql, re.IGNORECASE):
            kind, dataset = told[1].lower(), f"dataset {told[2]}:{told[3]}"
            self._require("bigquery.datasets.create" if kind == "schema" else "bigquery.tables.create", dataset)
        if configuration.get("dryRun"):
            self.planned.append(sql)
            return {
                "jobReference": {**reference, "location": "EU"},
                "configuration": configuration,
                "status": {"state": "DONE"},
                "statistics": {},
            }
        status: dict[str, Any] = {"state": "DONE"}
        result: Rows = ([], [])
        try:
            result = self._execute(sql)
        except duckdb.Error as exc:
            failure = {"reason": "invalidQuery", "message": str(exc)}
            status.update(errorResult=failure, errors=[failure])
        made = re.search(r"create or replace (table|view)\s+`[^`]+`\.`([^`]+)`\.`?(\w+)`?", sql, re.IGNORECASE)
        kind = {"table": "CREATE_TABLE_AS_SELECT", "view": "CREATE_VIEW"}[made[1].lower()] if made else "SELECT"
        dataset, table = (made[2], made[3]) if made else ("_answers", job)
        query = {**configuration["query"], "destinationTable": {"projectId": PROJECT, "datasetId": dataset, "tableId": table}}
        answer = {
            "id": f"{PROJECT}:EU.{job}",
            "jobReference": {**reference, "location": "EU"},
            "configuration": {**configuration, "jobType": "QUERY", "query": query},
            "status": status,
            "statistics": {"creationTime": "1", "startTime": "1", "endTime": "2", "query": {"statementType": kind}},
        }
        self._jobs[job] = (answer, result)
        return answer

    def _require(self, permission: str, resource: str) -> None:
        if permission not in self.permissions:
            raise Refused("accessDenied", f"Access Denied: {resource}: Permission {permission} denied on {resource} (or it may not exist).")

    def _execute(self, sql: str) -> Rows:
        plain = re.sub(rf"`?{PROJECT}`?\.", "", re.sub(r"/\*.*?\*/", "", sql, flags=re.DOTALL))
        plain = re.sub(r"\boptions\s*\(.*?\)\s*(?=as\b|;|$)", "", plain, flags=re.DOTALL | re.IGNORECASE)
        self.datasets.update(re.findall(r"create schema if not exists\s+`?(\w+)`?", plain, re.IGNORECASE))
        columns: Sequence[tuple[str, str]] = []
        rows: Sequence[Sequence[Any]] = []
        for statement in filter(None, sqlglot.transpile(plain, read="bigquery", write="duckdb")):
            cursor = self._database.execute(statement)
            if statement.lower().startswith(("select", "with")):
                columns = [(column[0], _TYPES.get(str(column[1]), "STRING")) for column in cursor.description or []]
                rows = cursor.fetchall()
        return columns, rows


def _dataset(name: str) -> dict[str, Any]:
    return {"id": f"{PROJECT}:{name}", "datasetReference": {"projectId": PROJECT, "datasetId": name}, "location": "EU", "access": []}


def _table(dataset: str, name: str, kind: str) -> dict[str, Any]:
    return {
        "id": f"{PROJECT}:{dataset}.{name}",
        "tableReference": {"projectId": PROJECT, "datasetId": dataset, "tableId": name},
        "type": kind,
    }


def _schema(result: Rows) -> dict[str, Any]:
    return {"fields": [{"name": name, "type": kind, "mode": "NULLABLE"} for name, kind in result[0]]}


def _rows(result: Rows) -> dict[str, Any]:
    def value(cell: Any) -> str | None:
        return None if cell is None else str(cell).lower() if isinstance(cell, bool) else str(cell)

    return {"totalRows": str(len(result[1])), "rows": [{"f": [{"v": value(cell)} for cell in row]} for row in result[1]]}


def _json(document: Any, status: int = 200) -> Response:
    return Response(json.dumps(document), status=status, content_type="application/json")


def _error(status: int, reason: str, message: str) -> Response:
    return _json({"error": {"code": status, "message": message, "errors": [{"reason": reason, "message": message}]}}, status)
