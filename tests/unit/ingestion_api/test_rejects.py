"""Rejected rows of an import: as exactly as JSON can say them; of many, the first are kept."""

import json
import math
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.datasets import load_datasets
from core.tables.rows import RowRefused
from ingestion_api.bulk.batches import to_json
from ingestion_api.bulk.mapping import ObjectMapping
from ingestion_api.bulk.schemas import BulkParameters
from ingestion_api.imports.run import KeptRejects
from ingestion_api.texts.submissions import QuickSubmission, read_quickly


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (b"Zo\xc3\xab", '"Zoë"'),
        (b"\xff", '{"base64":"/w=="}'),
        (date(2026, 1, 2), '"2026-01-02"'),
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), '"2026-01-02T03:04:05+00:00"'),
        (time(3, 4), '"03:04:00"'),
        (timedelta(days=1, seconds=2.5), '"P1DT2.5S"'),
        (Decimal("12.30"), "12.30"),
        (2**70, str(2**70)),
        (math.nan, '"NaN"'),
        (Decimal("NaN"), '"NaN"'),
        (math.inf, '"Infinity"'),
        (-math.inf, '"-Infinity"'),
        ([("key", b"value")], '[["key","value"]]'),
        ({"a": {"b": (None, True, "\0")}}, '{"a":{"b":[null,true,"\\u0000"]}}'),
    ],
)
def test_what_json_has_no_type_for(value: Any, written: str) -> None:
    assert to_json(value) == written
    assert to_json({"cell": value}) == f'{{"cell":{written}}}'


@pytest.mark.parametrize(
    "value",
    [RowRefused("malformed_json", "not JSON"), uuid4(), object(), "\ud800", 10**5000, "x" * 65_536],
    ids=["unreadable", "unknown type", "object", "surrogate", "long integer", "long"],
)
def test_what_is_not_kept(value: Any) -> None:
    """A text could hide in the string form of an unknown value."""
    assert to_json(value) is None
    assert to_json({"cell": value}) is None or isinstance(value, RowRefused)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
)


@given(_JSON)
def test_json_comes_back_as_it_was(value: Any) -> None:
    written = to_json(value)
    assert written is not None
    assert json.loads(written) == value


def test_a_quick_submission_is_kept_as_it_was_sent() -> None:
    row = read_quickly(b'{"text": "a", "label": "Toxic", "metadata": {"n": 1}, "source": null}')
    parameters = BulkParameters(source="file", dataset="toxicity", label_map="Toxic:toxic")
    mapped = ObjectMapping(parameters, load_datasets(None))(row)
    assert isinstance(mapped, QuickSubmission)
    assert (mapped.source, mapped.dataset, mapped.label) == ("file", "toxicity", "toxic")
    assert to_json(row) == '{"text":"a","label":"Toxic","metadata":{"n":1}}'


@given(st.lists(st.integers(0, 40), max_size=30), st.lists(st.integers(1, 29), max_size=3), st.integers(1, 20))
def test_the_first_are_kept_without_gaps(lengths: list[int], cuts: list[int], most_rows: int) -> None:
    rejects = [(n, "code", "", "x" * length) for n, length in enumerate(lengths)]
    ends = sorted({*(cut for cut in cuts if cut < len(rejects)), len(rejects)})
    kept: list[int] = []
    rows = size = start = 0
    for end in ends:  # each run goes on where the one before was cut off
        keeping = KeptRejects(0, 0, most_rows, 100)
        keeping.go_on(rows, size, start)
        kept += [reject[0] for reject in keeping.keep(rejects[start:end])]
        rows, size, start = keeping.rows, keeping.bytes, end
    assert kept == list(range(len(kept)))
    assert rows == len(kept) <= most_rows
    assert size == sum(4 + lengths[n] for n in kept) <= 100
    if len(kept) < min(len(rejects), most_rows):
        assert size + 4 + lengths[len(kept)] > 100
