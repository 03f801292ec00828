"""The platform under load: a given one, or a stack started for the test. Removes the texts of a given one."""

import json
import os
import platform
import subprocess
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psutil
import psycopg

from core.datasets import DEFAULT_DATASET

_PROJECT = Path(__file__).parents[1]
_LOG_LINES = 20
# Finding the children of each part reads all of /proc.
_SAMPLE_SECONDS = 2.0


class Target(NamedTuple):
    """The addresses of both APIs, and the dataset of the texts."""

    ingestion_url: str
    serving_url: str
    dataset: str
    # Process ids of the parts of a stack that was started for the test, by name.
    pids: Mapping[str, int] = {}


@contextmanager
def find_target(texts: int, dataset: str) -> Iterator[Target]:
    """Give the platform at INGESTION_URL and SERVING_URL, or a new stack with `texts` labelled texts.

    On a given platform the texts go into `dataset`. A running `make up` must be given explicitly, because its
    queue belongs to its annotators.

    Raises:
        SystemExit: the given platform does not respond, or has no dataset for load tests.
    """
    if target := _named(dataset):
        for url in target[:2]:
            _check_ready(url)
        _check_dataset(target)
        yield target
        return
    # This import takes half a second, and not every load test needs it.
    from local_stack.testing import running_stack

    print("Starting a new stack with its own data. INGESTION_URL and SERVING_URL name another one.", flush=True)  # noqa: T201
    with running_stack() as stack:
        if texts:
            add_demo_texts(stack.database_url, texts)
        wait_until_served(stack.serving_url, texts)
        yield Target(stack.ingestion_url, stack.serving_url, DEFAULT_DATASET, stack.pids)


class CoreSample(NamedTuple):
    """The processor seconds of each part since its start, at a time."""

    at: float
    seconds: dict[str, float]


@contextmanager
def sampled_processors(pids: Mapping[str, int]) -> Iterator[list[CoreSample]]:
    """Measure the processor time of processes with their children every two seconds until the block ends."""
    samples: list[CoreSample] = []
    done = threading.Event()

    def sample() -> None:
        while not done.wait(_SAMPLE_SECONDS):
            # With the times of children that have ended.
            seconds = {
                name: sum_over_family(pid, lambda one: sum(one.cpu_times()[:4])) for name, pid in pids.items()
            }
            samples.append(CoreSample(time.time(), seconds))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        done.set()
        thread.join()


