"""What must be true once everything is quiet: compares Postgres, Argilla's database, its index and the readers."""

from collections import Counter
from typing import Any, NamedTuple
from uuid import UUID

import httpx
import psycopg

from local_stack.components.postgres import argilla_database_url as url_of
from tests.chaos.parts import Platform
from uploader.push.deliver import UNREADABLE

_RECORDS = "select id::text, external_id from records where dataset_id = %s"
_THEIR_ANSWERS = """
select records.external_id, users.username, responses.status, responses.values
from responses
join records on records.id = responses.record_id
join users on users.id = responses.user_id
where records.dataset_id = %s
"""
_OUR_ANSWERS = "select text_id, annotator, status, value from annotations where withdrawn_at is null"
_GHOSTS = "select id from texts where status = 'failed' and last_error = %s"
_OUR_LABELS = "select text_id, label, status, votes from labels where status <> 'withdrawn'"
_SERVED = ("label", "status", "votes")


class Answer(NamedTuple):
    """One annotator's answer about one text."""

    text_id: str
    annotator: str
    status: str
    value: str | None


Labels = dict[str, tuple[str | None, str, dict[str, int]]]


def argilla_database_url(platform: Platform) -> str:
    """Return the address of Argilla's database."""
    return url_of(platform.stack.stack.context)


def list_complaints(
    platform: Platform, dataset_id: str, acknowledged: dict[UUID, str], bad: set[UUID], deleted: set[UUID]
) -> list[str]:
    """Return a sentence for each fault."""
    with psycopg.connect(platform.database_url) as ours, psycopg.connect(argilla_database_url(platform)) as theirs:
        records = theirs.execute(_RECORDS, [dataset_id]).fetchall()
        answers = _their_answers(theirs, dataset_id)
        texts = {
            str(id_): (text, status) for id_, text, status in ours.execute("select id, text, status from texts")
        }
        # A record that was deleted while its index was away is a ghost there: its text is set aside, with reason.
        ghosts = {str(id_) for (id_,) in ours.execute(_GHOSTS, [UNREADABLE])} & {str(id_) for id_ in deleted}
        held = [Answer(str(row[0]), *row[1:]) for row in ours.execute(_OUR_ANSWERS)]
        labels: Labels = {str(id_): tuple(rest) for id_, *rest in ours.execute(_OUR_LABELS)}
    stored = [external_id for _, external_id in records]
    answers = [answer for answer in answers if answer.text_id not in ghosts]
    found = {
        "not stored as acknowledged": [
            i for i, sent in acknowledged.items() if texts.get(str(i), ("",))[0] != sent
        ],
        "twice in Argilla": [id_ for id_, count in Counter(stored).items() if count > 1],
        "status": _wrong_statuses(texts, set(stored) - ghosts, {str(i) for i in bad}, {str(i) for i in deleted}),
        "index": sorted(
            {id_ for id_, _ in records} ^ (_indexed(platform, dataset_id) & {id_ for id_, _ in records})
        ),
        "answers": sorted(map(str, set(held) ^ set(answers))),
        "doubled answers": [str(answer) for answer, count in Counter(held).items() if count > 1],
        "labels": _differ(_labels_of(answers), labels),
        "served": _differ(_labels_of(answers), _served(platform)),
        "queue": _queue_complaints(platform),
    }
    return [f"{what}: {len(wrong)}, e.g. {wrong[:5]}" for what, wrong in found.items() if wrong]


def _wrong_statuses(
    texts: dict[str, tuple[str, str]], stored: set[str], bad: set[str], deleted: set[str]
) -> list[tuple[str, str]]:
    """A text is uploaded if it is in Argilla, or failed for a reason."""
    wrong = [(id_, "in Argilla only") for id_ in stored - texts.keys()]
    for id_, (_, status) in texts.items():
        may_fail = id_ in bad or id_ in deleted
        if status != ("uploaded" if id_ in stored else "failed") or (id_ not in stored and not may_fail):
            wrong.append((id_, f"{status}, {'in Argilla' if id_ in stored else 'not in Argilla'}"))
    return wrong


def _their_answers(connection: psycopg.Connection[Any], dataset_id: str) -> list[Answer]:
    rows = connection.execute(_THEIR_ANSWERS, [dataset_id])
    return [
        Answer(id_, name, status, (values or {}).get("label", {}).get("value"))
        for id_, name, status, values in rows
    ]


def _labels_of(answers: list[Answer]) -> Labels:
    votes: dict[str, Counter[str]] = {}
    for answer in answers:
        if answer.status == "submitted" and answer.value:
            votes.setdefault(answer.text_id, Counter())[answer.value] += 1
    labels: Labels = {}
    for id_, counts in votes.items():
        (winner, most), *others = counts.most_common()
        tied = bool(others) and others[0][1] == most
        labels[id_] = (None, "disputed", dict(counts)) if tied else (winner, "labelled", dict(counts))
    return labels


def _indexed(platform: Platform, dataset_id: str) -> set[str]:
    """Return the ids of the records that the search index has; those of deleted ones may be among them."""
    url = f"{platform.stack.opensearch_url}/*{dataset_id}*/_search"
    found = httpx.post(url, json={"size": 10_000, "_source": False}).raise_for_status().json()
    return {hit["_id"] for hit in found["hits"]["hits"]}


def _served(platform: Platform) -> Labels:
    """Walk GET /texts to its end."""
    labels: Labels = {}
    query = {"limit": "300"}
    while True:
        page = httpx.get(f"{platform.serving_url}/texts", params=query).raise_for_status().json()
        for item in page["items"]:
            assert item["id"] not in labels
            labels[item["id"]] = (item["label"], item["status"], item["votes"])
        if page["next_cursor"] is None:
            return labels
        query["cursor"] = page["next_cursor"]


def _queue_complaints(platform: Platform) -> list[str]:
    queue = httpx.get(f"{platform.ingestion_url}/queue").raise_for_status().json()
    return [f"{name} {queue[name]}" for name in ("pending", "uploading", "alerts") if queue[name]]


def _differ(expected: dict[str, Any], actual: dict[str, Any]) -> list[str]:
    names = expected.keys() | actual.keys()
    return [f"{n}: {expected.get(n)} became {actual.get(n)}" for n in names if expected.get(n) != actual.get(n)]
