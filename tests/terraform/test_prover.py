"""The prover itself: patterns against every short text, conditions against what AWS says of them."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
import z3

from terraform.prover import _covers, _meet, witness

PATTERNS = ["".join(chars) for length in range(1, 4) for chars in itertools.product("ab*?", repeat=length)]
TEXTS = ["".join(chars) for length in range(6) for chars in itertools.product("abc", repeat=length)]
KEY = "dynamodb:LeadingKeys"


def texts_of(pattern: str) -> set[str]:
    regex = re.compile(pattern.replace("*", ".*").replace("?", "."))
    return {text for text in TEXTS if regex.fullmatch(text)}


def test_two_patterns_meet_where_some_text_is_both_and_cover_only_where_every_text_is() -> None:
    texts = {pattern: texts_of(pattern) for pattern in PATTERNS}
    for one, other in itertools.product(PATTERNS, repeat=2):
        assert _meet(one, other) == bool(texts[one] & texts[other]), (one, other)
        assert not _covers(one, other) or texts[other] <= texts[one], (one, other)


def statement(**conditions: Any) -> dict[str, Any]:
    return {"Sid": "Read", "Effect": "Allow", "Action": "dynamodb:GetItem", "Resource": "table", "Condition": conditions}


@pytest.mark.parametrize(
    ("conditions", "absent", "other"),
    [
        ({}, True, True),
        ({"StringEquals": {KEY: "mine"}}, False, False),
        ({"StringEqualsIfExists": {KEY: "mine"}}, True, False),
        ({"ForAllValues:StringLike": {KEY: ["mine", "my*"]}}, True, False),
        ({"ForAllValues:StringLike": {KEY: "mine"}, "Null": {KEY: "false"}}, False, False),
        ({"Null": {KEY: "true"}}, True, False),
        ({"Null": {KEY: "false"}}, False, True),
        ({"StringLike": {KEY: "${aws:username}"}}, False, True),
        ({"NumericLessThanEqualsIfExists": {KEY: "300"}}, True, False),
    ],
)
def test_conditions_are_read_as_aws_reads_them(conditions: dict[str, Any], absent: bool, other: bool) -> None:
    assert (witness([statement(**conditions)], lambda r: z3.Not(r.present(KEY))) is not None) == absent
    assert (witness([statement(**conditions)], lambda r: r.has(KEY, "other*")) is not None) == other


@pytest.mark.parametrize(
    "unknown",
    [
        {"Effect": "Audit"},
        {"NotAction": "iam:*"},
        {"Condition": {"StringNotEquals": {KEY: "x"}}},
        {"Condition": {"StringLike": {KEY: "a*"}, "StringEquals": {KEY: "b"}}},
    ],
)
def test_what_the_prover_does_not_know_is_an_error(unknown: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="known here"):
        witness([{**statement(), **unknown}], lambda r: z3.BoolVal(True))


def test_a_statement_that_denies_allows_nothing() -> None:
    assert witness([{**statement(), "Effect": "Deny"}], lambda r: z3.BoolVal(True)) is None
