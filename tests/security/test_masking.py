"""Attempts to get a secret past the mask: by how it is written, where it is cut, and what it is a part of.

The control of each attack is the same text before a mask that only compares, as masks that look for a list of values do.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbt_runner.masking import MASK, Mask, needles, views
from security.encodings import BY_CHARACTER, ENCODERS, Encoder
from security.fuzzing import bounded

SECRETS = {
    "symbols": "s3cr&t/of the+team's=\"ü\\<q>{x}%41$$ end9",
    "letters": "production-Database-2024",
    "hexadecimal": "8f14e45fceea167a5a36dedd4bea2543",
    "short": "Pa55-w0rd!",
    "quotes": "a'b\"c&d<e>f%g",
    "mostly ASCII": "pässwörd-für-alle",
    "no ASCII": "пароль-от-базы-данных",
}
# Written in these ways there is more around the secret than the test's own words, or the end of a group of bits stays.
_MORE = ("json in", "odbc", "in the middle", "base64", "base32", "in lines", "wrapped")


@pytest.fixture
def comparing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the decoder out: what is left compares a text with the values as they are."""
    monkeypatch.setattr(views, "views", lambda data: iter([views.View(data)]))
    monkeypatch.setattr(needles.Index, "fold", lambda self, data: data)
    monkeypatch.setattr(needles, "_kept", lambda data, ignored: list(range(len(data))))
    monkeypatch.setattr(needles, "_variants", lambda value: [value.encode()])
    monkeypatch.setattr(needles, "_wide_variants", lambda value: [])
    monkeypatch.setattr(needles, "_base32", lambda data: [])
    monkeypatch.setattr(views, "unescaped", lambda data: data)


# --- how it is written -------------------------------------------------------------------------------------------------------


def _said(encode: Encoder, secret: str) -> tuple[str, str]:
    """What a worker might say, and what of it gives the secret away."""
    written = encode(secret)
    return f"before {written} after", written


@pytest.mark.attack("masking")
@pytest.mark.parametrize("way", ENCODERS)
def test_a_secret_is_masked_however_it_is_written(way: str) -> None:
    for secret in SECRETS.values():
        said, written = _said(ENCODERS[way], secret)
        masked = Mask([secret]).text(said)
        assert MASK in masked and masked.startswith("before ") and masked.endswith(" after"), (secret, masked)
        if not any(word in way for word in _MORE):
            # A quote, a prefix and a line break may stay.
            assert len(masked) <= len(f"before {MASK} after") + 4, (secret, masked)
        assert written not in masked


@pytest.mark.control("masking")
@pytest.mark.parametrize(
    "way", [way for way in ENCODERS if way not in ("composed", "yaml", "sql", "sql identifier", "mysql", "odbc", "csv")]
)
def test_a_mask_that_compares_lets_it_through(way: str, comparing: None) -> None:
    assert Mask([SECRETS["symbols"]]).text(f"is {SECRETS['symbols']}") == f"is {MASK}", "it does compare"
    through = []
    for secret in SECRETS.values():
        said, written = _said(ENCODERS[way], secret)
        if written != secret and secret not in said:
            through.append(written in Mask([secret]).text(said))
    assert through and any(through)


_EDGES = st.characters(categories=("L", "N"), max_codepoint=0x24F)
_INSIDE = st.text(
    st.one_of(st.characters(exclude_categories=("C", "Z", "M")), st.sampled_from("'\"\\%&<>{}$+=/;`^ ]")), min_size=8, max_size=24
)
_SECRETS = st.builds(lambda first, inside, last: first + inside + last, _EDGES, _INSIDE, _EDGES)
# Those that keep all of any value, which another one may then write once more.
_NOT_CHAINED = {"capitals", "small letters", "swapped case", "wrapped", "continued line", "composed", "decomposed", "UTF-16"} | {
    *("UTF-8 read as Latin-1", "base32", "base32 in the middle", "python, names", "regular expression", "format string")
}
_CHAINED = [name for name in ENCODERS if name not in _NOT_CHAINED and "in lines" not in name]


def _groups(chain: list[str]) -> int:
    return sum(name.count("base64") + name.count("hexadecimal") for name in chain)


@pytest.mark.attack("masking")
@given(
    secret=_SECRETS, chain=st.lists(st.sampled_from(_CHAINED), min_size=1, max_size=3).filter(lambda chain: _groups(chain) <= views.NESTED)
)
@bounded(60)
def test_a_secret_is_masked_in_chains_of_encodings(secret: str, chain: list[str]) -> None:
    written = secret
    for name in chain:
        written = ENCODERS[name](written)
    masked = Mask([secret]).text(f"before {written} after")
    assert MASK in masked and written not in masked, (chain, written)
    assert masked.startswith("before ") and masked.endswith(" after")


