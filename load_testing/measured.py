"""`python -m load_testing.measured`: copies the newest results to measured/ and writes README.md's figures."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from load_testing.compare import report
from load_testing.reports import plots
from load_testing.reports.summaries import Row, find_knee, markdown_table, merge_repeats, read_rows

_SIZES = (100_000, 1_000_000, 10_000_000)
_PAUSE_OF_AN_ANNOTATOR_SECONDS = 5
_GIB = 2**30
_USERS_IN_THE_README = 50


def steps_rows(measured: Path) -> list[Row]:
    """Return the steps of the comparison."""
    return read_rows(measured / "compare" / "steps.csv")


def _compare_conditions(measured: Path) -> str:
    said = read_json(measured / "compare" / "settings.json")
    busiest = max(float(row.get("generator_cpu_most") or row["generator_cpu"]) for row in steps_rows(measured))
    repeats = said.get("repeats", 1)
    times = f"{said['seconds']} s a step" + (f", medians of {repeats} repeats" if repeats > 1 else "")
    return (
        f"{said['processors']} processors ({said['machine']}), shared by the servers and the load generator; "
        f"load average before the run {said['load_average_before']}. {times}; each user pauses "
        f"{said['think_seconds']} s on average between two requests. At most the generator took {busiest:.2f} of "
        f"a core. The run took {said['took_seconds']} s.\n"
    )


def _steps_of(kind: str) -> Callable[[Path], str]:
    return lambda measured: report.steps_table(steps_rows(measured), kind)


def _failures(measured: Path) -> str:
    return report.failures_table(read_rows(measured / "compare" / "failures.csv"))


def _texts(measured: Path) -> str:
    return report.texts_table(read_rows(measured / "compare" / "texts.csv"))


def _versions(measured: Path) -> str:
    """Return a table of both versions with 50 users, for the project's README."""
    rows = {
        (row["kind"], row["version"]): row for row in steps_rows(measured) if row["users"] == _USERS_IN_THE_README
    }
    posts, gets = ([rows[kind, version] for version in ("1", "2")] for kind in ("ingestion", "serving"))
    table = [
        ("POSTs that failed", *(f"{row['failures'] / row['requests']:.0%}" for row in posts)),
        ("texts accepted per second", *(f"{row['answered_per_second']:,.1f}" for row in posts)),
        ("reading 100 labelled texts, p50", *(_ms(row["p50_ms"]) for row in gets)),
        ("reading 100 labelled texts, p99", *(_ms(row["p99_ms"]) for row in gets)),
    ]
    return markdown_table("| | version 1 | version 2 |\n|---|---:|---:|", table)


def _page(measured: Path) -> str:
    figure = _sizing(measured)
    return (
        f"With {figure['many_texts']:,.0f} labelled texts, version 2 returns the newest 100 of a filter in "
        f"{figure['page_p50_ms']:.1f} ms (p50, one client, nothing cached).\n"
    )


def _knee(measured: Path) -> str:
    rows = read_rows(measured / "steps" / "by_users.csv")
    said = read_json(measured / "steps" / "report.json")["settings"]
    knee = find_knee([(row["users"], row["per_second"]) for row in rows])
    most = max(rows, key=lambda row: row["per_second"])
    where = (
        f"The knee is at {knee} users: beyond it, no level adds half as many requests per further user as the "
        "first users did"
        if knee
        else f"No knee up to {rows[-1]['users']} users"
    )
    found = (
        f"{where}. The maximum is {most['per_second']:,.0f} requests a second, with {most['users']} users and a "
        f"p99 of {_ms(most['p99_ms'])} (medians of {said['repeats']} runs; {said['processors']} processors, "
        f"{said['seconds']} s, "
        f"{said['labelled_texts']:,} labelled texts, load average before {said['load_average_before']:.2f})."
    )
    head = (
        "| users | requests/s | p50 ms | p95 ms | p99 ms | refused | failures |\n"
        "|---:|---:|---:|---:|---:|---:|---:|"
    )
    table = [
        (row["users"], f"{row['per_second']:,.0f}", *_percentiles(row), row["refused"], row["failures"])
        for row in rows
    ]
    return f"{found}\n\n{markdown_table(head, table)}"


def _percentiles(row: Row) -> list[str]:
    return [f"{row[name]:,.1f}" for name in ("p50_ms", "p95_ms", "p99_ms")]


def _processors(measured: Path) -> str:
    rows = read_rows(measured / "steps" / "processors.csv")
    parts = [(row["part"], row["cores"]) for row in rows] + [("together", sum(row["cores"] for row in rows))]
    return markdown_table("| part | cores |\n|---|---:|", ((part, f"{cores:.2f}") for part, cores in parts))


def _kinds(measured: Path) -> str:
    found = [row for row in read_rows(measured / "steps" / "by_name.csv") if not row["name"].endswith("all")]
    numbers = [{key: value for key, value in row.items() if key not in {"model", "repeat"}} for row in found]
    rows = merge_repeats(numbers, ["name"])
    head = "| request | requests | p50 ms | p95 ms | p99 ms |\n|---|---:|---:|---:|---:|"
    return markdown_table(head, ((row["name"], f"{row['requests']:,}", *_percentiles(row)) for row in rows))


def _figures(measured: Path) -> str:
    rows = read_rows(measured / "sizing" / "sizing.csv")
    cells = ((f"`{row['name']}`", f"{row['value']:,}", row["unit"]) for row in rows)
    return markdown_table("| figure | value | |\n|---|---:|---|", cells)


