"""The checks of answers: each wrong thing is found, the right thing passes."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from load_testing.users import checks
from load_testing.users.checks import WrongAnswer, id_of

TEXT = "You are a clown. #seed/1"
STORED = {"id": id_of(TEXT), "status": "pending", "duplicate": False}
REPEATED = STORED | {"duplicate": True}
COUNTS = {"received": 6, "accepted": 3, "duplicates": 2, "rejected": 1, "errors": [{"row": 6}]}


def item(number: int, **changes: Any) -> dict[str, Any]:
    text = f"Text {number}"
    made: dict[str, Any] = {
        "id": id_of(text),
        "dataset": "toxicity",
        "text": text,
        "label": "toxic",
        "status": "labelled",
    }
    made |= {"agreement": 1.0, "votes": {"toxic": 2}, "labelled_at": f"2026-11-28T10:00:{50 - number:02}Z"}
    return made | {"highlights": [[0, 4]], "version": 100 + number} | changes


def page(*items: dict[str, Any], next_cursor: str | None = None) -> dict[str, Any]:
    return {"items": list(items), "next_cursor": next_cursor, "version": 200}


ANNOTATIONS = [
    {"status": "submitted", "role": "annotator"},
    {"status": "submitted", "role": "annotator"},
    {"status": "draft", "role": "annotator"},
    {"status": "submitted", "role": "adjudicator"},
]
DETAIL = item(1, annotations=ANNOTATIONS)
STATS = {
    "total": 3,
    "by_label": {"toxic": 2},
    "by_status": {"labelled": 2, "disputed": 1},
    "by_source": {"forum": 1},
    "without_source": 2,
    "by_day": {"2026-11-28": 3},
}
EXPORT = b"".join(json.dumps(item(number)).encode() + b"\n" for number in (1, 2))


def toxic(found: dict[str, Any]) -> bool:
    return bool(found["label"] == "toxic")


RIGHT: dict[str, Callable[[], None]] = {
    "stored": lambda: checks.check_stored(201, STORED, TEXT),
    "repeated": lambda: checks.check_repeated(200, REPEATED, TEXT),
    "bulk": lambda: checks.check_bulk(COUNTS, 3, 2, 1),
    "status": lambda: checks.check_status(STORED | {"text": TEXT}, TEXT),
    "queue": lambda: checks.check_queue(
        dict.fromkeys(("pending", "uploading", "uploaded", "failed", "open_records"), 0)
    ),
    "page": lambda: checks.check_page(page(item(1), item(2), next_cursor="c"), 2, toxic),
    "last page": lambda: checks.check_page(page(item(1)), 2),
    "next page": lambda: checks.check_next_page(page(item(2)), 2, {item(1)["id"]}),
    "search": lambda: checks.check_found(page(item(1)), 2, "text"),
    "one text": lambda: checks.check_text(DETAIL, DETAIL["id"]),
    "stats": lambda: checks.check_stats(STATS),
    "export": lambda: checks.check_export(EXPORT, "toxic"),
    "empty export": lambda: checks.check_export(b"", "toxic"),
    "changes": lambda: checks.check_changes({"items": [item(1), item(2)], "next": 102}, 7),
    "no changes": lambda: checks.check_changes({"items": [], "next": 7}, 7),
}

WRONG: dict[str, Callable[[], None]] = {
    "another id": lambda: checks.check_stored(201, STORED | {"id": id_of("x")}, TEXT),
    "a new text is a duplicate": lambda: checks.check_stored(201, REPEATED, TEXT),
    "a new text is 200": lambda: checks.check_stored(200, STORED, TEXT),
    "the same text is no duplicate": lambda: checks.check_repeated(200, STORED, TEXT),
    "the same text is 201": lambda: checks.check_repeated(201, REPEATED, TEXT),
    "counts do not add up": lambda: checks.check_bulk(COUNTS | {"received": 7}, 3, 2, 1),
    "a duplicate is accepted": lambda: checks.check_bulk(COUNTS, 4, 1, 1),
    "another row is rejected": lambda: checks.check_bulk(COUNTS | {"errors": [{"row": 1}]}, 3, 2, 1),
    "another text": lambda: checks.check_status(STORED | {"text": "x"}, TEXT),
    "a status of its own": lambda: checks.check_status(STORED | {"text": TEXT, "status": "x"}, TEXT),
    "a negative count": lambda: checks.check_queue(
        dict.fromkeys(("pending", "uploading", "uploaded", "failed", "open_records"), -1)
    ),
    "more than the limit": lambda: checks.check_page(page(item(1), item(2)), 1),
    "a short page that goes on": lambda: checks.check_page(page(item(1), next_cursor="c"), 2),
    "the wrong order": lambda: checks.check_page(page(item(2), item(1)), 2),
    "an item twice": lambda: checks.check_page(page(item(1), item(1)), 2),
    "an id that is not the text's": lambda: checks.check_page(page(item(1, text="x")), 2),
    "a label of a dispute": lambda: checks.check_page(page(item(1, status="disputed")), 2),
    "too much agreement": lambda: checks.check_page(page(item(1, agreement=1.1)), 2),
    "a filter that does not hold": lambda: checks.check_page(page(item(1, label="non_toxic")), 2, toxic),
    "an item of the page before": lambda: checks.check_next_page(page(item(1)), 2, {item(1)["id"]}),
    "a highlight elsewhere": lambda: checks.check_found(page(item(1, highlights=[[1, 4]])), 2, "text"),
    "no highlight": lambda: checks.check_found(page(item(1, highlights=[])), 2, "text"),
    "the wrong text": lambda: checks.check_text(DETAIL, id_of("x")),
    "too many votes": lambda: checks.check_text(DETAIL | {"votes": {"toxic": 3}}, DETAIL["id"]),
    "totals that differ": lambda: checks.check_stats(STATS | {"total": 4}),
    "labels that differ": lambda: checks.check_stats(STATS | {"by_label": {"toxic": 3}}),
    "an export that was cut": lambda: checks.check_export(EXPORT[:-1], "toxic"),
    "an export of another label": lambda: checks.check_export(EXPORT, "non_toxic"),
    "an export that shows a text twice": lambda: checks.check_export(EXPORT + EXPORT, "toxic"),
    "changes in no order": lambda: checks.check_changes({"items": [item(2), item(1)], "next": 102}, 7),
    "a change that was seen": lambda: checks.check_changes({"items": [item(1)], "next": 101}, 101),
    "next is before the last": lambda: checks.check_changes({"items": [item(1)], "next": 100}, 7),
    "next without changes": lambda: checks.check_changes({"items": [], "next": 8}, 7),
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_right_passes(name: str) -> None:
    RIGHT[name]()


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_found(name: str) -> None:
    with pytest.raises(WrongAnswer):
        WRONG[name]()
