"""Athena: tags."""

from __future__ import annotations

from typing import Any

from moto.athena.models import AthenaBackend

from dbt_runner.local.moto_patches.registry import Patch, patch

PATCHES: list[Patch] = []


@patch("athena.no-tags", PATCHES)
def no_tags(patch: Patch) -> None:
    """moto says of a resource without tags that it does not exist.

    On AWS it has an empty list of them.
    https://docs.aws.amazon.com/athena/latest/APIReference/API_ListTagsForResource.html
    """
    original = AthenaBackend.list_tags_for_resource

    def list_tags_for_resource(self: Any, resource_arn: str) -> Any:
        return original(self, resource_arn) or {"Tags": []}

    patch.set(AthenaBackend, "list_tags_for_resource", list_tags_for_resource)
