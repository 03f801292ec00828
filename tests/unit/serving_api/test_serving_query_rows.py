"""Which rows each filter leaves, where its bounds are, and in which order lists go on."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import duckdb
import pytest

from core.datasets import Dataset, Datasets
from core.web.problems import InvalidFields
from serving_api.replica.tables import KINDS, SEPARATOR, TABLES
from serving_api.texts.parameters import (
    AgreementParameters,
    DisputedParameters,
    ExportParameters,
    FilterParameters,
    Order,
    SourceParameters,
    TextsParameters,
)
from serving_api.texts.query import (
    Mismatch,
    Position,
    RankedQuery,
    Ranking,
    encode_cursor,
    labelled_texts_query,
    page_query,
    ranked_query,
    texts_query,
)
from serving_api.texts.repository import (
    Condition,
    annotator_conditions,
    is_counted,
    kind_conditions,
    list_by_rank,
    list_items,
)

DATASETS: Datasets = {
    "mood": Dataset(labels=("happy", "sad"), guidelines="…"),
    "toxicity": Dataset(labels=("toxic", "non_toxic"), guidelines="…"),
}
NOON = datetime(2026, 11, 2, 12)  # noqa: DTZ001 - the replica holds UTC without a zone
MICROSECOND = timedelta(microseconds=1)
ALL: Condition = ("true", [])

BASE: dict[str, Any] = {
    "dataset": "toxicity",
    "text": "A text",
    "label": "toxic",
    "status": "labelled",
    "agreement": 0.75,
    "votes": "{}",
    "annotations": 2,
    "complete": True,
    "confidence": 0.9,
    "rule": "majority",
    "rule_version": 1,
    "decided_by": "annotators",
    "source": "forum",
    "metadata": "{}",
    "enrichment": "{}",
    "language": "en",
    "received_at": NOON,
    "labelled_at": NOON,
    "version": 1,
    "annotators": f"{SEPARATOR}ada{SEPARATOR}bob{SEPARATOR}",
    "document": "{}",
}
# Each differs from the first one in one column.
ROWS: dict[str, dict[str, Any]] = {
    "base": {},
    "mood": {"dataset": "mood"},
    "non_toxic": {"label": "non_toxic"},
    "disputed": {"label": None, "status": "disputed"},
    "less_agreement": {"agreement": 0.74},
    "more_agreement": {"agreement": 1.0},
    "fewer_annotations": {"annotations": 1},
    "more_annotations": {"annotations": 3},
    "incomplete": {"complete": False},
    "other_source": {"source": "mail"},
    "no_source": {"source": None},
    "other_language": {"language": "de"},
    "earlier": {"labelled_at": NOON - MICROSECOND},
    "later": {"labelled_at": NOON + MICROSECOND},
    "other_annotator": {"annotators": f"{SEPARATOR}adam{SEPARATOR}"},
    "no_annotator": {"annotators": ""},
    "other_text": {"text": "something else"},
}
TOXICITY = [name for name in ROWS if name != "mood"]


def id_of(name: str) -> UUID:
    return UUID(int=list(ROWS).index(name) + 1)


@pytest.fixture(scope="module")
def replica() -> Iterator[duckdb.DuckDBPyConnection]:
    """The rows above, and what two annotators and an adjudicator say about each."""
    with duckdb.connect() as connection:
        for table in ("items", "annotations", "totals"):
            connection.execute(f"create table {table} ({TABLES[table]})")
        for name in ROWS:
            insert(connection, id_of(name), **ROWS[name])
            for annotator, role in (("ada", "annotator"), ("bob", "annotator"), ("judge", "adjudicator")):
                dataset = ROWS[name].get("dataset", "toxicity")
                connection.execute(
                    "insert into annotations values (uuid(), ?, ?, ?, ?, 'toxic', 'submitted', ?, ?)",
                    [id_of(name), dataset, role, annotator, NOON, NOON],
                )
        connection.execute(
            "insert into totals select dataset, label, status, complete, source, language, count(*) from items "
            "group by all"
        )
        yield connection


def insert(connection: duckdb.DuckDBPyConnection, id_: UUID, **columns: Any) -> None:
    row = BASE | {"id": id_} | columns
    places = ", ".join("?" * len(row))
    connection.execute(f"insert into items ({', '.join(row)}) values ({places})", list(row.values()))  # noqa: S608


def found(replica: duckdb.DuckDBPyConnection, **parameters: Any) -> set[str]:
    """The names of the rows that GET /texts with these parameters leaves."""
    checked = TextsParameters.model_validate(parameters)
    page = page_query(checked, checked.label, DATASETS)
    ids = {UUID(row["id"]) for row in list_items(replica, page, ALL, 100)}
    return {name for name in ROWS if id_of(name) in ids}


def at(moment: datetime) -> str:
    return f"{moment.isoformat()}Z"


@pytest.mark.parametrize(
    ("parameters", "left_out"),
    [
        ({}, set()),
        ({"label": ["toxic"]}, {"non_toxic", "disputed"}),
        ({"label": ["toxic", "non_toxic"]}, {"disputed"}),
        ({"source": "forum"}, {"other_source", "no_source"}),
        ({"language": "en"}, {"other_language"}),
        ({"status": "labelled"}, {"disputed"}),
        ({"status": "disputed"}, set(TOXICITY) - {"disputed"}),
        ({"min_agreement": 0.75}, {"less_agreement"}),
        ({"min_agreement": 0}, set()),
        ({"min_annotations": 2}, {"fewer_annotations"}),
        ({"complete": True}, {"incomplete"}),
        ({"complete": False}, set(TOXICITY) - {"incomplete"}),
        ({"min_annotations": 3}, set(TOXICITY) - {"more_annotations"}),
        ({"labelled_after": at(NOON)}, set(TOXICITY) - {"later"}),
        ({"labelled_after": at(NOON - MICROSECOND)}, {"earlier"}),
        ({"labelled_before": at(NOON)}, set(TOXICITY) - {"earlier"}),
        ({"labelled_before": at(NOON + MICROSECOND)}, {"later"}),
        ({"annotator": "ada"}, {"other_annotator", "no_annotator"}),
        ({"annotator": "bob"}, {"other_annotator", "no_annotator"}),
        ({"annotator": "ad"}, set(TOXICITY)),
        ({"q": "a TEXT"}, {"other_text"}),
        ({"source": "forum", "language": "en"}, {"other_source", "no_source", "other_language"}),
    ],
)
def test_a_filter_leaves_what_fits_and_nothing_else(
    replica: duckdb.DuckDBPyConnection, parameters: dict[str, Any], left_out: set[str]
) -> None:
    assert found(replica, **parameters) == set(TOXICITY) - left_out


def test_each_dataset_has_its_own_texts(replica: duckdb.DuckDBPyConnection) -> None:
    assert found(replica, dataset="mood") == {"mood"}


@pytest.mark.parametrize("order", ["newest", "oldest"])
def test_pages_go_on_behind_their_cursor_and_ids_decide_between_equal_times(
    replica: duckdb.DuckDBPyConnection, order: str
) -> None:
    parameters: dict[str, Any] = {"order": order, "limit": 1}
    walked: list[UUID] = []
    while True:
        page = page_query(TextsParameters.model_validate(parameters), [], DATASETS)
        rows = list_items(replica, page, ALL, 1)
        if not rows:
            break
        [row] = rows
        walked.append(UUID(row["id"]))
        position = Position(row["rank"], UUID(row["id"]))
        parameters["cursor"] = encode_cursor(position, page.texts.fingerprint)
    same_time = [name for name in TOXICITY if name not in {"earlier", "later"}]
    newest = ["later", *same_time, "earlier"]
    assert walked == [id_of(name) for name in (newest if order == "newest" else newest[::-1])]


def test_a_page_has_the_limit_and_the_labels_that_were_asked_for() -> None:
    page = page_query(TextsParameters(limit=7), ["toxic", "non_toxic", "toxic"], DATASETS)
    assert (page.limit, page.after, page.texts.labels) == (7, None, ("non_toxic", "toxic"))


# What does not go together


def test_a_cursor_of_another_list_is_refused() -> None:
    one = page_query(TextsParameters(), [], DATASETS)
    cursor = encode_cursor(Position(5, UUID(int=1)), one.texts.fingerprint)
    assert page_query(TextsParameters(cursor=cursor), [], DATASETS).after == Position(5, UUID(int=1))
    with pytest.raises(Mismatch) as refusal:
        page_query(TextsParameters(cursor=cursor, source="a"), [], DATASETS)
    assert (refusal.value.status, refusal.value.code) == (409, "invalid_cursor")
    assert refusal.value.extra["errors"][0]["parameter"] == "cursor"


@pytest.mark.parametrize(
    ("parameters", "code", "parameter"),
    [
        ({"order": "relevance"}, "needs_q", "order"),
        ({"match": "words"}, "needs_q", "match"),
        ({"match": "phrase"}, "needs_q", "match"),
        ({"q": " ", "match": "words"}, "words", "q"),
        ({"q": " ".join("x" * 33), "match": "words"}, "words", "q"),
    ],
)
def test_parameters_that_do_not_go_together_are_refused(
    parameters: dict[str, Any], code: str, parameter: str
) -> None:
    with pytest.raises(Mismatch) as refusal:
        page_query(TextsParameters.model_validate(parameters), [], DATASETS)
    assert (refusal.value.status, refusal.value.code) == (409, code)
    assert refusal.value.extra["errors"][0]["parameter"] == parameter


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"q": "a"},
        {"q": " "},
        {"match": "substring"},  # Swagger UI sends default values
        {"q": "a", "order": "relevance"},
        {"q": "one", "match": "words"},
        {"q": " ".join("x" * 32), "match": "prefix"},
        {"q": " ".join("x" * 100), "match": "substring"},
    ],
)
def test_parameters_that_go_together_are_taken(parameters: dict[str, Any]) -> None:
    assert page_query(TextsParameters.model_validate(parameters), [], DATASETS)


def test_an_unknown_dataset_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(InvalidFields) as refusal:
        texts_query(SourceParameters(dataset="moods"), DATASETS)
    [error] = refusal.value.extra["errors"]
    assert (error["code"], error["parameter"]) == ("unknown_dataset", "dataset")
    assert error["detail"] == "dataset 'moods' is not one of: mood, toxicity."


# Other lists


@pytest.mark.parametrize("parameters", [{}, {"q": "a"}, {"q": "a", "match": "words"}])
def test_an_export_asks_for_the_same_texts(parameters: dict[str, Any]) -> None:
    filters = ExportParameters.model_validate(parameters)
    query = labelled_texts_query(filters, ["toxic"], DATASETS, Order.OLDEST)
    assert (query.dataset, query.labels, query.order) == ("toxicity", ("toxic",), Order.OLDEST)


def test_statistics_are_of_the_texts_of_the_period_and_the_source() -> None:
    parameters = AgreementParameters(source="forum", labelled_after=at(NOON), dataset="mood")
    query = texts_query(parameters, DATASETS)
    assert (query.dataset, query.labels, query.filters.source) == ("mood", (), "forum")
    assert query.filters.labelled_after == NOON


def _said(replica: duckdb.DuckDBPyConnection, **filters: Any) -> set[tuple[str, str]]:
    query = labelled_texts_query(FilterParameters.model_validate(filters), [], DATASETS, Order.NEWEST)
    where, values = annotator_conditions(query)
    rows = replica.execute(f"select text_id, annotator from annotations where {where}", values).fetchall()  # noqa: S608
    return {(name, annotator) for name in ROWS for id_, annotator in rows if id_ == id_of(name)}


def test_what_adjudicators_say_is_not_what_annotators_say(replica: duckdb.DuckDBPyConnection) -> None:
    assert _said(replica) == {(name, annotator) for name in TOXICITY for annotator in ("ada", "bob")}


def test_what_is_said_about_other_texts_is_left_out(replica: duckdb.DuckDBPyConnection) -> None:
    assert _said(replica, source="mail") == {("other_source", "ada"), ("other_source", "bob")}


def test_labels_alone_leave_out_what_is_said_about_others(replica: duckdb.DuckDBPyConnection) -> None:
    query = labelled_texts_query(FilterParameters(), ["non_toxic"], DATASETS, Order.NEWEST)
    where, values = annotator_conditions(query)
    rows = replica.execute(f"select distinct text_id from annotations where {where}", values).fetchall()  # noqa: S608
    assert rows == [(id_of("non_toxic"),)]


# Kept totals


@pytest.mark.parametrize(
    ("parameters", "counted"),
    [
        ({}, True),
        ({"source": "forum", "language": "en", "status": "labelled", "label": ["toxic"]}, True),
        ({"complete": False, "label": ["toxic"]}, True),
        ({"annotator": "ada"}, False),
        ({"min_agreement": 0}, False),
        ({"min_annotations": 0}, False),
        ({"labelled_after": at(NOON)}, False),
        ({"labelled_before": at(NOON)}, False),
        ({"q": "a"}, False),
    ],
)
def test_totals_count_what_a_query_finds_unless_it_asks_for_more(
    replica: duckdb.DuckDBPyConnection, parameters: dict[str, Any], counted: bool
) -> None:
    checked = TextsParameters.model_validate(parameters)
    query = page_query(checked, checked.label, DATASETS).texts
    assert is_counted(query) == counted
    where, values = kind_conditions(query)
    [(total,)] = replica.execute(f"select coalesce(sum(texts), 0) from totals where {where}", values).fetchall()  # noqa: S608
    kinds = {name: parameters[name] for name in KINDS if name in parameters}
    assert total == len(found(replica, **kinds))


# Texts that need a decision

URGENT: list[tuple[str, dict[str, Any]]] = [
    ("most_answers", {"status": "disputed", "label": None, "annotations": 5, "confidence": None}),
    ("few_answers", {"status": "disputed", "label": None, "annotations": 0, "confidence": 0.5}),
    ("least_certain", {"confidence": 0.2}),
    ("less_certain_a", {"confidence": 0.3}),
    ("less_certain_b", {"confidence": 0.3}),
    ("just_below", {"confidence": 0.69}),
    ("certain_enough", {"confidence": 0.7}),
    ("by_adjudicator", {"confidence": 0.1, "decided_by": "adjudicators"}),
    ("without_confidence", {"confidence": None}),
    (
        "open_tie",
        {"status": "disputed", "label": None, "annotations": 9, "confidence": None, "complete": False},
    ),
    ("open_doubt", {"confidence": 0.1, "complete": False}),
    ("of_mood", {"confidence": 0.1, "dataset": "mood"}),
    ("of_other_source", {"confidence": 0.1, "source": "mail"}),
]


@pytest.fixture(scope="module")
def urgent() -> Iterator[duckdb.DuckDBPyConnection]:
    """The rows above; those that need a decision are in the order of the list."""
    with duckdb.connect() as connection:
        connection.execute(f"create table items ({TABLES['items']})")
        for number, (name, columns) in enumerate(URGENT, 1):
            insert(connection, UUID(int=number), document=json.dumps(name), **columns)
        yield connection


def _disputed(**parameters: Any) -> RankedQuery:
    checked = DisputedParameters.model_validate(parameters)
    return ranked_query(Ranking.DISPUTED, checked, checked.confidence_below, DATASETS)


def _walk(urgent: duckdb.DuckDBPyConnection, **parameters: Any) -> list[str]:
    names: list[str] = []
    query = _disputed(**parameters)
    while rows := list_by_rank(urgent, query, 1):
        names.append(json.loads(rows[0]["document"]))
        position = Position(rows[0]["rank"], rows[0]["id"])
        cursor = encode_cursor(position, query.fingerprint)
        query = _disputed(**parameters, cursor=cursor)
    return names


def test_disputes_come_first_then_labels_from_the_least_certain(urgent: duckdb.DuckDBPyConnection) -> None:
    expected = ["most_answers", "few_answers", "least_certain", "less_certain_a", "less_certain_b", "just_below"]
    assert _walk(urgent, source="forum")[:6] == expected


def test_complete_texts_come_before_those_that_get_further_answers(urgent: duckdb.DuckDBPyConnection) -> None:
    assert _walk(urgent, source="forum")[6:] == ["open_tie", "open_doubt"]


@pytest.mark.parametrize(
    ("below", "expected"),
    [
        (0, ["most_answers", "few_answers", "open_tie"]),
        (0.2, ["most_answers", "few_answers", "open_tie", "open_doubt"]),
        (0.3, ["most_answers", "few_answers", "least_certain", "open_tie", "open_doubt"]),
    ],
)
def test_labels_below_a_confidence_want_a_decision(
    urgent: duckdb.DuckDBPyConnection, below: float, expected: list[str]
) -> None:
    assert _walk(urgent, source="forum", confidence_below=below) == expected


def test_disputes_are_those_of_the_dataset_and_the_source(urgent: duckdb.DuckDBPyConnection) -> None:
    assert _walk(urgent, dataset="mood") == ["of_mood"]
    assert _walk(urgent, source="mail") == ["of_other_source"]


def test_a_cursor_of_disputes_belongs_to_its_list(urgent: duckdb.DuckDBPyConnection) -> None:
    query = _disputed()
    assert query.fingerprint == _disputed(limit=5).fingerprint
    assert replace(query, below=0.6).fingerprint != query.fingerprint != query.texts.fingerprint
    cursor = encode_cursor(Position(5, UUID(int=1)), query.fingerprint)
    assert _disputed(cursor=cursor, limit=5).after == Position(5, UUID(int=1))
    for other in ({"confidence_below": 0.6}, {"source": "a"}):
        with pytest.raises(Mismatch, match="cursor"):
            _disputed(cursor=cursor, **other)
