"""The upload page in a browser, on a real ingestion API."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import FilePayload, Route, expect

from tests.e2e.pages.conftest import Visit, VisitMaker
from tests.e2e.pages.hostile import VECTORS
from tests.programs import Program, running

pytestmark = pytest.mark.pages

_ROWS = 1000
_PIECE_BYTES = 8 * 1024 * 1024


@pytest.fixture(scope="module")
def ingestion(shared_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    folder = tmp_path_factory.mktemp("ingestion")
    env = {"DATABASE_URL": shared_database_url, "DATA_DIR": str(folder)}
    with running("ingestion_api", env, folder / "ingestion.log", "/readyz") as program:
        yield program


def _csv(rows: list[tuple[str, str]]) -> FilePayload:
    quoted = ('"{}",{}\n'.format(text.replace('"', '""'), label) for text, label in rows)
    return {
        "name": "comments.csv",
        "mimeType": "text/csv",
        "buffer": ("comment,verdict\n" + "".join(quoted)).encode(),
    }


def _assert_clean(tab: Visit) -> None:
    assert tab.errors == []
    assert tab.violations() == []
    assert tab.accessibility() == []
    assert tab.overflow() <= 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280, 2560])
def test_each_view_is_accessible_and_keeps_its_policy(
    visit: VisitMaker, ingestion: Program, width: int, scheme: str
) -> None:
    for query in ("", "?view=imports", "?view=queue", "?view=constructor"):
        tab = visit(ingestion, width, scheme)
        tab.open(query)
        _assert_clean(tab)


def test_a_wrong_mapping_is_corrected_and_the_rows_arrive(visit: VisitMaker, ingestion: Program) -> None:
    labels = ["bad", "fine", "unsure"]
    rows = [(f"comment number {n}", labels[n % 3]) for n in range(_ROWS)]
    tab = visit(ingestion)
    page = tab.open()
    page.set_input_files("input[type=file]", files=[_csv(rows)])
    page.wait_for_selector("#mapping")
    page.get_by_label("Field of the column verdict").select_option("label")
    page.get_by_label("Label of the value bad").select_option("toxic")
    page.get_by_label("Label of the value fine").select_option("non_toxic")
    unsure = len(rows[2::3])
    page.wait_for_selector(f"text={unsure} of 1,000 rows would be rejected.")
    _assert_clean(tab)
    page.get_by_role("button", name="Start the import").click()
    page.wait_for_selector("h2:has-text('Done')")
    id_ = httpx.URL(page.url).params["id"]
    found = httpx.get(f"{ingestion.url}/imports/{id_}").json()
    assert (found["received"], found["accepted"], found["rejected"]) == (_ROWS, _ROWS - unsure, unsure)
    figure = page.locator(".figure", has_text="Rejected").locator("dd").first
    assert figure.inner_text() == str(unsure)
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the rejected rows").click()
    rejects = [json.loads(line) for line in download.value.path().read_text().splitlines()]
    assert {one["code"] for one in rejects} == {"unknown_label"}
    page.reload()
    page.wait_for_selector("h2:has-text('Done')")
    _assert_clean(tab)


def test_a_preview_that_arrives_while_somebody_types_takes_nothing_away(
    visit: VisitMaker, ingestion: Program
) -> None:
    page = visit(ingestion).open()
    page.set_input_files("input[type=file]", files=[_csv([("a comment", "bad"), ("another", "fine")])])
    page.wait_for_selector("#mapping")
    page.get_by_label("Field of the column verdict").select_option("label")
    choice = page.get_by_label("Label of the value bad")
    choice.wait_for()
    held: list[Route] = []

    def hold(route: Route) -> None:
        if held:
            route.continue_()
        else:
            held.append(route)

    page.route("**/imports/preview*", hold)
    choice.select_option("toxic")
    page.wait_for_selector(".stale")
    source = page.get_by_label("Source of all rows")
    source.press_sequentially("forum")
    held[0].continue_()
    page.wait_for_function("() => !document.querySelector('.stale')")
    assert source.input_value() == "forum"
    source.blur()
    page.wait_for_selector("td:has-text('forum')")


def test_pasted_lines_become_texts(visit: VisitMaker, ingestion: Program) -> None:
    tab = visit(ingestion)
    page = tab.open()
    page.get_by_role("textbox", name="Lines").fill('a pasted "text"\n\nanother, with a comma\n')
    page.get_by_role("button", name="Preview", exact=True).click()
    page.wait_for_selector("text=another, with a comma")
    assert page.locator("td.cell-text").all_inner_texts() == ['a pasted "text"', "another, with a comma"]


def test_an_upload_goes_on_after_a_reload(visit: VisitMaker, ingestion: Program, tmp_path: Path) -> None:
    file = tmp_path / "long.csv"
    line = "x" * 1000
    file.write_text("text\n" + "".join(f"{n} {line}\n" for n in range(20_000)))
    tab = visit(ingestion)
    page = tab.open()

    def cut(route: Route) -> None:
        offset = route.request.headers.get("upload-offset", "0")
        if route.request.method == "PATCH" and int(offset) >= _PIECE_BYTES:
            route.abort()
        else:
            route.continue_()

    page.route("**/imports/*", cut)
    page.set_input_files("input[type=file]", str(file))
    page.get_by_role("button", name="Start the import").click()
    page.wait_for_selector("text=8.4 MB of 20 MB")
    page.get_by_role("button", name="Pause").click()
    page.wait_for_selector("text=paused")
    page.unroute("**/imports/*")
    page.reload()
    other = tmp_path / "other.csv"
    other.write_text("text\nx\n")
    page.get_by_label("Choose the same file again").set_input_files(str(other))
    page.wait_for_selector("text=the interrupted file has")
    page.get_by_label("Choose the same file again").set_input_files(str(file))
    page.wait_for_selector("h2:has-text('Done')")
    id_ = httpx.URL(page.url).params["id"]
    found = httpx.get(f"{ingestion.url}/imports/{id_}").json()
    assert (found["received"], found["accepted"]) == (20_000, 20_000)
    assert found["upload"]["length"] == file.stat().st_size


def test_hostile_files_run_nothing(visit: VisitMaker, ingestion: Program) -> None:
    columns = ",".join(f'"{vector.replace(chr(34), chr(34) * 2)}"' for vector in VECTORS)
    cells = f"{columns}\n{columns}\n"
    tab = visit(ingestion)
    page = tab.open()
    name = "<img src=x onerror=window.hacked=1>.csv"
    file: FilePayload = {"name": name, "mimeType": "text/csv", "buffer": cells.encode()}
    page.set_input_files("input[type=file]", files=[file])
    page.wait_for_selector("#mapping")
    # Another vector is the same but for an invisible character, which the browser leaves out of names.
    page.get_by_label(f"Field of the column {VECTORS[0]}").first.select_option("text")
    # The preview before shows the column that was proposed.
    expect(page.locator("td.cell-text").first).to_have_text(VECTORS[0], timeout=60_000)
    assert page.locator("strong").first.text_content() == name
    assert page.evaluate("window.hacked") is None
    assert tab.violations() == []
    assert tab.errors == []
