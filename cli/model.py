"""`annotate model` and `annotate suspects`: the models in the loop, and the labels that they doubt."""

from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer
from rich.table import Table
from sqlalchemy import func, select, text, update

from cli import addresses
from cli.console import fail, out, print_json, printable
from cli.people.audit_log import note
from core.audit import Action
from core.classifiers.model_files import KEPT_MODELS, SUSPECT_BELOW, Estimate, Measures, ModelManifest
from core.datasets import DEFAULT_DATASET, Dataset, load_datasets
from core.labels.adjudication import ask_again as ask_adjudicators
from core.models import DatasetRow, Label, LabelStatus, Model, Prediction, Text, TextStatus
from core.settings import DatasetsFileSettings, read_settings

if TYPE_CHECKING:
    from core.classifiers.classifier import Classifier

app = typer.Typer(help="Train, list, show, activate and evaluate the models of a dataset.", no_args_is_help=True)
suspects = typer.Typer(help="Ask again about labels that the model doubts.", no_args_is_help=True)

DatasetOption = Annotated[str, typer.Option(help="Dataset.")]
Version = Annotated[str | None, typer.Argument(help="As `annotate model list` shows it; else the active one.")]
_LEAST_TEXTS = 20
# As the uploader counts: demo texts have made-up labels.
_LABELLED = (
    Label.status == LabelStatus.LABELLED,
    Text.status.not_in((TextStatus.DEMO, TextStatus.FORGOTTEN)),
)
_MEASURES = {
    "ROC AUC": "roc_auc",
    "average precision": "average_precision",
    "F1": "f1",
    "log loss": "log_loss",
    "calibration error": "calibration_error",
}


def _definition(dataset: str) -> Dataset:
    datasets = load_datasets(read_settings(DatasetsFileSettings).datasets_file)
    if dataset not in datasets:
        fail(f"DATASETS_FILE does not define {dataset}: it defines {', '.join(datasets)}.")
    return datasets[dataset]


def _require_on(dataset: str) -> Dataset:
    definition = _definition(dataset)
    if not definition.model.enabled:
        fail(f"The model of {dataset} is off: set model.enabled = true in DATASETS_FILE.")
    return definition


@app.command()
def train(dataset: DatasetOption = DEFAULT_DATASET) -> None:
    """Ask the uploader to train a model now, however few labels are new."""
    definition = _require_on(dataset)
    with addresses.transaction("model") as connection:
        counted = (
            select(Label.label, func.count().label("labelled"))
            .join(Text, Text.id == Label.text_id)
            .where(*_LABELLED, Label.dataset == dataset, Label.label.in_(definition.labels))
        )
        rows = connection.execute(counted.group_by(Label.label)).all()
        counts = dict.fromkeys(definition.labels, 0) | {row.label: row.labelled for row in rows}
        if min(counts.values()) < definition.model.min_labels:
            shown = ", ".join(f"{label}: {count:,}" for label, count in counts.items())
            fail(f"A model needs {definition.model.min_labels:,} texts of each label; there are {shown}.")
        asked = update(DatasetRow).where(DatasetRow.name == dataset).values(model_asked_at=func.now())
        if connection.execute(asked).rowcount == 0:
            fail(f"No uploader has worked on {dataset} yet: it trains when it starts.")
        note(connection, Action.MODEL_ASKED, [dataset])
    out.print("A running uploader trains within a minute or two; `annotate model list` shows the model then.")


@app.command("list")
def list_models(dataset: DatasetOption = DEFAULT_DATASET) -> None:
    """Show the models of a dataset, the newest first, and what was decided about each."""
    models = _read_models(dataset)
    if not models:
        _require_on(dataset)
        out.print(f"{dataset} has no model yet: one is trained when enough texts are labelled.")
        return
    table = Table("version", "trained", "texts", "ROC AUC", "log loss", "active")
    for row, manifest in models:
        measures = manifest.metrics["model"]
        values = ("–" if each is None else f"{each.value:.3f}" for each in (measures.roc_auc, measures.log_loss))
        trained, texts = f"{row.created_at:%Y-%m-%d %H:%M}", f"{manifest.sizes.texts:,}"
        table.add_row(row.version, trained, texts, *values, "yes" if row.is_active else "")
    out.print(table)
    for row, _ in models:
        out.print(f"{row.version}: {printable(row.decision)}", soft_wrap=True)


@app.command()
def show(version: Version = None, dataset: DatasetOption = DEFAULT_DATASET) -> None:
    """Show everything about a model, as JSON."""
    row, manifest = _get_model(dataset, version)
    print_json(manifest.model_dump(mode="json") | {"is_active": row.is_active})


@app.command()
def activate(
    version: Annotated[str, typer.Argument(help="As `annotate model list` shows it.")],
    dataset: DatasetOption = DEFAULT_DATASET,
) -> None:
    """Make a model the active one, whatever was decided about it. The uploader then writes its predictions."""
    _require_on(dataset)
    row, _ = _get_model(dataset, version)
    if row.is_active:
        fail(f"{version} is active already.")
    others = [one.version for one, _ in _read_models(dataset) if not one.is_active]
    if version not in others[:KEPT_MODELS]:
        fail(f"Only the files of the newest {KEPT_MODELS} models are kept, and of the active one: train again.")
    with addresses.transaction("model") as connection:
        models = update(Model).where(Model.dataset == dataset)
        connection.execute(models.where(Model.is_active).values(is_active=False))
        values = {"is_active": True, "activated_at": func.now(), "decision": "Activated by an operator."}
        connection.execute(models.where(Model.version == version).values(values))
        note(connection, Action.MODEL_ACTIVATED, [version], dataset=dataset)
    out.print("A running uploader writes the predictions of this model within minutes.")


