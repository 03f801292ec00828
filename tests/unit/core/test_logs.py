"""Log lines: an event with fields; never a text or a secret from a traceback."""

import json
import logging
import subprocess
import sys

import pytest

_CRASH = """
import structlog
from core.startup import configure_logging
from core.settings import LogSettings

configure_logging(LogSettings(format="{format}"), "some_program")
log = structlog.get_logger()
def crash(password):
    raise RuntimeError("it broke")
try:
    crash("hunter" + str(2))
except RuntimeError:
    log.exception("thing.crashed", part="x")
"""


def _crash(format_: str) -> str:
    program = _CRASH.replace("{format}", format_)
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stderr
    assert "it broke" in said
    assert "thing.crashed" in said
    assert "some_program" in said
    assert "hunter2" not in said  # no local variable
    return said


def test_a_crash_is_told_at_a_terminal_without_local_variables() -> None:
    assert "Traceback" in _crash("console")


def test_a_crash_is_one_json_object_without_local_variables() -> None:
    [line] = _crash("json").splitlines()
    entry = json.loads(line)
    assert (entry["event"], entry["level"], entry["program"], entry["part"]) == (
        "thing.crashed",
        logging.getLevelName(logging.ERROR).lower(),
        "some_program",
        "x",
    )


_REQUEST = """
import asyncio, logging, threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
import structlog
from anyio import to_thread
from fastapi import FastAPI
from fastapi.testclient import TestClient
from core.startup import configure_logging
from core.settings import LogSettings, TracingSettings
from core.tracing import tracing
from core.web.app import install_web

configure_logging(LogSettings(format="json", level="DEBUG"), "some_program")
log = structlog.get_logger()
app = FastAPI()
install_web(app, {})

@app.get("/ours/{id}")
async def ours(id: str):
    log.info("from.ours")
    logging.getLogger("a_library").warning("from a library")
    await to_thread.run_sync(lambda: log.info("from.thread"))
    await asyncio.create_task(_later())
    raise RuntimeError("it broke")

async def _later():
    log.info("from.task")

client = TestClient(app, raise_server_exceptions=False)
for number in range(4):
    if number == 2:
        tracing.configure(TracingSettings(exporter_otlp_endpoint="http://127.0.0.1:1"), "some_program")
    client.get(f"/ours/{number}", headers={"X-Request-ID": f"request-{number}"})
log.info("from.nobody")
"""
_LINES = ["from.ours", "from a library", "from.thread", "from.task", "request.crashed", "request.served"]


@pytest.fixture(scope="module")
def lines() -> list[dict[str, str]]:
    """The log lines of two requests, of two traced ones, and of no request."""
    result = subprocess.run([sys.executable, "-c", _REQUEST], capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in result.stderr.splitlines()]
    return [line for line in lines if line["event"] in {*_LINES, "from.nobody"}]


def test_every_line_of_a_request_has_its_id(lines: list[dict[str, str]]) -> None:
    assert [line["event"] for line in lines] == [*_LINES * 4, "from.nobody"]
    expected = [f"request-{number}" for number in range(4) for _ in _LINES]
    assert [line.get("request_id") for line in lines] == [*expected, None]


def test_lines_of_a_traced_request_name_its_span(lines: list[dict[str, str]]) -> None:
    none, also_none, first, second = (
        {(line.get("trace_id"), line.get("span_id")) for line in lines if line.get("request_id") == f"request-{n}"}
        for n in range(4)
    )
    assert none == also_none == {(None, None)}
    assert len(first) == len(second) == 1
    assert first != second
    [(trace_id, span_id)] = first
    assert trace_id
    assert span_id
    assert (len(trace_id), len(span_id)) == (32, 16)
