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


@pytest.fixture(scope="module", params=["json", "console"])
def crashed(request: pytest.FixtureRequest) -> tuple[str, str]:
    """A format, and what a program that logs a crash says in it."""
    program = _CRASH.replace("{format}", request.param)
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return request.param, result.stderr


def test_a_traceback_shows_no_local_variables(crashed: tuple[str, str]) -> None:
    _, said = crashed
    assert "it broke" in said
    assert "thing.crashed" in said
    assert "some_program" in said
    assert "hunter2" not in said


@pytest.mark.parametrize("crashed", ["json"], indirect=True)
def test_json_lines_are_one_object_each(crashed: tuple[str, str]) -> None:
    [line] = crashed[1].splitlines()
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
tracing.configure(TracingSettings(exporter_otlp_endpoint={endpoint!r}, traces_sampler_arg={share}), "some_program")
log = structlog.get_logger()
app = FastAPI()
install_web(app, {{}})

@app.get("/ours/{{id}}")
async def ours(id: str):
    log.info("from.ours")
    logging.getLogger("a_library").warning("from a library")
    await to_thread.run_sync(lambda: log.info("from.thread"))
    await asyncio.create_task(_later())
    raise RuntimeError("it broke")

async def _later():
    log.info("from.task")

client = TestClient(app, raise_server_exceptions=False)
for number in range(2):
    client.get(f"/ours/{{number}}", headers={{"X-Request-ID": f"request-{{number}}"}})
log.info("from.nobody")
"""
_LINES = ["from.ours", "from a library", "from.thread", "from.task", "request.crashed", "request.served"]


def _lines(endpoint: str | None, share: float = 1) -> list[dict[str, str]]:
    program = _REQUEST.format(endpoint=endpoint, share=share)
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in result.stderr.splitlines()]
    return [line for line in lines if line["event"] in {*_LINES, "from.nobody"}]


def test_every_line_of_a_request_has_its_id() -> None:
    lines = _lines(None)
    assert [line["event"] for line in lines] == [*_LINES, *_LINES, "from.nobody"]
    expected = ["request-0"] * len(_LINES) + ["request-1"] * len(_LINES) + [None]
    assert [line.get("request_id") for line in lines] == expected
    assert not any("trace_id" in line for line in lines)


def test_lines_of_a_traced_request_name_its_span() -> None:
    first, second = (
        {
            (line["trace_id"], line["span_id"])
            for line in _lines("http://127.0.0.1:1")
            if line.get("request_id") == id_
        }
        for id_ in ("request-0", "request-1")
    )
    assert len(first) == len(second) == 1
    assert first != second
    [(trace_id, span_id)] = first
    assert (len(trace_id), len(span_id)) == (32, 16)
