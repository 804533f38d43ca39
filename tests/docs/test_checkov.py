"""checkov itself is run by `make checkov`; here, that what it leaves out is what the decision gives reasons for."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


def test_every_check_that_is_left_out_has_its_reason() -> None:
    left_out = yaml.safe_load((ROOT / ".checkov.yaml").read_text())["skip-check"]
    page = (ROOT / "docs" / "adr" / "0002-dependencies.md").read_text()
    reasons = {name for row in re.findall(r"^\| (CKV.*?) \|", page, re.MULTILINE) for name in re.findall(r"CKV2?_AWS_\d+", row)}
    assert len(left_out) == len(set(left_out)) and set(left_out) == reasons
