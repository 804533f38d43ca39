"""No secret in anything that is written: in whichever form it comes, wherever a text was cut, and without harm to what is no secret."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

from dbt_runner.events import CommandResult, Failure, LogLine, Message, NodeResult, Parsed, masked
from dbt_runner.masking import MASK, SHORTEST, Mask

SECRET = "s3cr&t/of the+team's=\"ü\\"
PLAIN = "8f14e45fceea167a5a36dedd4bea2543"


@pytest.mark.parametrize(
    "written",
    [
        str,
        lambda value: quote(value, safe=""),
        quote,
        quote_plus,
        lambda value: quote(value, safe="").lower(),
        lambda value: json.dumps(value)[1:-1],
        lambda value: json.dumps(value, ensure_ascii=False)[1:-1],
        lambda value: json.dumps(json.dumps({"a": value})),
        lambda value: repr(value)[1:-1],
        lambda value: value.replace("'", "''"),
        html.escape,
        lambda value: value * 3,
    ],
    ids=["plain", "url", "path", "form", "lower", "json", "json in utf-8", "json in json", "python", "sql", "html", "repeated"],
)
def test_a_secret_is_found_in_every_form(written: Callable[[str], str]) -> None:
    for secret in (SECRET.lower(), PLAIN):
        text = f"before {written(secret)} after"
        found = Mask([secret]).text(text)
        assert MASK in found and found.startswith("before ") and found.endswith(" after")
        assert secret not in found and written(secret) not in found


@pytest.mark.parametrize("length", [8, 9, 10, 31])
def test_a_secret_is_found_in_base64_however_it_falls_into_groups(length: int) -> None:
    secret = PLAIN[:length]
    for before in range(4):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            text = encode(b"user:"[:before] + secret.encode() + b"@host").decode()
            assert Mask([secret]).text(text).count(MASK) == 1, (before, text)


@pytest.mark.parametrize("kept", range(SHORTEST, len(PLAIN)))
def test_a_secret_that_was_cut_is_masked(kept: int) -> None:
    """PostgreSQL shows a part of the line, dbt and this runner keep a part of a message."""
    mask = Mask([PLAIN])
    begin, end = PLAIN[:kept], PLAIN[-kept:]
    assert mask.text(f"password is {begin}") == f"password is {MASK}"
    assert mask.text(f"{end} is the password") == f"{MASK} is the password"
    assert mask.text(f"LINE 1: ...{end}' as a, '{begin}...\n") == f"LINE 1: ...{MASK}' as a, '{MASK}...\n"
    assert mask.text(f"a{begin} b") == f"a{begin} b", "a word of the text that is none"


def test_secrets_that_overlap_are_masked_together() -> None:
    assert Mask([PLAIN[:20], PLAIN[12:]]).text(f"<{PLAIN}>") == f"<{MASK}>"
    assert Mask([PLAIN, PLAIN[4:20]]).text(f"<{PLAIN}> <{PLAIN[4:20]}>") == f"<{MASK}> <{MASK}>"


def test_lines_of_a_secret_and_what_a_json_secret_holds_are_secret_by_themselves() -> None:
    key = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG\n9w0BAQEFAASC\n-----END KEY-----\n"
    database = json.dumps({"password": PLAIN, "engine": "postgres", "host": "db.example.org", "more": [{"api_token": "t0ken-of-the-api"}]})
    mask = Mask([key, database])
    assert mask.text("line MIIEvQIBADANBgkqhkiG of it") == f"line {MASK} of it"
    assert mask.text(f"{PLAIN} t0ken-of-the-api") == f"{MASK} {MASK}"
    assert mask.text("postgres at db.example.org") == "postgres at db.example.org"
    assert MASK in mask.text(repr(key)) and "MIIE" not in mask.text(repr(key))


def test_a_short_value_is_left_alone() -> None:
    assert Mask(["1", "abc", "", "       ", "1234567"]).text("1 abc 1234567") == "1 abc 1234567"
    assert Mask(["12345678\n"]).text("1 12345678") == f"1 {MASK}", "as it is without its line break"


def test_a_new_secret_is_masked_from_then_on_and_old_ones_remain() -> None:
    mask = Mask(["old-old-old"])
    mask.add(["new-new-new"])
    assert mask.text("old-old-old new-new-new") == f"{MASK} {MASK}"


# --- documents -----------------------------------------------------------------------------------------------------------


def test_json_stays_json_and_nodes_keep_their_names(tmp_path: Path) -> None:
    """The secret is a word of the project's own names: results without them would be of no use to anybody."""
    document = {
        "nodes": {"model.shop.analytics_core": {"unique_id": "model.shop.analytics_core", "schema": "analytics_core", "rows": 12345678}},
        "parent_map": {"model.shop.analytics_core": ["source.shop.raw.analytics_core"]},
        "message": 'analytics_core\n\t"x"',
        "analytics_core": [None, True, 1.5],
    }
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(document))
    with path.open() as held:
        Mask(["analytics_core", "12345678"]).file(path)
        assert json.load(held) == document, "whoever had opened it reads what was there, whole"
    assert list(tmp_path.iterdir()) == [path]
    found = json.loads(path.read_text())
    assert found == {
        "nodes": {"model.shop.analytics_core": {"unique_id": "model.shop.analytics_core", "schema": MASK, "rows": 12345678}},
        "parent_map": document["parent_map"],
        "message": f'{MASK}\n\t"x"',
        MASK: [None, True, 1.5],
    }


