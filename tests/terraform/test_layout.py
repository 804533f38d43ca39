"""Rules of the Terraform code that a plan doesn't show."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from terraform.tool import ROOT, Terraform, configurations

pytestmark = pytest.mark.terraform

CONFIGURATIONS = configurations()
# The root is a module, too; examples are not.
MODULES = [folder for folder in CONFIGURATIONS if not folder.startswith("examples/")]

# By tests of their own. A plan validates a configuration and every module that it calls.
PLANNED = {"."} | {
    f"examples/{name}"
    for name in (
        "consume_from_another_stack",
        "github_actions",
        "lambda",
        "local",
        "minimal",
        "multi_warehouse",
        "okta",
        "private_network",
        "runner_image",
    )
}

# What no plan or policy names: comments, and examples in texts for people.
PROSE = re.compile(r"^\s*(#|description\s*=|error_message\s*=)")


def code(path: Path) -> str:
    """The file without comments and without texts for people."""
    text = re.sub(r"<<-EOT\n.*?\n\s*EOT\n", "\n", path.read_text(), flags=re.DOTALL)
    return "\n".join(line for line in text.splitlines() if not PROSE.match(line))


def test_code_is_formatted(offline: Terraform, checkout: Path) -> None:
    done = offline.run(checkout, "fmt", "-check", "-recursive", "-diff")
    assert done.returncode == 0, f"run terraform fmt -recursive:\n{done.stdout}"


def called(folder: str) -> set[str]:
    """The modules that a configuration calls, relative to the checkout."""
    sources = {m for p in (ROOT / folder).glob("*.tf") for m in re.findall(r'^\s*source\s*=\s*"(\.[^"]*)"', p.read_text(), re.MULTILINE)}
    return {os.path.relpath(ROOT / folder / source, ROOT) for source in sources}


def test_every_configuration_is_planned_or_part_of_one_that_is() -> None:
    """make lint validates each by itself."""
    assert set(CONFIGURATIONS) == PLANNED.union(*map(called, PLANNED))


def test_versions_are_the_same_everywhere() -> None:
    assert {".", "modules/identity", "examples/minimal"} < set(CONFIGURATIONS)
    expected = (ROOT / "versions.tf").read_text()
    assert [folder for folder in CONFIGURATIONS if (ROOT / folder / "versions.tf").read_text() != expected] == []


def test_provider_version_is_bounded_at_both_ends() -> None:
    assert re.search(r'version\s*=\s*">= [\d.]+, < [\d.]+"', (ROOT / "versions.tf").read_text())


@pytest.mark.parametrize("folder", MODULES)
def test_module_configures_no_provider(folder: str) -> None:
    assert [p.name for p in (ROOT / folder).glob("*.tf") if re.search(r"^\s*provider\s+\"", p.read_text(), re.MULTILINE)] == []


@pytest.mark.parametrize("folder", MODULES)
def test_partition_region_and_account_are_not_written_out(folder: str) -> None:
    # 000000000000 is nobody's account: by it the image of the embedded AWS is known.
    literal = re.compile(r"arn:aws|\b[a-z]{2}-(?:gov-)?(?:north|south|east|west|central)[a-z]*-\d\b|\b(?!0{12})\d{12}\b")
    found = {p.name: literal.findall(code(p)) for p in (ROOT / folder).glob("*.tf")}
    assert {name: hits for name, hits in found.items() if hits} == {}


def test_every_policy_statement_links_to_the_page_that_it_implements() -> None:
    missing = []
    count = 0
    for path in sorted(ROOT.glob("modules/*/*.tf")):
        lines = path.read_text().splitlines()
        for number, line in enumerate(lines):
            if not re.match(r'\s*(statement|dynamic "statement") \{', line):
                continue
            count += 1
            comment: list[str] = []
            while (above := lines[number - 1 - len(comment)].strip()).startswith("#"):
                comment.append(above)
            if not any("https://docs.aws.amazon.com/" in text for text in comment):
                missing.append(f"{path.relative_to(ROOT)}:{number + 1}")
    assert count > 20
    assert missing == [], "put a comment with the link to AWS's page right above the statement"


def test_no_lifecycle_rule_expires_a_release() -> None:
    """Which releases are needed is known to dbt-runner release prune alone. Versions that were replaced are nobody's release any more."""
    text = (ROOT / "modules" / "audit_store" / "main.tf").read_text()
    rules = re.findall(r'^  dynamic "rule" \{\n(.*?)^  \}', text, re.MULTILINE | re.DOTALL)
    expiring = [rule for rule in rules if re.search(r"^ +expiration \{\s+days\b", rule, re.MULTILINE)]
    assert len(rules) >= 4 and expiring
    prefixes = [re.findall(r'prefix\s*=\s*"([^"]*)"', rule) for rule in expiring]
    assert [found for found in prefixes if len(found) != 1 or not found[0] or "releases/".startswith(found[0])] == []
