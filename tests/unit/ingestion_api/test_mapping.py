"""Column and label mapping."""

import datetime as dt
from decimal import Decimal

import pytest

from core.web.problems import InvalidFields
from ingestion_api.bulk.columns import Columns, RowRefused, UnknownColumn
from ingestion_api.bulk.mapping import map_columns, map_object, parse_label_map

COLUMNS = Columns(text="comment", label="is_toxic", source=None, all_metadata=False)


def test_a_label_map_is_read() -> None:
    assert parse_label_map("Toxic:toxic, Not Toxic:non_toxic,a:b:c") == {
        "Toxic": "toxic",
        "Not Toxic": "non_toxic",
        "a:b": "c",
    }
    assert parse_label_map(None) == {}


@pytest.mark.parametrize("parameter", ["Toxic", "Toxic:", ":toxic", "a:b,c"])
def test_a_wrong_label_map_is_refused(parameter: str) -> None:
    with pytest.raises(InvalidFields):
        parse_label_map(parameter)


def test_columns_and_labels_are_mapped() -> None:
    to_fields = map_columns(COLUMNS, {"source": "web"}, {"Toxic": "toxic"})
    assert to_fields({"comment": "x", "is_toxic": "Toxic", "score": "0.5", "other": "y"}) == {
        "text": "x",
        "label": "toxic",
        "score": 0.5,
        "source": "web",
    }


def test_empty_cells_are_absent_fields() -> None:
    row = {"comment": "", "is_toxic": " ", "score": "", "external_id": ""}
    assert map_columns(COLUMNS, {}, {})(row) == {"text": ""}


def test_source_is_a_column_where_there_is_one() -> None:
    columns = Columns("text", None, "site", False)
    to_fields = map_columns(columns, {"source": "site"}, {})
    assert to_fields({"text": "x", "site": "forum"})["source"] == "forum"
    assert to_fields({"text": "x"})["source"] == "site"


def test_other_columns_become_metadata_when_asked() -> None:
    columns = Columns("text", None, None, True)
    day = dt.date(2026, 1, 2)
    row = {"text": "x", "label": "toxic", "n": 1, "day": day, "price": Decimal("1.5"), "none": None}
    assert map_columns(columns, {}, {})(row)["metadata"] == {"n": 1, "day": "2026-01-02", "price": 1.5}


@pytest.mark.parametrize("row", [{"is_toxic": "Toxic"}, {"comment": "x"}])
def test_a_missing_column_is_named(row: dict[str, str]) -> None:
    with pytest.raises(UnknownColumn, match="there are"):
        map_columns(COLUMNS, {}, {})(row)


def test_a_score_that_is_no_number_costs_the_row() -> None:
    with pytest.raises(RowRefused):
        map_columns(Columns("text", None, None, False), {}, {})({"text": "x", "score": "high"})


def test_objects_keep_their_own_fields() -> None:
    to_fields = map_object({"source": "default"}, {"T": "toxic"})
    assert to_fields({"text": "x", "source": "own", "label": "T"}) == {
        "text": "x",
        "source": "own",
        "label": "toxic",
    }


def test_null_does_not_hide_a_default() -> None:
    assert map_object({"dataset": "spam"}, {})({"text": "x", "dataset": None}) == {"text": "x", "dataset": "spam"}


@pytest.mark.parametrize("row", [None, 5, "x", [], True])
def test_what_is_no_object_costs_the_row(row: object) -> None:
    with pytest.raises(RowRefused):
        map_object({}, {})(row)
