"""Options that choose labelled texts, as `GET /texts` has them."""

from typing import Annotated, Any

import typer

Dataset = Annotated[str | None, typer.Option(help="Dataset; else the default one.")]
Label = Annotated[list[str] | None, typer.Option(help="Only this label; may be repeated.")]
Source = Annotated[str | None, typer.Option(help="Only texts from this source.")]
Language = Annotated[str | None, typer.Option(help="Only texts in this language.")]
Status = Annotated[str | None, typer.Option(help="labelled or disputed.")]
Complete = Annotated[
    bool | None, typer.Option("--complete/--incomplete", help="Only texts with, or without, all wanted answers.")
]
Annotator = Annotated[str | None, typer.Option(help="Only texts that this annotator answered.")]
MinAgreement = Annotated[float | None, typer.Option(help="Least agreement, 0 to 1.")]
MinAnnotations = Annotated[int | None, typer.Option(help="Least number of annotations.")]
LabelledAfter = Annotated[str | None, typer.Option(help="Only labels later than this; RFC 3339.")]
LabelledBefore = Annotated[str | None, typer.Option(help="Only labels earlier than this.")]
Search = Annotated[str | None, typer.Option(help="Only texts that hold this.")]

_NAMES = (
    *("dataset", "label", "source", "language", "status", "complete", "annotator", "min_agreement"),
    *("min_annotations", "labelled_after", "labelled_before", "q"),
)


def chosen(context: typer.Context) -> dict[str, Any]:
    """Return the filters that a command was given, by their names in the API."""
    given = {name: context.params[name] for name in _NAMES}
    return {name: value for name, value in given.items() if value is not None and value not in ((), [])}
