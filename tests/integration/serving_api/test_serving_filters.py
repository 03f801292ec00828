"""Every filter against a model in plain Python, on random texts."""

import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from tests.integration.serving_api.conftest import World
from tests.integration.serving_api.labelling import random_answer

ANNOTATORS = ["ada", "bob", "cleo", "dan"]
LANGUAGES = ["en", "und"]
SOURCES = ["forum", "mail", "a%b_c'd\"", None]
WORDS = ["Alpha", "beta_", "100%", "it's", "\\", "naïve", "ÄRGER", "日本", "🙂", "a_b"]

Item = dict[str, Any]


@pytest.fixture(scope="module")
def client(shared: World) -> TestClient:
    return shared.client


@pytest.fixture(scope="module")
def items(shared: World) -> list[Item]:
    """Random labelled texts, as the details show them."""
    client, labeller = shared.client, shared.labeller
    chance = random.Random(7)  # noqa: S311
    for number in range(80):
        words = " ".join(chance.sample(WORDS, 3)) + f" {number}"
        enrichment = chance.choice([{}, *({"language": {"code": code, "confidence": 1}} for code in LANGUAGES)])
        id_ = labeller.add_text(words, source=chance.choice(SOURCES), enrichment=enrichment)
        said = {name: random_answer(chance) for name in chance.sample(ANNOTATORS, chance.randint(0, 4))}
        labeller.annotate({id_: said})
    labeller.wait_for(shared.replica)
    return [client.get(f"/texts/{item['id']}").json() for item in client.get("/texts?limit=1000").json()["items"]]


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


CHECKS: dict[str, Any] = {
    "label": lambda item, wanted: item["label"] in wanted,
    "source": lambda item, wanted: item["source"] == wanted,
    "language": lambda item, wanted: item["enrichment"].get("language", {}).get("code") == wanted,
    "status": lambda item, wanted: item["status"] == wanted,
    "annotator": lambda item, wanted: any(
        a["annotator"] == wanted and a["status"] == "submitted" for a in item["annotations"]
    ),
    "min_agreement": lambda item, wanted: item["agreement"] >= wanted,
    "min_annotations": lambda item, wanted: sum(item["votes"].values()) >= wanted,
    "labelled_after": lambda item, wanted: _moment(item["labelled_at"]) > _moment(wanted),
    "labelled_before": lambda item, wanted: _moment(item["labelled_at"]) < _moment(wanted),
    "q": lambda item, wanted: wanted.lower() in item["text"].lower(),
}


# Of what these leave, the number is known.
COUNTED = {"label", "source", "language", "status"}


def _filters(items: list[Item]) -> st.SearchStrategy[dict[str, Any]]:
    times = st.sampled_from(sorted(item["labelled_at"] for item in items))
    return st.fixed_dictionaries(
        {},
        optional={
            "label": st.lists(st.sampled_from(["toxic", "non_toxic"]), min_size=1, max_size=3),
            "source": st.sampled_from([s for s in SOURCES if s] + ["nowhere", "%"]),
            "language": st.sampled_from([*LANGUAGES, "xx"]),
            "status": st.sampled_from(["labelled", "disputed"]),
            "annotator": st.sampled_from([*ANNOTATORS, "nobody"]),
            "min_agreement": st.sampled_from([0, 0.5, 2 / 3, 0.75, 1]),
            "min_annotations": st.integers(0, 5),
            "labelled_after": times,
            "labelled_before": times,
            "q": st.sampled_from([word.swapcase() for word in WORDS] + ["%", "_", "a%", "e b", "'"]),
        },
    )


def _walk(client: TestClient, parameters: dict[str, Any]) -> Iterator[str]:
    cursor: dict[str, str] = {}
    while True:
        page = client.get("/texts", params=parameters | cursor).json()
        yield from (item["id"] for item in page["items"])
        if page["next_cursor"] is None:
            return
        cursor = {"cursor": page["next_cursor"]}


def test_filters_agree_with_the_model(client: TestClient, items: list[Item]) -> None:
    assert len(items) > 50
    assert {item["status"] for item in items} == {"labelled", "disputed"}

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(_filters(items), st.sampled_from(["newest", "oldest"]), st.integers(1, 30))
    def check(filters: dict[str, Any], order: str, limit: int) -> None:
        expected = [
            item["id"] for item in items if all(CHECKS[name](item, wanted) for name, wanted in filters.items())
        ]
        if order == "oldest":
            expected.reverse()
        assert list(_walk(client, filters | {"order": order, "limit": limit})) == expected
        total = client.get("/texts", params=filters | {"limit": 1}).json()["total"]
        assert total == (len(expected) if filters.keys() <= COUNTED else None)

    check()


def test_list_is_ordered_by_time_and_id(items: list[Item]) -> None:
    by_id = sorted(items, key=lambda item: str(item["id"]))
    assert sorted(by_id, key=lambda item: str(item["labelled_at"]), reverse=True) == items


@pytest.mark.parametrize("zone", ["Z", "+00:00", "+05:30", "-11:00", ""])
def test_times_are_taken_in_every_zone(client: TestClient, items: list[Item], zone: str) -> None:
    moment = _moment(items[10]["labelled_at"])
    sign = -1 if zone.startswith("-") else 1
    offset = timedelta() if zone in {"", "Z"} else sign * timedelta(hours=int(zone[1:3]), minutes=int(zone[4:]))
    text = (moment.replace(tzinfo=None) + offset).isoformat() + zone
    newer = client.get("/texts", params={"labelled_after": text, "limit": 1000}).json()["items"]
    assert [item["id"] for item in newer] == [item["id"] for item in items[:10]]
