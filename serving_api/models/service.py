"""The models of the datasets: scores by the active one, the list of all, and labels that are probably wrong."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import structlog
from anyio import to_thread

from core.classifiers.classifier import Classifier
from core.classifiers.model_files import BadModel, ModelFiles, ModelManifest, name_version, write_card
from core.datasets import Datasets
from core.models import Decider
from core.text_identity import normalise
from core.web.keys import is_dataset_allowed
from core.web.problems import Unavailable
from serving_api.metrics import MODEL_LOADS
from serving_api.models.schemas import ModelRead, ModelSummary, model_off, no_model, no_such_model
from serving_api.replica.feed import StoredModel
from serving_api.replica.query_pool import FairThreads
from serving_api.replica.replica import Replica
from serving_api.settings import DataSettings, ServingSettings
from serving_api.texts.repository import Row
from serving_api.texts.service import with_members

log = structlog.get_logger()

# Python scores in one thread at a time: a second one only lets short requests pass long ones.
_THREADS = 2
# Between two chunks a thread looks at the time, and other threads run.
_CHUNK_TEXTS = 32
_LOOK_SECONDS = 1.0
_RETRY_SECONDS = 30.0


class Loaded(NamedTuple):
    """A model in memory."""

    version: str
    classifier: Classifier


class Models:
    """The models that the replica knows, of datasets whose model is on; the active ones are in memory."""

    def __init__(
        self, replica: Replica, serving: ServingSettings, data: DataSettings, datasets: Datasets, share: float
    ) -> None:
        """`share`: the part of the queue that one client may take."""
        self._replica = replica
        self._datasets = datasets
        self._seconds = serving.query_seconds
        self._url = data.snapshots_url or str(data.data_dir / "snapshots")
        self._copies = data.replica_path.parent / "models"
        self._threads = FairThreads("scores", _THREADS, serving.query_queue, share)
        self._loaded: dict[str, Loaded] = {}
        self._retry_at: dict[str, float] = {}  # by version, of files that could not be loaded

    def list_models(self, dataset: str) -> list[ModelSummary]:
        """Return a dataset's models, the newest first."""
        return [_summary(model) for model in self._known() if model.dataset == dataset]

    def get_model(self, version: str) -> ModelRead:
        """Return a model.

        Raises:
            NotFound: there is none of this version, or the request's key may not use its dataset.
        """
        return _read(self._find(version))

    def card(self, version: str) -> str:
        """Return a model's card, as Markdown.

        Raises:
            NotFound: as `get_model`.
        """
        return write_card(_manifest(self._find(version).manifest))

    async def score(self, dataset: str, texts: Sequence[str]) -> tuple[str, list[dict[str, float]]]:
        """Return the version of the dataset's active model, and the probabilities of the labels for each text.

        Raises:
            Unavailable: there is no model, it is being loaded, too many requests wait, or it took too long.
            ShareExceeded: this client has too many requests in the queue.
        """
        loaded = self._loaded.get(dataset)
        if loaded is None:
            raise self._why_not(dataset)
        until = time.monotonic() + self._seconds
        try:
            async with asyncio.timeout(self._seconds):
                found = await self._threads.run(lambda: _score(loaded.classifier, texts, until))
        except TimeoutError as error:
            detail = f"Scoring took more than {self._seconds:g} s: send fewer texts at once."
            raise Unavailable(detail, code="query_timeout", retry_after_seconds=5) from error
        return loaded.version, found

    async def follow(self) -> None:
        """Load the model of each dataset that becomes active; never ends."""
        while True:
            await self.load_active()
            await asyncio.sleep(_LOOK_SECONDS)

    async def load_active(self) -> None:
        """Load what has become active, in a thread; until then, and if it fails, the model before scores."""
        active = {model.dataset: model.version for model in self._known() if model.is_active}
        for dataset in self._loaded.keys() - active.keys():
            del self._loaded[dataset]
        for dataset, version in active.items():
            is_loaded = dataset in self._loaded and self._loaded[dataset].version == version
            if is_loaded or time.monotonic() < self._retry_at.get(version, 0):
                continue
            try:
                classifier = await to_thread.run_sync(self._load, dataset, version)
            except Exception as error:  # noqa: BLE001 - retry after any error, of the storage or of the file
                MODEL_LOADS.labels("failed").inc()
                log.warning("model.not_loaded", dataset=dataset, version=version, error=str(error))
                self._retry_at[version] = time.monotonic() + _RETRY_SECONDS
            else:
                MODEL_LOADS.labels("loaded").inc()
                log.info("model.loaded", dataset=dataset, version=version)
                self._loaded[dataset] = Loaded(version, classifier)

    def close(self) -> None:
        """Stop the threads after what they score now."""
        self._threads.close(wait_for_all=False)

    def _known(self) -> list[StoredModel]:
        """Return the models of the datasets whose model is on, the newest first."""
        on = {name for name, definition in self._datasets.items() if definition.model.enabled}
        return [model for model in self._replica.models if model.dataset in on]

    def _find(self, version: str) -> StoredModel:
        found = (m for m in self._known() if m.version == version and is_dataset_allowed(m.dataset))
        model = next(found, None)
        if model is None:
            raise no_such_model()
        return model

    def _why_not(self, dataset: str) -> Unavailable:
        if not self._datasets[dataset].model.enabled:
            return model_off(dataset)
        self._replica.loaded()  # else that is the reason
        if any(model.dataset == dataset and model.is_active for model in self._known()):
            detail = f"The model of the dataset {dataset} is being loaded; if that fails, the log says why."
            return Unavailable(detail, code="model_loading", retry_after_seconds=2)
        return no_model(dataset)

    def _load(self, dataset: str, version: str) -> Classifier:
        """Read a model's file; a copy of one from a bucket is kept, for a start while the network is down."""
        copy = self._copies / f"{version}.skops"
        content = b""
        with suppress(FileNotFoundError):
            content = copy.read_bytes()
        if name_version(content) != version:
            content = ModelFiles(self._url).read_model(dataset, version)
            if "://" in self._url:
                _keep(copy, content)
        classifier = Classifier.load(content)
        if set(classifier.labels) != set(self._datasets[dataset].labels):
            raise BadModel(f"The model has the labels {classifier.labels}.")
        return classifier


