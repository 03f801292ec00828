from uuid import UUID

import pytest
from starlette.testclient import TestClient

from core.datasets import Dataset, Datasets
from core.models import AnnotationStatus
from serving_api.replica.replica import Replica
from tests.integration.serving_api.conftest import LOCAL, Serve
from tests.integration.serving_api.labelling import Labeller, wait_until

TWO_DATASETS: Datasets = {
    "toxicity": Dataset(labels=("toxic", "non_toxic"), guidelines="…"),
    "mood": Dataset(labels=("happy", "sad", "toxic"), guidelines="…"),
}


def test_item_has_the_shape_of_the_contract(client: TestClient, labeller: Labeller, replica: Replica) -> None:
    id_ = labeller.add_text(
        "you fool",
        source="forum",
        external_id="post-1",
        claimed_label="toxic",
        score=0.9,
        metadata_={"language": "en", "likes": 3, "edited": False, "share": 0.1},
        enrichment={"language": {"code": "en", "confidence": 0.9}},
    )
    labeller.annotate({id_: {"ada": "toxic", "bob": "toxic", "cleo": "non_toxic"}})
    labeller.wait_for(replica)
    page = client.get("/texts").json()
    item = page["items"][0]
    times = item.pop("received_at"), item.pop("labelled_at")
    assert all(len(time) == len("2026-11-24T00:00:00.000000Z") and time.endswith("Z") for time in times)
    assert item == {
        "id": str(id_),
        "dataset": "toxicity",
        "text": "you fool",
        "label": "toxic",
        "status": "labelled",
        "agreement": 2 / 3,
        "votes": {"toxic": 2, "non_toxic": 1},
        "annotations": 3,
        "complete": True,
        "confidence": 2 / 3,
        "rule": "majority",
        "rule_version": 1,
        "decided_by": "annotators",
        "source": "forum",
        "external_id": "post-1",
        "claimed_label": "toxic",
        "score": 0.9,
        "predicted_label": None,
        "predicted_probability": None,
        "model_version": None,
        "metadata": {"language": "en", "likes": 3, "edited": False, "share": 0.1},
        "enrichment": {"language": {"code": "en", "confidence": 0.9}},
    }
    assert page["next_cursor"] is None
    assert page["version"] == labeller.newest_stamp()


def test_detail_lists_the_annotations(client: TestClient, labeller: Labeller, replica: Replica) -> None:
    id_ = labeller.add_text("hm")
    labeller.annotate({id_: {"ada": "toxic", "bob": (AnnotationStatus.DISCARDED, None)}})
    labeller.wait_for(replica)
    body = client.get(f"/texts/{id_}").json()
    assert {(a["annotator"], a["value"], a["status"]) for a in body["annotations"]} == {
        ("ada", "toxic", "submitted"),
        ("bob", None, "discarded"),
    }
    assert body["votes"] == {"toxic": 1}


def test_edits_and_deletions_reach_the_detail(client: TestClient, labeller: Labeller, replica: Replica) -> None:
    id_ = labeller.add_text("hm")
    labeller.annotate({id_: {"ada": "toxic", "bob": "toxic"}})
    labeller.wait_for(replica)
    first = client.get(f"/texts/{id_}").json()
    labeller.annotate({id_: {"ada": "non_toxic"}})
    labeller.wait_for(replica)
    body = client.get(f"/texts/{id_}").json()
    assert body["label"] == "non_toxic"
    assert [(a["annotator"], a["value"]) for a in body["annotations"]] == [("ada", "non_toxic")]
    assert body["labelled_at"] == first["labelled_at"]
    assert body["annotations"][0]["created_at"] == first["annotations"][0]["created_at"]
    assert body["annotations"][0]["updated_at"] > first["annotations"][0]["updated_at"]


def test_unknown_unlabelled_and_withdrawn_texts_are_not_found(
    client: TestClient, labeller: Labeller, replica: Replica
) -> None:
    unlabelled = labeller.add_text("nobody said anything")
    withdrawn = labeller.add_label("said and taken back")
    labeller.wait_for(replica)
    assert client.get(f"/texts/{withdrawn}").status_code == 200
    labeller.annotate({withdrawn: {}})
    labeller.wait_for(replica)
    for id_ in (unlabelled, withdrawn, UUID(int=7)):
        answer = client.get(f"/texts/{id_}")
        assert (answer.status_code, answer.json()["code"]) == (404, "text_not_found")
    assert client.get("/texts").json()["items"] == []


