"""The run report in a real browser: it opens without a script and without a request, and can be read by everybody."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from runner.report_runs import large, page
from runner.test_report import HOSTILE, failed_diamond, full_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="NO BROWSER: the run report was not opened; install chromium"),
    pytest.mark.xdist_group("browser"),
]

WIDE, NARROW = 1280, 390


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Opened:
    """A report in a tab: the page, and what the browser asked for and complained about."""

    def __init__(self, tab: Page, path: Path) -> None:
        self.tab = tab
        self.requests: list[str] = []
        self.complaints: list[str] = []
        tab.on("request", lambda request: self.requests.append(request.url))
        tab.on("console", lambda message: self.complaints.append(message.text))
        tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        tab.on("dialog", lambda dialog: self.complaints.append(f"dialog {dialog.message}"))
        began = time.monotonic()
        tab.goto(path.as_uri())
        self.seconds = time.monotonic() - began
        self.only_itself = [path.as_uri()]


Open = Callable[..., Opened]


@pytest.fixture
def opened(browser: Browser, tmp_path: Path) -> Iterator[Open]:
    """Opens a report; by default as a careful reader does, who allows no scripts."""
    contexts = []

    def open_(text: str, *, scheme: Any = "light", width: int = WIDE, scripts: bool = False) -> Opened:
        path = tmp_path / "report.html"
        path.write_text(text, encoding="utf-8")
        context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900}, java_script_enabled=scripts)
        contexts.append(context)
        return Opened(context.new_page(), path)

    yield open_
    for context in contexts:
        context.close()


def test_it_opens_without_a_request_a_complaint_or_a_script(opened: Open) -> None:
    report = opened(page(failed_diamond()))
    assert (report.requests, report.complaints) == (report.only_itself, [])
    assert report.tab.title() == "hourly-1 failed (prod)"
    assert report.tab.get_by_role("heading", level=1).all_inner_texts() == ["hourly-1 failed"]
    for text in ("Database Error in model b", "Blocks 1 node: d"):
        assert report.tab.get_by_text(text).first.is_visible()


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_only_text_where_scripts_may_run(opened: Open, text: str) -> None:
    report = opened(page(full_of(text)), scripts=True)
    assert (report.requests, report.complaints) == (report.only_itself, [])
    assert report.tab.locator("script, img, iframe").count() == 0


def test_parts_open_and_close_by_keyboard_without_a_script(opened: Open) -> None:
    tab = opened(page(failed_diamond())).tab
    summary = tab.locator("summary", has_text="build, attempt 1")
    inside = tab.locator("details", has=summary).get_by_text("dbt-core 1.11.16")
    assert not inside.is_visible()
    summary.focus()
    tab.keyboard.press("Enter")
    assert inside.is_visible()
    tab.keyboard.press("Enter")
    assert not inside.is_visible()


def test_the_first_tab_leads_past_the_head_and_the_links_to_their_parts(opened: Open) -> None:
    tab = opened(page(failed_diamond())).tab
    tab.keyboard.press("Tab")
    skip = tab.get_by_role("link", name="Skip to the report")
    assert skip.bounding_box()["x"] >= 0  # type: ignore[index]
    tab.keyboard.press("Enter")
    assert tab.url.endswith("#main")
    for link in tab.locator("nav a").all():
        target = link.get_attribute("href") or ""
        assert tab.locator(target).count() == 1, target


STRUCTURE = """() => {
  const all = (selector) => [...document.querySelectorAll(selector)];
  const levels = all('h1, h2, h3, h4').map((h) => Number(h.tagName[1]));
  const ids = all('[id]').map((e) => e.id);
  return {
    landmarks: ['header', 'nav', 'main', 'footer'].map((name) => all(name).length),
    jumps: levels.filter((level, i) => i > 0 && level > levels[i - 1] + 1).length,
    'first heading': levels[0],
    'h1': levels.filter((level) => level === 1).length,
    'ids twice': ids.filter((id, i) => ids.indexOf(id) !== i),
    'tables without caption': all('table').filter((t) => !t.caption || !t.caption.textContent.trim()).length,
    'headers without scope': all('th:not([scope])').length,
    'rows without header': all('tbody tr').filter((row) => !row.querySelector('th[scope=row]')).length,
    'pictures without words': all('svg').filter((s) => s.getAttribute('role') !== 'img'
        || !s.getAttribute('aria-labelledby').split(' ').every((id) => document.getElementById(id)?.textContent.trim())).length,
    'regions without name': all('[role=region]').filter((r) => !r.getAttribute('aria-label')).length,
    'regions out of reach': all('[role=region]').filter((r) => r.tabIndex !== 0).length,
    'links without words': all('a').filter((a) => !a.textContent.trim()).length,
    language: document.documentElement.lang,
  };
}"""


@pytest.mark.parametrize("make", [failed_diamond, lambda: full_of("harmless text")], ids=["failed", "everything"])
def test_who_cannot_see_it_finds_landmarks_headings_and_tables(opened: Open, make: Callable[[], Any]) -> None:
    tab = opened(page(make()), scripts=True).tab
    assert tab.evaluate(STRUCTURE) == {
        "landmarks": [1, 1, 1, 1],
        "jumps": 0,
        "first heading": 1,
        "h1": 1,
        "ids twice": [],
        "tables without caption": 0,
        "headers without scope": 0,
        "rows without header": 0,
        "pictures without words": 0,
        "regions without name": 0,
        "regions out of reach": 0,
        "links without words": 0,
        "language": "en",
    }


# WCAG 2.2, relative luminance and contrast: every text against the nearest background that is not transparent.
CONTRAST = """(least) => {
  const rgb = (text) => { const n = text.match(/[\\d.]+/g).map(Number); return n.length === 3 ? [...n, 1] : n; };
  const light = (c) => c.slice(0, 3).map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (e) => {
    for (let at = e; at; at = at.parentElement) {
      if (at.tagName === 'g') { const r = at.querySelector('rect'); if (r) return rgb(getComputedStyle(r).fill); }
      const back = rgb(getComputedStyle(at).backgroundColor);
      if (back[3] > 0) return back;
    }
    return rgb(getComputedStyle(document.body).backgroundColor);
  };
  document.querySelectorAll('details').forEach((d) => { d.open = true; });
  const found = [];
  let seen = 0;
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || ['title', 'desc', 'style'].includes(e.tagName.toLowerCase())) continue;
    const style = getComputedStyle(e);
    const [a, b] = [light(rgb(e instanceof SVGElement ? style.fill : style.color)), light(behind(e))].sort((x, y) => y - x);
    const contrast = (a + 0.05) / (b + 0.05);
    seen += 1;
    if (contrast < least) found.push(`${e.tagName}.${e.getAttribute('class')} ${e.textContent.slice(0, 30)}: ${contrast.toFixed(2)}`);
  }
  return [seen, found];
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_what_is_behind_it(opened: Open, scheme: str) -> None:
    tab = opened(page(failed_diamond()), scheme=scheme, scripts=True).tab
    seen, faint = tab.evaluate(CONTRAST, 4.5)
    assert faint == [] and seen > 80
    # The measure can tell: against a higher bar some text is too faint.
    assert tab.evaluate(CONTRAST, 15)[1] != []


