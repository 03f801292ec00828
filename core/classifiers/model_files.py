"""The models of datasets: the manifest, the card for people, and the files, which are stored with the snapshots.

A model is in `models/{dataset}/{version}/` below the address of the snapshots. It is there once its `model.json`
is, which is written last. Models are immutable: one that is there is never written again. Snapshots do not see
them. Only the active model and the newest ones stay; the rows of the others remain in Postgres.
"""

import hashlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

FOLDER = "models"
MANIFEST = "model.json"
MODEL = "model.skops"
OUT_OF_FOLD = "out_of_fold.parquet"
CARD = "README.md"
_OPTIONS: dict[str, dict[str, Any]] = {
    "file": {"auto_mkdir": True},
    "s3": {
        "skip_instance_cache": True,
        "config_kwargs": {"connect_timeout": 5, "read_timeout": 60, "retries": {"max_attempts": 3}},
    },
}

# Of a model: the first hex digits of the SHA-256 of its `model.skops`.
VERSION = r"^[0-9a-f]{12}$"

# A label of less quality is a suspect if the model predicts another label. Measured on 1,000 public comments with
# 5 % of their labels flipped, five seeds: 45 % of the suspects were flipped, and 65 % of the flipped labels were
# suspects. Below 0.5 it was 21 % and 84 %, below 0.2 64 % and 48 %.
SUSPECT_BELOW = 0.3
# Of the models that are not active, the files of the newest stay, so that an operator can activate one of them.
KEPT_MODELS = 10


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Estimate(_Frozen):
    """A measure with its bootstrap 95 % interval."""

    value: float
    low: float
    high: float


class Measures(_Frozen):
    """How good some probabilities are for some labelled texts. Null where the texts do not allow the measure."""

    texts: int = Field(description="Labelled texts that were measured.")
    roc_auc: Estimate | None = Field(None, description="Area under the ROC curve; of several labels, their mean.")
    average_precision: Estimate | None = Field(
        None, description="Average precision; of several labels, their mean."
    )
    f1: Estimate | None = Field(None, description="F1 of the most probable label, mean over the labels.")
    log_loss: Estimate | None = Field(None, description="Mean of -ln of the probability of the right label.")
    calibration_error: Estimate | None = Field(
        None, description="Expected calibration error of the predicted label, ten bins of equal width."
    )


class Bin(_Frozen):
    """One bar of the reliability diagram: texts whose predicted label has a probability within a tenth."""

    texts: int
    probability: float = Field(description="Mean probability of the predicted label.")
    right: float = Field(description="Share of texts where the prediction is the label.")


class Comparison(_Frozen):
    """A model and the one that was active before, on the same texts."""

    version: str = Field(description="The model that was active before.")
    model: Measures
    previous: Measures
    log_loss_difference: Estimate = Field(description="New minus previous; negative: the new one is better.")
    p_worse: float = Field(description="One-sided p-value of the paired bootstrap: small means really worse.")


class Sizes(_Frozen):
    """How much a model was trained on."""

    texts: int
    by_label: dict[str, int]
    by_source: dict[str, int] = Field(description="The 20 largest sources; texts without one are under ``.")
    groups: int = Field(description="Groups of near duplicates; a text without any is a group.")
    disputed: int = Field(description="Disputed texts, which were left out.")
    left_out: int = Field(0, description="The oldest texts beyond MODEL_MAX_TEXTS, which were left out.")
    features: int = Field(description="Words and character sequences in the vocabulary.")


class ModelManifest(_Frozen):
    """All that is known of a model. Out-of-fold probabilities are the base of every measure."""

    format: int = 1
    version: str = Field(pattern=VERSION, description="First 12 hex digits of the SHA-256 of `model.skops`.")
    dataset: str
    labels: tuple[str, ...]
    created_at: datetime = Field(description="When it was trained, UTC.")
    data_version: int = Field(description="Version of the change feed that its labels show.")
    sha256: dict[str, str] = Field(description="Hash of each other file of the model.")
    seconds: float = Field(description="Processor time of the training.")
    sizes: Sizes
    metrics: dict[str, Measures] = Field(
        description="`model`; `majority`, which always predicts the most frequent label; and on the texts with a "
        "claim `senders` and `model_on_claims`."
    )
    by_source: dict[str, Measures] = Field(description="The model, for sources with 50 texts or more.")
    reliability: tuple[Bin, ...] = Field(description="The reliability diagram of the model.")
    scores_by_source: dict[str, tuple[int, ...]] = Field(
        description="Texts by tenth of the probability of the first label: the base of the drift (PSI)."
    )
    compared: Comparison | None = Field(None, description="Null for the first model.")
    decision: str = Field(description="Whether it became active, and why.")
    is_accepted: bool = Field(description="Whether it became active when it was trained.")


_NAMES = {
    "model": "this model",
    "majority": "always the most frequent label",
    "senders": "the senders' claims",
    "model_on_claims": "this model, on the texts with a claim",
}

_HEAD = """# Model {version} of the dataset {dataset}

{decision}

A linear classifier for short texts: TF-IDF of words (1-2) and characters (3-5), logistic regression, calibrated
probabilities. It knows the words of its training texts, and no meaning. It helps to choose and to check labels.
Don't let it decide about people alone.

| | |
|---|---|
| labels | {labels} |
| trained | {created_at:%Y-%m-%d %H:%M} UTC, in {seconds:.0f} s of one core |
| data version | {data_version} of the change feed |
| texts | {texts:,} in {groups:,} groups of near duplicates |
| left out | {disputed:,} disputed texts, {left_out:,} older ones |
| texts by label | {by_label} |
| vocabulary | {features:,} words and character sequences |

## Measures

Out-of-fold: models that did not see a text's label predicted it, with near duplicates in the same fold. In
brackets: bootstrap 95 % intervals. The labels are those of the annotators, with their mistakes.

"""

