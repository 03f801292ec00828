"""Writes the tables of docs/operations.md from the metrics themselves: `python -m tests.metrics_table`."""

import re
from pathlib import Path

from prometheus_client import REGISTRY
from prometheus_client.metrics import MetricWrapperBase

# What a program imports, with all that it registers.
import ingestion_api.main  # noqa: F401
import serving_api.main  # noqa: F401
import uploader.main  # noqa: F401

PAGE = Path(__file__).parents[1] / "docs" / "operations.md"
START = "<!-- written by python -m tests.metrics_table -->\n"
END = "<!-- end of what is written -->\n"

PROGRAMS = {
    "http": "Every program",
    "ingestion": "Ingestion API",
    "uploader": "Uploader",
    "serving": "Serving API",
}


def metrics() -> dict[str, MetricWrapperBase]:
    """Return all metrics of ours by the names under which they are written; a histogram's without `_bucket`."""
    found = (one for one in REGISTRY._collector_to_names if isinstance(one, MetricWrapperBase))
    named = {f"{one._name}_total" if one._type == "counter" else one._name: one for one in found}
    return {name: one for name, one in sorted(named.items()) if name.split("_")[0] in PROGRAMS}


def tables() -> str:
    """Return a table for each program, with its heading."""
    return "\n".join(f"### {title}\n\n{_table(prefix)}" for prefix, title in PROGRAMS.items())


def _table(prefix: str) -> str:
    rows = ["| metric | kind | labels | meaning |", "|---|---|---|---|"]
    for name, metric in metrics().items():
        if name.startswith(f"{prefix}_"):
            labels = ", ".join(f"`{label}`" for label in metric._labelnames)
            kind = "state" if metric._type == "stateset" else metric._type
            rows.append(f"| `{name}` | {kind} | {labels} | {metric._documentation} |")
    return "\n".join(rows) + "\n"


def page() -> str:
    """Return the page with its tables updated."""
    return re.sub(f"{START}.*?{END}", lambda _: f"{START}\n{tables()}\n{END}", PAGE.read_text(), flags=re.DOTALL)


if __name__ == "__main__":
    PAGE.write_text(page())
