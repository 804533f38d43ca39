"""Writes timezones.tf from the time zone database of this machine: `python tests/terraform/timezones.py > timezones.tf`."""

from __future__ import annotations

import zoneinfo
from collections.abc import Collection

_NO_PLACES = frozenset({"localtime", "posixrules", "Factory"})


def names() -> list[str]:
    """The names of the IANA time zone database, as zoneinfo finds it."""
    return sorted(name for name in zoneinfo.available_timezones() - _NO_PLACES if not name.startswith(("posix/", "right/")))


def document(zones: Collection[str]) -> str:
    """The Terraform file that holds them."""
    lines = "\n".join(f'    "{name}",' for name in zones)
    return (
        "# Names of the IANA time zone database, which EventBridge Scheduler knows and Terraform does not.\n"
        "# Written by tests/terraform/timezones.py.\n\n"
        f"locals {{\n  timezones = [\n{lines}\n  ]\n}}\n"
    )


if __name__ == "__main__":
    print(document(names()), end="")
