"""The report of the comparison: rows of its steps, the fate of their texts, tables, pictures and an HTML page."""

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from markdown_it import MarkdownIt

from load_testing.reports.plots import (
    BLUE,
    ORANGE,
    STYLES,
    Axis,
    Line,
    band,
    draw,
    note_on_p99,
    offered_line,
    points,
)
from load_testing.reports.summaries import Request, Row, markdown_table, percentiles, read_requests
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
        "generator_cpu": step.said["generator"]["cpu_share"],
    }


def failure_rows(steps: Sequence[LoadStep]) -> list[Row]:
    """Return the failed requests by step and reason, over repeats, with the most frequent reasons of each step."""
    reasons: dict[tuple[str, str, int], Counter[str]] = {}
    for step in steps:
        found = reasons.setdefault((step.version, step.kind, step.users), Counter())
        found.update(reason_of(request) for request in read_requests(step.folder) if request.failure)
    return [
        {"version": version, "kind": kind, "users": users, "reason": reason, "requests": count}
        for (version, kind, users), found in reasons.items()
        for reason, count in found.most_common(_MOST_REASONS)
    ]


def reason_of(request: Request) -> str:
    """Return the reason of a failure: status code and detail, if the response has one."""
    if found := _DETAIL.match(request.failure):
        return f"{found[1]} {found[2]}"
    return request.failure


KINDS = {"ingestion": "POST of single texts", "serving": "GET of 100 or 200 labelled texts"}
_VERSIONS = ("1", "2")
_COLOURS = {"1": ORANGE, "2": BLUE}
_USERS = Axis("users")
_PERCENTILES = ("p50_ms", "p95_ms", "p99_ms")
_TEXTS = {
    "sent": "texts sent",
    "acknowledged": "answered with a 2xx",
    "stored": "in Argilla in the end",
    "in_postgres": "in Postgres in the end",
    "lost": "answered with a 2xx, and not in Argilla",
    "failed": "not answered with a 2xx, and not in Argilla",
    "stored_unnoticed": "not answered with a 2xx, but in Argilla",
    "doubled": "in Argilla twice",
}
_TRIALS = (
    ("acknowledged texts sent once more; in Argilla twice after that", "sent_again", "sent_again_doubled"),
    ("POSTs while Argilla was down; answered with a 2xx", "outage_posts", "outage_posts_answered"),
    ("… in Argilla in the end", "outage_posts", "outage_posts_stored"),
    ("GETs while Argilla was down; answered with a 2xx", "outage_gets", "outage_gets_answered"),
)


def steps_table(rows: Sequence[Row], kind: str) -> str:
    """Return the steps of one kind as a table with both versions, one line for each number of users."""
    head = (
        "| users | answers/s, v1 | v2 | failed, v1 | v2 | p50 ms, v1 | v2 | p95 ms, v1 | v2 | p99 ms, v1 | v2 |\n"
        f"|---:|{'---:|' * 10}"
    )
    table = []
    for pair in zip(*(_of(rows, version, kind) for version in _VERSIONS), strict=True):
        cells = [pair[0]["users"]]
        cells += [f"{row['answered_per_second']:,.1f}" for row in pair]
        cells += [f"{row['failures']:,} of {row['requests']:,}" for row in pair]
        cells += [_number(row[name]) for name in _PERCENTILES for row in pair]
        table.append(cells)
    return markdown_table(head, table)


def failures_table(rows: Sequence[Row]) -> str:
    """Return the reasons of failures, one line each."""
    if not rows:
        return "No request failed.\n"
    head = "| version | users | of | requests | reason |\n|---|---:|---|---:|---|"
    cells = [
        (row["version"], row["users"], row["kind"], f"{row['requests']:,}", f"`{_one_line(row['reason'])}`")
        for row in rows
    ]
    return markdown_table(head, cells)


