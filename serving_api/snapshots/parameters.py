"""What requests for snapshots ask for: bodies and query parameters."""

import math
from typing import Annotated, Any
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
)

from core.datasets import Datasets
from core.web.problems import ERRORS_SHOWN, FieldError, InvalidFields, Malformed, Problem, json_pointer
from serving_api.snapshots.manifest import NAME, SnapshotManifest
from serving_api.texts.parameters import EXAMPLE_CURSOR, Cursor, FilterParameters, LabelName, Limit, Order
from serving_api.texts.query import Mismatch, TextsQuery, check_search, labelled_texts_query

BODY_BYTES = 64 * 2**10
REWRITE_BYTES = 2**20
_MOST_IDS = 10_000

_SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}
_MOST_SPLITS = 20
# By how much the sum of the shares may miss 1: decimal fractions are not exact.
_TOLERANCE = 1e-9


def _name(name: str) -> str:
    if ".." in name:
        raise ValueError("holds two dots side by side")
    if name == "live":
        raise ValueError("means the live labels to the dataset viewer")
    return name


SnapshotName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"), AfterValidator(_name)
]


def _of_one_split(name: str) -> str:
    if name.lower() == "all":
        raise ValueError("means all splits together to those who read them")
    return name


# What `datasets` takes as one.
SplitName = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_]{0,49}$"),
    AfterValidator(_of_one_split),
    Field(json_schema_extra={"pattern": r"^(?![Aa][Ll][Ll]$)[A-Za-z0-9][A-Za-z0-9_]{0,49}$"}),
]
Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]


class SnapshotCreate(FilterParameters):
    """Which labelled texts a snapshot holds, and how they are split. Filters as in `GET /texts`."""

    name: SnapshotName | None = Field(
        None,
        description="Name, unique; else made of dataset, version and content.",
        examples=["toxicity-2026-11"],
        json_schema_extra={"pattern": NAME},
    )
    splits: dict[SplitName, Share] = Field(
        _SHARES,
        min_length=1,
        max_length=_MOST_SPLITS,
        description="Share of each split; together 1.",
        examples=[_SHARES],
    )
    seed: int = Field(
        0, ge=0, le=2**63 - 1, description="Decides, with the text's id, its split: for ever.", examples=[0]
    )
    stratify: bool = Field(
        False, description="Each label has these shares by itself, as nearly as texts that stay can be divided."
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
        # pydantic would take a number as seconds since 1970
        if moment is not None and not isinstance(moment, str):
            raise ValueError("is not a time as RFC 3339 has it, like 2026-11-24T08:30:00Z")
        return moment

    @property
    def filters(self) -> dict[str, Any]:
        """The filters that were sent, as JSON has them, without the dataset."""
        names = {*FilterParameters.model_fields, "label"} - {"dataset"}
        given = self.model_dump(mode="json", include=names, exclude_unset=True, exclude_none=True)
        if "label" in given:
            given["label"] = sorted(set(given["label"]))
        return {name: given[name] for name in sorted(given) if given[name] != []}

    def is_answered_by(self, manifest: SnapshotManifest, dataset: str) -> bool:
        """Whether a snapshot was made for the same request."""
        return (manifest.dataset, manifest.shares, manifest.seed, manifest.stratified, manifest.filters) == (
            dataset,
            self.splits,
            self.seed,
            self.stratify,
            self.filters,
        )


class SnapshotRewrite(BaseModel):
    """Which texts are taken out of a snapshot."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    without: list[UUID] = Field(
        min_length=1,
        max_length=_MOST_IDS,
        description="Ids of the texts.",
        examples=[["5f0c6f5e-3c1b-8a43-9d8e-0b6a4b8f2d11"]],
    )


def parse_rewrite(body: bytes) -> frozenset[str]:
    """Read the ids of the texts that are to be taken out.

    Raises:
        Malformed: it is not JSON.
        InvalidFields: fields are wrong; each is named by its JSON pointer.
    """
    try:
        return frozenset(str(id_) for id_ in SnapshotRewrite.model_validate_json(body).without)
    except ValidationError as error:
        raise _refusal(error) from None


def parse_request(body: bytes, datasets: Datasets) -> tuple[SnapshotCreate, TextsQuery]:
    """Read a request, and which texts it means.

    Raises:
        Malformed: it is not JSON.
        InvalidFields: fields are wrong; each is named by its JSON pointer.
        Mismatch: they do not go together.
    """
    try:
        request = SnapshotCreate.model_validate_json(body or b"{}")
    except ValidationError as error:
        raise _refusal(error) from None
    try:
        check_search(request)
        return request, labelled_texts_query(request, request.label, datasets, Order.OLDEST)
    except (InvalidFields, Mismatch) as problem:
        for one in problem.extra["errors"]:
            one["pointer"] = json_pointer([one.pop("parameter")])
        if isinstance(problem, InvalidFields):
            raise InvalidFields([FieldError(**one) for one in problem.extra["errors"]]) from None
        raise


def _refusal(error: ValidationError) -> Problem:
    errors = error.errors(include_url=False, include_context=False, include_input=False)
    if errors[0]["type"] == "json_invalid":
        return Malformed(f"{errors[0]['msg']}.", code="malformed_json")
    return InvalidFields(
        [FieldError(e["type"], e["msg"], pointer=_pointer(e["loc"])) for e in errors[:ERRORS_SHOWN]]
    )


def _pointer(path: tuple[int | str, ...]) -> str:
    """Return the JSON pointer of pydantic's location; of a member's name, which has none, its member's."""
    return json_pointer([part for part in path if part != "[key]"])


class SnapshotsParameters(BaseModel):
    """Which page of the list of snapshots."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    limit: Limit = 100
    cursor: Cursor | None = Field(None, description="`next_cursor` of the page before.", examples=[EXAMPLE_CURSOR])


class DiffParameters(SnapshotsParameters):
    """Which page of what two snapshots differ in."""

    limit: int = Field(100, ge=1, le=10_000, description="Texts on a page at most.", examples=[100])