def test_an_unlabelled_text_is_to_be_asked_for_elsewhere(serve: Serve, labeller: Labeller) -> None:
    unlabelled = labeller.add_text("nobody said anything")
    with serve() as client:
        wait_until(lambda: client.get("/stats").status_code == 200)
        answer = client.get(f"/texts/{unlabelled}")
        assert answer.status_code == 404
        assert "not labelled yet" in answer.json()["detail"]
        assert answer.headers["link"] == f'<http://127.0.0.1:8080/texts/{unlabelled}>; rel="related"'


def test_swagger_sends_default_values(client: TestClient, labeller: Labeller, replica: Replica) -> None:
    labeller.add_label("you fool")
    labeller.wait_for(replica)
    for path in ("/texts?match=substring&order=newest&limit=100", "/export.ndjson?match=substring"):
        answer = client.get(path)
        assert answer.status_code == 200, answer.text
        assert "you fool" in answer.text


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ("limit=5000", "limit must be between 1 and 1000 (got 5000)."),
        ("limit=0", "limit must be between 1 and 1000 (got 0)."),
        ("limit=many", "limit must be a whole number (got many)."),
        ("min_agreement=80", "min_agreement must be between 0 and 1 (got 80)."),
        ("order=best", "order must be newest, oldest or relevance (got best)."),
        ("complete=maybe", "complete must be true or false (got maybe)."),
        ("limit=", "limit must be a whole number (got nothing)."),
        ("limit=1&limit=2", "limit may be sent only once."),
        ("label=", "label must not be empty."),
        ("label=spam", "label 'spam' is not one of: toxic, non_toxic."),
        ("dataset=spam", "dataset 'spam' is not one of: toxicity."),
        (
            "labelled_after=yesterday",
            "labelled_after must be a time by RFC 3339, like 2026-11-24T08:30:00Z (got yesterday).",
        ),
        ("colour=red", "colour is not a parameter of this path."),
        ("cursor=next", "cursor is not a cursor: pass next_cursor of the page before, unchanged."),
        (
            "labelled_after=17",
            "labelled_after is a number, not a time as RFC 3339 has it, like 2026-11-24T08:30:00Z.",
        ),
    ],
)
def test_a_wrong_parameter_is_told_in_plain_words(client: TestClient, query: str, detail: str) -> None:
    body = client.get(f"/texts?{query}").json()
    assert (body["status"], body["code"], body["detail"]) == (422, "invalid_fields", detail)
    assert body["errors"][0]["detail"] == detail
    assert body["errors"][0]["parameter"] == query.partition("=")[0]


def test_pages_are_compressed_also_from_the_cache(
    client: TestClient, labeller: Labeller, replica: Replica
) -> None:
    for number in range(5):
        labeller.add_label(f"text {number}")
    labeller.wait_for(replica)
    plain = client.get("/texts", headers={"Accept-Encoding": ""})
    assert "content-encoding" not in plain.headers
    for _ in range(2):
        answer = client.get("/texts", headers={"Accept-Encoding": "gzip"})
        assert (answer.headers["content-encoding"], answer.content) == ("gzip", plain.content)
        etag = answer.headers["etag"]
        assert etag == f"W/{plain.headers['etag']}"
        held = {"Accept-Encoding": "gzip", "If-None-Match": etag}
        assert client.get("/texts", headers=held).status_code == 304


def test_label_paths_show_their_label(client: TestClient, labeller: Labeller, replica: Replica) -> None:
    toxic, fine = labeller.add_label("a", "toxic"), labeller.add_label("b", "non_toxic")
    labeller.wait_for(replica)
    assert [item["id"] for item in client.get("/toxic_texts").json()["items"]] == [str(toxic)]
    assert [item["id"] for item in client.get("/non_toxic_texts").json()["items"]] == [str(fine)]
    assert client.get("/toxic_texts").content == client.get("/texts?label=toxic").content
    assert client.get("/toxic_texts?label=toxic").status_code == 422


