"""The documentation that a run publishes runs dbt's own script and loads nothing, whatever a model, the warehouse or the worker wrote."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbt_runner import dbt_docs
from security.fuzzing import bounded

OWN = (
    "<html><head><title>x</title></head><body>"
    '<script>var a="MANIFEST.JSON INLINE DATA",b="CATALOG.JSON INLINE DATA";go("<p>")</script></body></html>'
)
TEXTS = {
    "ends the script": "</script><script>alert(1)</script>",
    "in capitals": "</SCRIPT ><img src=x onerror=alert(1)>",
    "comment": "<!--<script>",
    "event handler": "<img src=https://evil.example/x onerror=alert(1)>",
    "frame": "<iframe src=https://evil.example></iframe>",
    "style": "<style>@import 'https://evil.example'</style>",
    "the other placeholder": '"CATALOG.JSON INLINE DATA"',
    "what stands between": '",b="',
    "separators": "\u2028\u2029",
    "half a character": "\ud83d",
}


def page(manifest: Any, catalog: Any = None, own: str = OWN) -> bytes:
    """As dbt makes it."""
    filled = own.replace('"MANIFEST.JSON INLINE DATA"', json.dumps(manifest)).replace('"CATALOG.JSON INLINE DATA"', json.dumps(catalog))
    return filled.encode()


def scripts(document: str) -> list[str]:
    return re.findall(r"<script[^>]*>(.*?)</script", document, re.DOTALL | re.IGNORECASE)


@pytest.mark.attack("documentation")
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_a_description_adds_no_script(text: str) -> None:
    manifest = {"nodes": {"model.a": {"description": text}}}
    document = dbt_docs.sealed(page(manifest, [text]), OWN.encode()).decode()
    [script] = scripts(document)
    assert script.endswith(';go("<p>")')
    assert "<!--" not in document
    first, end = json.JSONDecoder().raw_decode(script, len("var a="))
    second, end = json.JSONDecoder().raw_decode(script, end + len(",b="))
    assert (first, second, script[end:]) == (manifest, [text], ';go("<p>")')


@pytest.mark.control("documentation")
@pytest.mark.parametrize("name", ["ends the script", "in capitals", "comment"])
def test_as_dbt_writes_it_it_would(name: str) -> None:
    document = page({"a": TEXTS[name]}).decode()
    assert len(scripts(document)) != 1 or "<!--" in document or not scripts(document)[0].endswith(';go("<p>")')


@pytest.mark.attack("documentation")
@pytest.mark.parametrize(
    "written",
    [
        b"<html><head></head><script>alert(1)</script></html>",
        page({}) + b"<script>alert(1)</script>",
        page({}).replace(b"<title>", b"<script>alert(1)</script><title>"),
        page({}).replace(b"go(", b"alert(1);go("),
        page({}).replace(b"{}", b"alert(1)"),
        page({}).replace(b"{}", b"{},c=alert(1)"),
        page({}).replace(b"null", b"null;alert(1)"),
        b"",
        OWN.encode(),
        page({}).replace(b"<title>", b"\xff<title>"),
    ],
)
def test_a_page_that_is_not_dbt_s_is_not_published(written: bytes) -> None:
    if written == OWN.encode():
        # Nothing was filled in: the placeholders are JSON, too.
        assert scripts(dbt_docs.sealed(written, OWN.encode()).decode()) == scripts(OWN)
        return
    with pytest.raises(ValueError):
        dbt_docs.sealed(written, OWN.encode())


@pytest.mark.attack("documentation")
@pytest.mark.parametrize("directive", ["default-src 'none'", "script-src 'sha256-", "base-uri 'none'", "form-action 'none'"])
def test_the_policy_comes_first_and_allows_one_script(directive: str) -> None:
    document = dbt_docs.sealed(page({"a": "<b>"}, {}, dbt_docs.template().decode())).decode()
    head = document[: document.index("<head>") + 1000]
    policy = re.search(r'<head><meta http-equiv="Content-Security-Policy" content="([^"]*)">', head)
    assert policy and directive in policy[1]
    script_src = re.search(r"script-src ([^;]*)", policy[1])
    assert script_src and "unsafe" not in script_src[1] and len(script_src[1].split()) == 1
    assert not re.search(r"https?:|connect-src|\*", policy[1])


@bounded(60)
@given(
    st.recursive(
        st.none() | st.floats(allow_nan=False) | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=6
    )
)
def test_the_data_stays_what_it_was(value: Any) -> None:
    [script] = scripts(dbt_docs.sealed(page(value, value), OWN.encode()).decode())
    assert script == f'var a={json.dumps(value)},b={json.dumps(value)};go("<p>")'.replace("<", "\\u003c").replace('"\\u003cp>")', '"<p>")')
