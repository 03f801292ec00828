"""The whole way through both pages, in a browser, on the real stack: from a file to a snapshot."""

import json
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, FilePayload, Page

from core.text_identity import text_id
from local_stack.testing import RunningStack
from tests.e2e.pages.conftest import Visit, running_chromium
from tests.e2e.uploader.conftest import DATASET, Annotator, ArgillaSpace, open_argilla
from tests.waiting import wait_for

_ROWS = 1000
_BUSY_SECONDS = 400  # Argilla computes for most of it, and the machine may be busy
_SOURCE = "page upload"
_AGREED, _DISPUTED, _LATER = 40, 10, 5


def _text(n: int) -> str:
    return f"Comment number {n} of the way through the pages"


def _label(n: int) -> str:
    return "toxic" if n % 3 == 0 else "non_toxic"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_chromium() as browser:
        yield browser


@pytest.fixture
def argilla(stack: RunningStack) -> Iterator[ArgillaSpace]:
    with open_argilla(stack.argilla_url, stack.argilla_api_key) as http:
        yield ArgillaSpace(http, "annotation", stack.argilla_url, stack.database_url)


class Tabs:
    """Tabs of one browser session."""

    def __init__(self, browser: Browser) -> None:
        self._context = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
        self.opened: list[Visit] = []

    def open(self, url: str, query: str = "") -> Page:
        tab = Visit(self._context.new_page(), url)
        self.opened.append(tab)
        return tab.open(query)

    def assert_clean(self) -> None:
        """Fail if any page broke its policy or logged an error."""
        assert [tab.errors for tab in self.opened] == [[] for _ in self.opened]
        assert [tab.violations() for tab in self.opened] == [[] for _ in self.opened]


def _figure(page: Page, name: str) -> int:
    shown = page.locator(".figure", has=page.get_by_text(name, exact=True)).locator("dd").first.inner_text()
    return int(shown.replace(",", "")) if shown != "–" else 0


def _wait_for_figure(page: Page, name: str, expected: int) -> None:
    def is_shown() -> bool:
        # A page in the background follows nothing.
        page.bring_to_front()
        return _figure(page, name) == expected

    wait_for(is_shown, _BUSY_SECONDS)


def _upload(page: Page) -> None:
    rows = "".join(f"{_text(n)},{'bad' if _label(n) == 'toxic' else 'fine'}\n" for n in range(_ROWS))
    file: FilePayload = {
        "name": "comments.csv",
        "mimeType": "text/csv",
        "buffer": f"comment,verdict\n{rows}".encode(),
    }
    page.set_input_files("input[type=file]", files=[file])
    page.wait_for_selector("#mapping")
    page.get_by_label("Field of the column verdict").select_option("label")
    # Wrong: all rows would be toxic. The first rows show it.
    for value in ("bad", "fine"):
        page.get_by_label(f"Label of the value {value}").select_option("toxic")
    page.wait_for_function("() => document.querySelectorAll('[aria-busy=true]').length === 0")
    page.get_by_label("Label of the value fine").select_option("non_toxic")
    page.get_by_label("Source of all rows").fill(_SOURCE)
    page.get_by_label("Source of all rows").blur()
    page.wait_for_selector(f"td:has-text('{_SOURCE}')")
    page.get_by_role("button", name="Start the import").click()
    page.wait_for_selector("h2:has-text('Done')")


def _answer(argilla: ArgillaSpace, annotators: list[Annotator], numbers: range, *, agreed: bool) -> None:
    for n in numbers:
        record = argilla.record(text_id(DATASET, _text(n)))
        others = "non_toxic" if _label(n) == "toxic" else "toxic"
        for annotator, label in zip(annotators, (_label(n), _label(n) if agreed else others), strict=True):
            annotator.answer(record["id"], label)


