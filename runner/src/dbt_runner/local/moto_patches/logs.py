"""CloudWatch Logs: saved queries."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

from moto.logs.responses import LogsResponse

from dbt_runner.local.moto_patches.registry import Patch, patch

PATCHES: list[Patch] = []

_FIELDS = ("name", "queryString", "logGroupNames", "queryLanguage", "parameters")


@patch("logs.query-definitions", PATCHES)
def query_definitions(patch: Patch) -> None:
    """moto has no saved queries.

    https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutQueryDefinition.html
    """

    def kept(self: Any) -> dict[str, dict[str, Any]]:
        # An attribute of the backend: it goes when moto forgets everything.
        found: dict[str, dict[str, Any]] = vars(self.logs_backend).setdefault("query_definitions", {})
        return found

    def put_query_definition(self: Any) -> str:
        key = self._get_param("queryDefinitionId") or str(uuid.uuid4())
        given = {field: self._get_param(field) for field in _FIELDS}
        definition = {field: value for field, value in given.items() if value is not None}
        kept(self)[key] = {**definition, "queryDefinitionId": key, "lastModified": int(time.time() * 1000)}
        return json.dumps({"queryDefinitionId": key})

    def describe_query_definitions(self: Any) -> str:
        prefix = self._get_param("queryDefinitionNamePrefix") or ""
        found = [each for each in kept(self).values() if each["name"].startswith(prefix)]
        return json.dumps({"queryDefinitions": sorted(found, key=lambda each: str(each["name"]))})

    def delete_query_definition(self: Any) -> str:
        return json.dumps({"success": kept(self).pop(self._get_param("queryDefinitionId"), None) is not None})

    for action in (put_query_definition, describe_query_definitions, delete_query_definition):
        patch.set(LogsResponse, action.__name__, action)