@pytest.mark.control("masking")
def test_chains_of_encodings_get_past_a_mask_that_compares(comparing: None) -> None:
    written = ENCODERS["base64"](ENCODERS["jinja |tojson"](SECRETS["symbols"]))
    assert Mask([SECRETS["symbols"]]).text(written) == written


# --- where it is cut ---------------------------------------------------------------------------------------------------------

_CUTS = ("...", "…", "", "' [truncated]", "[...]")


def _cut_secrets(encode: Encoder, secret: str) -> Iterator[tuple[str, bool]]:
    """The secret cut at each place that leaves eight characters or more, also inside an escape; and whether its end is cut off."""
    written = encode(secret)
    for kept in range(8, len(secret) - 1):
        if secret[kept] != " " and secret[-kept - 1] != " ":
            for at in range(len(encode(secret[:kept])), len(encode(secret[: kept + 1]))):
                yield written[:at], True
            for at in range(len(encode(secret[-kept:])), len(encode(secret[-kept - 1 :]))):
                yield written[-at:], False


@pytest.mark.attack("masking")
@pytest.mark.parametrize("way", BY_CHARACTER)
def test_a_secret_that_is_cut_is_masked_also_inside_an_escape(way: str) -> None:
    for secret in ("s3cr&t/of+team's=\"ü\\<q>{x}$$ end9", SECRETS["hexadecimal"]):
        mask = Mask([secret])
        # Each place in turn, with another sign of a cut; 7 and 5 have no common divisor.
        for number, (left, at_end) in enumerate(list(_cut_secrets(BY_CHARACTER[way], secret))[::7]):
            cut = _CUTS[number % len(_CUTS)]
            masked = mask.text(f"before {left}{cut}" if at_end else f"{cut}{left} after")
            assert MASK in masked and len(masked) <= len(f"before {MASK}{cut}") + 4, (left, cut, masked)


@pytest.mark.control("masking")
@pytest.mark.parametrize("way", [way for way in BY_CHARACTER if "sql" not in way])
def test_a_mask_that_compares_does_not_see_what_was_cut(way: str, comparing: None) -> None:
    secret = "s3cr&t/of+team's=\"ü\\<q>{x}$$ end9"
    mask = Mask([secret])
    assert any(left in mask.text(f"before {left}...") for left, at_end in _cut_secrets(BY_CHARACTER[way], secret) if at_end)


def test_what_only_looks_cut_is_left_alone() -> None:
    secret = SECRETS["hexadecimal"]
    mask = Mask([secret])
    for kept in range(8, 32):
        for text in (
            f"a{secret[:kept]} b",
            f"x {secret[-kept:]}c",
            f"<{secret[:kept]}> at its end",
            f"{secret[:7]}...",
            f"...{secret[-7:]}",
        ):
            assert mask.text(text) == text


# --- what it is a part of ----------------------------------------------------------------------------------------------------

PASSWORD = "p@ss'w0rd;of/it"
# What a team may keep in one secret, and what of it is seen elsewhere.
STRUCTURES: dict[str, tuple[str, str]] = {
    "a value": (json.dumps({"password": {"value": PASSWORD}}), PASSWORD),
    "a list": (json.dumps({"passwords": ["other-value", PASSWORD]}), PASSWORD),
    "a list of objects": (json.dumps({"tokens": [{"current": {"it": PASSWORD}}]}), PASSWORD),
    "a list alone": (json.dumps([PASSWORD]), PASSWORD),
    "a text alone": (json.dumps(PASSWORD), PASSWORD),
    "a number": (json.dumps({"secret": {"pin": 1234567890}}), "1234567890"),
    "a name and a value": (json.dumps([{"name": "DB_PASSWORD", "value": PASSWORD}]), PASSWORD),
    "JSON in JSON": (json.dumps({"private": json.dumps({"a": PASSWORD})}), PASSWORD),
    "a URL": (f"postgresql://user:{quote(PASSWORD, safe='')}@db.example.org:5432/shop?sslmode=require", PASSWORD),
    "a URL that is not quoted": ("postgres://user:pa@ss/w0rd@host/db", "pa@ss/w0rd"),
    "a URL in JSON": (json.dumps({"url": f"mysql://user:{quote(PASSWORD, safe='')}@host/db"}), PASSWORD),
    "a URL's query": ("jdbc:postgresql://host/db?user=me&password=abc%40defgh&ssl=true", "abc@defgh"),
    "libpq": (r"host=db user=me password='it\'s a secret' dbname=shop", "it's a secret"),
    "libpq without quotes": ("host=db user=me password=the-word-itself dbname=shop", "the-word-itself"),
    "JDBC": ("jdbc:sqlserver://host:1433;user=me;PWD=a b,c=defgh;encrypt=true", "a b,c=defgh"),
    "ODBC": ("Driver={ODBC Driver 18};Server=host;UID=me;PWD={a}}b;cdefgh};", "a}b;cdefgh"),
    "ADO.NET": ('Server=host;User Id=me;Password="a;b""cdefgh";', 'a;b"cdefgh'),
    "Oracle": ("jdbc:oracle:thin:scott/tiger-tiger@host:1521:orcl", "tiger-tiger"),
    "YAML": ("user: me\npassword: the-word-itself\n", "the-word-itself"),
    "a header": (f"Bearer {SECRETS['hexadecimal']}", SECRETS["hexadecimal"]),
    "a key": ("-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG\n-----END KEY-----\n", "MIIEvQIBADANBgkqhkiG"),
}


