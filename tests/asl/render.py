"""Renders a definition as Terraform's `templatefile` does, for the part of its language that the definitions use.

That part is `${name}` alone. Everything else that Terraform would read as a template (`${a.b}`, `%{ if }`) is an error here, because
JSONata is full of `%` and braces: `{%{ 'a': 1 }%}` looks harmless and is a directive to Terraform.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "asl"
DEFINITIONS = ("dbt_run.asl.json", "finalize.asl.json", "announce.asl.json")

SAMPLE: Mapping[str, str] = {
    "partition": "aws",
    "table": "analytics-audit",
    "environment": "prod",
    "bucket": "analytics-audit-123456789012-eu-central-1",
    "topic": "arn:aws:sns:eu-central-1:123456789012:analytics-prod",
    "chat_topic": "arn:aws:sns:eu-central-1:123456789012:analytics-prod-chat",
    "chat": "on",
    "announce": "arn:aws:states:eu-central-1:123456789012:stateMachine:analytics-prod-announce",
    "namespace": "dbt/analytics/prod",
}
"""A value for each placeholder that a definition may use."""
PLACEHOLDERS: Mapping[str, frozenset[str]] = {
    "dbt_run.asl.json": frozenset({"partition", "table", "environment", "announce"}),
    "finalize.asl.json": frozenset({"partition", "table", "environment", "announce"}),
    "announce.asl.json": frozenset({"partition", "table", "bucket", "environment", "topic", "chat_topic", "chat", "namespace"}),
}
"""The placeholders that each definition uses."""

# What starts a sequence in a Terraform template: an escape, or an interpolation or directive with its text up to the brace.
_SEQUENCE = re.compile(r"\$\$\{|%%\{|\$\{(?P<name>[^}]*)\}?|%\{")


class TemplateError(ValueError):
    """The text is no template that Terraform would render with these values."""


def render(text: str, values: Mapping[str, str]) -> str:
    """The text with every `${name}` replaced.

    Raises:
        TemplateError: a name without a value, a value without a use, or a template expression beyond `${name}`.
    """
    used: set[str] = set()

    def replace(found: re.Match[str]) -> str:
        whole = found.group()
        if whole in ("$${", "%%{"):
            return whole[1:]
        name = found.group("name")
        if name is None or not whole.endswith("}") or not re.fullmatch(r"[a-z_]+", name):
            raise TemplateError(f"{whole!r} at character {found.start()}: only ${{name}} is allowed, and %{{ starts a directive")
        if name not in values:
            raise TemplateError(f"${{{name}}} has no value; known are {', '.join(sorted(values))}")
        used.add(name)
        return values[name]

    rendered = _SEQUENCE.sub(replace, text)
    if unused := set(values) - used:
        raise TemplateError(f"not used by the template: {', '.join(sorted(unused))}")
    return rendered


def placeholders(text: str) -> set[str]:
    """The names that the text uses as `${name}`."""
    return {found["name"] for found in _SEQUENCE.finditer(text) if found["name"] is not None}


def source(name: str) -> str:
    """The text of a definition before rendering."""
    return (FOLDER / name).read_text(encoding="utf-8")


def load(name: str, values: Mapping[str, str] = SAMPLE) -> dict[str, Any]:
    """A definition, rendered and parsed."""
    used = {placeholder: values[placeholder] for placeholder in PLACEHOLDERS[name]}
    definition: dict[str, Any] = json.loads(render(source(name), used))
    return definition
