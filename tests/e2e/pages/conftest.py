"""A headless Chromium, and pages that count JavaScript errors and violations of their policy."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
from pydantic import SecretStr
from sqlalchemy import create_engine

from core.settings import DatabaseSettings
from tests.e2e.pages.demo import serving
from tests.integration.serving_api.labelling import Labeller
from tests.programs import Program, free_port

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_AXE = (Path(__file__).parent / "vendor" / "axe.min.js").read_text()
_COUNT_VIOLATIONS = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => {
  window.violations.push(`${event.violatedDirective}: ${event.blockedURI || event.sample}`);
});
"""


class Visit:
    """A tab with one page, and what went wrong in it."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.errors: list[str] = []
        page.add_init_script(_COUNT_VIOLATIONS)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        page.on("dialog", lambda dialog: self.errors.append(f"dialog: {dialog.message}"))
        page.set_default_timeout(60_000)

    def open(self, query: str = "") -> Page:
        """Open a view and wait until nothing in it is being loaded."""
        self.page.goto(f"{self.url}/{query}")
        return self.settled()

    def settled(self) -> Page:
        """Wait until nothing is being loaded."""
        self.page.wait_for_selector("main h1, main h2")
        self.page.wait_for_function(
            "() => !document.querySelector('.loading, [aria-busy=true], .facet-list.stale')"
        )
        return self.page

    def violations(self) -> list[str]:
        """Return the violations of the page's Content-Security-Policy."""
        found: list[str] = self.page.evaluate("window.violations")
        return found

    def accessibility(self) -> list[tuple[str, str]]:
        """Return the rules of axe-core that the page breaks, each with an element."""
        self.page.evaluate(_AXE)
        found: dict[str, Any] = self.page.evaluate("axe.run()")
        return [(one["id"], one["nodes"][0]["html"]) for one in found["violations"]]

    def overflow(self) -> int:
        """Return by how many pixels the page is wider than its window."""
        wider: int = self.page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        return wider


def find_chromium() -> str | None:
    """Return the path of a Chromium; the continuous integration may install one."""
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None and os.environ.get("CI") and os.geteuid() == 0 and shutil.which("apt-get"):
        for command in (["update"], ["install", "--yes", "--no-install-recommends", "chromium"]):
            subprocess.run(["apt-get", "--quiet", *command], check=False, stdout=subprocess.DEVNULL)
        found = shutil.which("chromium")
    return found


def chromium_arguments() -> list[str]:
    """Return the arguments of Chromium: as root, which containers often are, it has no sandbox."""
    return ["--no-sandbox"] if os.geteuid() == 0 else []


@contextmanager
def running_chromium() -> Iterator[Browser]:
    """Run a headless Chromium. Meanwhile no other event loop can start in this thread: Playwright runs one."""
    path = find_chromium()
    if path is None:
        pytest.skip("There is no Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=chromium_arguments())
        yield browser
        browser.close()


# Not of the session: other tests start event loops.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    with running_chromium() as browser:
        yield browser


VisitMaker = Callable[..., Visit]


@pytest.fixture
def visit(browser: Browser) -> Iterator[VisitMaker]:
    """Opens a tab with a program's page, in a new browser session."""
    contexts: list[BrowserContext] = []

    def make(program: Program, width: int = 1280, scheme: str = "light") -> Visit:
        options: dict[str, Any] = {"viewport": {"width": width, "height": 900}, "color_scheme": scheme}
        contexts.append(browser.new_context(**options, reduced_motion="reduce"))
        return Visit(contexts[-1].new_page(), program.url)

    yield make
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def module_labeller(shared_database_url: str) -> Iterator[Labeller]:
    """Writes labels into the module's database."""
    engine = create_engine(DatabaseSettings(url=SecretStr(shared_database_url)).sqlalchemy_url)
    yield Labeller(engine)
    engine.dispose()


@pytest.fixture(scope="module")
def dashboard(
    shared_database_url: str, module_labeller: Labeller, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Program]:
    """A serving API on the module's database; the ingestion API is away."""
    away = f"http://127.0.0.1:{free_port()}"
    with serving(shared_database_url, tmp_path_factory.mktemp("dashboard"), PAGE_INGESTION_URL=away) as program:
        yield program
