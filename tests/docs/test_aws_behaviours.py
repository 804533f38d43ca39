"""The page of what is relied on of AWS: each row has a page or says that there is none, and names tests that exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from terraform.tool import ROOT

PAGE = ROOT / "docs" / "aws-behaviours.md"
HEADER = "| behaviour | page | test | engines | if it is otherwise |"


def rows() -> list[list[str]]:
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|") and not line.startswith("|---")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line != HEADER]


ROWS = rows()


@cache
def functions_of(path: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.FunctionDef)}


def test_every_part_of_aws_has_its_rows() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert len(ROWS) > 30
    assert text.count(HEADER) == text.count("\n## ")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:60])
def test_a_row_is_complete(row: list[str]) -> None:
    assert len(row) == 5 and all(row)
    _, page, tests, engines, _ = row
    assert re.search(r"\]\(https://docs\.aws\.amazon\.com/[^)]+\.html\)", page) or page.startswith("no public page")
    assert re.match(r"(yes|no|one|-)([;:, ]|$)", engines)
    named = re.findall(r"`([\w/]+\.py)(?:::(\w+))?`", tests)
    assert named, "no test is named"
    for file, test in named:
        path = ROOT / "tests" / file
        assert path.is_file(), file
        assert not test or (test.startswith("test_") and test in functions_of(path)), f"{file} has no {test}"
