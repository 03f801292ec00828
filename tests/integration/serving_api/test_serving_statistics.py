"""Statistics of annotators, and texts that need a decision, compared with a model in plain Python."""

import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import combinations, pairwise
from typing import Any

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from core.text_identity import text_id
from serving_api.replica.replica import Replica
from serving_api.statistics.agreement import agreement, cohen_kappa
from tests.integration.serving_api.conftest import Serve
from tests.integration.serving_api.labelling import Labeller, random_answer

ANNOTATORS = ["ada", "bob", "cleo", "d%'\"é"]
SOURCES = ["forum", "a%b_c'd\"", None]
GOLD = {number: "toxic" if number % 3 else "non_toxic" for number in range(0, 80, 2)}
FIRST_AT = datetime(2026, 11, 2, 9, tzinfo=UTC)

Item = dict[str, Any]


def fill(labeller: Labeller) -> None:
    """Store random labelled texts; some disputes are decided, some texts are gold."""
    chance = random.Random(11)  # noqa: S311
    for number in range(80):
        id_ = labeller.add_text(f"text {number}", source=chance.choice(SOURCES), gold_label=GOLD.get(number))
        labeller.annotate(
            {id_: {a: random_answer(chance) for a in chance.sample(ANNOTATORS, chance.randint(0, 4))}}
        )
    for words in labeller.list_disputed([f"text {number}" for number in range(80)])[::2]:
        labeller.decide({words: {"ada": "toxic", "judge": chance.choice(["toxic", "non_toxic"])}})
    _spread(labeller)


def _spread(labeller: Labeller) -> None:
    """Give the answers of each annotator times of their own: seconds to a quarter of an hour apart."""
    statement = """
        update annotations set created_at = times.at from (
            select text_id, response_id,
                   cast(:first_at as timestamptz) + interval '1 second'
                   * sum(abs(hashtext(response_id::text)) % 900) over (partition by annotator order by response_id)
                   as at
            from annotations
        ) as times
        where times.text_id = annotations.text_id and times.response_id = annotations.response_id
    """
    with labeller.engine.begin() as connection:
        connection.execute(text(statement), {"first_at": FIRST_AT})


def answers_of(item: Item, *statuses: str) -> list[Item]:
    """What annotators say; adjudicators do not count."""
    return [
        a for a in item["annotations"] if a["role"] == "annotator" and a["status"] in (statuses or ("submitted",))
    ]


def check_agreement_is_that_of_annotators(client: TestClient, items: list[Item]) -> None:
    body = client.get("/stats/agreement").json()
    votes = Counter(tuple(sorted(item["votes"].items())) for item in items)
    expected = agreement(dict(sorted(votes.items())))
    for name in ("krippendorff_alpha", "fleiss_kappa", "observed_agreement"):
        assert body[name]["value"] == getattr(expected, name).value
        assert body[name]["n"] == sum(sum(item["votes"].values()) > 1 for item in items)
        assert body[name]["low"] < body[name]["value"] < body[name]["high"]
    assert body["pairs"] == len(body["cohen_kappa"]) == 6
    ns = [pair["n"] for pair in body["cohen_kappa"]]
    assert ns == sorted(ns, reverse=True)
    for pair in body["cohen_kappa"]:
        expected_kappa = cohen_kappa(_cells(items, *pair["annotators"]))
        assert (pair["value"], pair["n"]) == (expected_kappa.value, expected_kappa.n)


def check_the_number_of_pairs_may_be_limited(client: TestClient, items: list[Item]) -> None:
    whole = client.get("/stats/agreement").json()
    two = client.get("/stats/agreement", params={"max_pairs": 2}).json()
    assert two == whole | {"cohen_kappa": whole["cohen_kappa"][:2]}
    none = client.get("/stats/agreement", params={"max_pairs": 0}).json()
    assert none == whole | {"cohen_kappa": [], "pairs": None}


def _cells(items: list[Item], one: str, other: str) -> dict[tuple[str, str], int]:
    cells = Counter[tuple[str, str]]()
    for item in items:
        said = {a["annotator"]: a["value"] for a in answers_of(item)}
        if one in said and other in said:
            cells[said[one], said[other]] += 1
    return cells


def check_agreement_of_a_pair_is_about_the_texts_of_both(client: TestClient, items: list[Item]) -> None:
    for one, other in combinations(ANNOTATORS, 2):
        body = client.get("/stats/agreement", params={"annotator": [other, one]}).json()
        cells = _cells(items, one, other)
        [pair] = body["cohen_kappa"]
        assert pair["annotators"] == [one, other]
        assert pair["value"] == cohen_kappa(cells).value
        same = sum(number for (said, other_said), number in cells.items() if said == other_said)
        assert body["observed_agreement"]["value"] == pytest.approx(same / sum(cells.values()), abs=1e-6)
        assert body["observed_agreement"]["n"] == body["fleiss_kappa"]["n"] == pair["n"] == sum(cells.values())