def _keep(copy: Path, content: bytes) -> None:
    copy.parent.mkdir(parents=True, exist_ok=True)
    unfinished = copy.with_suffix(f".{time.monotonic_ns()}")
    unfinished.write_bytes(content)
    unfinished.replace(copy)


def _score(classifier: Classifier, texts: Sequence[str], until: float) -> list[dict[str, float]]:
    found: list[dict[str, float]] = []
    for start in range(0, len(texts), _CHUNK_TEXTS):
        if time.monotonic() > until:
            raise TimeoutError
        rows = classifier.probabilities([normalise(text) for text in texts[start : start + _CHUNK_TEXTS]])
        found += [dict(zip(classifier.labels, row, strict=True)) for row in rows.round(6).tolist()]
    return found


@lru_cache(1000)
def _manifest(content: str) -> ModelManifest:
    return ModelManifest.model_validate_json(content)


def _read(model: StoredModel) -> ModelRead:
    # DuckDB has no time zones: its timestamps are UTC.
    activated_at = model.activated_at and model.activated_at.replace(tzinfo=UTC)
    state: dict[str, Any] = {"is_active": model.is_active, "activated_at": activated_at}
    if model.decision:
        state["decision"] = model.decision
    return ModelRead(**_manifest(model.manifest).model_dump() | state)


def _summary(model: StoredModel) -> ModelSummary:
    manifest = _read(model)
    shown = manifest.model_dump(
        include={"dataset", "version", "created_at", "is_active", "activated_at", "decision"}
    )
    return ModelSummary(**shown, texts=manifest.sizes.texts, metrics=manifest.metrics["model"])


def render_suspect(row: Row) -> str:
    """Return the JSON of a text whose label is probably wrong, with the reason in a sentence."""
    item = orjson.loads(row["document"])
    said = f"{item['votes'].get(item['label'], 0)} of {item['annotations']} annotators say {item['label']}"
    if item["decided_by"] == Decider.ADJUDICATORS:
        said = f"Adjudicators decided {item['label']}"
    probability = f"{item['predicted_probability']:.0%}".replace("%", " %")
    model = f"the model, which learnt without this text, gives {item['predicted_label']} {probability}."
    return with_members(row["document"], {"quality": row["quality"], "reason": f"{said}; {model}"})
