"""The datasets that DATASETS_FILE defines."""

import tomllib
from difflib import get_close_matches
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

DEFAULT_DATASET = "toxicity"

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
Redactable = Literal["email", "phone", "card", "token"]

# No name of a dataset in the settings has a hyphen.
_ADJUDICATION = "-adjudication"

# Argilla takes no more options, and 10,000 characters, of which the link to the page needs some.
_MAX_OPTIONS = 500
_MAX_GUIDELINES = 9_700

_TO_ADJUDICATORS = """

---

**For adjudicators.** Annotators did not agree on these texts; `votes`, beside each text, counts what they said.
Your answer decides the label. Judge by the guidelines, not by the votes; discard a text that they do not cover.
"""


class LabelRule(StrEnum):
    """How annotations add up to a label."""

    MAJORITY = "majority"  # what most say
    DAWID_SKENE = "dawid_skene"  # by each annotator's confusion of labels, estimated from all answers
    MACE = "mace"  # by each annotator's share of guesses
    GLAD = "glad"  # by each annotator's ability and each text's difficulty


class UploadOrder(StrEnum):
    """Which pending texts annotators get first."""

    OLDEST = "oldest"  # as received
    NEWEST = "newest"  # the other way round
    UNCERTAIN = "uncertain"  # the `score` of the sender, else of the model, nearest 0.5 first; then the oldest
    MIXED = "mixed"  # half of each batch as `uncertain`, half as `oldest`


class Question(BaseModel):
    """A further question to annotators; never required, and never counted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    title: str = Field(min_length=1, max_length=500)
    description: str | None = Field(None, min_length=1, max_length=1000)
    type: Literal["text", "rating", "span"]
    ratings: tuple[Annotated[int, Field(ge=0, le=10)], ...] = Field(
        (1, 2, 3, 4, 5), min_length=2, max_length=11, description="Of a rating: the numbers to choose from."
    )
    labels: tuple[Name, ...] = Field(
        (), max_length=_MAX_OPTIONS, description="Of a span: what a part of the text may be marked as."
    )

    @model_validator(mode="after")
    def _fits_type(self) -> "Question":
        if self.name == "label":
            raise ValueError("the name label is the label question's own")
        if (self.type == "span") != bool(self.labels):
            raise ValueError("a span needs labels, and nothing else has any")
        if "ratings" in self.model_fields_set and self.type != "rating":
            raise ValueError("only a rating has ratings")
        if len(set(self.labels)) < len(self.labels) or len(set(self.ratings)) < len(self.ratings):
            raise ValueError("names an option twice")
        return self


class ModelInLoop(BaseModel):
    """The classifier that is trained from a dataset's labels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = Field(False, description="Whether a model is trained. `false` also removes its predictions.")
    min_labels: int = Field(100, ge=20, description="Labelled texts of each label before the first training.")
    retrain_after: float = Field(
        0.1,
        gt=0,
        le=10,
        description="New labels before the next training, as a share of those before; at least 200.",
    )