def test_datasets_are_apart(serve: Serve, labeller: Labeller) -> None:
    toxic = labeller.add_label("a", "toxic")
    happy = labeller.add_label("a", "happy", "mood")
    with serve(datasets=TWO_DATASETS) as client:
        labeller.wait_for(client.app.state.replica)  # type: ignore[attr-defined]

        def ids(path: str) -> list[str]:
            return [item["id"] for item in client.get(path).json()["items"]]

        assert ids("/texts") == ids("/toxic_texts") == [str(toxic)]
        assert ids("/texts?dataset=mood") == ids("/happy_texts") == [str(happy)]
        assert ids("/toxic_texts?dataset=mood") == []
        assert client.get("/happy_texts?dataset=toxicity").json()["errors"][0]["parameter"] == "label"
        assert client.get("/stats?dataset=mood").json()["by_label"] == {"happy": 1, "sad": 0, "toxic": 0}


def test_stats_count_everything(client: TestClient, labeller: Labeller, replica: Replica) -> None:
    labeller.add_label("a", "toxic", source="forum")
    labeller.add_label("b", "non_toxic")
    labeller.annotate({labeller.add_text("c"): {"ada": "toxic", "bob": "non_toxic"}})
    labeller.wait_for(replica)
    answer = client.get("/stats")
    body = answer.json()
    assert 0 <= body.pop("replica_age_seconds") < 20
    day = client.get("/texts").json()["items"][0]["labelled_at"][:10]
    assert body == {
        "dataset": "toxicity",
        "total": 3,
        "by_label": {"toxic": 1, "non_toxic": 1},
        "by_status": {"labelled": 2, "disputed": 1},
        "complete": 3,
        "by_source": {"forum": 1},
        "without_source": 2,
        "by_day": {day: 3},
        "by_annotator": {"ada": 3, "bob": 1},
        "version": replica.loaded().version,
    }


def test_etag_stands_until_a_label_changes(client: TestClient, labeller: Labeller, replica: Replica) -> None:
    id_ = labeller.add_label("a")
    labeller.wait_for(replica)
    for path in ("/texts", "/toxic_texts?limit=1", f"/texts/{id_}"):
        first = client.get(path)
        for held in (first.headers["etag"], f'"x", W/{first.headers["etag"]}', "*"):
            again = client.get(path, headers={"If-None-Match": held})
            assert (again.status_code, again.content) == (304, b"")
            # Named as the client does: weak if it holds a compressed body.
            assert again.headers["etag"] == ("W/" if "W/" in held else "") + first.headers["etag"]
        assert client.get(path, headers={"If-None-Match": '"x"'}).status_code == 200
    held = client.get("/texts").headers["etag"]
    labeller.add_text("transactions without labels change nothing")
    read_at = replica.loaded().read_at
    wait_until(lambda: replica.loaded().read_at > read_at)
    assert client.get("/texts", headers={"If-None-Match": held}).status_code == 304
    labeller.add_label("b")
    labeller.wait_for(replica)
    assert client.get("/texts", headers={"If-None-Match": held}).status_code == 200


def test_answers_say_which_replica_they_come_from(
    client: TestClient, labeller: Labeller, replica: Replica
) -> None:
    labeller.add_label("a")
    labeller.wait_for(replica)
    for path in ("/texts", "/stats"):
        headers = client.get(path).headers
        assert headers["x-replica-version"] == str(labeller.newest_stamp())
        assert 0 <= float(headers["x-replica-age"]) < 20


def test_link_leads_to_the_next_page(client: TestClient, labeller: Labeller, replica: Replica) -> None:
    for word in "abc":
        labeller.add_label(word, source="ä & b")
    labeller.wait_for(replica)
    first = client.get("/toxic_texts", params={"limit": 2, "source": "ä & b"})
    link = first.links["next"]["url"]
    assert link.startswith(f"{LOCAL}/toxic_texts?")
    second = client.get(link)
    assert [len(page.json()["items"]) for page in (first, second)] == [2, 1]
    assert "next" not in second.links
    hostile = client.get("/toxic_texts?limit=2", headers={"Host": "localhost/["})
    assert hostile.headers["link"].startswith("</toxic_texts?limit=2&cursor=")