def test_a_file_without_secrets_is_not_touched(tmp_path: Path) -> None:
    content = b'{ "a":   1,\r\n "b": "\xff\xfe" }'
    for name in ("manifest.json", "dbt.log"):
        (tmp_path / name).write_bytes(content)
        Mask([PLAIN]).file(tmp_path / name)
        assert (tmp_path / name).read_bytes() == content


@pytest.mark.parametrize("name", ["dbt.log", "run_results.json", "index.html"])
def test_a_file_that_is_no_json_is_masked_as_text(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(f'{{"half": "{PLAIN}", "a": "'.encode() + b"\xff\r\n")
    Mask([PLAIN]).file(path)
    assert path.read_bytes() == f'{{"half": "{MASK}", "a": "'.encode() + b"\xff\r\n"


def test_a_secret_is_found_in_a_binary_file() -> None:
    assert Mask([PLAIN]).occurs_in(b"\xd9\x20" + PLAIN.encode() + b"\x00\xff")
    assert not Mask([PLAIN]).occurs_in(b"\xd9\x20" + PLAIN[:-1].encode() + b"\x00\xff")


# --- what the worker tells -----------------------------------------------------------------------------------------------


def test_messages_are_masked_before_they_are_cut() -> None:
    cause = Failure("E", ("E",), "x" * 490 + PLAIN)
    failure = Failure("E", ("E",), "x" * 3990 + PLAIN, {"aws": PLAIN}, (cause,))
    node = NodeResult(0, f"model.shop.{PLAIN}", "model", PLAIN, "error", PLAIN, relation=f'"db"."{PLAIN}"', failure=failure)
    mask = Mask([PLAIN])
    clean = Failure("E", ("E",), "x" * 3990 + MASK, {"aws": MASK}, (Failure("E", ("E",), "x" * 490 + MASK),))
    expected: list[tuple[Message, Message]] = [
        (node, NodeResult(0, f"model.shop.{PLAIN}", "model", PLAIN, "error", MASK, relation=f'"db"."{MASK}"', failure=clean)),
        (CommandResult(0, False, 1.0, exception=failure), CommandResult(0, False, 1.0, exception=clean)),
        (Parsed(0, ["x" * 490 + PLAIN]), Parsed(0, ["x" * 490 + MASK])),
        (LogLine("info", PLAIN, f"model.shop.{PLAIN}"), LogLine("info", MASK, f"model.shop.{PLAIN}")),
    ]
    for message, wanted in expected:
        assert masked(message, mask) == wanted