def _make_snapshot(page: Page, name: str) -> None:
    page.bring_to_front()
    page.get_by_role("button", name="New snapshot").click()
    page.get_by_role("textbox", name="Name").fill(name)
    page.get_by_role("button", name="Create the snapshot").click()
    page.wait_for_selector(f"h2:has-text('{name}')")


@pytest.mark.timeout(900)
def test_from_a_file_to_a_snapshot_without_a_reload(
    stack: RunningStack, browser: Browser, argilla: ArgillaSpace
) -> None:
    tabs = Tabs(browser)
    overview = tabs.open(stack.serving_url)
    work = tabs.open(stack.serving_url, "?view=work&below=0")
    before = {name: _figure(overview, name) for name in ("Labelled", "Disputed")}

    # A wrong mapping is corrected in the page, and what arrives is what the page showed.
    _upload(tabs.open(stack.ingestion_url))
    ids = [text_id(DATASET, _text(n)) for n in range(_ROWS)]
    stored = [httpx.get(f"{stack.ingestion_url}/texts/{id_}").raise_for_status().json() for id_ in ids[:9]]
    assert [one["claimed_label"] for one in stored] == [_label(n) for n in range(9)]

    def uploaded() -> bool:
        queue = httpx.get(f"{stack.ingestion_url}/queue").json()
        return bool(queue["pending"] + queue["uploading"] == 0)

    wait_for(uploaded, _BUSY_SECONDS)

    # 50 texts are answered; the numbers, the chart and the work list follow.
    annotators = [argilla.add_annotator(name) for name in ("ann", "bob")]
    _answer(argilla, annotators, range(_AGREED), agreed=True)
    _answer(argilla, annotators, range(_AGREED, _AGREED + _DISPUTED), agreed=False)
    _wait_for_figure(overview, "Labelled", before["Labelled"] + _AGREED)
    _wait_for_figure(overview, "Disputed", before["Disputed"] + _DISPUTED)
    assert overview.get_by_text(_SOURCE, exact=True).count() == 1
    answers = overview.locator("svg[aria-label='Answers per annotator and day']")
    assert answers.locator("rect").count() >= len(annotators)
    work.bring_to_front()
    row = work.locator("tbody tr", has_text=_text(_AGREED))
    row.wait_for()
    assert row.locator("strong").all_inner_texts() == ["1", "1", "Tie"]
    assert row.get_by_role("link", name="Open in Argilla").get_attribute("href", timeout=5000)

    # Exactly what the view shows is exported.
    texts = tabs.open(stack.serving_url, "?view=texts")
    texts.get_by_label(_SOURCE).check()
    texts.get_by_label("labelled", exact=False).first.wait_for()
    texts.wait_for_function(
        "expected => document.querySelector('[role=status]').innerText === expected", arg="50 texts"
    )
    texts.get_by_role("button", name="Export this view").click()
    with texts.expect_download() as download:
        texts.get_by_role("link", name="NDJSON").click()
    exported = [json.loads(line) for line in download.value.path().read_text().splitlines()]
    assert {one["id"] for one in exported} == {str(id_) for id_ in ids[: _AGREED + _DISPUTED]}
    assert {one["text"]: one["label"] for one in exported if one["status"] == "labelled"} == {
        _text(n): _label(n) for n in range(_AGREED)
    }

    # A snapshot, more answers, another one, and what differs.
    training = tabs.open(stack.serving_url, "?view=training")
    _make_snapshot(training, "way-first")
    _answer(argilla, annotators, range(_AGREED + _DISPUTED, _AGREED + _DISPUTED + _LATER), agreed=True)
    _wait_for_figure(overview, "Labelled", before["Labelled"] + _AGREED + _LATER)
    _make_snapshot(training, "way-second")
    training.get_by_label("Earlier snapshot").select_option("way-first")
    training.get_by_text(f"The first {_LATER} texts that differ").wait_for()
    assert _figure(training, "Added") == _LATER
    assert (_figure(training, "Removed"), _figure(training, "Relabelled")) == (0, 0)
    tabs.assert_clean()
