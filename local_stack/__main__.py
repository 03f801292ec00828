"""`python -m local_stack up|down|clean|status|reindex`."""

import json
import os
import signal
import threading
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import psutil
import typer
from rich.console import Console

from local_stack import StackError
from local_stack.components.argilla import reindex as rebuild_index
from local_stack.data_dir import (
    StackLock,
    delete_data_dir,
    is_alive,
    load_or_create_credentials,
    wait_until_ended,
)
from local_stack.plan import Context
from local_stack.progress import display_for
from local_stack.settings import StackSettings, load_settings
from local_stack.stack import EVERYTHING, Stack

_STOP_SECONDS = 90
_LOG_CHECK_SECONDS = 30

app = typer.Typer(
    help="Real Postgres, Redis, OpenSearch and Argilla on this machine, with the platform on top.",
    no_args_is_help=True,
    # A traceback with local variables would show secrets.
    pretty_exceptions_enable=False,
)
_console = Console()
_errors = Console(stderr=True)


@contextmanager
def _clear_errors() -> Iterator[None]:
    try:
        yield
    except StackError as error:
        _errors.print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error
    except PermissionError as error:
        _errors.print(f"error: {error}. Is it another user's?", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error


@app.command()
def up(
    only: str = typer.Option(
        "", help=f"Start only these, by commas, and what they need: {', '.join(sorted(EVERYTHING))}."
    ),
) -> None:
    """Start everything, show how to use it, and keep it running until Ctrl-C."""
    with _clear_errors():
        components = frozenset(filter(None, only.split(","))) or EVERYTHING
        stack = Stack(load_settings(), display_for(_console), components)
        reasons = _stop_on_signals(stack.stop_asked)
        _stop_with_make(stack.stop_asked, reasons)
        try:
            _start_or_stop(stack, reasons)
        finally:
            stack.stop()
        _say("Stopped.")


def _start_or_stop(stack: Stack, reasons: list[str]) -> None:
    try:
        stack.start()
    except StackError:
        # Asked to stop while starting: no error.
        if reasons:
            _say(f"{reasons[0]}: stopping.")
            return
        raise
    _say(summary(stack))
    if stack.settings.open:
        for address in page_addresses(stack).values():
            webbrowser.open(address)
    while not stack.stop_asked.wait(_LOG_CHECK_SECONDS):
        stack.bound_logs()
    _say(f"{reasons[0]}: stopping.")


def _stop_on_signals(stop_asked: threading.Event) -> list[str]:
    """Let signals set `stop_asked`; return the list that gets their names."""
    reasons: list[str] = []

    def note(number: int, _frame: FrameType | None) -> None:
        reasons.append(signal.Signals(number).name)
        stop_asked.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, note)
    return reasons


def _stop_with_make(stop_asked: threading.Event, reasons: list[str]) -> None:
    """Set `stop_asked` when the `make` that started us was killed or interrupted."""
    make = MakeWatch()

    def watch() -> None:
        while not stop_asked.wait(0.5):
            if (reason := make.end_reason()) is not None:
                reasons.append(reason)
                stop_asked.set()

    threading.Thread(target=watch, name="watch-make", daemon=True).start()


class MakeWatch:
    """Watches the processes from our parent up to the nearest `make`; none if `make` did not start us."""

    def __init__(self) -> None:
        self._chain = _up_to_make(psutil.Process().parents())
        # `make` sets this variable for its children.
        self._was_too_late = not self._chain and "MAKELEVEL" in os.environ
        self._catches_interrupt = bool(self._chain) and _catches_interrupt(self._chain[-1].pid)

    def end_reason(self) -> str | None:
        """Return what happened to them; None while they run."""
        if self._was_too_late or not all(is_alive(process) for process in self._chain):
            return "make was killed"
        if self._catches_interrupt and not _catches_interrupt(self._chain[-1].pid):
            # GNU make does not pass SIGINT on (a terminal sends it to all), but it stops catching it.
            return "make was interrupted"
        return None


def _up_to_make(parents: Sequence[psutil.Process]) -> Sequence[psutil.Process]:
    for position, process in enumerate(parents):
        if process.name() in {"make", "gmake"}:
            return parents[: position + 1]
    return []


