"""The manifest of a snapshot, and the columns of its files.

`snapshot.json` is written last: with it, the snapshot is complete.
"""

from datetime import datetime
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from serving_api.columns import COLUMNS as EXPORTED
from serving_api.columns import Column, Kind

MANIFEST = "snapshot.json"
CARD = "README.md"
CROISSANT = "croissant.json"
FACTS = "facts.json"

# Names of snapshots: no paths and no hidden files. `models` is the folder of the classifiers.
NAME = r"^(?!live$|models$)(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"


class SplitFile(BaseModel):
    """One split, and its file."""

    model_config = ConfigDict(frozen=True)

    path: str = Field(description="File below the snapshot's folder.", examples=["data/train.parquet"])
    rows: int = Field(ge=0, description="Texts.", examples=[800])
    bytes: int = Field(ge=0, description="Size of the file.", examples=[131072])
    sha256: str = Field(
        pattern=r"^[0-9a-f]{64}$",
        description="Of the file's bytes; the strong ETag.",
        examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"],
    )
    memory_bytes: int = Field(
        0, ge=0, description="Size of its rows in memory, as Apache Arrow.", examples=[262144]
    )
    labels: dict[str, int] = Field(description="Texts by label; disputed ones under `null`.")


class SnapshotManifest(BaseModel):
    """A snapshot. All but its name and time follows from the replica's version and what was asked for."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(description="Name, unique.", examples=["toxicity-91342"])
    created_at: datetime = Field(description="When it was made, UTC.")
    dataset: str = Field(description="Dataset.", examples=["toxicity"])
    version: int = Field(description="Version of the replica that it shows.", examples=[91342])
    content_hash: str = Field(
        pattern=r"^[0-9a-f]{64}$", description="SHA-256 over the splits' names and files: equal data, equal hash."
    )
    seed: int = Field(description="Decides, with the text's id, its split.", examples=[0])
    shares: dict[str, float] = Field(description="Share of each split, as asked for.")
    stratified: bool = Field(description="Whether each label has these shares by itself.")
    filters: dict[str, object] = Field(description="Filters as asked for, those left out omitted.")
    splits: dict[str, SplitFile] = Field(description="The splits, in the order asked for.")
    feed: str = Field("", description="Which database's version it is.", examples=["9f86d081884c7d65"])
    follows: tuple[str, ...] = Field(
        (), description="If stratified: the earlier snapshots whose texts keep the splits that they have there."
    )
    rewritten_at: datetime | None = Field(
        None, description="When texts were taken out of it last; its hashes are others since."
    )
    forgotten: int = Field(0, ge=0, description="Texts in it that were to be forgotten since; rewrite it.")

    @property
    def rows(self) -> int:
        """Texts in all splits."""
        return sum(split.rows for split in self.splits.values())


class DescribedColumn(NamedTuple):
    """A column of every split."""

    type: str  # as Apache Arrow, and Hugging Face's `datasets`, name it
    meaning: str


MOMENT = EXPORTED["labelled_at"].arrow_type


def _describe(column: Column) -> DescribedColumn:
    meaning = column.meaning[:1].lower() + column.meaning[1:]
    told = f"JSON object: {meaning}" if column.kind is Kind.JSON else column.meaning
    return DescribedColumn(column.arrow_type, told)


COLUMNS = {name: _describe(column) for name, column in EXPORTED.items()}
