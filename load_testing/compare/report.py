"""What the comparison shows: tables in Markdown, and pictures, both from the rows of its CSV files."""

from collections.abc import Sequence

from load_testing.compare.results import Row
from load_testing.reports.svg import Axis, plot

KINDS = {"ingestion": "POST of single texts", "serving": "GET of 100 or 200 labelled texts"}
_VERSIONS = ("1", "2")
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
    """Return one kind's steps, version 1 beside version 2, a line for each number of users."""
    lines = [
        "| users | answers/s, v1 | v2 | failed, v1 | v2 | p50 ms, v1 | v2 | p95 ms, v1 | v2 | p99 ms, v1 | v2 |",
        "|---:|" + "---:|" * 10,
    ]
    for users in _levels(rows, kind):
        pair = [_row(rows, version, kind, users) for version in _VERSIONS]
        cells = [f"{row['answered_per_second']:,.1f}" for row in pair]
        cells += [f"{row['failures']:,} of {row['requests']:,}" for row in pair]
        cells += [_number(row[name]) for name in _PERCENTILES for row in pair]
        lines.append(f"| {users} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def failures_table(rows: Sequence[Row]) -> str:
    """Return why requests failed, a line for each reason."""
    if not rows:
        return "No request failed.\n"
    lines = ["| version | users | of | requests | reason |", "|---|---:|---|---:|---|"]
    lines += [
        f"| {r['version']} | {r['users']} | {r['kind']} | {r['requests']:,} | `{_one_line(r['reason'])}` |"
        for r in rows
    ]
    return "\n".join(lines) + "\n"


def texts_table(rows: Sequence[Row]) -> str:
    """Return what became of the texts, and what the trials showed."""
    pair = [next(row for row in rows if row["version"] == version) for version in _VERSIONS]
    lines = ["| | version 1 | version 2 |", "|---|---:|---:|"]
    for name, words in _TEXTS.items():
        cells = [f"{row[name]:,}" for row in pair]
        if name == "in_postgres":
            cells[0] = "–"
        lines.append(f"| {words} | {' | '.join(cells)} |")
    for words, whole, part in _TRIALS:
        lines.append(f"| {words} | {' | '.join(f'{row[part]} of {row[whole]}' for row in pair)} |")
    return "\n".join(lines) + "\n"


def pictures(rows: Sequence[Row]) -> dict[str, str]:
    """Return the pictures as SVG, by their names."""
    made = {}
    for kind, words in KINDS.items():
        users = Axis("users")
        made[f"{kind}_answers"] = plot(
            f"{words}: right answers a second",
            users,
            Axis("answers a second"),
            {f"version {v}": _line(rows, v, kind, "answered_per_second") for v in _VERSIONS},
        )
        made[f"{kind}_latency"] = plot(
            f"{words}: latency of the right answers",
            users,
            Axis("milliseconds", logarithmic=True),
            {f"v{v}, {p.removesuffix('_ms')}": _line(rows, v, kind, p) for v in _VERSIONS for p in _PERCENTILES},
        )
        made[f"{kind}_failures"] = plot(
            f"{words}: failed requests",
            users,
            Axis("% of the requests"),
            {f"version {v}": _failed(rows, v, kind) for v in _VERSIONS},
        )
    return made


def _levels(rows: Sequence[Row], kind: str) -> list[int]:
    return sorted({row["users"] for row in rows if row["kind"] == kind})


def _row(rows: Sequence[Row], version: str, kind: str, users: int) -> Row:
    return next(r for r in rows if (r["version"], r["kind"], r["users"]) == (version, kind, users))


def _of(rows: Sequence[Row], version: str, kind: str) -> list[Row]:
    return [_row(rows, version, kind, users) for users in _levels(rows, kind)]


def _line(rows: Sequence[Row], version: str, kind: str, name: str) -> list[tuple[float, float]]:
    # A step without a right answer has no latency: a gap.
    return [(row["users"], row[name]) for row in _of(rows, version, kind) if row[name] is not None]


def _failed(rows: Sequence[Row], version: str, kind: str) -> list[tuple[float, float]]:
    return [(row["users"], 100 * row["failures"] / max(row["requests"], 1)) for row in _of(rows, version, kind)]


def _number(milliseconds: float | None) -> str:
    if milliseconds is None:
        return "–"
    return f"{milliseconds:,.1f}" if milliseconds < 100 else f"{milliseconds:,.0f}"


def _one_line(reason: str) -> str:
    return " ".join(reason.replace("|", "/").replace("`", "'").split())
