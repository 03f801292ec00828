"""The lines of exports say what GET /texts says, whatever the texts hold."""

import csv
import io
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import duckdb
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving_api.columns import COLUMNS, TextItem, csv_header, csv_line, json_object, typed
from serving_api.replica.file import open_database
from serving_api.replica.tables import TABLES
from serving_api.settings import ReplicaSettings
from serving_api.texts.parameters import to_text

TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
FORMULA_STARTS = tuple("=+-@\t\r\n")


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    path: Path = tmp_path_factory.mktemp("export") / "replica.duckdb"
    with open_database(path, ReplicaSettings()) as connection:
        connection.execute(f"create table items ({TABLES['items']})")
        yield connection


def test_columns_are_those_of_the_list() -> None:
    assert list(COLUMNS) == list(TextItem.model_fields)


def _row(words: str, share: float | None, moment: datetime, **given: Any) -> dict[str, Any]:
    """Return what the replica holds of a text."""
    known = dict.fromkeys(COLUMNS, words) | {
        "id": UUID(int=7),
        "agreement": share or 0.0,
        "votes": orjson.dumps({words: 1}).decode(),
        "annotations": 1,
        "complete": False,
        "confidence": None,
        "rule_version": 1,
        "claimed_label": None,
        "score": share,
        "predicted_probability": share,
        "metadata": '{"n": 12345678901234567890123, "x": 1.50}',
        "enrichment": "{}",
        "received_at": moment,
        "labelled_at": moment,
    }
    return known | {"version": 3, "annotators": "", "document": "{}"} | given


def _line(connection: duckdb.DuckDBPyConnection, row: dict[str, Any], columns: str) -> Any:
    connection.execute("delete from items")
    names = ", ".join(row)
    marks = ", ".join("?" * len(row))
    connection.execute(f"insert into items ({names}) values ({marks})", [*row.values()])  # noqa: S608
    return connection.execute(f"select {columns} from items").fetchall()[0]  # noqa: S608


MOMENTS = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1))  # noqa: DTZ001 - UTC without a zone
SHARES = st.none() | st.floats(0, 1)


def test_json_is_the_item(connection: duckdb.DuckDBPyConnection) -> None:
    @given(TEXTS, SHARES, MOMENTS)
    def check(words: str, share: float | None, moment: datetime) -> None:
        row = _row(words, share, moment)
        (line,) = _line(connection, row, json_object())
        assert "\n" not in line
        shown = {name: row[name] for name in COLUMNS} | {
            "received_at": to_text(moment),
            "labelled_at": to_text(moment),
        }
        shown |= {name: orjson.Fragment(row[name]) for name in ("votes", "metadata", "enrichment")}
        assert orjson.loads(line) == orjson.loads(orjson.dumps(shown))
        assert list(orjson.loads(line)) == list(COLUMNS)
        assert '"metadata":{"n": 12345678901234567890123, "x": 1.50},' in line

    check()


@pytest.mark.parametrize("for_spreadsheet", [False, True])
def test_a_line_of_csv_is_the_item(connection: duckdb.DuckDBPyConnection, for_spreadsheet: bool) -> None:
    @given(TEXTS, SHARES, MOMENTS, st.sampled_from(["", *FORMULA_STARTS, ' "=', "'+", "\u3000-", "\ufeff@", "＝"]))
    def check(words: str, share: float | None, moment: datetime, start: str) -> None:
        words = start + words
        row = _row(words, share, moment)
        (line,) = _line(connection, row, csv_line(for_spreadsheet=for_spreadsheet))
        read = next(csv.DictReader(io.StringIO(csv_header() + line, newline=""), strict=True))
        assert list(read) == list(COLUMNS)
        escaped = read["text"] if not for_spreadsheet else read["text"].removeprefix("'")
        assert escaped == words.removeprefix("'" if for_spreadsheet and read["text"] == words else "")
        if for_spreadsheet:
            assert not read["text"].startswith((*FORMULA_STARTS, "＝", "＋", "－", "＠"))
            assert (read["text"] != words) >= bool(start)
        assert read["score"] == ("" if share is None else read["score"])
        assert (float(read["score"]) if read["score"] else None) == share
        assert read["labelled_at"] == to_text(moment)
        assert read["votes"] == row["votes"]
        assert read["claimed_label"] == ""

    check()


def test_no_cell_of_a_spreadsheet_begins_like_a_formula(connection: duckdb.DuckDBPyConnection) -> None:
    @given(TEXTS)
    def check(words: str) -> None:
        row = _row(words, 1, datetime(2026, 1, 1))  # noqa: DTZ001
        (line,) = _line(connection, row, csv_line(for_spreadsheet=True))
        for cell in next(csv.reader(io.StringIO(line, newline=""), strict=True)):
            assert not cell.lstrip().startswith(FORMULA_STARTS)
            assert not cell.startswith(FORMULA_STARTS)

    check()


def test_typed_columns_are_as_they_are(connection: duckdb.DuckDBPyConnection) -> None:
    moment = datetime(2026, 1, 1)  # noqa: DTZ001
    row = _row("a", 0.5, moment)
    read = _line(connection, row, typed())
    assert read == tuple(str(row[name]) if name == "id" else row[name] for name in COLUMNS)
