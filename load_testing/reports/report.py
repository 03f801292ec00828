"""The report of a load test: `report.json`, the tables as CSV, and the pictures."""

import json
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from load_testing.reports import plots, summaries
from load_testing.reports.summaries import (
    SHARES,
    Request,
    Row,
    find_knee,
    percentiles,
    read_requests,
    write_rows,
)
from load_testing.targets import CoreSample

# The generator runs in one thread. Above this share of a core its own delays distort the figures.
BUSY_SHARE = 0.8
_MOST_REASONS = 20
_SPREAD_OF = ("per_second", "p50_ms", "p95_ms", "p99_ms")


@dataclass(frozen=True)
class Run:
    """One run of Locust that has ended."""

    model: str
    repeat: int
    folder: Path
    said: dict[str, Any]
    requests: list[Request]

    @property
    def per_second(self) -> float:
        """Requests a second over the whole run."""
        return round(len(self.requests) / summaries.duration(self.requests), 2)


def read_run(model: str, repeat: int, folder: Path) -> Run:
    """Read the files of a run from its folder.

    Raises:
        FileNotFoundError: the run did not finish.
    """
    said = json.loads((folder / "run.json").read_text())
    return Run(model, repeat, folder, said, read_requests(folder))


def write_report(folder: Path, settings: dict[str, Any], runs: Sequence[Run]) -> dict[str, Any]:
    """Write all files into the folder, and return the content of `report.json`."""
    models = {model: [run for run in runs if run.model == model] for model in ("closed", "open")}
    pooled = {model: _one_after_the_other(group) for model, group in models.items() if group}
    served = {model: summaries.without_refused(requests) for model, requests in pooled.items()}
    names = [{"model": r.model, "repeat": r.repeat, **row} for r in runs for row in summaries.by_name(r.requests)]
    seconds = {model: summaries.by_second(requests) for model, requests in pooled.items()}
    levels = [row for run in models["closed"] for row in summaries.by_users(run.requests)]
    users = sorted(summaries.merge_repeats(levels, ["users"]), key=lambda row: row["users"])
    write_rows(folder / "by_name.csv", names)
    write_rows(folder / "by_users.csv", users)
    write_rows(folder / "by_second.csv", [{"model": m, **row} for m, rows in seconds.items() for row in rows])
    latencies = {model: [request.latency_ms for request in requests] for model, requests in served.items()}
    pictures = {
        "latency_by_second": plots.latency_by_second(seconds),
        "latency_by_percentile": plots.latency_by_percentile(latencies),
    }
    if users:
        pictures["latency_by_users"] = plots.latency_by_users(users)
        pictures["throughput_by_users"] = plots.throughput_by_users(users, settings.get("think_seconds", 0))
    for name, picture in pictures.items():
        (folder / f"{name}.svg").write_text(picture)
    report = {
        "settings": settings,
        "problems": [f"{r.model}, repeat {r.repeat}: {problem}" for r in runs for problem in r.said["problems"]],
        "runs": [_told(run) for run in runs],
        "spread": {model: _spread(group) for model, group in models.items() if group},
        "coordinated_omission": _omission(served) if len(served) > 1 else None,
        "knee_users": find_knee([(row["users"], row["per_second"]) for row in users])
        if settings["shape"] == "steps"
        else None,
    }
    (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    return report


def core_shares(samples: Sequence[CoreSample], run: Run) -> list[Row]:
    """Return the cores of each part while a run sent requests, without its look-up; none if the run was short."""
    generator = run.said["generator"]
    end = (run.folder / "requests.csv").stat().st_mtime
    inside = [sample for sample in samples if end - generator["wall_seconds"] <= sample.at <= end]
    if len(inside) < 2:
        return []
    first, last = inside[0], inside[-1]
    passed = last.at - first.at
    parts = {name: (last.seconds[name] - first.seconds[name]) / passed for name in first.seconds}
    parts["load generator"] = generator["cpu_share"]
    rows = [{"part": name, "cores": round(cores, 2)} for name, cores in parts.items()]
    return sorted(rows, key=lambda row: -row["cores"])


def _one_after_the_other(runs: Sequence[Run]) -> list[Request]:
    """Return the requests of several runs; each run starts in the second after the previous one."""
    pooled: list[Request] = []
    start = 0
    for run in runs:
        pooled += [request._replace(at_s=request.at_s + start) for request in run.requests]
        start = int(max((request.at_s for request in pooled), default=0)) + 1
    return pooled


def _told(run: Run) -> dict[str, Any]:
    busy = run.said["generator"]["cpu_share"] > BUSY_SHARE
    lateness = percentiles([request.late_ms for request in run.requests])
    reasons = Counter(request.failure for request in run.requests if request.failure)
    return {
        "model": run.model,
        "repeat": run.repeat,
        "folder": run.folder.name,
        **{name: value for name, value in run.said.items() if name != "generator"},
        "generator": run.said["generator"] | {"too_busy": busy},
        "late_ms": lateness if run.model == "open" else None,
        "by_name": summaries.by_name(run.requests),
        "failures_by_reason": dict(reasons.most_common(_MOST_REASONS)),
    }


def _spread(runs: Sequence[Run]) -> dict[str, dict[str, dict[str, float]]]:
    """Return median, minimum and maximum of the repeats for each kind of request."""
    found = [{row["name"]: row for row in summaries.by_name(run.requests)} for run in runs]
    names = {name for rows in found for name in rows}
    return {
        name: {column: _range([rows[name][column] for rows in found if name in rows]) for column in _SPREAD_OF}
        for name in sorted(names)
    }


def _range(found: Sequence[float | None]) -> dict[str, float]:
    # The API may have refused all requests of a kind.
    values = [value for value in found if value is not None] or [0.0]
    return {"median": round(statistics.median(values), 3), "min": min(values), "max": max(values)}


def _omission(served: dict[str, list[Request]]) -> dict[str, Any]:
    """Compare the percentiles of both models: the difference is hidden while clients wait."""
    closed = percentiles([request.latency_ms for request in served["closed"]])
    opened = percentiles([request.latency_ms for request in served["open"]])
    sent = percentiles([request.latency_ms - request.late_ms for request in served["open"]])
    return {
        name: {
            "closed_ms": closed[name],
            "open_ms": opened[name],
            "open_from_sending_ms": sent[name],
            "error_ms": _difference(opened[name], closed[name]),
        }
        for name in SHARES
    }


def _difference(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else round(one - other, 3)