class Dataset(BaseModel):
    """A label set, its guidelines and questions, and how its texts are processed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    labels: tuple[Name, ...] = Field(
        min_length=2, max_length=_MAX_OPTIONS, description="What annotators choose from."
    )
    guidelines: str = Field(
        min_length=1, max_length=_MAX_GUIDELINES, description="What annotators are told, as Markdown."
    )
    question: str = Field(
        "Which label fits the text?",
        min_length=1,
        max_length=500,
        description="The question that the labels answer, as annotators read it.",
    )
    suggestions: Annotated[
        Literal["sender", "model", "hidden"],
        BeforeValidator(lambda value: "sender" if value == "shown" else value),
    ] = Field(
        "sender",
        description="Whose label annotators see as a suggestion, which saves time and biases them.",
    )
    model: ModelInLoop = Field(ModelInLoop(), description="The classifier that is trained from the labels.")
    answers_wanted: int = Field(1, ge=1, description="Submitted annotations that complete a text in Argilla.")
    questions: tuple[Question, ...] = Field((), description="What annotators are asked beside the label.")
    order: UploadOrder = Field(UploadOrder.OLDEST, description="Which pending texts annotators get first.")
    max_open_records: int | None = Field(
        None, ge=1, description="Unanswered records before annotators at most; else MAX_OPEN_RECORDS decides."
    )
    label_rule: LabelRule = Field(LabelRule.MAJORITY, description="How annotations add up to a label.")
    dispute_extra: int = Field(
        0, ge=0, description="Answers of adjudicators that a disputed text is given beside; 0: none."
    )
    upload: bool = Field(True, description="Whether annotators get its texts; `false` for load tests.")
    gold_share: float = Field(
        0, ge=0, le=0.5, description="Share of gold texts among the records that annotators get."
    )
    language: bool = Field(False, description="Whether the language of each text is told.")
    redact: tuple[Redactable, ...] = Field(
        (), description="What is taken out of the texts before they are stored."
    )
    phone_regions: tuple[str, ...] = Field(
        (), description="Countries (ISO 3166, like DE) whose own way to write phone numbers is known; + always is."
    )
    near_duplicates: Literal["off", "link", "ask_once"] = Field(
        "off", description="Whether near twins are linked, and whether annotators are asked for one of them only."
    )
    license: str | None = Field(
        None,
        pattern=r"^[a-z0-9][a-z0-9.-]{0,63}$",
        description="Licence of texts and labels, as the Hugging Face Hub names it; said in snapshots.",
    )
    near_duplicate_similarity: float = Field(
        0.8, ge=0.7, le=1, description="Jaccard similarity from which on two texts are near twins."
    )

    @property
    def enriches(self) -> bool:
        """Whether submissions are changed or added to before they are stored."""
        return self.language or bool(self.redact)

    @property
    def uses_model_scores(self) -> bool:
        """Whether pending texts need the model's score."""
        is_ordered = self.order in {UploadOrder.UNCERTAIN, UploadOrder.MIXED}
        return self.model.enabled and (is_ordered or self.suggestions == "model")

    @property
    def adjudication(self) -> "Dataset":
        """What adjudicators are asked about the disputed texts of this dataset."""
        changes: dict[str, object] = {"answers_wanted": self.dispute_extra, "dispute_extra": 0, "gold_share": 0}
        changes |= {"guidelines": self.guidelines.strip() + _TO_ADJUDICATORS, "model": ModelInLoop()}
        return self.model_copy(update=changes | {"order": UploadOrder.OLDEST, "label_rule": LabelRule.MAJORITY})

    @field_validator("questions")
    @classmethod
    def _names_differ(cls, questions: tuple[Question, ...]) -> tuple[Question, ...]:
        if len({question.name for question in questions}) < len(questions):
            raise ValueError("names a question twice")
        if sum(question.type == "span" for question in questions) > 1:
            raise ValueError("Argilla takes one question of type span for a dataset")
        return questions

    @field_validator("labels")
    @classmethod
    def _differ(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(labels)) < len(labels):
            raise ValueError("names a label twice")
        return labels

    @field_validator("phone_regions")
    @classmethod
    def _known(cls, regions: tuple[str, ...]) -> tuple[str, ...]:
        # Imported for those who set it: programs that need no phone numbers start without.
        from phonenumbers import SUPPORTED_REGIONS

        if unknown := set(regions) - SUPPORTED_REGIONS:
            raise ValueError(f"no country codes of ISO 3166: {', '.join(sorted(unknown))}")
        return regions

    @model_validator(mode="after")
    def _fits_together(self) -> "Dataset":
        if self.dispute_extra and len(self.adjudication.guidelines) > _MAX_GUIDELINES:
            room = _MAX_GUIDELINES - len(_TO_ADJUDICATORS)
            raise ValueError(f"if dispute_extra is set, the guidelines may have {room:,} characters at most")
        if self.suggestions == "model" and not self.model.enabled:
            raise ValueError('suggestions = "model" needs model.enabled = true')
        if self.phone_regions and "phone" not in self.redact:
            raise ValueError('phone_regions is set, but redact does not name "phone"')
        return self


