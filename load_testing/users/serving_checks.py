"""What an answer of the serving API must hold, by what was asked for. Each check raises WrongAnswer."""

from collections.abc import Callable
from datetime import datetime
from itertools import pairwise
from typing import Any

import orjson

from core.text_identity import text_id
from load_testing.users.answers import Answer, WrongAnswer, expect

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
    """Check a page that was reached by a cursor: it shows nothing of the page before."""
    check_page(answer, limit)
    if both := before.intersection(item["id"] for item in answer["items"]):
        raise WrongAnswer(f"shown on two pages: {min(both)}")


def check_found(answer: Answer, limit: int, word: str) -> None:
    """Check a search for a word in ASCII: each item holds it where `highlights` says."""

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
    """Check that nothing is shown twice."""
    if len(set(ids)) < len(ids):
        raise WrongAnswer("a text is shown twice")
