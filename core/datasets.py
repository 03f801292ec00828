"""Datasets: label sets with their guidelines, defined in a TOML file."""

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from core.problems import FieldError, InvalidFields

DEFAULT_DATASET = "toxicity"

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
Redactable = Literal["email", "phone", "card", "token"]


class Dataset(BaseModel):
    """One label set with what annotators are told about it, and what is done with its texts at intake."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    labels: Annotated[tuple[Name, ...], Field(min_length=2)]
    guidelines: str = Field(min_length=1)
    answers_wanted: int = Field(1, ge=1, description="Submitted annotations that complete a text in Argilla.")
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
    near_duplicate_similarity: float = Field(
        0.8, ge=0.7, le=1, description="Jaccard similarity from which on two texts are near twins."
    )

    @property
    def enriches(self) -> bool:
        """Whether submissions are changed or added to before they are stored."""
        return self.language or bool(self.redact)

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
    def _regions_are_used(self) -> "Dataset":
        if self.phone_regions and "phone" not in self.redact:
            raise ValueError('phone_regions is set, but redact does not name "phone"')
        return self


Datasets = dict[Name, Dataset]


def load_datasets(path: Path | None) -> Datasets:
    """Read the datasets that `path` defines, or the shipped default.

    Raises:
        SystemExit: the file is missing, is not TOML, or defines something wrong; says where and what.
    """
    try:
        content = path.read_text() if path else files("core").joinpath("default_datasets.toml").read_text()
        datasets = TypeAdapter(Datasets).validate_python(tomllib.loads(content))
    except OSError as error:
        raise SystemExit(f"DATASETS_FILE {path}: cannot be read: {error.strerror}.") from error
    except tomllib.TOMLDecodeError as error:
        raise SystemExit(f"DATASETS_FILE {path}: is not TOML: {error}.") from error
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise SystemExit(f"DATASETS_FILE {path}: {wrong}.") from error
    if not datasets:
        raise SystemExit(f"DATASETS_FILE {path}: defines no dataset.")
    return datasets


def require_dataset(name: str, datasets: Datasets) -> None:
    """Check the parameter `dataset`.

    Raises:
        InvalidFields: there is no dataset of this name.
    """
    if name not in datasets:
        known = ", ".join(sorted(datasets))
        raise InvalidFields([FieldError("unknown_dataset", f"must be one of: {known}", parameter="dataset")])