Datasets = dict[Name, Dataset]


def adjudication_of(name: str) -> str:
    """Return the name under which the disputed texts of a dataset are put before adjudicators."""
    return name + _ADJUDICATION


def adjudicated_by(name: str) -> str | None:
    """Return the dataset whose disputed texts this one holds; None when it is not such a one."""
    return name.removesuffix(_ADJUDICATION) if name.endswith(_ADJUDICATION) else None


def list_adjudications(datasets: Datasets) -> list[str]:
    """Return the names under which disputed texts are put before adjudicators."""
    return [adjudication_of(name) for name, each in datasets.items() if each.dispute_extra and each.upload]


def get_definition(name: str, datasets: Datasets) -> Dataset:
    """Return the definition of a dataset, or of the one that holds the disputed texts of a dataset."""
    disputed_in = adjudicated_by(name)
    return datasets[name] if disputed_in is None else datasets[disputed_in].adjudication


def load_datasets(path: Path | None) -> Datasets:
    """Read the datasets that `path` defines, or the shipped default.

    Raises:
        SystemExit: the file is missing, is not TOML, or defines something wrong; names every wrong key.
    """
    file = path or files("core").joinpath("default_datasets.toml")
    try:
        content = file.read_bytes().decode("utf-8-sig")  # Windows' editors begin a file with a mark
    except OSError as error:
        raise SystemExit(f"{file}: cannot be read: {error.strerror}; set DATASETS_FILE.") from error
    except UnicodeDecodeError as error:
        raise SystemExit(f"{file}: is not TOML: it is not UTF-8 ({error.reason} at byte {error.start})") from error
    try:
        datasets = TypeAdapter(Datasets).validate_python(tomllib.loads(content))
    except tomllib.TOMLDecodeError as error:
        raise SystemExit(f"{file}: is not TOML: {error}") from error
    except ValidationError as error:
        raise SystemExit("\n".join(f"{file}: {_describe(wrong)}" for wrong in error.errors())) from error
    if not datasets:
        raise SystemExit(f"{file}: defines no dataset")
    return datasets


_KEY = "[key]"  # Pydantic's word for an error about a name, not about what it names


def _describe(wrong: Any) -> str:
    """Return the path of the key that is wrong, and why."""
    path = ".".join(str(part) for part in wrong["loc"] if part != _KEY)
    match wrong["type"]:
        case "extra_forbidden":
            return f"{path}: {_describe_unknown(wrong['loc'])}"
        case "missing":
            return f"{path}: is required"
        case "string_pattern_mismatch":
            return f"{path}: must be like {wrong['ctx']['pattern']}"
        case "model_type":
            return f"{path}: must be a table"
        case "tuple_type":
            return f"{path}: must be a list"
        case _:
            return f"{path}: {str(wrong['msg']).removeprefix('Value error, ')}"


def _describe_unknown(path: tuple[str | int, ...]) -> str:
    tables: dict[str | int, type[BaseModel]] = {"questions": Question, "model": ModelInLoop}
    known = sorted(tables.get(path[1] if len(path) > 2 else "", Dataset).model_fields)
    close = get_close_matches(str(path[-1]), known, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"there is no such key; {hint}Known are: {', '.join(known)}"


# The metadata by which the page is sorted, upwards.
PAGE_POSITION = "position"


def page_path(argilla_dataset_id: UUID) -> str:
    """Return the path of a dataset's page. Without a sort it shows each user an order of their own, by chance."""
    return f"/dataset/{argilla_dataset_id}/annotation-mode?status=pending&sort=metadata.{PAGE_POSITION}.asc"


def page_url(argilla_url: str, argilla_dataset_id: UUID) -> str:
    """Return the address of a dataset's page in the Argilla at `argilla_url`."""
    return argilla_url.rstrip("/") + page_path(argilla_dataset_id)