@pytest.mark.attack("masking")
@pytest.mark.parametrize("kind", STRUCTURES)
def test_what_is_secret_in_a_secret_is_masked(kind: str) -> None:
    secret, seen = STRUCTURES[kind]
    mask = Mask([secret])
    for way in ("jinja |e", "json", "url", "base64", "hexadecimal", "csv", "capitals"):
        said = f"before {ENCODERS[way](seen)} after"
        assert MASK in mask.text(said) and ENCODERS[way](seen) not in mask.text(said), way
    for word in ("user", "host", "db.example.org", "postgresql", "-----BEGIN KEY-----", "ODBC Driver 18", "sslmode=require"):
        assert mask.text(f"a {word} b") == f"a {word} b"


@pytest.mark.control("masking")
@pytest.mark.parametrize("kind", STRUCTURES)
def test_a_mask_that_takes_a_secret_as_one_value_does_not_see_it(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from dbt_runner.masking import mask

    monkeypatch.setattr(mask, "pieces", lambda value: [value])
    secret, seen = STRUCTURES[kind]
    assert Mask([secret]).text(f"before {seen} after") == f"before {seen} after"


# --- files -------------------------------------------------------------------------------------------------------------------


@pytest.mark.attack("masking")
@pytest.mark.parametrize("name", ["manifest.json", "dbt.log"])
@pytest.mark.parametrize("way", ["jinja |tojson", "base64 in lines of 64", "hexadecimal with spaces", "csv", "html twice"])
def test_a_file_is_masked_by_meaning_and_json_stays_json(way: str, name: str, tmp_path: Path) -> None:
    secret = SECRETS["symbols"]
    cut = json.dumps(f"it is {secret[:20]}")
    document = json.dumps({"a": [f"x {ENCODERS[way](secret)} y"], ENCODERS[way](secret): 1, "rest": "z" * 100})
    path = tmp_path / name
    path.write_text(document)
    Mask([secret]).file(path)
    assert MASK in path.read_text() and list(tmp_path.iterdir()) == [path]
    if name.endswith(".json"):
        found = json.loads(path.read_text())
        assert len(found["a"]) == 1 and found["a"][0].startswith("x ") and MASK in found["a"][0] and found["rest"] == "z" * 100
        assert ENCODERS[way](secret) not in found["a"][0]
        path.write_text(f'{{"message": {cut}, "rest": "{"z" * 100}"}}')
        Mask([secret]).file(path)
        assert json.loads(path.read_text()) == {"message": f"it is {MASK}", "rest": "z" * 100}


@pytest.mark.attack("masking")
def test_no_file_outside_is_reached_by_links(tmp_path: Path) -> None:
    outside, artifacts = tmp_path / "outside", tmp_path / "target"
    artifacts.mkdir()
    outside.write_text(SECRETS["hexadecimal"])
    (artifacts / "dbt.log").symlink_to(outside)
    mask = Mask([SECRETS["hexadecimal"]])
    with pytest.raises(OSError):
        mask.file(artifacts / "dbt.log")
    (artifacts / "dbt.log").unlink()
    (artifacts / "dbt.log").write_text(f"is {SECRETS['hexadecimal']}")
    # The name of the new file cannot be foreseen, so nothing can lie in wait there.
    (artifacts / "dbt.log.masked").symlink_to(outside)
    mask.file(artifacts / "dbt.log")
    assert outside.read_text() == SECRETS["hexadecimal"] and (artifacts / "dbt.log").read_text() == f"is {MASK}"


@pytest.mark.attack("masking")
@pytest.mark.parametrize("way", ["html, decimal", "base64 of base64"])
def test_a_secret_is_masked_wherever_it_is_in_a_large_text(way: str) -> None:
    """A large text is decoded window by window."""
    secret, window = SECRETS["symbols"], 1024 * 1024
    mask = Mask([secret])
    written = ENCODERS[way](secret)
    for before in (window - len(written) // 2, window - 1):
        masked = mask.text("." * before + f" {written} " + "." * 1000)
        assert MASK in masked and written not in masked, before


# --- what is no secret -------------------------------------------------------------------------------------------------------


@given(
    text=st.one_of(st.text(max_size=200), st.binary(max_size=200).map(lambda raw: base64.b64encode(raw).decode())),
    tail=st.text(max_size=20),
)
@bounded(200)
def test_text_without_a_secret_is_left_as_it_is(text: str, tail: str) -> None:
    mask = Mask(SECRETS.values())
    assert mask.text(text + tail) == text + tail
    assert mask.tree({text: [tail, {"a": text}]}) == {text: [tail, {"a": text}]}


@given(place=st.integers(1, 22), letter=st.sampled_from("abcxyz0189-_"), way=st.sampled_from(sorted(ENCODERS)))
@bounded(100)
def test_a_text_that_is_like_a_secret_but_is_not_it_is_left_as_it_is(place: int, letter: str, way: str) -> None:
    secret = SECRETS["letters"]
    like = secret[:place] + letter + secret[place + 1 :]
    if like.lower() == secret.lower():
        return
    said = f"before {ENCODERS[way](like)} after"
    assert Mask([secret]).text(said) == said


def test_names_of_nodes_and_words_near_a_secret_stay() -> None:
    mask = Mask(["analytics_core"])
    for text in ("the analytics team", "analytics.core", "a core_analytics b", "model.shop.analytics_core"):
        assert mask.tree([text]) == [text]


# --- bounds ------------------------------------------------------------------------------------------------------------------

HOSTILE: dict[str, Callable[[int], str]] = {
    "backslashes": lambda size: "\\" * size,
    "backslashes and quotes": lambda size: '\\\\\\"' * (size // 4),
    "percent": lambda size: "%" + "25" * (size // 2),
    "percent signs": lambda size: "%" * size,
    "entities": lambda size: "&" + "amp;" * (size // 4),
    "entities without an end": lambda size: "&#" + "0" * size,
    "many entities without an end": lambda size: "&#0000000000" * (size // 12),
    "ampersands and letters": lambda size: ("&" + "a" * 31) * (size // 32),
    "names": lambda size: "\\N{" + "A" * size,
    "quotes": lambda size: "'" * size,
    "braces": lambda size: "{" * size,
    "surrogates": lambda size: "\\ud83d" * (size // 6),
    "base64": lambda size: "QUJDREVG" * (size // 8),
    "base64 of base64": lambda size: base64.b64encode(base64.b64encode(base64.b64encode(b"%25%25%41" * (size // 24)))).decode(),
    "hexadecimal": lambda size: "41" * (size // 2),
    "hexadecimal of hexadecimal": lambda size: (b"4142" * (size // 8)).hex().encode().hex(),
    "dots": lambda size: "." * size,
    "quotes of JSON": lambda size: '""' * (size // 2),
    "text and what is ignored": lambda size: "a\u0000\u00fc+" * (size // 5),
}


@pytest.mark.attack("masking")
@pytest.mark.parametrize("kind", HOSTILE)
def test_the_work_for_a_hostile_text_grows_with_its_length_only(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts the bytes of all views and the escapes in them, which is all that is gone through."""
    steps = 0
    meaning = views._meaning

    def counted(escape: bytes) -> bytes:
        nonlocal steps
        steps += len(escape)
        return meaning(escape)

    monkeypatch.setattr(views, "_meaning", counted)
    work = []
    for size in (20_000, 40_000):
        data, steps = HOSTILE[kind](size).encode(), 0
        viewed = sum(len(view.data) for view in views.views(data))
        assert viewed <= views.VIEWED * len(data)
        work.append((viewed + steps) / len(data))
    assert work[1] <= 1.5 * work[0] + 1


@pytest.mark.attack("masking")
def test_edges_of_a_secret_many_times_over_cost_no_more_than_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = SECRETS["hexadecimal"]
    looked = 0
    common = needles._common

    def counted(one: bytes, other: bytes) -> int:
        nonlocal looked
        looked += 1
        return common(one, other)

    monkeypatch.setattr(needles, "_common", counted)
    mask = Mask([secret])
    text = f"{secret[:10]} {secret[-10:]} " * 2000
    assert mask.text(text).count(MASK) <= 2
    # Each edge is looked at once in each view in which it is.
    assert looked <= 2 * 2000 * 3


def test_secrets_may_be_added_while_texts_are_masked() -> None:
    mask, stop, wrong = Mask(), threading.Event(), []

    def masks() -> None:
        while not stop.is_set():
            for secret in known[-2:]:
                if secret in mask.text(f"is {secret} and more"):
                    wrong.append(secret)

    known: list[str] = []
    threads = [threading.Thread(target=masks) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(60):
        secret = f"secret-{number:05}-of-a-driver"
        mask.add([secret])
        known.append(secret)
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == [] and mask.text(known[-1]) == MASK