def check_statistics_of_a_source_and_a_period(client: TestClient, items: list[Item]) -> None:
    middle = sorted(item["labelled_at"] for item in items)[30]
    source = SOURCES[1]
    inside = [item for item in items if item["source"] == source and item["labelled_at"] > middle]
    parameters = {"source": str(source), "labelled_after": middle}
    body = client.get("/stats/agreement", params=parameters).json()
    assert body["observed_agreement"]["n"] == sum(sum(item["votes"].values()) > 1 for item in inside) > 0
    for pair in body["cohen_kappa"]:
        assert pair["n"] == sum(_cells(inside, *pair["annotators"]).values())
    annotators = client.get("/stats/annotators", params=parameters).json()["annotators"]
    expected = Counter(a["annotator"] for item in inside for a in answers_of(item))
    assert {a["annotator"]: a["answers"] for a in annotators if a["answers"]} == expected


def check_annotators_are_told_apart(client: TestClient, items: list[Item]) -> None:
    gold = {str(text_id("toxicity", f"text {number}")): label for number, label in GOLD.items()}
    annotators = client.get("/stats/annotators").json()["annotators"]
    assert {a["annotator"] for a in annotators} == set(ANNOTATORS)
    assert [a["answers"] for a in annotators] == sorted((a["answers"] for a in annotators), reverse=True)
    for annotator in annotators:
        name = annotator["annotator"]
        given = [(item, a) for item in items for a in answers_of(item) if a["annotator"] == name]
        shared = [
            (item["label"], a["value"]) for item, a in given if item["label"] and sum(item["votes"].values()) > 1
        ]
        on_gold = [gold[item["id"]] == a["value"] for item, a in given if item["id"] in gold]
        assert annotator["answers"] == len(given)
        assert annotator["agreement_with_outcome"] == share([label == value for label, value in shared])
        assert annotator["gold_accuracy"] == share(on_gold)
        flat = {(label, v): n for label, by in annotator["confusion"].items() for v, n in by.items()}
        assert flat == Counter(shared)


def share(rights: list[bool]) -> dict[str, Any]:
    return {"value": round(sum(rights) / len(rights), 6), "n": len(rights)}


def check_pace_is_that_between_pauses(client: TestClient, items: list[Item]) -> None:
    for annotator in client.get("/stats/annotators").json()["annotators"]:
        name = annotator["annotator"]
        work = [a for item in items for a in answers_of(item, "submitted", "discarded") if a["annotator"] == name]
        times = sorted(datetime.fromisoformat(a["created_at"]) for a in work)
        gaps = [later - earlier for earlier, later in pairwise(times)]
        steps = [gap for gap in gaps if gap <= timedelta(minutes=10)]
        assert 0 < len(steps) < len(gaps)
        hours = sum(steps, timedelta()) / timedelta(hours=1)
        assert annotator["answers_per_hour"] == pytest.approx(len(steps) / hours, abs=0.001)
        assert annotator["discarded"] == sum(a["status"] == "discarded" for a in work)
        shown = [datetime.fromisoformat(annotator[key]) for key in ("first_at", "last_at")]
        assert shown == [times[0], times[-1]]


def walk(client: TestClient, **parameters: Any) -> list[Item]:
    seen: list[Item] = []
    while True:
        page = client.get("/disputed", params=parameters).json()
        seen += page["items"]
        if page["next_cursor"] is None:
            return seen
        parameters["cursor"] = page["next_cursor"]


def check_work_list_shows_what_wants_a_decision_once(client: TestClient, items: list[Item]) -> None:
    disputed = [item for item in items if item["status"] == "disputed"]
    doubtful = [
        item
        for item in items
        if item["label"] and item["decided_by"] == "annotators" and item["confidence"] < 0.75
    ]
    disputed.sort(key=lambda item: (-sum(item["votes"].values()), item["id"]))
    doubtful.sort(key=lambda item: (item["confidence"], item["id"]))
    assert disputed
    assert doubtful
    shown = walk(client, confidence_below=0.75)
    for limit in (1, 7, 100):
        assert walk(client, limit=limit, confidence_below=0.75) == shown
    assert [item["id"] for item in shown] == [item["id"] for item in disputed + doubtful]
    assert [item["id"] for item in walk(client, confidence_below=0, limit=3)] == [item["id"] for item in disputed]
    of_source = walk(client, confidence_below=0, source="forum")
    assert of_source == [item for item in shown if item["status"] == "disputed" and item["source"] == "forum"]