def _catches_interrupt(pid: int) -> bool:
    """Whether a process has a handler for SIGINT; False if the system does not show it."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    caught = next((line for line in status.splitlines() if line.startswith("SigCgt:")), "SigCgt: 0")
    return bool(int(caught.split()[1], 16) & 1 << (signal.SIGINT - 1))


@app.command()
def down() -> None:
    """Stop the stack of this DATA_DIR, and wait until it is gone."""
    with _clear_errors():
        _stop_running(load_settings())


def _stop_running(settings: StackSettings) -> None:
    if not settings.data_dir.exists():
        _say(f"No stack runs on {settings.data_dir}.")
        return
    lock = StackLock(settings.data_dir)
    owner = lock.running_owner()
    if owner is not None:
        _say(f"Stopping the stack on {settings.data_dir} (pid {owner.pid}).")
        _terminate(owner)
    ended = owner is None or wait_until_ended(owner, _STOP_SECONDS)
    if not ended or not lock.wait_until_free(_STOP_SECONDS):
        raise StackError(f"The stack on {settings.data_dir} still runs after {_STOP_SECONDS} s.")
    lock.release()
    _say("Stopped." if owner is not None else f"No stack runs on {settings.data_dir}.")


def _terminate(process: psutil.Process) -> None:
    try:
        process.terminate()
    except psutil.NoSuchProcess:
        _say("It has just ended by itself.")
    except psutil.AccessDenied as error:
        raise StackError(f"The stack (pid {process.pid}) belongs to another user.") from error


@app.command()
def clean() -> None:
    """Stop the stack of this DATA_DIR and delete all its data."""
    with _clear_errors():
        settings = load_settings()
        _stop_running(settings)
        deleted = delete_data_dir(settings.data_dir)
        _say(f"Deleted {settings.data_dir}." if deleted else f"There is no {settings.data_dir}.")


@app.command()
def status() -> None:
    """Show whether a stack runs on this DATA_DIR, with its processes; exit code 1 if none is ready."""
    with _clear_errors():
        data_dir = load_settings().data_dir
        file = data_dir / "stack.json"
        # A killed stack leaves the file behind.
        if not file.exists() or StackLock(data_dir).running_owner() is None:
            raise StackError(f"No stack is ready on {data_dir}.")
        for name, pid in json.loads(file.read_text())["pids"].items():
            state = "runs" if psutil.pid_exists(pid) else "is gone"
            _say(f"{name} {state} (pid {pid})")


@app.command()
def reindex() -> None:
    """Rebuild Argilla's search index from its database. A stack with Postgres and OpenSearch must run."""
    with _clear_errors():
        settings = load_settings()
        if StackLock(settings.data_dir).running_owner() is None:
            raise StackError(
                f"No stack runs on {settings.data_dir}. Start its stores: "
                "python -m local_stack up --only postgres,opensearch"
            )
        credentials = load_or_create_credentials(settings.data_dir)
        rebuild_index(Context(settings, credentials, threading.Event(), -1, lambda _name, _text: None))
        _say("Argilla's search index is made anew.")


def _say(text: str) -> None:
    _console.print(text, markup=False, highlight=False, soft_wrap=True)


_INGEST = """\
Send a text:
  curl -s {url}/texts -H 'Content-Type: application/json' -d '{{"text": "You are an idiot", "label": "toxic"}}'"""
_READ = """\
Read labelled texts:
  curl -s {url}/texts"""


def page_addresses(stack: Stack) -> dict[str, str]:
    """Return the addresses of the running web pages, by their names."""
    pages = {"Dashboard": "serving_api", "Upload": "ingestion_api"}
    urls = {"serving_api": stack.settings.serving_url, "ingestion_api": stack.settings.ingestion_url}
    return {name: f"{urls[program]}/" for name, program in pages.items() if program in stack.pids}


def summary(stack: Stack) -> str:
    """Return addresses, Argilla's login and an example command for each running API."""
    settings, credentials = stack.settings, stack.context.credentials
    lines = ["", "Ready.", ""]
    if page_addresses(stack):
        lines += [*(f"{name:<14} {address}" for name, address in page_addresses(stack).items()), ""]
    if "ingestion_api" in stack.pids:
        lines += [f"Ingestion API  {settings.ingestion_url}/docs"]
    if "serving_api" in stack.pids:
        lines += [f"Serving API    {settings.serving_url}/docs"]
    if "argilla" in stack.pids:
        lines += [
            f"Argilla        {settings.argilla_url}",
            f"               log in as {credentials.argilla_username} with {credentials.argilla_password}",
        ]
    if "ingestion_api" in stack.pids:
        lines += ["", _INGEST.format(url=settings.ingestion_url)]
    if "serving_api" in stack.pids:
        lines += ["", _READ.format(url=settings.serving_url)]
    lines += [
        "",
        f"Data in {settings.data_dir}, logs in {settings.logs_dir}. Ctrl-C stops everything.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    app()
