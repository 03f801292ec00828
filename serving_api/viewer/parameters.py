"""The query parameters of the dataset viewer, named and bounded as the original's."""

from typing import Annotated

from pydantic import AfterValidator, Field

from core.web.openapi import NOT_BLANK
from serving_api.texts.matching import MAX_WORDS
from serving_api.texts.parameters import DatasetParameters, SearchText, Word
from serving_api.viewer.where import LENGTH_MAX

# A whole number up to this is exact also where JSON's numbers are floats.
_OFFSET_MAX = 2**53 - 1
LENGTH = 100


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
    """Which dataset is meant, and which of its configs."""

    config: Word | None = Field(
        None,
        description="`live`: the labels as they are now; else a snapshot's name. Without it all of them.",
        examples=["live"],
    )


class ValidityParameters(ConfigParameters):
    """Which dataset, config and split to look at."""

    split: Word | None = Field(None, description="Split; `live` has one, `train`.", examples=["train"])


class SplitParameters(DatasetParameters):
    """Which split is meant."""

    config: Word = Field(
        description="`live`: the labels as they are now; else a snapshot's name.", examples=["live"]
    )
    split: Word = Field(description="Split; `live` has one, `train`.", examples=["train"])


class RowsParameters(SplitParameters):
    """Which rows of a list are meant."""

    offset: int = Field(0, ge=0, le=_OFFSET_MAX, description="Rows to skip.", examples=[0])
    length: int = Field(LENGTH, ge=0, le=LENGTH, description="Rows at most.", examples=[LENGTH])


class SearchParameters(RowsParameters):
    """Words to search for, and the page."""

    query: Query = Field(
        description="Words that the text holds, whole, in any order; upper and lower case are the same. "
        "No character has a meaning of its own.",
        examples=["you are"],
    )


class RowFilterParameters(RowsParameters):
    """Which rows are listed, and in which order."""

    where: Sql | None = Field(
        None,
        description="A condition in SQL: columns compared with values of their kind by `=`, `<>`, `<`, `<=`, `>`, "
        "`>=`, `IN`, `BETWEEN`, `LIKE`, `ILIKE`, `IS NULL`; `AND`, `OR`, `NOT` and parentheses. A pattern may "
        "have 8 `%` and 8 `_`; with any `_`, 2 `%`.",
        examples=["\"label\"='toxic' AND score > 0.5"],
    )
    orderby: Sql | None = Field(
        None,
        description="Columns to sort by, each with `ASC` or `DESC`, and `NULLS FIRST` or `LAST`, if you like.",
        examples=['"score" DESC'],
    )
