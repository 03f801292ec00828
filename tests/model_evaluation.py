"""Measures the model in the loop: `python -m tests.model_evaluation NAME FILE.csv TEXT_COLUMN LABEL_COLUMN=WORD`.

Prints learning curves (uncertain-first against oldest-first), how many flipped labels are found, and the speed.
Draws the curves into docs/pictures. docs/model.md has the results. Without a file the texts are simulated.
"""

import csv
import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
from cleanlab.filter import find_label_issues
from sklearn.metrics import f1_score
from threadpoolctl import threadpool_limits

from core.classifiers.model_files import SUSPECT_BELOW
from load_testing.reports.plots import BLUE, GREY, Axis, Line, draw
from tests.unit.simulated_comments import LABELS, simulate_comments
from uploader.model.scoring import score_labels
from uploader.model.training import LabelledTexts, train

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
SEEDS = (1, 2, 3)
_POOL, _TESTED = 5_000, 2_000
_STEPS = (100, 200, 300, 400, 500, 600, 800, 1_000, 1_300, 1_600, 2_000, 2_500, 3_000)
_FLIPPED = 0.05
_FIRST = 100

Array = np.ndarray[Any, Any]
Curve = dict[int, float]


def read(path: str, text: str, condition: str) -> tuple[list[str], Array]:
    """Return the different texts of a CSV file, and 1 where a column has a value: `column=value`."""
    column, _, value = condition.partition("=")
    with Path(path).open(newline="", encoding="utf-8") as file:
        rows = {row[text]: int(row[column] == value) for row in csv.DictReader(file)}
    return list(rows), np.array(list(rows.values()))


def simulate() -> tuple[list[str], Array]:
    """Return simulated comments, of which every tenth is toxic."""
    comments = simulate_comments(40_000, seed=1)
    toxic = [one.text for one in comments if one.label == LABELS[0]][:800]
    others = [one.text for one in comments if one.label != LABELS[0]][:7_200]
    return [*toxic, *others], np.array([1] * len(toxic) + [0] * len(others))


def _data(texts: Sequence[str], labels: Array) -> LabelledTexts:
    return LabelledTexts(("no", "yes"), [UUID(int=at) for at in range(len(texts))], texts, labels)


