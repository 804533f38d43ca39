"""What two releases do differently, by their manifests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# The manifest's sections whose members have a unique_id; macros are compared too, because a changed macro changes its users.
_SECTIONS = ("nodes", "sources", "exposures", "metrics", "semantic_models", "saved_queries", "unit_tests", "macros")


@dataclass(frozen=True)
class Change:
    """A node, source, macro, ... that both releases have, and what of it differs: code, config, contract, columns or definition."""

    unique_id: str
    what: tuple[str, ...]


@dataclass(frozen=True)
class Difference:
    """What changes from one release to another; everything in the order of the unique_ids."""

    before: str
    after: str
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[Change, ...]

    @property
    def empty(self) -> bool:
        return not (self.added or self.removed or self.changed)


def difference(before: str, first: Mapping[str, Any], after: str, second: Mapping[str, Any]) -> Difference:
    """Compares two manifests.

    Args:
        before, after: the releases' versions.
        first, second: their manifests, as dbt wrote them.
    """
    old, new = members(first), members(second)
    changes = ((key, _what(old[key], new[key])) for key in sorted(old.keys() & new.keys()))
    return Difference(
        before=before,
        after=after,
        added=tuple(sorted(new.keys() - old.keys())),
        removed=tuple(sorted(old.keys() - new.keys())),
        changed=tuple(Change(key, what) for key, what in changes if what),
    )


def members(manifest: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Everything of a manifest that has a unique_id, by it, less the macros that come with dbt."""
    # The macros of dbt and its adapters come with the runner's image, not with the release. Redshift's adapter stands on Postgres's.
    of_dbt = {"dbt", f"dbt_{manifest['metadata']['adapter_type']}", "dbt_postgres"}
    return {
        key: member
        for section in _SECTIONS
        for key, member in manifest.get(section, {}).items()
        if section != "macros" or member["package_name"] not in of_dbt
    }


def _what(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[str, ...]:
    parts = {
        "code": lambda node: (node.get("checksum"), node.get("raw_code"), node.get("macro_sql")),
        "config": lambda node: node.get("config"),
        "contract": lambda node: node.get("contract"),
        "columns": lambda node: node.get("columns"),
        "definition": _definition,
    }
    return tuple(name for name, part in parts.items() if part(old) != part(new))


def _definition(node: Mapping[str, Any]) -> object:
    """What a source, an exposure, a metric or a unit test is; other nodes are told by their code and configuration."""
    if ("checksum" in node and node.get("resource_type") != "unit_test") or "macro_sql" in node:
        return None
    return {key: value for key, value in node.items() if key not in ("created_at", "config", "columns", "contract", "doc_blocks")}
