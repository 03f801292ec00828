"""`python -m load_testing.sizing`: the bytes, time and memory of a text in each part, for README.md."""

import argparse
import json
import signal
import sys
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import httpx
import psycopg
from rich.console import Console

from load_testing.bench.harness import measure_gets
from load_testing.bench.replica_rows import serving_replica
from load_testing.bench.serving_pages import FRESH, paths
from load_testing.reports.summaries import Row, write_rows
from load_testing.targets import (
    add_demo_texts,
    argilla_client,
    describe_machine,
    holds_within,
    make_result_folder,
    sum_over_family,
    texts_under_way,
    wait_until_served,
)
from load_testing.users.comment_texts import bulk_body
from local_stack.components.postgres import argilla_database_url
from local_stack.testing import RunningStack, running_stack

_ANNOTATORS = 3
_SECONDS = 300
_MIB = 2**20
_RESULTS = Path(__file__).with_name("results") / "sizing"


def main() -> None:
    """Measure on new stacks, and write `sizing.csv`."""
    # A `kill` also ends the started programs.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    given = _parse_arguments()
    settings = describe_machine() | {"texts": given.texts, "records": given.records, "many": given.many}
    rows: list[Row] = []
    for row in chain(_of_labelled_texts(given.texts), _of_pages(given.many), _of_records(given.records)):
        rows.append(row)
        Console().print(f"{row['name']}: {row['value']} {row['unit']}", highlight=False)
    folder = make_result_folder(given.results)
    write_rows(folder / "sizing.csv", rows)
    (folder / "settings.json").write_text(json.dumps(settings, indent=2) + "\n")
    Console().print(f"Written to {folder}", soft_wrap=True)


def _of_labelled_texts(texts: int) -> Iterator[Row]:
    """Measure labelled texts in Postgres and in a replica."""
    with running_stack({"postgres", "serving_api"}) as stack:
        before = _database_bytes(stack.database_url), _folder_bytes(stack.settings.data_dir / "serving")
        add_demo_texts(stack.database_url, texts, _ANNOTATORS)
        wait_until_served(stack.serving_url, texts)
        with psycopg.connect(stack.database_url, autocommit=True) as connection:
            connection.execute("vacuum analyze")
        after = _database_bytes(stack.database_url), _folder_bytes(stack.settings.data_dir / "serving")
        yield _row("labelled_texts", texts, "texts")
        yield _row("annotators", _ANNOTATORS, "annotations a text")
        yield _row("postgres_bytes_per_text", round((after[0] - before[0]) / texts), "bytes")
        yield _row("replica_bytes_per_text", round((after[1] - before[1]) / texts), "bytes")
        yield _row("serving_memory", _memory_mib(stack.pids["serving_api"]), "MiB, with these texts")


def _of_pages(texts: int) -> Iterator[Row]:
    """Measure pages of the newest 100 of many labelled texts, for one client; no page is in the cache."""
    with serving_replica(texts, cache=False) as server:
        sample = measure_gets(server, paths(FRESH["newest page"], texts), clients=1)
    yield _row("many_texts", texts, "texts")
    yield _row("page_p50_ms", round(sample["p50"], 1), "ms, the newest 100 of that many texts, one client")


def _of_records(records: int) -> Iterator[Row]:
    """Measure uploads into Argilla, answers in it, and the memory of each part."""
    with running_stack() as stack:
        argilla_url = argilla_database_url(stack.stack.context)
        _upload(stack, "first", 50)  # the dataset, its index, and other one-time costs
        before = _database_bytes(argilla_url), _index_bytes(stack)
        seconds = _upload(stack, "records", records)
        after = _database_bytes(argilla_url), _index_bytes(stack)
        yield _row("records", records, "records")
        yield _row("uploads_per_second", round(records / seconds, 1), "texts a second, one process of Argilla")
        yield _row("argilla_bytes_per_record", round((after[0] - before[0]) / records), "bytes")
        yield _row("index_bytes_per_record", round((after[1] - before[1]) / records), "bytes")
        yield _row("answers_per_second", round(_answers_per_second(stack), 1), "answers a second by one client")
        for name, pid in sorted(stack.pids.items()):
            yield _row(f"memory_{name}", _memory_mib(pid), "MiB")


def _upload(stack: RunningStack, seed: str, count: int) -> float:
    """Send `count` texts; return the seconds until annotators can find all of them."""
    body = bulk_body(seed, list(range(count)))
    headers = {"Content-Type": "application/x-ndjson"}
    started = time.monotonic()
    url = f"{stack.ingestion_url}/texts/bulk"
    httpx.post(url, content=body, headers=headers, timeout=_SECONDS).raise_for_status()
    if not holds_within(_SECONDS, lambda: texts_under_way(stack.ingestion_url) == 0):
        raise SystemExit(f"The texts were not uploaded within {_SECONDS} s.")
    return time.monotonic() - started


def _answers_per_second(stack: RunningStack, answers: int = 50) -> float:
    """Answer records one after the other without pauses; return the answers per second."""
    with psycopg.connect(argilla_database_url(stack.stack.context)) as connection:
        query = "select id::text from records order by inserted_at desc limit %s"
        ids = [id_ for (id_,) in connection.execute(query, [answers]).fetchall()]
    body = {"status": "submitted", "values": {"label": {"value": "toxic"}}}
    with argilla_client(stack.argilla_url, stack.argilla_api_key) as owner:
        started = time.monotonic()
        for id_ in ids:
            owner.post(f"records/{id_}/responses", json=body).raise_for_status()
        return len(ids) / (time.monotonic() - started)


def _database_bytes(url: str) -> int:
    with psycopg.connect(url) as connection:
        [size] = connection.execute("select pg_database_size(current_database())").fetchone() or (0,)
    return int(size)


def _index_bytes(stack: RunningStack) -> int:
    opensearch = stack.opensearch_url
    httpx.post(f"{opensearch}/_flush", timeout=60).raise_for_status()
    found = httpx.get(f"{opensearch}/_stats/store", timeout=60).raise_for_status().json()
    return int(found["_all"]["primaries"]["store"]["size_in_bytes"])


def _folder_bytes(folder: Path) -> int:
    return sum(file.stat().st_blocks * 512 for file in folder.rglob("*") if file.is_file())


def _memory_mib(pid: int) -> int:
    """Return the memory of a process and its children; shared pages count in parts (PSS)."""
    return round(sum_over_family(pid, lambda process: process.memory_full_info().pss) / _MIB)


def _row(name: str, value: float, unit: str) -> Row:
    return {"name": name, "value": value, "unit": unit}


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m load_testing.sizing")
    parser.add_argument("--texts", type=int, default=100_000, help="labelled texts in Postgres and in the replica")
    parser.add_argument(
        "--many", type=int, default=1_000_000, help="labelled texts in a replica that serves pages"
    )
    parser.add_argument("--records", type=int, default=2_000, help="texts that are uploaded into Argilla")
    parser.add_argument("--results", type=Path, default=_RESULTS, help="folder for the results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