def check_adjudicators_are_shown_beside_annotators_and_not_counted(client: TestClient, items: list[Item]) -> None:
    assert not any("adjudication" in item["dataset"] for item in items)
    decided = [item for item in items if item["decided_by"] == "adjudicators"]
    assert decided
    for item in decided:
        judges = {a["annotator"]: a["value"] for a in item["annotations"] if a["role"] == "adjudicator"}
        assert (item["label"], item["status"], judges["judge"]) == ("toxic", "labelled", "toxic")
        assert Counter(a["value"] for a in answers_of(item)) == item["votes"]
    assert client.get("/texts?annotator=judge").json()["items"] == []
    by_annotator = client.get("/stats").json()["by_annotator"]
    assert by_annotator == Counter(a["annotator"] for item in items for a in answers_of(item))


def check_cursor_of_another_list_is_refused(client: TestClient, items: list[Item]) -> None:
    assert items
    cursor = client.get("/disputed?limit=1").json()["next_cursor"]
    assert client.get(f"/disputed?limit=2&cursor={cursor}").status_code == 200
    for path in (f"/disputed?confidence_below=0.5&cursor={cursor}", f"/texts?cursor={cursor}"):
        assert client.get(path).status_code == 409


def test_random_texts_are_told_of_as_they_are(serve: Serve, labeller: Labeller) -> None:
    fill(labeller)
    with serve() as client:
        labeller.wait_for(client.app.state.replica)  # type: ignore[attr-defined]
        shown = client.get("/texts?limit=1000").json()["items"]
        items = [client.get(f"/texts/{item['id']}").json() for item in shown]
        assert len(items) > 50
        for check in (
            check_agreement_is_that_of_annotators,
            check_agreement_of_a_pair_is_about_the_texts_of_both,
            check_the_number_of_pairs_may_be_limited,
            check_statistics_of_a_source_and_a_period,
            check_annotators_are_told_apart,
            check_pace_is_that_between_pauses,
            check_work_list_shows_what_wants_a_decision_once,
            check_adjudicators_are_shown_beside_annotators_and_not_counted,
            check_cursor_of_another_list_is_refused,
        ):
            check(client, items)


def test_nothing_labelled_is_an_empty_answer(client: TestClient, labeller: Labeller, replica: Replica) -> None:
    labeller.wait_for(replica)
    undefined = {"value": None, "n": 0, "low": None, "high": None}
    for query in ("", "?annotator=ada&annotator=nobody", "?source=nowhere"):
        body = client.get(f"/stats/agreement{query}").json()
        assert body["krippendorff_alpha"] == body["fleiss_kappa"] == body["observed_agreement"] == undefined
        assert body["pairs"] == 0
    assert client.get("/stats/annotators").json()["annotators"] == []
    assert client.get("/disputed").json()["items"] == []


WRONG = {
    "stats/agreement?annotator=ada": "annotator",
    "stats/agreement?annotator=ada&annotator=ada": "annotator",
    "stats/agreement?annotator=a&annotator=b&annotator=c": "annotator",
    "stats/agreement?source=a&source=b": "source",
    "stats/agreement?max_pairs=-1": "max_pairs",
    "stats/agreement?max_pairs=101": "max_pairs",
    "stats/annotators?dataset=unknown": "dataset",
    "stats/annotators?dataset=toxicity-adjudication": "dataset",
    "stats/annotators?annotator=ada": "annotator",
    "disputed?confidence_below=1.1": "confidence_below",
    "texts?annotator=a&annotator=b": "annotator",
}


def test_wrong_parameters_are_refused(client: TestClient) -> None:
    for query, parameter in WRONG.items():
        refusal = client.get(f"/{query}")
        assert refusal.status_code == 422, query
        assert refusal.json()["errors"][0]["parameter"] == parameter


def test_answers_are_kept_until_a_label_changes(client: TestClient, labeller: Labeller, replica: Replica) -> None:
    id_ = labeller.add_text("changes")
    labeller.annotate({id_: {"ada": "toxic", "bob": "non_toxic"}})
    labeller.wait_for(replica)
    paths = ["/disputed", "/stats/agreement", "/stats/annotators"]
    tags = {path: client.get(path).headers["etag"] for path in paths}
    assert all(client.get(p, headers={"If-None-Match": tags[p]}).status_code == 304 for p in paths)
    labeller.decide({"changes": {"judge": "toxic"}})
    labeller.wait_for(replica)
    assert client.get("/disputed").json()["items"] == []
    assert all(client.get(p, headers={"If-None-Match": tags[p]}).status_code == 200 for p in paths)
    detail = client.get(f"/texts/{id_}").json()
    assert (detail["label"], detail["decided_by"], detail["confidence"]) == ("toxic", "adjudicators", 1)