def texts_table(rows: Sequence[Row]) -> str:
    """Return the fates of the texts, and the results of the trials."""
    pair = [next(row for row in rows if row["version"] == version) for version in _VERSIONS]
    table = [[words, *(f"{row[name]:,}" for row in pair)] for name, words in _TEXTS.items()]
    table[list(_TEXTS).index("in_postgres")][1] = "–"
    table += [[words, *(f"{row[part]} of {row[whole]}" for row in pair)] for words, whole, part in _TRIALS]
    return markdown_table("| | version 1 | version 2 |\n|---|---:|---:|", table)


def pictures(rows: Sequence[Row], think_seconds: float = 0) -> dict[str, str]:
    """Return the pictures as SVG by name; no picture of failures if no request failed."""
    made = {}
    for kind, words in KINDS.items():
        made[f"{kind}_answers"] = _draw_answers(rows, kind, words, think_seconds)
        made[f"{kind}_latency"] = _draw_latency(rows, kind, words)
        failed = {version: _failed(rows, version, kind) for version in _VERSIONS}
        if any(share for points in failed.values() for _, share in points):
            lines = [Line(f"version {v}", points, _COLOURS[v]) for v, points in failed.items()]
            made[f"{kind}_failures"] = draw(f"{words}: failed requests", _USERS, Axis("% of the requests"), lines)
    return made


def _draw_answers(rows: Sequence[Row], kind: str, words: str, think_seconds: float) -> str:
    lines = [_line(rows, v, kind, "answered_per_second", f"version {v}") for v in _VERSIONS]
    most = max((rate for line in lines for _, rate in line.points), default=0)
    lines += offered_line(_of(rows, _VERSIONS[0], kind), think_seconds, most)
    return draw(f"{words}: right answers per second", _USERS, Axis("answers/s"), lines)


def _draw_latency(rows: Sequence[Row], kind: str, words: str) -> str:
    lines, notes = [], []
    for version in _VERSIONS:
        for name, style in STYLES.items():
            lines.append(_line(rows, version, kind, f"{name}_ms", f"v{version} {name}", style))
        if note := note_on_p99(_of(rows, version, kind), "answered"):
            notes.append(f"Version {version}: {note}")
    latency = Axis("milliseconds", logarithmic=True)
    return draw(f"{words}: latency of the right answers", _USERS, latency, lines, "\n".join(notes))


def _of(rows: Sequence[Row], version: str, kind: str) -> list[Row]:
    """Return the steps of one kind on one version, by the number of users."""
    found = [row for row in rows if (row["version"], row["kind"]) == (version, kind)]
    return sorted(found, key=lambda row: row["users"])


def _line(rows: Sequence[Row], version: str, kind: str, name: str, label: str, style: str = "-") -> Line:
    steps = _of(rows, version, kind)
    shown = points(steps, "users", name, "answered")
    return Line(label, shown, _COLOURS[version], style, band(steps, name, "answered"))


def _failed(rows: Sequence[Row], version: str, kind: str) -> list[tuple[float, float]]:
    return [(row["users"], 100 * row["failures"] / max(row["requests"], 1)) for row in _of(rows, version, kind)]


def _number(milliseconds: float | None) -> str:
    if milliseconds is None:
        return "–"
    return f"{milliseconds:,.1f}" if milliseconds < 100 else f"{milliseconds:,.0f}"


def _one_line(reason: str) -> str:
    return " ".join(reason.replace("|", "/").replace("`", "'").split())


def html_page(markdown: str, drawn: dict[str, str]) -> str:
    """Return the tables of `compare.md` and all pictures as one page that needs no other file."""
    parts = [MarkdownIt("js-default").render(markdown), *(svg[svg.index("<svg") :] for svg in drawn.values())]
    head = f"<!doctype html>\n<html lang=en><meta charset=utf-8><title>Version 1 and version 2</title>{_STYLE}\n"
    return head + "\n".join(parts) + "\n</html>\n"


_STYLE = (
    "<style>body{font:15px sans-serif;max-width:60em;margin:2em auto;padding:0 1em}svg{max-width:100%;height:auto}"
    "table{border-collapse:collapse;display:block;overflow-x:auto}th,td{border:1px solid #ccc;padding:.2em .5em}"
    "</style>"
)