_COLUMNS = ("texts", "ROC AUC", "average precision", "F1", "log loss", "calibration error")


def write_card(manifest: ModelManifest) -> str:
    """Return the card as Markdown."""
    sizes = manifest.sizes
    head = _HEAD.format(
        **manifest.model_dump(include={"version", "dataset", "decision", "created_at", "seconds", "data_version"}),
        **sizes.model_dump(include={"texts", "groups", "disputed", "left_out", "features"}),
        labels=", ".join(manifest.labels),
        by_label=", ".join(f"{label}: {count:,}" for label, count in sizes.by_label.items()),
    )
    measured = {_NAMES[name]: measures for name, measures in manifest.metrics.items()}
    if manifest.compared is not None:
        measured[f"the model before, {manifest.compared.version}, on the same texts"] = manifest.compared.previous
    parts = [head, *_table("", measured), "\n## By source\n\n", *_table("source", _named(manifest.by_source))]
    parts += ["\n## Reliability\n\n", "| probability | right | texts |\n|---:|---:|---:|\n"]
    parts += [f"| {bar.probability:.3f} | {bar.right:.3f} | {bar.texts:,} |\n" for bar in manifest.reliability]
    return "".join(parts)


def _named(by_source: Mapping[str, Measures]) -> dict[str, Measures]:
    # Senders choose the names: no table cell may end within one.
    return {
        (source.replace("|", "\\|").replace("\n", " ") or "(none)"): each for source, each in by_source.items()
    }


def _table(title: str, measured: Mapping[str, Measures]) -> Iterator[str]:
    if not measured:
        yield "No source has 50 labelled texts.\n"
        return
    yield f"| {title} | {' | '.join(_COLUMNS)} |\n|---|{'---:|' * len(_COLUMNS)}\n"
    for name, each in measured.items():
        values = (each.roc_auc, each.average_precision, each.f1, each.log_loss, each.calibration_error)
        yield f"| {name} | {each.texts:,} | {' | '.join(map(_cell, values))} |\n"


def _cell(estimate: Estimate | None) -> str:
    return "–" if estimate is None else f"{estimate.value:.3f} ({estimate.low:.3f}–{estimate.high:.3f})"


class BadModel(ValueError):
    """The files of a model are damaged, or not those that its manifest names."""


class ModelFiles:
    """The models below one address, which is that of the snapshots: a folder, or `s3://bucket/prefix`.

    Every method raises OSError, or an error of the bucket's client, when the storage does not answer.
    """

    def __init__(self, url: str) -> None:
        # Programs that only read manifests start without it.
        import fsspec

        protocol = url.split("://", 1)[0] if "://" in url else "file"
        self._fs, root = fsspec.core.url_to_fs(url, **_OPTIONS.get(protocol, {}))
        self._root = f"{root}/{FOLDER}"

    def read_manifest(self, dataset: str, version: str) -> ModelManifest:
        """Return a model's manifest.

        Raises:
            FileNotFoundError: there is no such model.
            BadModel: the manifest cannot be read.
        """
        try:
            return ModelManifest.model_validate_json(self._read(dataset, version, MANIFEST))
        except ValidationError as error:
            raise BadModel(f"The manifest of model {version} of {dataset} cannot be read.") from error

    def read_model(self, dataset: str, version: str) -> bytes:
        """Return the bytes of `model.skops`; they have the hash that the version names.

        Raises:
            FileNotFoundError: there is no such model.
            BadModel: the file is damaged.
        """
        content = self._read(dataset, version, MODEL)
        if name_version(content) != version:
            raise BadModel(f"The file of model {version} of {dataset} is damaged.")
        return content

    def read_file(self, manifest: ModelManifest, name: str) -> bytes:
        """Return another file of a model; raises as `read_model` does."""
        content = self._read(manifest.dataset, manifest.version, name)
        if hashlib.sha256(content).hexdigest() != manifest.sha256[name]:
            raise BadModel(f"{name} of model {manifest.version} of {manifest.dataset} is damaged.")
        return content

    def write(self, manifest: ModelManifest, files: Mapping[str, bytes]) -> None:
        """Store a model: its files by name, then its manifest. A model that is there already stays as it is."""
        self._fs.invalidate_cache()
        with suppress(FileNotFoundError, BadModel):
            self.read_manifest(manifest.dataset, manifest.version)
            return
        contents = {**files, MANIFEST: manifest.model_dump_json(indent=2).encode()}
        for name, content in contents.items():
            self._fs.pipe_file(f"{self._root}/{manifest.dataset}/{manifest.version}/{name}", content)

    def remove(self, dataset: str, versions: Collection[str]) -> list[str]:
        """Remove those of the models that are there; return them. One that was removed in part goes, too."""
        self._fs.invalidate_cache()
        with suppress(FileNotFoundError):
            names = {
                path.rstrip("/").split("/")[-1] for path in self._fs.ls(f"{self._root}/{dataset}", detail=False)
            }
            there = sorted(names & set(versions))
            for version in there:
                folder = f"{self._root}/{dataset}/{version}"
                # First the manifest: without it, the rest is no model.
                with suppress(FileNotFoundError):
                    self._fs.rm_file(f"{folder}/{MANIFEST}")
                self._fs.rm(folder, recursive=True)
            return there
        return []

    def _read(self, dataset: str, version: str, name: str) -> bytes:
        return cast(bytes, self._fs.cat_file(f"{self._root}/{dataset}/{version}/{name}"))


def name_version(content: bytes) -> str:
    """Return the version of a model with this `model.skops`."""
    return hashlib.sha256(content).hexdigest()[:12]
