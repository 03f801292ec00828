"""The columns of a snapshot's files: their types, and what they mean."""

from typing import NamedTuple

from serving_api.columns import COLUMNS as EXPORTED
from serving_api.columns import Column as Item
from serving_api.columns import Kind


class Column(NamedTuple):
    """A column of every split."""

    type: str  # as Apache Arrow, and Hugging Face's `datasets`, name it
    meaning: str


MOMENT = EXPORTED["labelled_at"].arrow_type


def _describe(column: Item) -> Column:
    meaning = column.meaning[:1].lower() + column.meaning[1:]
    return Column(column.arrow_type, f"JSON object: {meaning}" if column.kind is Kind.JSON else column.meaning)


COLUMNS = {name: _describe(column) for name, column in EXPORTED.items()}
