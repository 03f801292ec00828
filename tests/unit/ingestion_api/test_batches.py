"""Batches: limited by rows, and by bytes so that memory suffices."""

import json

import pytest

from core.datasets import load_datasets
from ingestion_api.bulk.batches import BulkUpload, read_batches
from ingestion_api.bulk.schemas import BulkParameters

UPLOAD = BulkUpload("application/x-ndjson", "identity", BulkParameters(), load_datasets(None))


def test_long_rows_make_short_batches() -> None:
    metadata = {str(n): "x" * 8000 for n in range(100)}
    lines = (json.dumps({"text": str(n), "metadata": metadata}).encode() + b"\n" for n in range(50))
    sizes = [len(batch.rows) for batch in read_batches(UPLOAD, lines, 5000)]
    assert sum(sizes) == 50
    assert max(sizes) == 20


def test_short_rows_make_full_batches() -> None:
    lines = [b'{"text": "%d"}\n' % n for n in range(10_001)]
    assert [batch.received for batch in read_batches(UPLOAD, lines, 5000)] == [5000, 5000, 1]


@pytest.mark.parametrize(
    ("row", "most"), [({"text": 1, "lable": "x" * 900_000}, 20), ({"text": 1, "lable": [""] * 200_000}, 3)]
)
def test_long_rows_that_are_rejected_make_short_batches(row: dict[str, object], most: int) -> None:
    line = json.dumps(row).encode() + b"\n"
    sizes = [batch.received for batch in read_batches(UPLOAD, [line] * (most + 1), 5000)]
    assert sum(sizes) == most + 1
    assert max(sizes) <= most


def test_what_is_wrong_with_a_row_is_told_in_few_words() -> None:
    wrong = {f"{n} {'x' * 50}": n for n in range(500)}
    [batch] = read_batches(UPLOAD, [json.dumps({"text": "a"} | wrong).encode()], 5000)
    [reject] = batch.rejects
    assert len(reject.detail) <= 2000
    assert "0 xxx" in reject.detail
    assert reject.detail.endswith("and 490 more")
