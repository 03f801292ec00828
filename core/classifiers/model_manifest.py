"""The manifest of a model, `model.json`: its data, its measures and the decision about it; and its card."""

from collections.abc import Iterator, Mapping
from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

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
