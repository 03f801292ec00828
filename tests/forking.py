"""Becomes any of the platform's programs quickly: `python -m tests.forking FD`; see tests.programs for its use.

A process that has loaded the libraries, and forks. The tests start some hundred programs, and each would load them
for two seconds of processor time. The programs' own code is loaded in each child.

An order comes over the socket FD: four bytes that say how long the rest is, then JSON; with them three open files:
standard output, standard error, and the pipe for the program's pid and, later, its exit code.
"""

import ast
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NUMBER = struct.Struct("!i")

_ROOT = Path(__file__).parents[1]
_PROGRAMS = ("core", "ingestion_api", "uploader", "serving_api", "cli")
# What libraries load only when it is used.
_LATER = (
    "httptools",
    "pyarrow.dataset",
    "sqlalchemy.dialects.postgresql.psycopg",
    "uvicorn.lifespan.on",
    "uvicorn.protocols.http.httptools_impl",
    "uvloop",
)
# Once loaded, it has a thread that a fork lacks: the program would wait for it at its end.
_NOT_BEFORE = {"duckdb"}


def main() -> None:
    """Take orders until the socket is closed; in a child: be the program."""
    os.umask(0o022)  # as most shells do: the programs themselves have to make their files private
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children of this process
    for name in {*_libraries(), *_LATER} - _NOT_BEFORE:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=int(sys.argv[1])) as orders:
        while True:
            size, files, _, _ = socket.recv_fds(orders, NUMBER.size, 3)
            if not size:
                return
            [length] = NUMBER.unpack(size)
            order = json.loads(orders.recv(length, socket.MSG_WAITALL))
            if os.fork() == 0:
                orders.close()
                _start(order, *files)
                return
            for file in files:
                os.close(file)


def _libraries() -> set[str]:
    paths = [path for name in _PROGRAMS for path in (_ROOT / name).rglob("*.py") if "migrations" not in path.parts]
    named = {name for path in paths for name in _imported(ast.parse(path.read_bytes()))}
    return {name for name in named if name.partition(".")[0] not in _PROGRAMS}


def _imported(module: ast.Module) -> Iterator[str]:
    for statement in module.body:
        if isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom) and statement.module:
            yield statement.module


def _start(order: dict[str, Any], output: int, errors: int, report: int) -> None:
    """Run the program in a child; this process reports its exit code, which only a parent knows."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        os.close(report)
        _run(order, output, errors)
        return
    os.close(output)
    os.close(errors)
    os.write(report, NUMBER.pack(pid))
    _, status = os.waitpid(pid, 0)
    os.write(report, NUMBER.pack(os.waitstatus_to_exitcode(status)))
    os._exit(0)


def _run(order: dict[str, Any], output: int, errors: int) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for file, number in ((output, 1), (errors, 2)):
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(order["env"])
    sys.argv = [order["module"], *order["arguments"]]
    runpy.run_module(order["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
