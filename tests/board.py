"""Writes the Grafana dashboard from a list of its panels: `python -m tests.board`."""

import json
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

BOARD = Path(__file__).parents[1] / "monitoring" / "grafana" / "dashboards" / "annotation_platform.json"

_SOURCE = {"type": "prometheus", "uid": "prometheus"}
_WIDTH, _HEIGHT = 8, 7
_ACROSS = 24
# The part of the requests that is not Prometheus' own, or a health check's.
_REAL = 'route!~"/metrics|/healthz|/readyz"'


@dataclass(frozen=True)
class Panel:
    """A diagram over time: queries by the names of their lines."""

    title: str
    unit: str
    queries: dict[str, str]
    description: str = ""


def _quantiles(metric: str, by: str = "", where: str = "") -> dict[str, str]:
    labels = f", {by}" if by else ""
    name = f" {{{{{by}}}}}" if by else ""
    return {
        f"p{share}{name}": f"histogram_quantile(0.{share}, "
        f"sum by (le{labels}) (rate({metric}_bucket{{{where}}}[$__rate_interval])))"
        for share in (50, 95, 99)
    }


def _rate(metric: str, by: str, where: str = "") -> str:
    return f"sum by ({by}) (rate({metric}{{{where}}}[$__rate_interval]))"


_POST = 'job="ingestion", route="/texts", method="POST"'
_GET = 'job="serving", route=~"/texts|/texts/{id}|/.*_texts", method="GET"'
_LOOKUPS = "serving_answer_cache_lookups_total"