def learn(texts: list[str], labels: Array, seed: int, *, uncertain_first: bool) -> Curve:
    """Return the macro F1 on unseen texts by the number of labels, in one of the two orders.

    Texts arrive in random order. The first labels are the oldest texts' in both orders.
    """
    order = np.random.default_rng(seed).permutation(len(texts))
    tested = order[: min(_TESTED, len(texts) * 3 // 10)]
    waiting = list(order[len(tested) : len(tested) + _POOL])
    labelled: list[int] = []
    curve: Curve = {}
    classifier = None
    for count in [step for step in _STEPS if step <= len(waiting)]:
        if uncertain_first and classifier is not None:
            scores = classifier.probabilities([texts[at] for at in waiting])[:, 1]
            waiting = [waiting[at] for at in np.argsort(np.abs(scores - 0.5), kind="stable")]
        taken = count - len(labelled)
        labelled, waiting = [*labelled, *waiting[:taken]], waiting[taken:]
        # As the platform trains: by id.
        chosen = sorted(labelled)
        classifier = train(_data([texts[at] for at in chosen], labels[chosen])).classifier
        predicted = classifier.probabilities([texts[at] for at in tested]).argmax(axis=1)
        curve[count] = float(f1_score(labels[tested], predicted, average="macro"))
    return curve


def find_flipped(texts: list[str], labels: Array, seed: int) -> dict[str, float]:
    """Return precision and recall for 5 % labels that were flipped at random, beside cleanlab's own list."""
    generator = np.random.default_rng(seed)
    chosen = generator.permutation(len(texts))[:_POOL]
    given = labels[chosen].copy()
    flipped = generator.random(len(given)) < _FLIPPED
    given[flipped] = 1 - given[flipped]
    data = _data([texts[at] for at in chosen], given)
    probabilities = train(data).probabilities
    quality = score_labels(data.ids, given, probabilities, {})
    worst = np.argsort(quality, kind="stable")[:_FIRST]
    suspects = (probabilities.argmax(axis=1) != given) & (quality < SUSPECT_BELOW)
    theirs = find_label_issues(given, probabilities, return_indices_ranked_by="self_confidence", n_jobs=1)
    return {
        "texts": len(given),
        "flipped": int(flipped.sum()),
        "precision_first_100": float(flipped[worst].mean()),
        "suspects": int(suspects.sum()),
        "suspects_precision": float(flipped[suspects].mean()),
        "suspects_recall": float((flipped & suspects).sum() / flipped.sum()),
        "cleanlab_issues": len(theirs),
        "cleanlab_precision_first_100": float(flipped[theirs[:_FIRST]].mean()),
        "cleanlab_precision": float(flipped[theirs].mean()),
        "cleanlab_recall": float(flipped[theirs].sum() / flipped.sum()),
    }


def measure_speed(texts: list[str], labels: Array) -> dict[str, float]:
    """Return seconds of one core to train on 20,000 texts, how fast they are scored, and peak memory in bytes."""
    chosen = np.arange(20_000) % len(texts)
    # Repeated texts differ: the same ones would be near duplicates.
    made = [f"{texts[at]} {number}" for number, at in enumerate(chosen)]
    began = time.process_time()
    trained = train(_data(made, labels[chosen]))
    seconds = time.process_time() - began
    began = time.process_time()
    trained.classifier.probabilities(made[:5_000])
    rate = 5_000 / (time.process_time() - began)
    singly = []
    for text in made[:1_000]:
        began = time.process_time()
        trained.classifier.probabilities([text])
        singly.append(time.process_time() - began)
    return {
        "training_seconds": round(seconds, 1),
        "texts_per_second": round(rate),
        "one_text_ms_median": round(1000 * float(np.median(singly)), 2),
        "file_bytes": len(trained.classifier.save()),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "characters_per_text": round(float(np.mean([len(text) for text in made]))),
    }


def draw_curves(name: str, curves: dict[str, list[Curve]]) -> str:
    """Return the picture: the mean of the seeds, and the band between the worst and the best."""
    lines = []
    for (label, repeats), colour in zip(curves.items(), (BLUE, GREY), strict=True):
        counts = sorted(repeats[0])
        values = [[curve[count] for curve in repeats] for count in counts]
        points = [(count, float(np.mean(each))) for count, each in zip(counts, values, strict=True)]
        band = [(count, min(each), max(each)) for count, each in zip(counts, values, strict=True)]
        lines.append(Line(label, points, colour, band=band))
    note = f"{name}: mean of {len(SEEDS)} seeds, from the worst to the best."
    return draw("Macro F1 by the number of labels", Axis("labels"), Axis("macro F1"), lines, note)


def main(arguments: Sequence[str]) -> None:
    """Measure, print, draw."""
    name, *rest = arguments
    texts, labels = read(*rest) if rest else simulate()
    orders: dict[str, Callable[[int], Curve]] = {
        "uncertain first": lambda seed: learn(texts, labels, seed, uncertain_first=True),
        "oldest first": lambda seed: learn(texts, labels, seed, uncertain_first=False),
    }
    curves = {order: [compute(seed) for seed in SEEDS] for order, compute in orders.items()}
    slug = name.replace(" ", "-")
    (PICTURES / f"learning-{slug}.svg").write_text(draw_curves(name, curves))
    means = {o: {n: round(float(np.mean([c[n] for c in cs])), 3) for n in cs[0]} for o, cs in curves.items()}
    found = {"texts": len(texts), "share": round(float(labels.mean()), 3), "macro_f1": means}
    print(json.dumps(found), flush=True)  # noqa: T201 - for people
    print(json.dumps([find_flipped(texts, labels, seed) for seed in SEEDS]), flush=True)  # noqa: T201
    print(json.dumps(measure_speed(texts, labels)), flush=True)  # noqa: T201


if __name__ == "__main__":
    with threadpool_limits(1):
        main(sys.argv[1:])
