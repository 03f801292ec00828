"""Texts, sources, metadata, labels and names are shown as they are, and run nothing."""

from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text

from tests.e2e.pages.conftest import VisitMaker
from tests.e2e.pages.hostile import VECTORS
from tests.integration.serving_api.labelling import Labeller
from tests.programs import Program
from tests.waiting import wait_for

pytestmark = pytest.mark.pages

_AWAY = "Failed to load resource: net::ERR_CONNECTION_REFUSED"
_FOREIGN = "script:not([src]), iframe, object, embed, main img, base, style, [onerror], [onload], [onfocus]"


# No dataset has such labels, but a page must not rely on that.
_RELABEL = text("""
update labels set label = :label, status = 'labelled', confidence = 1, agreement = 1,
    votes = jsonb_build_object(cast(:label as text), 2), changed_xid = pg_current_xact_id()
where text_id = :id
""")


@pytest.fixture(scope="module")
def hostile(dashboard: Program, module_labeller: Labeller) -> dict[UUID, str]:
    """A text of each vector: also in its source, its metadata, its annotators' names and its label."""
    ids = {}
    for vector in VECTORS:
        columns: dict[str, Any] = {"source": vector, "external_id": vector, "metadata_": {vector: vector}}
        columns |= {"enrichment": {"language": {"code": vector, "confidence": 1.0}}}
        id_ = module_labeller.add_text(f"{vector} as a text", **columns)
        module_labeller.annotate({id_: {vector: "toxic", f"{vector} again": "non_toxic"}})
        ids[id_] = vector
    with module_labeller.engine.begin() as connection:
        for id_, vector in list(ids.items())[::3]:
            connection.execute(_RELABEL, {"label": vector, "id": id_})
    wait_for(lambda: VECTORS[0] in httpx.get(f"{dashboard.url}/stats").json()["by_label"])
    return ids


def test_nothing_runs_in_any_view(visit: VisitMaker, dashboard: Program, hostile: dict[UUID, str]) -> None:
    httpx.post(f"{dashboard.url}/snapshots", json={"name": "hostile"}).raise_for_status()
    tab = visit(dashboard)
    views = ["", "?view=texts", "?view=texts&q=script", "?view=texts&order=oldest", "?view=quality", "?view=work"]
    views += ["?view=training&snapshot=hostile&new=1", *(f"?view=text&id={id_}" for id_ in hostile)]
    for query in views:
        page = tab.open(query)
        page.wait_for_timeout(50)
        assert page.evaluate("window.hacked") is None, query
        assert page.locator(_FOREIGN).count() == 0, query
        assert page.locator("a[href^=javascript], a[href^=data]").count() == 0, query
        assert tab.violations() == [], query
        assert [error for error in tab.errors if error != _AWAY] == [], query


def test_texts_are_shown_as_they_are(visit: VisitMaker, dashboard: Program, hostile: dict[UUID, str]) -> None:
    tab = visit(dashboard)
    for id_, vector in list(hostile.items())[::5]:
        page = tab.open(f"?view=text&id={id_}")
        assert page.locator(".full-text").text_content() == f"{vector} as a text"
        facts = page.locator(".facts dd").all_text_contents()
        assert facts.count(vector) >= 3, "source, external id, metadata"
        assert page.locator("tbody th").first.text_content() == vector


def test_hostile_addresses_run_nothing(visit: VisitMaker, dashboard: Program) -> None:
    tab = visit(dashboard)
    for vector in VECTORS[::12]:
        for parameter in ("view", "dataset", "q", "source", "label", "snapshot", "cursor", "measure", "below"):
            query = httpx.QueryParams({"view": "texts", parameter: vector})
            page = tab.open(f"?{query}")
            assert page.evaluate("window.hacked") is None, (parameter, vector)
            assert page.locator(_FOREIGN).count() == 0, (parameter, vector)
            assert tab.violations() == []