ROWS: dict[str, list[Panel]] = {
    "Intake": [
        Panel("Texts taken in", "cps", {"{{outcome}}": _rate("ingestion_submissions_total", "outcome")}),
        Panel("Latency of POST /texts", "s", _quantiles("http_request_seconds", where=_POST)),
        Panel(
            "Waiting for their commit",
            "short",
            {
                "waiting": "sum by (instance) (ingestion_waiting_texts)",
                "limit": "sum by (instance) (ingestion_waiting_limit_texts)",
            },
            "At the limit single texts are refused with 503.",
        ),
        Panel(
            "Imports ended", "short", {"{{outcome}}": "sum by (outcome) (increase(ingestion_imports_total[1h]))"}
        ),
        Panel("Argilla's events", "cps", {"{{outcome}}": _rate("ingestion_webhook_events_total", "outcome")}),
        Panel("Group commit", "s", _quantiles("ingestion_commit_seconds")),
    ],
    "Backlog and uploads": [
        Panel(
            "Backlog",
            "short",
            {
                "pending {{dataset}}": "max by (dataset) (uploader_pending_texts)",
                "open {{dataset}}": "max by (dataset) (uploader_open_records)",
            },
            "Texts that wait for Argilla, and records before annotators that need more answers.",
        ),
        Panel("Oldest pending text", "s", {"{{dataset}}": "max by (dataset) (uploader_oldest_pending_seconds)"}),
        Panel(
            "Uploads",
            "cps",
            {
                "uploaded {{dataset}}": _rate("uploader_uploaded_texts_total", "dataset"),
                "failed {{dataset}} {{reason}}": _rate("uploader_failed_texts_total", "dataset, reason"),
            },
        ),
        Panel(
            "Steps of a batch, p95",
            "s",
            {
                "{{step}}": "histogram_quantile(0.95, "
                "sum by (le, step) (rate(uploader_batch_step_seconds_bucket[$__rate_interval])))"
            },
        ),
        Panel(
            "Blocked jobs",
            "short",
            {
                "{{dataset}} {{task}} {{reason}}": "max by (dataset, task, reason) (uploader_job_stopped) > 0",
                "Argilla does not answer": "1 - min(uploader_argilla_circuit_state"
                '{uploader_argilla_circuit_state="closed"})',
            },
        ),
        Panel(
            "Argilla out of step",
            "short",
            {
                "{{dataset}}": "max by (dataset) "
                "(uploader_count_difference and on (instance, dataset) uploader_leads == 1)"
            },
            "Records and responses by which Argilla's counts and ours differ.",
        ),
    ],
    "Labels": [
        Panel(
            "Texts with new answers",
            "cps",
            {
                "by events {{dataset}}": _rate("uploader_pull_changed_texts_total", "dataset"),
                "by sweeps {{dataset}}": _rate("uploader_sweep_changed_texts_total", "dataset"),
            },
        ),
        Panel(
            "From an answer to its label on :9000",
            "s",
            _quantiles("serving_label_lag_seconds"),
        ),
        Panel(
            "Where labels wait",
            "s",
            {
                "to be read {{dataset}}": "max by (dataset) (uploader_oldest_note_seconds)",
                "for a transaction": "max(serving_feed_held_seconds)",
            },
        ),
    ],
    "Serving": [
        Panel("Replica's age", "s", {"{{instance}}": "serving_replica_age_seconds"}),
        Panel(
            "Requests",
            "reqps",
            {"{{route}}": _rate("http_request_seconds_count", "route", f'job="serving", {_REAL}')},
        ),
        Panel("Latency of pages and texts", "s", _quantiles("http_request_seconds", where=_GET)),
        Panel(
            "Answers from the cache",
            "percentunit",
            {
                "hits": f'sum(rate({_LOOKUPS}{{result="hit"}}[$__rate_interval]))'
                f" / sum(rate({_LOOKUPS}[$__rate_interval]))"
            },
        ),
        Panel("Search index behind", "s", {"{{instance}}": "serving_search_index_behind_seconds"}),
        Panel(
            "Snapshots and exports",
            "short",
            {
                "snapshots {{outcome}}": "sum by (outcome) (increase(serving_snapshots_total[1h]))",
                "exports {{result}}": "sum by (result) (increase(serving_exports_total[1h]))",
            },
            "In an hour.",
        ),
    ],
    "Errors and resources": [
        Panel(
            "Refused and failed requests",
            "reqps",
            {
                "{{job}} {{status}}": _rate(
                    "http_request_seconds_count", "job, status", f'status=~"4..|5..", {_REAL}'
                )
            },
        ),
        Panel(
            "Free disk below DATA_DIR",
            "percentunit",
            {"{{instance}}": "serving_data_free_bytes / serving_data_size_bytes"},
        ),
        Panel("Size of the database", "bytes", {"Postgres": "max(uploader_database_bytes)"}),
    ],
}


def make() -> str:
    """Return the board as Grafana reads it."""
    board = {
        "uid": "annotation-platform",
        "title": "Annotation platform",
        "tags": ["annotation"],
        "schemaVersion": 39,
        "editable": False,
        "timezone": "browser",
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "panels": _panels(),
    }
    return json.dumps(board, indent=1) + "\n"


def _panels() -> list[dict[str, Any]]:
    ids = count(1)
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS.items():
        grid = {"x": 0, "y": y, "w": _ACROSS, "h": 1}
        panels.append(
            {"id": next(ids), "type": "row", "title": title, "collapsed": False, "gridPos": grid, "panels": []}
        )
        y += 1
        for place, panel in enumerate(row):
            x, down = place * _WIDTH % _ACROSS, place * _WIDTH // _ACROSS * _HEIGHT
            panels.append(_panel(next(ids), panel, x, y + down))
        y += -(-len(row) * _WIDTH // _ACROSS) * _HEIGHT
    return panels


def _panel(id_: int, panel: Panel, x: int, y: int) -> dict[str, Any]:
    return {
        "id": id_,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.description,
        "datasource": _SOURCE,
        "gridPos": {"x": x, "y": y, "w": _WIDTH, "h": _HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + number), "datasource": _SOURCE, "expr": query, "legendFormat": name}
            for number, (name, query) in enumerate(panel.queries.items())
        ],
    }


if __name__ == "__main__":
    BOARD.write_text(make())
