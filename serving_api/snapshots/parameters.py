"""The bodies and query parameters of requests for snapshots."""

import math
import re
from typing import Annotated, Any
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
)
from pydantic_core import PydanticCustomError

from core.datasets import Datasets
from core.web.problems import (
    FieldError,
    InvalidFields,
    json_pointer,
    refuse_body,
)
from serving_api.snapshots.manifest import NAME, SnapshotManifest
from serving_api.texts.parameters import EXAMPLE_CURSOR, Cursor, FilterParameters, LabelName, Limit, Order
from serving_api.texts.query import Mismatch, TextsQuery, check_search, labelled_texts_query

BODY_BYTES = 64 * 2**10
REWRITE_BYTES = 2**20
_MOST_IDS = 10_000

_SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}
_MOST_SPLITS = 20
# The sum of the shares may differ from 1 by this: decimal fractions are not exact.
_TOLERANCE = 1e-9


_SNAPSHOT_NAME = "[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
_SPLIT_NAME = "[A-Za-z0-9][A-Za-z0-9_]{0,49}"


def _check_characters(name: str, pattern: str, said: str) -> None:
    if not re.fullmatch(pattern, name):
        need = f"must be up to {said}, beginning with a letter or digit"
        raise PydanticCustomError("string_pattern_mismatch", need)


def _name(name: str) -> str:
    _check_characters(name, _SNAPSHOT_NAME, "100 letters, digits, dots, underscores and hyphens")
    if ".." in name:
        raise ValueError("contains two dots in a row")
    if name == "live":
        raise ValueError("is the dataset viewer's name of the live labels")
    if name == "models":
        raise ValueError("is the name of the folder of the classifiers")
    return name


SnapshotName = Annotated[str, AfterValidator(_name), Field(json_schema_extra={"pattern": f"^{_SNAPSHOT_NAME}$"})]


def _of_one_split(name: str) -> str:
    _check_characters(name, _SPLIT_NAME, "50 letters, digits and underscores")
    if name.lower() == "all":
        raise ValueError("is the name of all splits together in the datasets library")
    return name


# The names that the datasets library accepts.
SplitName = Annotated[
    str,
    AfterValidator(_of_one_split),
    Field(json_schema_extra={"pattern": f"^(?![Aa][Ll][Ll]$){_SPLIT_NAME}$"}),
]
Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]


class SnapshotCreate(FilterParameters):
    """The texts of a new snapshot and their splits. The filters are those of `GET /texts`."""

    name: SnapshotName | None = Field(
        None,
        description="Unique name; by default made of dataset, version and content hash.",
        examples=["toxicity-2026-11"],
        json_schema_extra={"pattern": NAME},
    )
    splits: dict[SplitName, Share] = Field(
        _SHARES,
        min_length=1,
        max_length=_MOST_SPLITS,
        description="Share of each split; the sum is 1.",
        examples=[_SHARES],
    )
    seed: int = Field(0, ge=0, le=2**63 - 1, description="Decides, with the text's id, its split.", examples=[0])
    stratify: bool = Field(
        False, description="Divide the texts of each label in these shares, as exactly as possible."
    )
    label: list[LabelName] = Field(
        [], max_length=100, description="Only texts with one of these labels.", examples=[["toxic", "non_toxic"]]
    )

    @field_validator("splits")
    @classmethod
    def _add_up(cls, splits: dict[str, float]) -> dict[str, float]:
        if abs(math.fsum(splits.values()) - 1) > _TOLERANCE:
            raise ValueError(f"the shares add up to {math.fsum(splits.values())}, not to 1")
        return splits

    @field_validator("labelled_after", "labelled_before", mode="before")
    @classmethod
    def _is_text(cls, moment: object) -> object:
        # pydantic would read a number as seconds since 1970
        if moment is not None and not isinstance(moment, str):
            raise ValueError("is not a time as RFC 3339 has it, like 2026-11-24T08:30:00Z")
        return moment

    @property
    def filters(self) -> dict[str, Any]:
        """The filters of the request as JSON values, without the dataset."""
        names = {*FilterParameters.model_fields, "label"} - {"dataset"}
        given = self.model_dump(mode="json", include=names, exclude_unset=True, exclude_none=True)
        if "label" in given:
            given["label"] = sorted(set(given["label"]))
        return {name: given[name] for name in sorted(given) if given[name] != []}

    def is_answered_by(self, manifest: SnapshotManifest, dataset: str) -> bool:
        """Whether the same request made this snapshot."""
        return (manifest.dataset, manifest.shares, manifest.seed, manifest.stratified, manifest.filters) == (
            dataset,
            self.splits,
            self.seed,
            self.stratify,
            self.filters,
        )


class SnapshotRewrite(BaseModel):
    """The texts to remove from a snapshot."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    without: list[UUID] = Field(
        min_length=1,
        max_length=_MOST_IDS,
        description="Ids of the texts.",
        examples=[["5f0c6f5e-3c1b-8a43-9d8e-0b6a4b8f2d11"]],
    )


def parse_rewrite(body: bytes) -> frozenset[str]:
    """Read the ids of the texts to remove.

    Raises:
        Malformed: it is not JSON.
        InvalidFields: fields are wrong; each is named by its JSON pointer.
    """
    try:
        return frozenset(str(id_) for id_ in SnapshotRewrite.model_validate_json(body).without)
    except ValidationError as error:
        raise refuse_body(error) from None


def parse_request(body: bytes, datasets: Datasets) -> tuple[SnapshotCreate, TextsQuery]:
    """Read a request, and return it with the query for its texts.

    Raises:
        Malformed: it is not JSON.
        InvalidFields: fields are wrong; each is named by its JSON pointer.
        Mismatch: fields contradict each other.
    """
    try:
        request = SnapshotCreate.model_validate_json(body or b"{}")
    except ValidationError as error:
        raise refuse_body(error) from None
    try:
        check_search(request)
        return request, labelled_texts_query(request, request.label, datasets, Order.OLDEST)
    except (InvalidFields, Mismatch) as problem:
        for one in problem.extra["errors"]:
            one["pointer"] = json_pointer([one.pop("parameter")])
        if isinstance(problem, InvalidFields):
            raise InvalidFields([FieldError(**one) for one in problem.extra["errors"]]) from None
        raise


class SnapshotsParameters(BaseModel):
    """A page of the list of snapshots."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    limit: Limit = 100
    cursor: Cursor | None = Field(None, description="`next_cursor` of the page before.", examples=[EXAMPLE_CURSOR])


class DiffParameters(SnapshotsParameters):
    """A page of the differences of two snapshots."""

    limit: int = Field(100, ge=1, le=10_000, description="Texts on a page at most.", examples=[100])