@app.command()
def evaluate(version: Version = None, dataset: DatasetOption = DEFAULT_DATASET) -> None:
    """Measure a model on the labels that came after its training: texts that it cannot have seen."""
    row, manifest = _get_model(dataset, version)
    with addresses.transaction("model") as connection:
        query = (
            select(Text.text, Label.label)
            .join(Label, Label.text_id == Text.id)
            .where(
                *_LABELLED,
                Label.dataset == dataset,
                Label.label.in_(manifest.labels),
                Label.labelled_at > row.created_at,
            )
        )
        rows = connection.execute(query).all()
    if len(rows) < _LEAST_TEXTS:
        fail(
            f"{len(rows)} labels came after the training; {_LEAST_TEXTS} are needed. `show` has its own measures."
        )
    measured = _measure(_load(manifest), [r.text for r in rows], [manifest.labels.index(r.label) for r in rows])
    trained = manifest.metrics["model"]
    table = Table("", "when trained", "on new labels")
    table.add_row("texts", f"{trained.texts:,}", f"{measured.texts:,}")
    for name, field in _MEASURES.items():
        table.add_row(name, _shown(getattr(trained, field)), _shown(getattr(measured, field)))
    out.print(table)


def _load(manifest: ModelManifest) -> "Classifier":
    from core.classifiers.classifier import Classifier, ForeignModel
    from core.classifiers.model_files import BadModel, ModelFiles

    try:
        files = ModelFiles(addresses.snapshots())
        return Classifier.load(files.read_model(manifest.dataset, manifest.version))
    except FileNotFoundError:
        fail(f"{addresses.snapshots()} has no such model: set SNAPSHOTS_URL as the uploader has it.")
    except (BadModel, ForeignModel) as error:
        fail(str(error))


def _measure(classifier: "Classifier", texts: list[str], labels: list[int]) -> Measures:
    import numpy as np

    from core.classifiers.measures import measure

    return measure(classifier.probabilities(texts), np.array(labels))


def _read_models(dataset: str) -> list[tuple[Any, ModelManifest]]:
    _definition(dataset)
    query = select(Model.__table__).where(Model.dataset == dataset).order_by(Model.created_at.desc())
    with addresses.transaction("model") as connection:
        return [(row, ModelManifest.model_validate(row.manifest)) for row in connection.execute(query)]


def _get_model(dataset: str, version: str | None) -> tuple[Any, ModelManifest]:
    models = _read_models(dataset)
    found = [one for one in models if (one[0].is_active if version is None else one[0].version == version)]
    if not found:
        fail(f"{dataset} has no model {version}." if version else f"{dataset} has no active model.")
    return found[0]


def _shown(estimate: Estimate | None) -> str:
    return "–" if estimate is None else f"{estimate.value:.3f} ({estimate.low:.3f}–{estimate.high:.3f})"


@suspects.command("ask-again")
def ask_again(
    ids: Annotated[
        list[UUID] | None, typer.Argument(metavar="[ID]...", help="Texts; else the worst ones.")
    ] = None,
    dataset: DatasetOption = DEFAULT_DATASET,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Texts at most, without IDs.")] = 50,
    quality_below: Annotated[float, typer.Option(min=0, max=1, help="Of the label, without IDs.")] = SUSPECT_BELOW,
) -> None:
    """Put suspect texts before adjudicators, whose answer decides. Needs `dispute_extra` in DATASETS_FILE.

    Argilla cannot request more answers to single records, and annotators do not get a record again that they
    answered. So the texts go the way of disputed ones.
    """
    definition = _definition(dataset)
    if not definition.dispute_extra:
        fail(f"{dataset} has no adjudicators: set dispute_extra = 1 in DATASETS_FILE.")
    with addresses.transaction("model") as connection:
        chosen = ids or list(connection.scalars(_worst(dataset, limit, quality_below)))
        asked = ask_adjudicators(connection, dataset, chosen)
        note(connection, Action.SUSPECTS_ASKED, asked, dataset=dataset)
    others = "; the others are there already, or have no label." if len(asked) < len(chosen) else "."
    out.print(f"{len(asked):,} of {len(chosen):,} texts go before the adjudicators{others}")


def _worst(dataset: str, limit: int, quality_below: float) -> Any:
    return (
        select(Prediction.text_id)
        .join(Label, Label.text_id == Prediction.text_id)
        .where(
            Prediction.dataset == dataset,
            Label.status == LabelStatus.LABELLED,
            Prediction.quality_of == Label.label,
            Prediction.label != Label.label,
            Prediction.quality < quality_below,
            text("not exists (select from texts where adjudicates = labels.text_id)"),
        )
        .order_by(Prediction.quality, Prediction.text_id)
        .limit(limit)
    )
