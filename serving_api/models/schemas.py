"""What the endpoints of models take and send, with the examples and refusals of the documentation."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core.classifiers.model_files import SUSPECT_BELOW, Measures, ModelManifest
from core.text_identity import TEXT_BYTES
from core.web.openapi import DATASET_NAME, Responses, answer, header, reference, refusals, with_example
from core.web.problems import (
    FieldError,
    InvalidFields,
    Malformed,
    NotFound,
    TooLarge,
    Unavailable,
    UnsupportedType,
    refuse_body,
)
from serving_api.columns import EXAMPLE_ITEM, TextItem
from serving_api.texts.parameters import EXAMPLE_CURSOR, RankedParameters
from serving_api.texts.schemas import TextPage, lists, refuses, wrong_parameter

MOST_TEXTS = 1000
BODY_BYTES = 4 * 2**20
EXAMPLE_VERSION = EXAMPLE_ITEM["model_version"]


class ScoreRequest(BaseModel):
    """Texts to score."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, json_schema_extra={"examples": [{"texts": ["you are an idiot"]}]}
    )

    texts: list[str] = Field(
        min_length=1, max_length=MOST_TEXTS, description="Texts; each has at most 64 KiB in UTF-8."
    )
    dataset: Annotated[str, Field(json_schema_extra=DATASET_NAME)] | None = Field(
        None, description="Dataset whose model scores; without it the default one."
    )


def parse_score_request(body: bytes) -> ScoreRequest:
    """Read the body of a request for scores.

    Raises:
        Malformed: it is not JSON.
        InvalidFields: fields are wrong; each is named by its JSON pointer.
        TooLarge: a text is too long.
    """
    try:
        request = ScoreRequest.model_validate_json(body)
    except ValidationError as error:
        raise refuse_body(error) from None
    for number, text in enumerate(request.texts):
        if len(text) > TEXT_BYTES or len(text.encode()) > TEXT_BYTES:
            raise TooLarge(f"The text at /texts/{number} is longer than {TEXT_BYTES} bytes of UTF-8.")
        if "\0" in text:
            wrong = FieldError("nul_character", "must not have NUL characters", pointer=f"/texts/{number}")
            raise InvalidFields([wrong])
    return request


class TextScore(BaseModel):
    """What a model says about one text."""

    label: str = Field(description="The most probable label.")
    probabilities: dict[str, float] = Field(description="Calibrated probability of each label; they add up to 1.")


class ScoreResponse(BaseModel):
    """The scores of some texts, in the order of the texts."""

    model_version: str = Field(description="Version of the model, as in `GET /models`.")
    scores: list[TextScore]


class ModelSummary(BaseModel):
    """A model in a list."""

    dataset: str
    version: str = Field(description="First 12 hex digits of the SHA-256 of its file.")
    created_at: datetime = Field(description="When it was trained.")
    is_active: bool = Field(description="Whether it scores texts; one model of a dataset does.")
    activated_at: datetime | None
    decision: str = Field(description="Why it became active, or did not.")
    texts: int = Field(description="Labelled texts that it was trained on.")
    metrics: Measures = Field(description="How good its out-of-fold probabilities are.")


class ModelRead(ModelManifest):
    """A model: its manifest, and whether it is active."""

    is_active: bool
    activated_at: datetime | None


class ModelList(BaseModel):
    """The models of a dataset."""

    items: list[ModelSummary] = Field(description="The newest first.")


class SuspectsParameters(RankedParameters):
    """Which labelled texts are suspects, and which page of them."""

    quality_below: float = Field(
        SUSPECT_BELOW,
        ge=0,
        le=1,
        description="Texts whose label has less `quality` are on the list. A higher value finds more of the wrong "
        "labels, and lists more right ones.",
        examples=[SUSPECT_BELOW],
    )


class Suspect(TextItem):
    """A labelled text whose label is probably wrong."""

    quality: float = Field(description="How likely the label is right by the votes and the model, 0 to 1.")
    reason: str = Field(description="Why it is on the list, in a sentence.")


_SUSPECT = EXAMPLE_ITEM | {
    "label": "non_toxic",
    "votes": {"non_toxic": 1},
    "annotations": 1,
    "agreement": 1.0,
    "quality": 0.06,
    "reason": "1 of 1 annotators say non_toxic; the model, which learnt without this text, gives toxic 94 %.",
}


class SuspectPage(TextPage):
    """A page of suspects, the worst first."""

    model_config = with_example({"items": [_SUSPECT], "next_cursor": EXAMPLE_CURSOR, "version": 91342})

    items: list[Suspect]  # type: ignore[assignment]  # each is a text, too


