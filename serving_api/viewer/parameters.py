"""The query parameters of the dataset viewer, with the names and bounds of the original."""

from typing import Annotated

from pydantic import AfterValidator, Field

from core.web.openapi import NOT_BLANK
from serving_api.texts.matching import MAX_WORDS
from serving_api.texts.parameters import DatasetParameters, SearchText, Word
from serving_api.viewer.split_rows import LENGTH
from serving_api.viewer.where import LENGTH_MAX

# The largest whole number that is exact in JSON readers whose numbers are floats.
_OFFSET_MAX = 2**53 - 1


def _without_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("holds a NUL character")
    return value


def _searchable(value: str) -> str:
    words = len(value.split())
    if not 1 <= words <= MAX_WORDS:
        raise ValueError(f"holds {words} words; it must be 1 to {MAX_WORDS}")
    return value


Query = Annotated[SearchText, AfterValidator(_searchable), Field(json_schema_extra={"pattern": NOT_BLANK})]
Sql = Annotated[str, Field(min_length=1, max_length=LENGTH_MAX), AfterValidator(_without_nul)]


class ConfigParameters(DatasetParameters):
    """A dataset, or one of its configs."""

    config: Word | None = Field(
        None,
        description="`live`, the current labels, or a snapshot's name; by default all configs.",
        examples=["live"],
    )


class ValidityParameters(ConfigParameters):
    """A dataset, a config or a split."""

    split: Word | None = Field(None, description="Split; `live` has one, `train`.", examples=["train"])


class SplitParameters(DatasetParameters):
    """A split."""

    config: Word = Field(description="`live`, the current labels, or a snapshot's name.", examples=["live"])
    split: Word = Field(description="Split; `live` has one, `train`.", examples=["train"])


class RowsParameters(SplitParameters):
    """Rows of a split."""

    offset: int = Field(0, ge=0, le=_OFFSET_MAX, description="Rows to skip.", examples=[0])
    length: int = Field(LENGTH, ge=0, le=LENGTH, description="Rows at most.", examples=[LENGTH])


class SearchParameters(RowsParameters):
    """A search for words, and the page."""

    query: Query = Field(
        description="Whole words that the text contains, in any order and case. No character is special.",
        examples=["you are"],
    )


class RowFilterParameters(RowsParameters):
    """A condition and an order, and the page."""

    where: Sql | None = Field(
        None,
        description="A condition in SQL: columns compared with values of their kind by `=`, `<>`, `<`, `<=`, `>`, "
        "`>=`, `IN`, `BETWEEN`, `LIKE`, `ILIKE`, `IS NULL`; `AND`, `OR`, `NOT` and parentheses. A pattern may "
        "have 8 `%` and 8 `_`, but 2 `%` if it has a `_`.",
        examples=["\"label\"='toxic' AND score > 0.5"],
    )
    orderby: Sql | None = Field(
        None,
        description="Columns to sort by, each optionally with `ASC` or `DESC`, and `NULLS FIRST` or `NULLS LAST`.",
        examples=['"score" DESC'],
    )
