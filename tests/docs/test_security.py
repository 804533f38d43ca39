"""The page about security: each claim about an attack names tests that exist, or says that nothing proves it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.test_aws_behaviours import functions_of
from terraform.tool import ROOT

_TABLE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8").partition("### Attacks")[2].partition("\n### ")[0]
CLAIMS = [line.strip("| ").split(" | ") for line in _TABLE.splitlines() if line.startswith("| ") and line != "| claim | test |"]


def test_there_are_claims() -> None:
    assert len(CLAIMS) > 30


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim[0][:60])
def test_a_claim_names_tests_that_exist(claim: list[str]) -> None:
    _, tests = claim
    named = re.findall(r"`([\w/]+\.py)(?:::(\w+))?`", tests)
    assert named or tests.startswith("nothing proves it: ")
    for file, test in named:
        path = Path(ROOT, "tests", file)
        assert path.is_file(), file
        assert not test or test in functions_of(path), f"{file} has no {test}"
