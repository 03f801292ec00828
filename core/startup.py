"""What a program sets up first: its log, private files, its priority."""

import logging
import os
import resource
import signal
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog
from structlog.typing import EventDict, Processor

from core.settings import LogSettings

# Chatty at INFO, and what they say is in our own lines already.
_QUIET_LOGGERS = ("httpx", "httpcore", "apscheduler", "alembic", "opentelemetry", "uvicorn.access")

# Local variables would bring texts and secrets into the log.
_json_traceback = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)


def _name_program(program: str) -> Processor:
    def add(_logger: Any, _method: str, event: EventDict) -> EventDict:
        return {**event, "program": program}

    return add


def configure_logging(settings: LogSettings, program: str) -> None:
    """Send the program's and its libraries' log lines to standard error, each with the program's name."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        _name_program(program),
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    as_json = settings.format == "json"
    renderer: list[Processor] = (
        [structlog.processors.ExceptionRenderer(_json_traceback), structlog.processors.JSONRenderer()]
        if as_json
        else [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        ]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[settings.level]),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.level)
    for name in _QUIET_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)


log = structlog.get_logger()

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def keep_files_private() -> None:
    """Make every file that this process and its children create readable by its owner only."""
    os.umask(_OTHERS)


def close_folder(folder: Path) -> None:
    """Let only the owner into `folder`, if it exists.

    Older versions created folders and files that everybody could read. Closing the folder also protects the files
    in it, so their own permissions may stay.
    """
    try:
        mode = stat.S_IMODE(folder.stat().st_mode)
        if mode & _OTHERS:
            folder.chmod(mode & ~_OTHERS)
            log.info("files.closed", folder=str(folder))
    except FileNotFoundError:
        return  # umask gives a new folder the right permissions
    except PermissionError:
        # A mounted volume can belong to another user. The program can work there, but its owner has to close it.
        log.warning("files.open_to_others", folder=str(folder))


_NICENESS = 19


def step_back() -> None:
    """Let what people wait for go first, and leave Ctrl-C to the process that serves them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(_NICENESS - os.nice(0))


@contextmanager
def limited_memory(bytes_: int) -> Iterator[None]:
    """Raise MemoryError when this process allocates more than `bytes_` within the block."""
    former, most = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = bytes_ if most == resource.RLIM_INFINITY else min(bytes_, most)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (former, most))