def test_dark_is_dark(opened: Open) -> None:
    colours = [
        opened(page(failed_diamond()), scheme=scheme, scripts=True).tab.evaluate("getComputedStyle(document.body).backgroundColor")
        for scheme in ("light", "dark")
    ]
    assert colours == ["rgb(255, 255, 255)", "rgb(20, 23, 30)"]


@pytest.mark.parametrize("width", [WIDE, NARROW, 320])
def test_the_page_never_scrolls_sideways(opened: Open, width: int) -> None:
    tab = opened(page(full_of("a_name_without_a_place_to_break_it_" * 8)), width=width, scripts=True).tab
    tab.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width


BROKEN_WORDS = """() => [...document.querySelectorAll('td .mark')]
  .filter((mark) => new Set([...mark.getClientRects()].map((line) => Math.round(line.bottom))).size > 1).map((mark) => mark.textContent)"""


def test_no_status_is_broken_in_two_on_a_telephone(opened: Open) -> None:
    tab = opened(page(failed_diamond()), width=NARROW, scripts=True).tab
    tab.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert tab.locator("td .mark").count() > 3
    assert tab.evaluate(BROKEN_WORDS) == []
    # The measure can tell.
    tab.evaluate("document.querySelector('td .mark').style.whiteSpace = 'normal'")
    tab.evaluate("document.querySelector('td .mark').textContent = 'a word '.repeat(60)")
    assert tab.evaluate(BROKEN_WORDS) != []


SPILT = """() => [...document.querySelectorAll('.bars g, .box')].filter((g) => {
  const [names, room] = [[...g.querySelectorAll('text')], g.querySelector('rect').getBBox()];
  return names.some((name) => name.getBBox().x + name.getBBox().width > room.x + room.width);
}).map((g) => g.textContent)"""


def test_names_stay_inside_their_bars_and_boxes(opened: Open) -> None:
    tab = opened(page(large(models=100, tests_per_model=0, failed=4, threads=4)), scripts=True).tab
    assert tab.locator(".bars text").count() > 5 and tab.locator(".box text").count() > 5
    assert tab.evaluate(SPILT) == []
    tab.evaluate("document.querySelectorAll('.bars text').forEach((name) => { name.style.fontSize = '30px'; })")
    assert tab.evaluate(SPILT) != []


def test_5000_nodes_open(opened: Open, figure: Callable[[str], None]) -> None:
    text = page(large(models=2500, tests_per_model=1))
    report = opened(text)
    assert (report.requests, report.complaints) == (report.only_itself, [])
    assert report.tab.get_by_role("heading", name="What failed").is_visible()
    figure(f"report of 5,000 nodes: {len(text.encode()) / 1e6:.2f} MB, opened in {report.seconds:.2f} s")
