"""Log lines: an event with fields; never a text or a secret from a traceback."""

import json
import logging
import subprocess
import sys

import pytest

_CRASH = """
import structlog
from core.logs import configure_logging
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


@pytest.mark.parametrize("format_", ["json", "console"])
def test_a_traceback_shows_no_local_variables(format_: str) -> None:
    program = _CRASH.replace("{format}", format_)
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "it broke" in result.stderr
    assert "thing.crashed" in result.stderr
    assert "some_program" in result.stderr
    assert "hunter2" not in result.stderr


def test_json_lines_are_one_object_each() -> None:
    program = _CRASH.replace("{format}", "json")
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    [line] = result.stderr.splitlines()
    entry = json.loads(line)
    assert (entry["event"], entry["level"], entry["program"], entry["part"]) == (
        "thing.crashed",
        logging.getLevelName(logging.ERROR).lower(),
        "some_program",
        "x",
    )
