"""The documents of a snapshot, `snapshot.json` and `facts.json`, and the columns of its files.

`snapshot.json`, the manifest, is written last. It makes the snapshot complete.
"""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from serving_api.columns import Column, Kind
from serving_api.statistics.agreement import Coefficient

MANIFEST = "snapshot.json"
CARD = "README.md"
CROISSANT = "croissant.json"
FACTS = "facts.json"

# Names of snapshots: no paths and no hidden files. `models` is the folder of the classifiers.
NAME = r"^(?!live$|models$)(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"


_HASH = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


class SplitFile(BaseModel):
    """One split, and its file."""

    model_config = ConfigDict(frozen=True)

    path: str = Field(description="File below the snapshot's folder.", examples=["data/train.parquet"])
    rows: int = Field(ge=0, description="Texts.", examples=[800])
    bytes: int = Field(ge=0, description="Size of the file.", examples=[131072])
    sha256: str = Field(
        pattern=r"^[0-9a-f]{64}$", description="Of the file's bytes; the strong ETag.", examples=[_HASH]
    )
    memory_bytes: int = Field(
        0, ge=0, description="Size of its rows in memory, as Apache Arrow.", examples=[262144]
    )
    labels: dict[str, int] = Field(description="Texts by label; disputed ones under `null`.")


def _split_example(name: str, rows: int) -> dict[str, Any]:
    counts = {"non_toxic": rows - rows // 3, "toxic": rows // 3}
    return {"path": f"data/{name}.parquet", "rows": rows, "bytes": rows * 160, "sha256": _HASH, "labels": counts}


_ROWS = {"train": 800, "validation": 100, "test": 100}
MANIFEST_EXAMPLE: dict[str, Any] = {
    "name": "toxicity-2026-11",
    "created_at": "2026-11-28T14:00:00.120934Z",
    "dataset": "toxicity",
    "version": 91342,
    "content_hash": _HASH,
    "seed": 0,
    "shares": {"train": 0.8, "validation": 0.1, "test": 0.1},
    "stratified": False,
    "filters": {"min_agreement": 0.8},
    "splits": {name: _split_example(name, rows) for name, rows in _ROWS.items()},
    "feed": "9f86d081884c7d65",
    "follows": [],
    "rewritten_at": None,
    "forgotten": 0,
}


class SnapshotManifest(BaseModel):
    """A snapshot. All but its name and time follow from the replica's version and the request."""

    model_config = ConfigDict(frozen=True, json_schema_extra={"examples": [MANIFEST_EXAMPLE]})

    name: str = Field(description="Name, unique.")
    created_at: datetime = Field(description="When it was made, UTC.")
    dataset: str = Field(description="Dataset.")
    version: int = Field(description="Version of the replica that it shows.")
    content_hash: str = Field(
        pattern=r"^[0-9a-f]{64}$", description="SHA-256 over the splits' names and files: equal data, equal hash."
    )
    seed: int = Field(description="Decides, with the text's id, its split.")
    shares: dict[str, float] = Field(description="The requested share of each split.")
    stratified: bool = Field(description="Whether the texts of each label are divided in these shares.")
    filters: dict[str, object] = Field(description="The filters of the request, without those left out.")
    splits: dict[str, SplitFile] = Field(description="The splits, in the order of the request.")
    feed: str = Field("", description="The database that the version belongs to.")
    follows: tuple[str, ...] = Field(
        (), description="If stratified: the earlier snapshots whose texts keep their splits here."
    )
    rewritten_at: datetime | None = Field(
        None, description="When texts were last removed from it, which changed its hashes."
    )
    forgotten: int = Field(0, ge=0, description="Texts in it that were forgotten later: rewrite it.")

    @property
    def rows(self) -> int:
        """Texts in all splits."""
        return sum(split.rows for split in self.splits.values())

    @property
    def bytes(self) -> int:
        """Size of all splits' files."""
        return sum(split.bytes for split in self.splits.values())


class AnswerCounts(BaseModel):
    """Numbers of submitted answers by annotators."""

    model_config = ConfigDict(frozen=True)

    total: int = Field(description="On all texts.")
    fewest: int = Field(description="On one text.")
    most: int = Field(description="On one text.")
    annotators: int = Field(description="Persons who answered.")
    adjudicators: int = Field(
        description="Persons who answered about disputes; their answers are not counted here."
    )


class Rule(BaseModel):
    """A rule that derived labels, and the versions of its estimates."""

    model_config = ConfigDict(frozen=True)

    name: str
    texts: int
    first_version: int = Field(description="Number of the oldest estimate that a label is from.")
    last_version: int


class Facts(BaseModel):
    """Facts about a snapshot's texts at its version, without names of annotators."""

    model_config = ConfigDict(frozen=True)

    guidelines: str = Field(description="The annotators' guidelines when it was written, as Markdown.")
    labels: tuple[str, ...] = Field(description="The dataset's labels, in their order.")
    answers_wanted: int = Field(description="Annotations that complete a text.")
    near_duplicates: str = Field(description="Setting of the dataset: off, link, ask_once.")
    license: str | None = Field(description="Licence, as the dataset's owner has set it.")
    texts: int
    statuses: dict[str, int] = Field(description="Texts by status.")
    decided_by: dict[str, int] = Field(description="Texts by who decided: annotators or adjudicators.")
    rules: tuple[Rule, ...] = Field(description="By name.")
    answers: AnswerCounts
    agreement: dict[str, Coefficient] = Field(description="Coefficients with their 95 % intervals, by name.")
    agreement_without: tuple[str, ...] = Field(
        (), description="Filters that agreement ignores, since they choose texts by their answers."
    )
    sources: dict[str, int] = Field(description="Texts by source, for the 20 most frequent sources.")
    sources_total: int = Field(description="Number of sources.")
    languages: dict[str, int] = Field(description="Texts by detected language, the most frequent first.")
    near_twins: int = Field(description="Texts that are linked as near duplicates of an earlier one.")

    def without_sources(self) -> "Facts":
        """Return the facts without sources: one might be the source of a forgotten text only."""
        return self.model_copy(update={"sources": {}})


def describe(column: Column) -> str:
    """Return the meaning of a column of the splits, where a JSON column is a text."""
    if column.kind is not Kind.JSON:
        return column.meaning
    return f"JSON object: {column.meaning[:1].lower()}{column.meaning[1:]}"
