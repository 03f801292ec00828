"""The work that a separate process does for the uploader (`anyio.to_process`): training and scoring.

The uploader imports this module only, so it starts without scikit-learn and runs without its memory.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from core.classifiers.model_files import ModelFiles, ModelManifest
from core.datasets import Dataset
from core.settings import DatabaseSettings
from core.startup import limited_memory, step_back
from uploader.model.repository import Predicted


@dataclass(frozen=True, slots=True)
class Workplace:
    """What the process needs to work on a dataset's model."""

    dataset: str
    definition: Dataset
    database: DatabaseSettings
    address: str  # of the models' files
    memory_bytes: int
    max_texts: int


@dataclass(frozen=True, slots=True)
class Refreshed:
    """The predictions of labelled texts that have to be written."""

    seen: str  # transactions from this one on may have changed labels that were not read
    rows: list[Predicted]
    labelled: int
    suspects: int  # labels that the model predicts otherwise, and that are rather wrong than right


@dataclass(frozen=True, slots=True)
class Page:
    """The scores of a page of pending texts."""

    rows: list[Predicted]
    last: int | None  # position of the last one; None: there are no more


# Each of the functions raises MemoryError beyond the memory of the settings, OSError when the storage is away,
# BadModel or ForeignModel when the active model is damaged, psycopg.Error when Postgres is away.


def train_model(place: Workplace, active: str | None) -> ModelManifest:
    """Train on all labelled texts, compare with the `active` model, and store the files."""
    with _at_work(place):
        from uploader.model import training

        return training.train_model(place, active)


def refresh_predictions(place: Workplace, version: str) -> Refreshed:
    """Predict the labelled texts that lack a prediction of this model, and score all labels again."""
    with _at_work(place):
        from uploader.model import scoring

        return scoring.refresh_predictions(place, version)


def score_pending(place: Workplace, version: str, after: int) -> Page:
    """Score those of the next pending texts behind a position that lack a score."""
    with _at_work(place):
        from uploader.model import scoring

        return scoring.score_pending(place, version, after)


def measure_drift(place: Workplace, version: str) -> dict[str, float]:
    """Return the PSI of each source of the training: the newest texts' scores against those of the training."""
    with _at_work(place):
        from uploader.model import scoring

        return scoring.measure_drift(place, version)


def remove_models(place: Workplace, versions: Sequence[str]) -> list[str]:
    """Remove the files of models; return those that were there."""
    with _at_work(place):
        return ModelFiles(place.address).remove(place.dataset, versions)


@contextmanager
def _at_work(place: Workplace) -> Iterator[None]:
    """Use one thread, the lowest priority and limited memory."""
    step_back()
    # Before the limit: libraries misreport a lack of memory.
    from botocore.exceptions import BotoCoreError
    from threadpoolctl import threadpool_limits

    import uploader.model.scoring
    import uploader.model.training  # noqa: F401

    try:
        with threadpool_limits(1), limited_memory(place.memory_bytes):
            yield
    except ImportError as error:  # a shared library that does not fit into the memory
        raise MemoryError(f"a library could not be loaded within {place.memory_bytes:,} bytes: {error}") from None
    except BotoCoreError as error:  # not all of them can be sent between processes
        raise OSError(f"the storage of the models does not answer: {type(error).__name__}") from None
