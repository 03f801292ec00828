"""The dashboard's view of models and suspects, in a browser on a real serving API."""

from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text, update

from core.classifiers.model_files import Bin, Estimate, Measures
from core.models import Model
from tests.e2e.pages.conftest import Visit, VisitMaker
from tests.integration.serving_api.labelling import Labeller
from tests.integration.serving_api.modelling import make_manifest, predict, store_model, train
from tests.programs import Program

pytestmark = pytest.mark.pages

_AWAY = "Failed to load resource: net::ERR_CONNECTION_REFUSED"
_BINS = [(180, 0.55, 0.5), (150, 0.65, 0.71), (220, 0.75, 0.72), (410, 0.86, 0.88), (1040, 0.97, 0.968)]


def _measures(auc: float) -> Measures:
    def estimate(value: float) -> Estimate:
        return Estimate(value=value, low=value - 0.02, high=value + 0.01)

    return Measures(
        texts=2000,
        roc_auc=estimate(auc),
        average_precision=estimate(auc - 0.01),
        f1=estimate(auc - 0.07),
        log_loss=estimate(0.25),
        calibration_error=estimate(0.03),
    )


def fill_with_models(labeller: Labeller, folder: Path, versions: int = 5, texts: int = 12) -> None:
    """Store models, the last one active, and texts of whose labels it doubts a half."""
    for number in range(versions):
        classifier = train(more=f"hello {number}")
        version = store_model(labeller.engine, folder, classifier)
        manifest = make_manifest(classifier).model_copy(
            update={
                "metrics": {"model": _measures(0.9 + number / 100)},
                "reliability": tuple(Bin(texts=n, probability=p, right=right) for n, p, right in _BINS),
            }
        )
        manifest = manifest.model_copy(update={"created_at": manifest.created_at + timedelta(hours=number)})
        with labeller.engine.begin() as connection:
            row = update(Model).where(Model.version == version)
            connection.execute(
                row.values(manifest=manifest.model_dump(mode="json"), created_at=manifest.created_at)
            )
    ids = [
        labeller.add_label(f"You call this text {n}? <b>idiots</b>", source=("forum", "news")[n % 2])
        for n in range(texts)
    ]
    predict(
        labeller.engine,
        version,
        {id_: ("non_toxic", 0.95 - n / 100, 0.05 + n / 100) for n, id_ in enumerate(ids[: texts // 2])},
    )


@pytest.fixture(scope="module")
def modelled(dashboard: Program, module_labeller: Labeller, tmp_path_factory: pytest.TempPathFactory) -> Program:
    with module_labeller.engine.connect() as connection:
        stored = connection.scalar(text("select count(*) from models"))
    if not stored:
        fill_with_models(module_labeller, tmp_path_factory.mktemp("models"))
    return dashboard


def test_without_a_model_nothing_of_it_is_shown_until_there_is_one(
    visit: VisitMaker, dashboard: Program, module_labeller: Labeller, tmp_path: Path
) -> None:
    page = visit(dashboard).open()
    link = page.get_by_role("link", name="Model", exact=True)
    assert link.count() == 0
    fill_with_models(module_labeller, tmp_path)
    link.wait_for()
    link.click()
    page.wait_for_selector("h2:has-text('Suspects')")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280, 2560])
def test_it_is_accessible_and_keeps_its_policy(
    visit: VisitMaker, modelled: Program, width: int, scheme: str
) -> None:
    tab = _open(visit, modelled, width, scheme)
    assert tab.accessibility() == []
    assert tab.overflow() <= 0
    assert tab.violations() == []
    assert [error for error in tab.errors if error != _AWAY] == []


def _open(visit: VisitMaker, program: Program, width: int = 1280, scheme: str = "light") -> Visit:
    tab = visit(program, width, scheme)
    tab.open("?view=model")
    tab.page.wait_for_selector("[aria-label='Table of suspects'] tbody tr")
    tab.settled()
    return tab


def test_it_shows_measures_calibration_versions_and_suspects(visit: VisitMaker, modelled: Program) -> None:
    page = _open(visit, modelled).page
    assert page.locator(".figure", has_text="ROC AUC").locator("dd").first.inner_text() == "0.940"
    assert page.locator("svg[aria-label='Reliability diagram'] circle").count() == len(_BINS)
    assert page.locator("svg[aria-label='ROC AUC by version'] circle").count() == 5
    page.get_by_label("Measure").select_option("F1")
    page.wait_for_selector("svg[aria-label='F1 by version']")
    rows = page.locator("[aria-label='Table of suspects'] tbody tr")
    assert rows.count() == 6
    assert "<b>idiots</b>" in rows.first.inner_text(), "texts are shown, not interpreted"
    assert "0.05" in rows.first.inner_text()
    page.get_by_label("Source").select_option("news")
    page.wait_for_function(
        "() => document.querySelectorAll(\"[aria-label='Table of suspects'] tbody tr\").length === 3"
    )
    assert "source=news" in page.url
