"""If keys are required, a page requests one and keeps it only for the browser session."""

from collections.abc import Iterator

import httpx
import pytest

from tests.e2e.pages.conftest import VisitMaker
from tests.e2e.pages.demo import serving
from tests.integration.security.conftest import add_key
from tests.integration.serving_api.labelling import Labeller
from tests.programs import Program
from tests.waiting import wait_for

pytestmark = pytest.mark.pages


@pytest.fixture(scope="module")
def key(shared_database_url: str) -> str:
    return add_key(shared_database_url, "read")


@pytest.fixture(scope="module")
def closed(
    shared_database_url: str, module_labeller: Labeller, key: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Program]:
    """A serving API that requires keys, with one label."""
    module_labeller.add_label("a text for those with a key")
    folder = tmp_path_factory.mktemp("closed")
    with serving(shared_database_url, folder, REQUIRE_API_KEY="true") as program:
        headers = {"Authorization": f"Bearer {key}"}
        wait_for(lambda: httpx.get(f"{program.url}/stats", headers=headers).status_code == 200)
        yield program


def test_a_key_is_asked_for_and_kept_for_the_session(visit: VisitMaker, closed: Program, key: str) -> None:
    tab = visit(closed)
    page = tab.open("?view=texts")
    assert page.locator("h1").inner_text() == "An API key is required"
    assert tab.accessibility() == []
    page.get_by_label("API key").fill("ap_wrong")
    page.get_by_role("button", name="Use this key").click()
    page.wait_for_selector("text=An API key is required")
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Use this key").click()
    page.wait_for_selector("text=a text for those with a key")
    page.reload()
    page.wait_for_selector("text=a text for those with a key")
    assert page.evaluate("sessionStorage.length") == 1
    assert page.evaluate("localStorage.length + document.cookie.length") == 0
    assert key not in page.url


@pytest.mark.parametrize(("scopes", "offers"), [(["read"], 0), (["read", "snapshot"], 1), (["admin"], 1)])
def test_a_page_offers_only_what_the_key_allows(
    visit: VisitMaker, closed: Program, shared_database_url: str, scopes: list[str], offers: int
) -> None:
    key = add_key(shared_database_url, *scopes)
    headers = {"Authorization": f"Bearer {key}"}
    wait_for(lambda: httpx.get(f"{closed.url}/stats", headers=headers).status_code == 200)
    page = visit(closed).open("?view=training&new=1")
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Use this key").click()
    page.wait_for_selector("h1:has-text('Training data')")
    page.wait_for_selector("text=No snapshots yet")
    assert page.get_by_role("button", name="Create the snapshot").count() == offers
    # The key or the request is refused.
    answer = httpx.post(f"{closed.url}/snapshots", json={"unknown": 1}, headers=headers)
    assert (answer.status_code == 403) == (not offers)


def test_lines_to_copy_hold_no_key(visit: VisitMaker, closed: Program, key: str) -> None:
    page = visit(closed).open("?view=texts")
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Use this key").click()
    page.get_by_role("button", name="Export this view").click()
    page.wait_for_selector("text=$API_KEY")
    assert key not in page.content()
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV").click()
    assert "a text for those with a key" in download.value.path().read_text()