def sum_over_family(pid: int, figure: Callable[[psutil.Process], float]) -> float:
    """Return the sum of a figure of a process and its children; processes that have ended count as 0."""
    total = 0.0
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for member in [process, *process.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                total += figure(member)
    return total


def run_locust(file: Path, folder: Path, arguments: Sequence[str], env: Mapping[str, str]) -> int:
    """Run Locust without its page into a new folder, with its log in `locust.log`; return the exit code.

    Raises:
        SystemExit: it left no `run.json`; the message has the end of the log.
    """
    folder.mkdir()
    log = folder / "locust.log"
    options = ["--headless", "--only-summary", "--record", str(folder), "--csv", str(folder / "locust")]
    with log.open("wb") as output:
        # Locust would read the terminal's keys from its input.
        code = subprocess.run(  # noqa: S603 - ourselves
            [sys.executable, "-m", "locust", "-f", str(file), *options, *arguments],
            cwd=_PROJECT,
            env=os.environ | env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            check=False,
        ).returncode
    if not (folder / "run.json").is_file():
        lines = log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
        raise SystemExit("\n".join([f"Locust ended with exit code {code}:", *lines]))
    return code


def option_words(given: Namespace, *names: str) -> list[str]:
    """Return these options as words of a command line."""
    return [word for name in names for word in (f"--{name.replace('_', '-')}", str(getattr(given, name)))]


def make_result_folder(results: Path) -> Path:
    """Make a folder in `results` that is named after the current time."""
    folder = results / datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%SZ")
    folder.mkdir(parents=True)
    return folder


def describe_machine() -> dict[str, Any]:
    """Return the conditions of a measurement."""
    return {
        "processors": os.cpu_count(),
        "machine": platform.machine(),
        "load_average_before": round(os.getloadavg()[0], 2),
    }


def add_demo_texts(database_url: str, texts: int, annotators: int | None = None) -> None:
    """Fill an empty database with labelled texts (`annotate demo-data`)."""
    command = [sys.executable, "-m", "cli", "demo-data", "--texts", str(texts)]
    command += ["--annotators", str(annotators)] if annotators else []
    subprocess.run(command, env=os.environ | {"DATABASE_URL": database_url}, check=True)  # noqa: S603 - our own


def wait_until_served(serving_url: str, texts: int, seconds: float = 600) -> None:
    """Wait until the serving API serves this number of labelled texts.

    Raises:
        SystemExit: it does not within `seconds`.
    """

    def is_served() -> bool:
        stats = httpx.get(f"{serving_url}/stats")
        return stats.is_success and stats.json()["total"] >= texts

    if not holds_within(seconds, is_served):
        raise SystemExit(f"{serving_url} does not serve {texts:,} texts after {seconds:.0f} s")


def texts_under_way(ingestion_url: str) -> int:
    """Return the number of texts that the uploader has not uploaded yet."""
    queue = httpx.get(f"{ingestion_url}/queue", timeout=60).raise_for_status().json()
    return int(queue["pending"]) + int(queue["uploading"])


def argilla_client(url: str, key: str) -> httpx.Client:
    """Return a client of Argilla's API that acts as the owner of the key."""
    return httpx.Client(base_url=f"{url}/api/v1/", headers={"X-Argilla-Api-Key": key}, timeout=60)


def key_headers() -> dict[str, str]:
    """Return the headers of every request: the API key, if ANNOTATE_API_KEY holds one."""
    key = os.environ.get("ANNOTATE_API_KEY")
    return {"Authorization": f"Bearer {key}"} if key else {}


def labelled_texts(target: Target) -> int:
    """Return the number of labelled texts that the serving API has.

    Raises:
        SystemExit: the serving API responds with an error.
    """
    answer = httpx.get(f"{target.serving_url}/stats", headers=key_headers())
    if answer.is_error:
        raise SystemExit(f"{target.serving_url}/stats: {answer.status_code}. Does ANNOTATE_API_KEY hold a key?")
    total: int = answer.json()["total"]
    return total


def _named(dataset: str) -> Target | None:
    urls = [os.environ.get(name, "").rstrip("/") for name in ("INGESTION_URL", "SERVING_URL")]
    if not any(urls):
        return None
    if not all(urls):
        raise SystemExit("Set both INGESTION_URL and SERVING_URL, or neither.")
    return Target(urls[0], urls[1], dataset)


def _check_dataset(target: Target) -> None:
    parameters = {"dataset": target.dataset}
    answer = httpx.get(f"{target.ingestion_url}/queue", params=parameters, headers=key_headers())
    if answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY:
        raise SystemExit(
            f"{target.ingestion_url} has no dataset {target.dataset}, and texts of a load test must not reach "
            "annotators. Start the platform with DATASETS_FILE=load_testing/datasets.toml, or copy its [loadtest] "
            "into yours; or run `make loadtest` without INGESTION_URL, which starts a stack of its own."
        )


def _check_ready(url: str) -> None:
    try:
        answer = httpx.get(f"{url}/readyz")
    except httpx.TransportError as error:
        raise SystemExit(f"{url} does not answer: {error}. Start it with `make up`.") from None
    if answer.is_error:
        raise SystemExit(f"{url} is not ready: {answer.text:.500}")


_PAUSE_SECONDS = 0.2


def holds_within(seconds: float, condition: Callable[[], bool]) -> bool:
    """Wait until the condition holds, at most `seconds`; return whether it does."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_PAUSE_SECONDS)
    return True


def is_ok(url: str, headers: Mapping[str, str] | None = None) -> bool:
    """Whether the address responds with a 2xx."""
    try:
        return httpx.get(url, headers=headers).is_success
    except httpx.TransportError:
        return False


# The external ids are those of users/comment_texts.py. The texts have no labels, so no replica has them.
_REMOVE = """
delete from texts where dataset = %s and starts_with(external_id, %s) and status = 'pending'
"""
_LEFT = "select count(*) from texts where dataset = %s and starts_with(external_id, %s)"


def find_database(ingestion_url: str) -> str | None:
    """Return DATABASE_URL, else the address in `stack.json` if that stack is the one under load; else None."""
    if url := os.environ.get("DATABASE_URL"):
        return url
    file = Path(os.environ.get("DATA_DIR") or ".data") / "stack.json"
    # `.data` is in the project's folder; Locust may run in another one.
    for path in (file, _PROJECT / file):
        if path.is_file():
            stack = json.loads(path.read_text())
            if stack["ingestion_url"] == ingestion_url.rstrip("/").replace("//localhost:", "//127.0.0.1:"):
                return str(stack["database_url"])
    return None


def remove_texts(database_url: str, dataset: str, seed: str) -> tuple[int, int]:
    """Delete the texts of this seed; return the number of deleted texts, and of those that annotators have.

    Raises:
        psycopg.Error: Postgres does not respond or refuses.
    """
    prefix = f"post-{seed}-"
    with psycopg.connect(database_url, connect_timeout=10) as connection:
        removed = connection.execute(_REMOVE, [dataset, prefix]).rowcount
        row = connection.execute(_LEFT, [dataset, prefix]).fetchone()
    return removed, row[0] if row else 0