def no_model(dataset: str) -> Unavailable:
    """Return the refusal of scores before a dataset has a model."""
    detail = f"The dataset {dataset} has no model yet: one is trained when enough texts are labelled."
    return Unavailable(detail, code="no_model", retry_after_seconds=60)


def model_off(dataset: str) -> Unavailable:
    """Return the refusal of scores for a dataset whose settings turn the model off."""
    detail = f"The model of the dataset {dataset} is off: set model.enabled = true in DATASETS_FILE."
    return Unavailable(detail, code="model_off", retry_after_seconds=3600)


def no_such_model() -> NotFound:
    """Return the refusal of a model that does not exist, or that the client must not know of."""
    return NotFound("There is no model of this version.", code="model_not_found")


_MEASURES: dict[str, Any] = {
    "texts": 2000,
    "roc_auc": {"value": 0.961, "low": 0.952, "high": 0.969},
    "average_precision": {"value": 0.957, "low": 0.946, "high": 0.967},
    "f1": {"value": 0.898, "low": 0.885, "high": 0.911},
    "log_loss": {"value": 0.251, "low": 0.232, "high": 0.272},
    "calibration_error": {"value": 0.014, "low": 0.011, "high": 0.024},
}
_DECISION = "Active: the dataset had no model before."
_STATE: dict[str, Any] = {"is_active": True, "activated_at": "2026-11-30T09:00:04.210000Z"}
_MANIFEST = {
    "format": 1,
    "version": EXAMPLE_VERSION,
    "dataset": "toxicity",
    "labels": ["toxic", "non_toxic"],
    "created_at": "2026-11-30T09:00:00.120000Z",
    "data_version": 91342,
    "sha256": {"out_of_fold.parquet": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"},
    "seconds": 6.4,
    "sizes": {
        "texts": 2000,
        "by_label": {"toxic": 900, "non_toxic": 1100},
        "by_source": {"forum": 2000},
        "groups": 1987,
        "disputed": 12,
        "left_out": 0,
        "features": 84210,
    },
    "metrics": {"model": _MEASURES},
    "by_source": {"forum": _MEASURES},
    "reliability": [{"texts": 1200, "probability": 0.97, "right": 0.968}],
    "scores_by_source": {"forum": [700, 150, 100, 60, 40, 40, 60, 100, 150, 600]},
    "compared": None,
    "decision": _DECISION,
    "is_accepted": True,
    **_STATE,
}
_SUMMARY = {name: _MANIFEST[name] for name in ("dataset", "version", "created_at", "decision")} | {
    **_STATE,
    "texts": 2000,
    "metrics": _MEASURES,
}
_DATASET = wrong_parameter("dataset", "unknown_dataset", "dataset 'x' is not one of: toxicity.")

SCORE_BODY = {
    "required": True,
    "content": {"application/json": {"schema": reference(ScoreRequest)}},
}
_SCORES = {
    "model_version": EXAMPLE_VERSION,
    "scores": [{"label": "toxic", "probabilities": {"toxic": 0.94, "non_toxic": 0.06}}],
}
SCORES: Responses = {
    200: answer("The scores.", _SCORES),
    **refusals(
        Malformed("The body is not JSON.", code="malformed_json"),
        TooLarge(f"The body is over {BODY_BYTES} bytes."),
        UnsupportedType("Send the body as Content-Type: application/json."),
        InvalidFields([FieldError("missing", "is required", pointer="/texts")]),
        no_model("toxicity"),
        scope="read",
    ),
}
_HEADERS = {
    "ETag": header("For If-None-Match.", '"9f86d081884c7d659a2feaa0c55ad015"'),
    "Cache-Control": header("Caches must ask again.", "private, no-cache"),
}
_HELD: Responses = {304: {"description": "The client holds this answer already.", "headers": _HEADERS}}
LIST: Responses = {
    200: answer("The models.", {"items": [_SUMMARY]}, headers=_HEADERS),
    **_HELD,
    **refuses(_DATASET),
}
CARD = "text/markdown"
ONE: Responses = {
    200: {
        "description": "The model, or with `Accept: text/markdown` its card.",
        "headers": _HEADERS,
        "content": {
            "application/json": {"example": _MANIFEST},
            CARD: {"schema": {"type": "string"}, "example": "# Model 3f1c9a5be027 of the dataset toxicity\n"},
        },
    },
    **_HELD,
    **refuses(
        no_such_model(),
        wrong_parameter("x", "extra_forbidden", "x is not a parameter of this path."),
    ),
}
SUSPECTS = lists("/suspects")
