"""`complete`: whether a text has all submitted annotations that its dataset requires."""

from typing import Any

import orjson
from sqlalchemy import Engine
from starlette.testclient import TestClient

from core.models import AnnotationStatus
from serving_api.replica.replica import Replica
from tests.integration.serving_api.labelling import Labeller


def _completeness(items: list[dict[str, Any]]) -> dict[str, bool]:
    return {item["text"]: item["complete"] for item in items}


def test_texts_are_complete_with_the_answers_that_their_dataset_wants(
    client: TestClient, engine: Engine, replica: Replica
) -> None:
    labeller = Labeller(engine, answers_wanted=3)
    ids = {words: labeller.add_text(words) for words in ("one", "tie", "three", "draft")}
    labeller.annotate(
        {
            ids["one"]: {"ada": "toxic"},
            ids["tie"]: {"ada": "toxic", "bob": "non_toxic"},
            ids["three"]: {"ada": "toxic", "bob": "non_toxic", "cleo": "toxic"},
            ids["draft"]: {"ada": "toxic", "bob": "toxic", "cleo": (AnnotationStatus.DRAFT, "toxic")},
        }
    )
    labeller.wait_for(replica)
    expected = {"one": False, "tie": False, "three": True, "draft": False}
    assert _completeness(client.get("/texts").json()["items"]) == expected
    for complete in (True, False):
        page = client.get("/texts", params={"complete": complete}).json()
        fitting = {words for words, is_complete in expected.items() if is_complete is complete}
        assert {item["text"] for item in page["items"]} == fitting
        assert page["total"] == len(fitting)
        lines = client.get("/export.ndjson", params={"complete": complete}).text.splitlines()
        assert {orjson.loads(line)["text"] for line in lines} == fitting
    assert client.get(f"/texts/{ids['three']}").json()["complete"] is True
    assert client.get("/stats").json()["complete"] == 1
    assert client.get("/texts?complete=maybe").status_code == 422


def test_an_answer_more_or_less_changes_it_and_the_change_feed_tells(
    client: TestClient, engine: Engine, replica: Replica
) -> None:
    labeller = Labeller(engine, answers_wanted=2)
    id_ = labeller.add_text("you fool")
    seen, since = [], 0
    for answers in ({"ada": "toxic"}, {"ada": "toxic", "bob": "toxic"}, {"bob": "toxic"}):
        labeller.annotate({id_: answers})
        labeller.wait_for(replica)
        page = client.get("/changes", params={"since": since}).json()
        since = page["next"]
        seen += [item["complete"] for item in page["items"]]
        assert client.get("/stats").json()["complete"] == seen[-1]
    assert seen == [False, True, False]
