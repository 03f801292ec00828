"""Takes the pictures in docs/pictures of our pages and of Argilla's: `python -m tests.screenshots`.

Needs a Chromium.
"""

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path

import httpx
from playwright.sync_api import Browser, FilePayload, Page, sync_playwright
from pydantic import SecretStr

from core.migrate import migrate
from core.settings import DatabaseSettings
from load_testing.targets import argilla_client
from local_stack.testing import RunningStack, running_stack
from tests.e2e.pages.conftest import Visit, chromium_arguments, find_chromium
from tests.e2e.pages.demo import fill, serving
from tests.programs import free_port, running
from tests.waiting import wait_for

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
TEXTS = 3000
_HEIGHT = 860

_VIEWS = {
    "overview": "",
    "texts": "?view=texts&q=shame&label=toxic",
    "quality": "?view=quality",
    "work": "?view=work",
    "training": "?view=training&snapshot=toxicity-2026-11",
}
_SAMPLE = "comment_text,is_toxic,thread\n" + "".join(
    f'"{words}, number {n}",{n % 2},{n % 7}\n' for n, words in enumerate(["Thanks, that helped", "Go away"] * 100)
)


def main() -> None:
    """Take all pictures."""
    PICTURES.mkdir(exist_ok=True)
    with contextlib.ExitStack() as programs:
        stack = programs.enter_context(running_stack({"postgres"}))
        folder = Path(programs.enter_context(tempfile.TemporaryDirectory()))
        migrate(DatabaseSettings(url=SecretStr(stack.database_url)))
        fill(stack.database_url, TEXTS)
        port, serving_port = free_port(), free_port()
        urls = {
            "PAGE_INGESTION_URL": f"http://127.0.0.1:{port}",
            "PAGE_SERVING_URL": f"http://127.0.0.1:{serving_port}",
            "HTTP_CORS_ORIGINS": f"http://127.0.0.1:{serving_port}",
        }
        env = {"DATABASE_URL": stack.database_url, **urls}
        ingestion = running("ingestion_api", env, folder / "ingestion.log", "/readyz", port)
        upload = programs.enter_context(ingestion).url
        dashboard = programs.enter_context(serving(stack.database_url, folder, serving_port, **urls)).url
        make_snapshots(dashboard)
        playwright = programs.enter_context(sync_playwright())
        launched = playwright.chromium.launch(executable_path=find_chromium(), args=chromium_arguments())
        browser = programs.enter_context(launched)
        for name, query in _VIEWS.items():
            take(browser, dashboard, query, name)
        take(browser, upload, "", "upload", choose_file)
        take_argilla(browser, programs.enter_context(running_stack()))


def make_snapshots(url: str) -> None:
    """Make two snapshots to be shown."""
    for request in ({"name": "toxicity-2026-10", "source": "forum"}, {"name": "toxicity-2026-11"}):
        httpx.post(f"{url}/snapshots", json=request | {"status": "labelled"}).raise_for_status()


def choose_file(page: Page) -> None:
    """Choose a file to upload, if this API can show how it would be read."""
    file: FilePayload = {"name": "comments.csv", "mimeType": "text/csv", "buffer": _SAMPLE.encode()}
    page.set_input_files("input[type=file]", files=[file])
    page.wait_for_selector("#mapping, .notice")


def take(browser: Browser, url: str, query: str, name: str, act: Callable[[Page], None] | None = None) -> None:
    """Take a view's picture."""
    context = browser.new_context(viewport={"width": 1440, "height": _HEIGHT}, reduced_motion="reduce")
    visit = Visit(context.new_page(), url)
    page = visit.open(query)
    if act is not None:
        act(page)
        visit.settled()
    page.screenshot(path=PICTURES / f"{name}.png")
    context.close()


def take_argilla(browser: Browser, stack: RunningStack) -> None:
    """Take a picture of Argilla's page, as its owner sees the first text."""
    sample = (PICTURES.parent / "sample.csv").read_bytes()
    mapping = {"label": "is_toxic", "label_map": "Toxic:toxic,Not Toxic:non_toxic"}
    url, headers = f"{stack.ingestion_url}/texts/bulk", {"Content-Type": "text/csv"}
    sent = httpx.post(url, params=mapping, content=sample, headers=headers).raise_for_status().json()
    wait_for(lambda: httpx.get(f"{stack.ingestion_url}/queue").json()["uploaded"] == sent["accepted"])
    with argilla_client(stack.argilla_url, stack.argilla_api_key) as argilla:
        dataset = argilla.get("me/datasets").json()["items"][0]["id"]
    context = browser.new_context(viewport={"width": 1200, "height": 400}, reduced_motion="reduce")
    page = context.new_page()
    page.goto(f"{stack.argilla_url}/sign-in")
    page.fill("input >> nth=0", "owner")
    page.fill("input >> nth=1", stack.stack.context.credentials.argilla_password)
    page.keyboard.press("Enter")
    page.wait_for_url(lambda address: "sign-in" not in address)
    page.goto(f"{stack.argilla_url}/dataset/{dataset}/annotation-mode?sort=metadata.position.asc")
    page.get_by_text("Is this text toxic?").wait_for()
    page.wait_for_load_state("networkidle")
    page.screenshot(path=PICTURES / "argilla.png")
    context.close()


if __name__ == "__main__":
    main()
