"""Datasets: label sets with their guidelines, defined in a TOML file."""

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError, field_validator

from core.problems import FieldError, InvalidFields

DEFAULT_DATASET = "toxicity"

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,62}$")]


class Dataset(BaseModel):
    """One label set with what annotators are told about it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    labels: Annotated[tuple[Name, ...], Field(min_length=2)]
    guidelines: str = Field(min_length=1)
    answers_wanted: int = Field(1, ge=1, description="Submitted annotations that complete a text in Argilla.")

    @field_validator("labels")
    @classmethod
    def _differ(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(labels)) < len(labels):
            raise ValueError("names a label twice")
        return labels


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
