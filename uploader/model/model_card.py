"""The card of a model: its manifest for people, as Markdown."""

from collections.abc import Iterator, Mapping

from core.classifiers.model_manifest import Estimate, Measures, ModelManifest

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
