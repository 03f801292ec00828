"""The dashboard in a browser, on a real serving API."""

import json
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from tests.e2e.pages.conftest import Visit, VisitMaker
from tests.integration.serving_api.labelling import Labeller
from tests.programs import Program
from tests.waiting import wait_for

pytestmark = pytest.mark.pages

# If the ingestion API cannot be reached, both the browser and the page report it.
_AWAY = "Failed to load resource: net::ERR_CONNECTION_REFUSED"
_VIEWS = {
    "overview": "",
    "texts": "?view=texts&q=you&source=forum",
    "quality": "?view=quality",
    "work": "?view=work",
    "training": "?view=training&new=1",
}
_TEXTS = 24


@pytest.fixture(scope="module", autouse=True)
def _labels(module_labeller: Labeller) -> None:
    """Texts of two sources; every third one is disputed."""
    for n in range(_TEXTS):
        source = "forum" if n % 2 else "news"
        received_at = datetime.now(UTC) - timedelta(hours=n)
        id_ = module_labeller.add_text(f"Are you text {n}?", source=source, score=0.5, received_at=received_at)
        second = "non_toxic" if n % 3 == 0 else "toxic"
        module_labeller.annotate({id_: {"ada": "toxic", "grace": second}})


@pytest.fixture
def shown(dashboard: Program) -> Program:
    wait_for(lambda: httpx.get(f"{dashboard.url}/stats").json()["total"] >= _TEXTS)
    return dashboard


def _errors(tab: Visit) -> list[str]:
    return [error for error in tab.errors if error != _AWAY]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280, 2560])
def test_each_view_is_accessible_and_keeps_its_policy(
    visit: VisitMaker, shown: Program, width: int, scheme: str
) -> None:
    for query in _VIEWS.values():
        tab = visit(shown, width, scheme)
        tab.open(query)
        assert tab.accessibility() == [], query
        assert tab.overflow() <= 0, query
        assert tab.violations() == [], query
        assert _errors(tab) == [], query


def test_a_first_view_is_small(visit: VisitMaker, shown: Program) -> None:
    tab = visit(shown)
    sizes: list[int] = []
    tab.page.on("response", lambda answer: sizes.append(len(answer.body()) if answer.ok else 0))
    tab.open()
    assert 0 < sum(sizes) < 300_000
    assert len(sizes) < 30


def test_the_state_is_in_the_address(visit: VisitMaker, shown: Program) -> None:
    tab = visit(shown)
    page = tab.open("?view=texts")
    assert page.locator("tbody tr").count() == _TEXTS
    page.get_by_label("news").check()
    tab.settled()
    page.wait_for_function(f"() => document.querySelectorAll('tbody tr').length === {_TEXTS // 2}")
    assert "source=news" in page.url
    page.reload()
    assert tab.settled().locator("tbody tr").count() == _TEXTS // 2
    page.go_back()
    page.wait_for_function(f"() => document.querySelectorAll('tbody tr').length === {_TEXTS}")
    assert "source" not in page.url


def test_a_search_marks_what_it_finds(visit: VisitMaker, shown: Program) -> None:
    tab = visit(shown)
    page = tab.open("?view=texts")
    page.get_by_label("Search in the texts").press_sequentially("TEXT 7")
    page.wait_for_function("() => document.querySelectorAll('tbody tr').length === 1")
    assert page.locator("mark").all_inner_texts() == ["text 7"]
    page.locator("td.text-cell a").click()
    page.wait_for_selector(".full-text")
    assert page.locator(".full-text").inner_text() == "Are you text 7?"
    assert sorted(page.get_by_role("rowheader").all_inner_texts()) == ["ada", "grace"]


def test_an_export_is_what_the_view_shows(visit: VisitMaker, shown: Program) -> None:
    page = visit(shown).open("?view=texts&source=forum&status=disputed")
    page.get_by_role("button", name="Export this view").click()
    with page.expect_download() as download:
        page.get_by_role("link", name="NDJSON").click()
    lines = download.value.path().read_text().splitlines()
    assert {(one["source"], one["status"]) for one in map(json.loads, lines)} == {("forum", "disputed")}
    assert "source=forum" in page.get_by_label("DuckDB", exact=True).inner_text()


def test_numbers_follow_the_labels_without_a_reload(
    visit: VisitMaker, shown: Program, module_labeller: Labeller
) -> None:
    page = visit(shown).open()
    figure = page.locator(".figure", has_text="Labelled").locator("dd").first
    before = int(figure.inner_text())
    module_labeller.add_label("This one is new.", "toxic", source="live")
    page.wait_for_function(
        "expected => document.querySelector('.figure dd').innerText === expected", arg=str(before + 1)
    )
    assert page.get_by_text("live", exact=True).count() == 1


def test_a_page_without_the_ingestion_api_says_so_and_shows_the_rest(visit: VisitMaker, shown: Program) -> None:
    page = visit(shown).open()
    page.wait_for_selector("text=The ingestion API can't be reached")
    assert page.locator(".figure", has_text="Pending").inner_text().split("\n")[1] == "–"
    assert page.locator("svg[aria-label='Labels per day'] rect").count() > 0


def test_a_snapshot_is_made_and_compared(visit: VisitMaker, shown: Program) -> None:
    first = {"name": "first", "source": "forum", "status": "labelled"}
    httpx.post(f"{shown.url}/snapshots", json=first).raise_for_status()
    tab = visit(shown)
    page = tab.open("?view=training&new=1")
    labelled = httpx.get(f"{shown.url}/stats").json()["by_status"]["labelled"]
    page.wait_for_selector(f"text={labelled} texts")
    page.get_by_role("textbox", name="Name").fill("second")
    page.get_by_role("button", name="Create the snapshot").click()
    page.wait_for_selector("h2:has-text('second')")
    page.get_by_label("Earlier snapshot").select_option("first")
    page.wait_for_selector("text=The first")
    inside = httpx.get(f"{shown.url}/snapshots/first").json()["splits"].values()
    added = labelled - sum(split["rows"] for split in inside)
    assert page.locator(".figure", has_text="Added").inner_text().split("\n")[1] == str(added)
    assert "pretty_name: toxicity" in page.get_by_label("Text of the dataset card").inner_text()
    assert _errors(tab) == []
    assert tab.accessibility() == []


def test_a_wrong_address_shows_a_view(visit: VisitMaker, shown: Program) -> None:
    tab = visit(shown)
    for query in ("?view=constructor", "?view=__proto__", "?dataset=none", "?view=quality&measure=constructor"):
        assert tab.open(query).locator("h1").count() == 1
    page = tab.open("?view=texts&cursor=AAAA")
    page.wait_for_selector("tbody tr")
    page = tab.open("?view=text&id=00000000-0000-8000-8000-000000000000")
    assert "No labelled text has this id" in page.locator(".notice").first.inner_text()
