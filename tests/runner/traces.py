"""Everything that an attempt leaves behind, to be searched for what must not be there."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

import boto3

from dbt_runner.store import Store


def written(store: Store, said: str) -> dict[str, str]:
    """Everything that is left of an attempt, by where: items, objects and what the process said."""
    s3 = boto3.client("s3")
    found = {"said": said}
    for item in boto3.resource("dynamodb").Table(store.table).scan()["Items"]:
        found[" ".join((str(item["pk"]), str(item["sk"])))] = json.dumps(item, default=str, ensure_ascii=False)
    for version in s3.list_object_versions(Bucket=str(store.bucket))["Versions"]:
        body = s3.get_object(Bucket=str(store.bucket), Key=version["Key"], VersionId=version["VersionId"])["Body"].read()
        found[version["Key"]] = body.decode(errors="replace")
    return found


def places(found: Mapping[str, str], secrets: Iterable[str]) -> set[str]:
    """Where one of the secrets is, as it is or as JSON writes it."""
    forms = {form for secret in secrets for form in (secret, json.dumps(secret)[1:-1])}
    return {place.rsplit("/", 1)[-1] for place, text in found.items() if any(form in text for form in forms)}