def _sizes(measured: Path) -> str:
    """Return the disk space and the upload time of each number of texts, from sizing.csv."""
    figure = _sizing(measured)
    head = (
        "| texts kept | Postgres | replica, a serving process | Argilla's database | search index "
        "| uploaded in |\n|---:|---:|---:|---:|---:|---:|"
    )
    names = (
        *("postgres_bytes_per_text", "replica_bytes_per_text"),
        *("argilla_bytes_per_record", "index_bytes_per_record"),
    )
    table = []
    for texts in _SIZES:
        disks = [f"{texts * figure[name] / _GIB:,.2f} GiB" for name in names]
        table.append((f"{texts:,}", *disks, f"{texts / figure['uploads_per_second'] / 3600:,.1f} h"))
    return markdown_table(head, table)


def _rates(measured: Path) -> str:
    figure = _sizing(measured)
    uploads, answers = figure["uploads_per_second"], figure["answers_per_second"]
    people = int(answers * _PAUSE_OF_AN_ANNOTATOR_SECONDS)
    parts = {name.removeprefix("memory_"): value for name, value in figure.items() if name.startswith("memory_")}
    memory = ", ".join(f"{name} {value:,.0f}" for name, value in parts.items())
    return (
        f"- **Arrivals.** One process of Argilla takes {uploads:,.0f} texts a second, "
        f"{uploads * 86400 / 1e6:,.1f} million a day. Faster arrivals wait in Postgres and are not lost. "
        "If arrivals stay faster, Argilla needs more processes (`UPLOAD_CONNECTIONS`).\n"
        f"- **Annotators.** One client got {answers:,.0f} answers a second into Argilla. Of annotators who answer "
        f"every {_PAUSE_OF_AN_ANNOTATOR_SECONDS} s, that is the load of {people:,}, without uploads. "
        "Both processors are busy then with Argilla, its worker (a process for each webhook), the search engine "
        "and the replica, which applies each label immediately.\n"
        f"- **Memory**, in MiB after {figure['records']:,.0f} uploads: {memory}; together "
        f"{sum(parts.values()):,.0f}. The serving API with {figure['labelled_texts']:,.0f} texts: "
        f"{figure['serving_memory']:,.0f}.\n"
    )


def _sizing(measured: Path) -> dict[str, float]:
    return {row["name"]: row["value"] for row in read_rows(measured / "sizing" / "sizing.csv")}


def read_json(file: Path) -> dict[str, Any]:
    """Return the object in a JSON file."""
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def _ms(value: float | None) -> str:
    return "no answer" if value is None else f"{value:,.0f} ms" if value >= 10 else f"{value:.1f} ms"


BLOCKS: dict[str, Callable[[Path], str]] = {
    "compare_conditions": _compare_conditions,
    "ingestion": _steps_of("ingestion"),
    "serving": _steps_of("serving"),
    "failures": _failures,
    "texts": _texts,
    "knee": _knee,
    "processors": _processors,
    "kinds": _kinds,
    "figures": _figures,
    "sizes": _sizes,
    "rates": _rates,
}
# Those of the project's README; the others are in load_testing/README.md.
PROJECT_BLOCKS: dict[str, Callable[[Path], str]] = {"versions": _versions, "page": _page}


HERE = Path(__file__).parent
MEASURED = HERE / "measured"
README = HERE / "README.md"
PROJECT_README = HERE.parent / "README.md"
_BLOCK = re.compile(r"(<!-- measured: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_TAKEN = {
    "compare": ("steps.csv", "failures.csv", "texts.csv", "settings.json"),
    "steps": ("by_users.csv", "by_name.csv", "processors.csv", "report.json"),
    "sizing": ("sizing.csv", "settings.json"),
}
# The parts of a load test's report that are copied; the rest is large.
_KEPT = ("settings", "knee_users")


def main() -> None:
    """Copy the newest results, draw them, and write them into both READMEs."""
    for name in _TAKEN:
        take_over(name, HERE / "results" / name, MEASURED / name)
    for file, content in pictures(MEASURED).items():
        file.parent.mkdir(exist_ok=True)
        file.write_text(content)
    for readme in (README, PROJECT_README):
        readme.write_text(page(readme.read_text(), MEASURED))


def take_over(name: str, results: Path, into: Path) -> None:
    """Copy the files of the newest complete result, if there is one."""
    whole = [folder for folder in results.glob("*") if all((folder / file).is_file() for file in _TAKEN[name])]
    if not whole:
        return
    newest = max(whole, key=lambda folder: folder.name)
    into.mkdir(parents=True, exist_ok=True)
    for file in _TAKEN[name]:
        shutil.copy(newest / file, into / file)
    if name == "steps":
        found = read_json(into / "report.json")
        kept = {key: found[key] for key in _KEPT}
        (into / "report.json").write_text(json.dumps(kept, indent=2) + "\n")


def pictures(measured: Path) -> dict[Path, str]:
    """Return each picture of the README, by its file."""
    think_seconds = read_json(measured / "compare" / "settings.json")["think_seconds"]
    drawn = report.pictures(steps_rows(measured), think_seconds)
    made = {measured / "compare" / f"{name}.svg": picture for name, picture in drawn.items()}
    by_users = measured / "steps" / "by_users.csv"
    users = read_rows(by_users) if by_users.is_file() else []
    made[measured / "steps" / "latency_by_users.svg"] = plots.latency_by_users(users)
    made[measured / "steps" / "throughput_by_users.svg"] = plots.throughput_by_users(users)
    return made


def page(text: str, measured: Path) -> str:
    """Return the README with the measured figures.

    Raises:
        KeyError: it names an unknown block.
    """
    return _BLOCK.sub(lambda block: f"{block[1]}\n{_content(block[2], measured)}\n{block[3]}", text)


def _content(name: str, measured: Path) -> str:
    try:
        return (BLOCKS | PROJECT_BLOCKS)[name](measured)
    except FileNotFoundError:
        return "Not measured yet: `make measure` does it.\n"


if __name__ == "__main__":
    main()
