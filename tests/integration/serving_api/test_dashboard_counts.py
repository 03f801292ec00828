"""The dashboard's counts, compared with plain Python; and the responses with its page and files."""

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from core.models import AnnotationStatus
from tests.integration.serving_api.conftest import World
from tests.integration.serving_api.labelling import Labeller

ANNOTATORS = ["ada", "bob", "cleo", "d%'\"é"]
SOURCES = ["forum", "a%b_c'd\"", None]
LANGUAGES = ["en", "de", None]
KINDS = ("label", "status", "complete", "source", "language", "annotator", "agreement")
TEXTS = 60

Item = dict[str, Any]


def _fill(labeller: Labeller) -> None:
    chance = random.Random(5)  # noqa: S311
    for number in range(TEXTS):
        language = chance.choice(LANGUAGES)
        enrichment = {"language": {"code": language, "confidence": 0.9}} if language else {}
        id_ = labeller.add_text(f"text {number}", source=chance.choice(SOURCES), enrichment=enrichment)
        said: dict[str, Any] = {a: chance.choice(["toxic", "non_toxic"]) for a in chance.sample(ANNOTATORS, 3)}
        said[chance.choice(ANNOTATORS)] = (AnnotationStatus.DRAFT, None)
        labeller.annotate({id_: said})


@pytest.fixture(scope="module")
def client(shared: World) -> TestClient:
    _fill(shared.labeller)
    shared.labeller.wait_for(shared.replica)
    return shared.client


@pytest.fixture(scope="module")
def items(client: TestClient) -> list[Item]:
    """All items, with their annotations as `said`."""
    found: list[Item] = client.get("/texts", params={"limit": 1000}).json()["items"]
    return [one | {"said": client.get(f"/texts/{one['id']}").json()["annotations"]} for one in found]


def _submitted(item: Item) -> list[str]:
    return [one["annotator"] for one in item["said"] if one["status"] == "submitted"]


def _values(item: Item, kind: str) -> list[Any]:
    if kind == "annotator":
        return sorted(set(_submitted(item)))
    if kind == "language":
        return [item["enrichment"].get("language", {}).get("code")]
    if kind == "agreement":
        return [int(item["agreement"] * 10 + 1e-9) / 10]
    return [item[kind]]


def _fits(item: Item, filters: dict[str, Any]) -> bool:
    return all(_fits_one(item, name, wanted) for name, wanted in filters.items())


def _fits_one(item: Item, name: str, wanted: Any) -> bool:
    match name:
        case "label":
            return item["label"] in wanted
        case "min_agreement":
            return bool(item["agreement"] >= wanted)
        case "q":
            return wanted in item["text"]
        case _:
            return wanted in _values(item, name)


FILTERS = st.fixed_dictionaries(
    {},
    optional={
        "label": st.lists(st.sampled_from(["toxic", "non_toxic"]), min_size=1, unique=True),
        "status": st.sampled_from(["labelled", "disputed"]),
        "complete": st.booleans(),
        "source": st.sampled_from([source for source in SOURCES if source]),
        "language": st.sampled_from(["en", "de"]),
        "annotator": st.sampled_from(ANNOTATORS),
        "min_agreement": st.sampled_from([0.5, 0.6, 1.0]),
        "q": st.sampled_from(["text 1", "5", "none"]),
    },
)


@given(filters=FILTERS)
def test_facets_count_what_the_other_filters_leave(
    client: TestClient, items: list[Item], filters: dict[str, Any]
) -> None:
    answer = client.get("/stats/facets", params=filters).json()
    assert answer["total"] == sum(_fits(item, filters) for item in items)
    for kind in KINDS:
        own = {"agreement": "min_agreement"}.get(kind, kind)
        others = {name: value for name, value in filters.items() if name != own}
        counted = Counter(value for item in items if _fits(item, others) for value in _values(item, kind))
        assert {one["value"]: one["texts"] for one in answer[kind]} == counted, kind
        numbers = [one["texts"] for one in answer[kind]]
        assert numbers == sorted(numbers, reverse=True)


def test_days_count_labels_and_answers(client: TestClient, items: list[Item]) -> None:
    days = client.get("/stats/days").json()["days"]
    labels = Counter((item["labelled_at"][:10], item["label"]) for item in items)
    answers = Counter(
        (one["created_at"][:10], one["annotator"])
        for item in items
        for one in item["said"]
        if one["status"] == "submitted"
    )
    assert (
        Counter({(one["day"], label): n for one in days for label, n in one["labels"].items()})
        + Counter({(one["day"], None): one["disputed"] for one in days})
        == labels
    )
    assert Counter({(one["day"], name): n for one in days for name, n in one["answers"].items()}) == answers


def test_days_without_labels_are_none(client: TestClient) -> None:
    assert client.get("/stats/days", params={"source": "nowhere"}).json()["days"] == []


@pytest.mark.parametrize("path", ["/stats/facets", "/stats/days"])
def test_counts_are_cached_and_checked(client: TestClient, path: str) -> None:
    first = client.get(path)
    assert client.get(path, headers={"If-None-Match": first.headers["ETag"]}).status_code == 304
    assert client.get(path, params={"dataset": "none"}).json()["code"] == "invalid_fields"
    assert client.get(f"{path}?source=a&source=b").status_code == 422


PAGE = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (PAGE["Accept"], "text/html"),
        ("*/*", "application/json"),
        ("application/json", "application/json"),
        ("application/json, text/html", "application/json"),
        ("text/html;q=0.5, application/json;q=0.4", "text/html"),
    ],
)
def test_browsers_get_the_page_and_others_links(client: TestClient, accept: str, kind: str) -> None:
    answer = client.get("/", headers={"Accept": accept})
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].partition(";")[0] == kind
    assert "Accept" in answer.headers["Vary"].split(", ")


def test_links_lead_somewhere(client: TestClient) -> None:
    links = client.get("/").json()
    for name in (
        "docs",
        "texts",
        "disputed",
        "stats",
        "changes",
        "snapshots",
        "agreement",
        "annotators",
        "openapi",
    ):
        assert client.get(links[name]).status_code == 200, name
    assert links["datasets"]["toxicity"]["labels"] == ["toxic", "non_toxic"]
    assert links["ingestion"] == "http://127.0.0.1:8080"


def test_the_page_is_sent_with_a_strict_policy(client: TestClient) -> None:
    answer = client.get("/", headers=PAGE)
    policy = dict(part.split(maxsplit=1) for part in answer.headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'self'"
    assert policy["connect-src"] == "'self' http://127.0.0.1:8080"
    assert policy["frame-ancestors"] == "'none'"
    assert "unsafe" not in str(policy)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"


@pytest.fixture
def files(client: TestClient) -> list[str]:
    page = client.get("/", headers=PAGE).text
    return [part.split('"')[0] for part in page.split('src="')[1:] + page.split('href="')[1:]]


def test_the_files_of_a_page_are_there(client: TestClient, files: list[str]) -> None:
    assert len(files) > 5
    for name in files:
        answer = client.get(f"/{name}")
        assert answer.status_code == 200, name
        again = client.get(f"/{name}", headers={"If-None-Match": answer.headers["ETag"]})
        assert (again.status_code, again.content) == (304, b""), name
        assert client.get(f"/{name}", headers={"Range": "wrong"}).content == answer.content, name


@pytest.mark.parametrize(
    "name",
    ["", "none.js", "../endpoints.py", "%2e%2e/endpoints.py", "/etc/passwd", "shared/../../pages.py", "x" * 9999],
)
def test_no_other_file_is_sent(client: TestClient, name: str) -> None:
    assert client.get(f"/static/{name}").status_code == 404
