"""What the responses of both APIs must contain. Each check raises WrongAnswer."""

from collections.abc import Callable, Mapping
from datetime import datetime
from itertools import pairwise
from typing import Any

import orjson

from core.datasets import DEFAULT_DATASET
from core.text_identity import normalise, text_id


class WrongAnswer(Exception):
    """A response with other content than the API promises."""


def expect(name: str, got: object, wanted: object) -> None:
    """Compare a part of a response with the expected value."""
    if got != wanted:
        raise WrongAnswer(f"{name} is {got!r:.100}, not {wanted!r:.100}")


# The prefix of a refusal. It is no failure: the API is full, and its response says when to retry.
REFUSED = "refused: "
_FULL = {429, 503}


def is_refused(status: int, headers: object) -> bool:
    """Whether a response asks the client to retry later."""
    return status in _FULL and isinstance(headers, Mapping) and "retry-after" in headers


def refusal(status: int, body: bytes | None) -> str:
    """Return a refused request's status with the first part of its problem, in one line."""
    said = " ".join((body or b"")[:200].decode(errors="replace").split())
    return f"status {status}: {said}" if status else "no answer"


Answer = dict[str, Any]


_STATUSES = {"pending", "uploaded", "labelled", "failed", "near_duplicate"}


def id_of(text: str, dataset: str = DEFAULT_DATASET) -> str:
    """Return the id of a text, which follows from the text."""
    return str(text_id(dataset, normalise(text)))


def check_stored(status: int, answer: Answer, text: str, dataset: str = DEFAULT_DATASET) -> None:
    """Check the response to a new text."""
    expect("id", answer["id"], id_of(text, dataset))
    expect("duplicate (was this seed used on this platform before?)", answer["duplicate"], False)
    expect("status code", status, 201)


def check_repeated(status: int, answer: Answer, text: str, dataset: str = DEFAULT_DATASET) -> None:
    """Check the response to a text that was acknowledged before."""
    expect("id", answer["id"], id_of(text, dataset))
    expect("duplicate", answer["duplicate"], True)
    expect("status code", status, 200)


def check_bulk(answer: Answer, accepted: int, duplicates: int, rejected: int) -> None:
    """Check the counts of a bulk upload; its rejected rows come last."""
    counts = tuple(answer[name] for name in ("received", "accepted", "duplicates", "rejected"))
    sent = accepted + duplicates + rejected
    expect("received, accepted, duplicates, rejected", counts, (sent, accepted, duplicates, rejected))
    rows = [error["row"] for error in answer["errors"]]
    expect("rejected rows", rows, list(range(accepted + duplicates + 1, sent + 1))[:100])


def check_status(answer: Answer, text: str, dataset: str = DEFAULT_DATASET) -> None:
    """Check `GET /texts/{id}` of an acknowledged text."""
    expect("id", answer["id"], id_of(text, dataset))
    expect("text", answer["text"], text)
    expect("status is known", answer["status"] in _STATUSES, True)


def check_queue(answer: Answer) -> None:
    """Check that no count of `GET /queue` is negative."""
    for name in ("pending", "uploading", "uploaded", "failed", "open_records"):
        expect(f"{name} is a count", isinstance(answer[name], int) and answer[name] >= 0, True)


Item = dict[str, Any]
Holds = Callable[[Item], bool]


def check_item(item: Item) -> None:
    """Check that an item's id follows from its text, and its label from its status."""
    expect("id", item["id"], str(text_id(item["dataset"], item["text"])))
    expect(f"label of a {item['status']} text is null", item["label"] is None, item["status"] == "disputed")
    if not 0 <= item["agreement"] <= 1:
        raise WrongAnswer(f"agreement is {item['agreement']}")


def check_page(answer: Answer, limit: int, holds: Holds | None = None) -> None:
    """Check a page of `GET /texts`: its length, order and items, and that its filter holds for each."""
    items = answer["items"]
    if len(items) > limit or (answer["next_cursor"] is not None and len(items) < limit):
        raise WrongAnswer(f"{len(items)} items, the limit is {limit}, next_cursor is {answer['next_cursor']}")
    check_distinct([item["id"] for item in items])
    moments = [datetime.fromisoformat(item["labelled_at"]) for item in items]
    if any(earlier < later for earlier, later in pairwise(moments)):
        raise WrongAnswer("not in the order newest label first")
    for item in items:
        check_item(item)
        if holds is not None and not holds(item):
            raise WrongAnswer(f"the filter does not hold for {item['id']}")


def check_next_page(answer: Answer, limit: int, before: set[str]) -> None:
    """Check a page behind a cursor: it has no item of the page before."""
    check_page(answer, limit)
    if both := before.intersection(item["id"] for item in answer["items"]):
        raise WrongAnswer(f"shown on two pages: {min(both)}")


def check_found(answer: Answer, limit: int, word: str) -> None:
    """Check a search for an ASCII word: each item contains it at its `highlights`."""

    def holds(item: Item) -> bool:
        marked = [item["text"][start:end].lower() for start, end in item["highlights"]]
        return bool(marked) and set(marked) == {word.lower()}

    check_page(answer, limit, holds)


def check_text(answer: Answer, id_: str) -> None:
    """Check `GET /texts/{id}`: the right text, and as many annotations as votes."""
    expect("id", answer["id"], id_)
    check_item(answer)
    submitted = [a for a in answer["annotations"] if a["status"] == "submitted" and a["role"] == "annotator"]
    expect("votes", sum(answer["votes"].values()), len(submitted))


def check_stats(answer: Answer) -> None:
    """Check that each table of `GET /stats` adds up to the total."""
    for table in ("by_status", "by_day"):
        expect(f"sum of {table}", sum(answer[table].values()), answer["total"])
    expect("sum of by_source", sum(answer["by_source"].values()) + answer["without_source"], answer["total"])
    expect("sum of by_label", sum(answer["by_label"].values()), answer["by_status"].get("labelled", 0))


def check_export(body: bytes, label: str) -> None:
    """Check an export as NDJSON of one label: whole lines, each a text of that label, none twice."""
    items = [orjson.loads(line) for line in body.splitlines()]
    if body and not body.endswith(b"\n"):
        raise WrongAnswer("the last line is cut off")
    check_distinct([item["id"] for item in items])
    for item in items:
        check_item(item)
        expect("label", item["label"], label)


def check_changes(answer: Answer, since: int) -> None:
    """Check a page of `GET /changes`: later than `since`, in order, no text twice."""
    items = answer["items"]
    check_distinct([item["id"] for item in items])
    versions = [since, *(item["version"] for item in items), answer["next"]]
    if versions != sorted(versions) or (items and items[0]["version"] == since):
        raise WrongAnswer(f"versions after {since} are not in order")
    if not items:
        expect("next", answer["next"], since)


def check_distinct(ids: list[str]) -> None:
    """Check that no text occurs twice."""
    if len(set(ids)) < len(ids):
        raise WrongAnswer("a text is shown twice")
