"""The outcome of the comparison's steps: their requests, and the fate of their texts."""

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from load_testing.reports.summaries import Request, Row, percentiles, read_requests
from load_testing.users.comment_texts import submission


class Sent(NamedTuple):
    """The texts of one run by seed and number: all that were sent, and those with a 2xx."""

    seed: str
    sent: Sequence[int]
    acknowledged: Sequence[int]


class Fate(NamedTuple):
    """Numbers of texts. `stored` is Argilla's part, `in_postgres` version 2's."""

    sent: int
    acknowledged: int
    stored: int
    in_postgres: int
    # Acknowledged, but not in Argilla.
    lost: int
    # Not acknowledged and not in Argilla: gone, unless the client sends them again.
    failed: int
    # Not acknowledged, but in Argilla: a client that sends them again may duplicate them.
    stored_unnoticed: int
    # In Argilla more than once.
    doubled: int


def fate_of(runs: Iterable[Sent], argilla: Collection[str], postgres: Collection[str]) -> Fate:
    """Count the fates of the texts of these runs; `argilla` and `postgres` are all texts in these stores.

    Raises:
        ValueError: an acknowledged number was never sent.
    """
    sent: set[str] = set()
    acknowledged: set[str] = set()
    for run in runs:
        texts = {number: submission(run.seed, number)["text"] for number in run.sent}
        if not texts.keys() >= set(run.acknowledged):
            raise ValueError(f"of the run {run.seed} more was acknowledged than was sent")
        sent.update(texts.values())
        acknowledged.update(texts[number] for number in run.acknowledged)
    times = Counter(text for text in argilla if text in sent)
    stored = times.keys()
    return Fate(
        sent=len(sent),
        acknowledged=len(acknowledged),
        stored=len(stored),
        in_postgres=len(sent.intersection(postgres)),
        lost=len(acknowledged - stored),
        failed=len(sent - acknowledged - stored),
        stored_unnoticed=len(stored - acknowledged),
        doubled=sum(count > 1 for count in times.values()),
    )


_MOST_REASONS = 5
_DETAIL = re.compile(r'status (\d+): \{"detail":"(.*?)("\})?$')


class LoadStep(NamedTuple):
    """A run with one number of users of one kind, on one version."""

    version: str
    kind: str
    users: int
    folder: Path

    @property
    def said(self) -> dict[str, Any]:
        """The run's own record of its texts and its processor time."""
        found: dict[str, Any] = json.loads((self.folder / "run.json").read_text())
        return found

    @property
    def sent(self) -> Sent:
        """The texts that were sent."""
        said = self.said
        return Sent(said["seed"], said["sent"], said["acknowledged"])


def step_row(step: LoadStep) -> Row:
    """Return a step's rate, failures and latencies.

    Latencies are those of correct responses: a failure may be faster. `seconds` ends with the last response.
    """
    requests = read_requests(step.folder)
    answered = [request for request in requests if not request.failure]
    seconds = max((request.at_s + request.latency_ms / 1000 for request in requests), default=0.0)
    found = percentiles([request.latency_ms for request in answered])
    return {
        "version": step.version,
        "kind": step.kind,
        "users": step.users,
        "seconds": round(seconds, 2),
        "requests": len(requests),
        "answered": len(answered),
        "failures": len(requests) - len(answered),
        "answered_per_second": round(len(answered) / seconds, 2) if seconds else 0.0,
        **{f"{name}_ms": found[name] for name in ("p50", "p95", "p99", "max")},
        "generator_cpu": step.said["cpu_share"],
    }


def failure_rows(repeats: Sequence[LoadStep]) -> list[Row]:
    """Return the number of failed requests by reason, the most frequent reasons first, over repeats of a step."""
    failures = [request for step in repeats for request in read_requests(step.folder) if request.failure]
    reasons = Counter(map(reason_of, failures))
    names = {"version": repeats[0].version, "kind": repeats[0].kind, "users": repeats[0].users}
    return [{**names, "reason": reason, "requests": count} for reason, count in reasons.most_common(_MOST_REASONS)]


def reason_of(request: Request) -> str:
    """Return the reason of a failure: status code and detail, if the response has one."""
    if found := _DETAIL.match(request.failure):
        return f"{found[1]} {found[2]}"
    return request.failure
