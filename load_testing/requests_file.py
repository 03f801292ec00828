"""Reads what a run has recorded."""

import csv
from pathlib import Path
from typing import NamedTuple


class Request(NamedTuple):
    """One request; `at_s` is when it was sent, or to be sent in the open model, in seconds after the start."""

    at_s: float
    method: str
    name: str
    latency_ms: float
    late_ms: float
    users: int
    failure: str


def read_requests(folder: Path) -> list[Request]:
    """Return the requests of the run that was recorded in this folder."""
    with (folder / "requests.csv").open(newline="") as file:
        rows = csv.reader(file)
        next(rows)
        return [
            Request(float(at), method, name, float(latency), float(late), int(users), failure)
            for at, method, name, latency, late, users, failure in rows
        ]
