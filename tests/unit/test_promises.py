"""The page of promises names tests that exist."""

import re
from pathlib import Path

_TESTS = Path(__file__).parents[1]


def test_each_test_that_the_page_of_promises_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", (_TESTS / "README.md").read_text()))
    defined = {
        name
        for file in _TESTS.rglob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)", file.read_text(), re.MULTILINE)
    }
    assert named
    assert named - defined == set()
