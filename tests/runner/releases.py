"""Help for the tests of releases: projects, candidates, and what the bucket holds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import boto3
import pytest

from dbt_runner import bundle, release, stage
from dbt_runner.errors import ErrorKind, TypedError
from dbt_runner.store import Store

ALICE = "arn:aws:sts::123456789012:assumed-role/deployer/alice"
BOB = "arn:aws:sts::123456789012:assumed-role/deployer/bob"


def write(folder: Path, contents: dict[str, str]) -> Path:
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


def candidate(
    folder: Path, content: str = "select 1", *, version: str = "1.4.2", author: str = ALICE, stamp: str = ""
) -> release.Candidate:
    """A release of one model; `stamp` makes the manifest another one, as its time does with the real one."""
    folder.mkdir(parents=True, exist_ok=True)
    write(folder, {"dbt_project.yml": "name: shop", "models/a.sql": content})
    path = folder.with_name(f"{folder.name}.tar.gz")
    bundle.pack(stage.files(folder), path)
    return release.Candidate(
        version=version,
        bundle=path,
        manifest=json.dumps({"stamp": stamp}).encode(),
        project="shop",
        dbt_version="1.11.16",
        adapter="duckdb",
        author=author,
        git_commit=None,
        git_branch=None,
        git_dirty=None,
        counts={"model": 1},
    )


def refused(kind: ErrorKind, call: Callable[[], object]) -> str:
    with pytest.raises(TypedError) as raised:
        call()
    assert raised.value.kind is kind
    return raised.value.message


def objects(store: Store) -> dict[str, bytes]:
    """Every version of every object in the bucket; a key that was written twice fails here."""
    s3 = boto3.client("s3")
    found: dict[str, bytes] = {}
    for version in s3.list_object_versions(Bucket=store.bucket).get("Versions", []):
        assert version["Key"] not in found, f"{version['Key']} was overwritten"
        found[version["Key"]] = s3.get_object(Bucket=store.bucket, Key=version["Key"], VersionId=version["VersionId"])["Body"].read()
    return found
