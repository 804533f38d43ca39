"""Which image runs: what ECS says it started, else what the deployment asked for."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from dbt_runner import image

STARTED, ASKED, IMAGE_ID = (f"sha256:{digit * 64}" for digit in "abc")
REPOSITORY = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/dbt-runner"


@pytest.mark.parametrize(
    ("document", "asked", "found"),
    [
        ({"Image": f"{REPOSITORY}@{STARTED}", "ImageID": IMAGE_ID}, ASKED, STARTED),
        ({"Image": f"{REPOSITORY}:1.0", "ImageID": IMAGE_ID}, ASKED, ASKED),
        ({"Image": f"{REPOSITORY}:1.0", "ImageID": IMAGE_ID}, None, IMAGE_ID),
        ({"Image": f"{REPOSITORY}:1.0"}, None, None),
        (["no", "object"], ASKED, ASKED),
    ],
)
def test_the_digest_is_what_ecs_started_or_else_what_was_asked_for(
    metadata: Callable[[bytes], str], monkeypatch: pytest.MonkeyPatch, document: object, asked: str | None, found: str | None
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # never asked
    environment = {"ECS_CONTAINER_METADATA_URI_V4": metadata(json.dumps(document).encode())}
    if asked:
        environment["DBT_RUNNER_IMAGE"] = f"{REPOSITORY}@{asked}"
    assert image.digest(environment) == found


def test_an_endpoint_that_says_nothing_useful_is_done_without(metadata: Callable[[bytes], str]) -> None:
    asked = {"DBT_RUNNER_IMAGE": f"{REPOSITORY}@{ASKED}"}
    for uri in (metadata(b"not JSON"), "http://127.0.0.1:9/v4/id", "file:///etc/hostname", ""):
        assert image.digest({**asked, "ECS_CONTAINER_METADATA_URI_V4": uri}) == ASKED
    assert image.digest({}) is None
