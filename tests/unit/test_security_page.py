"""docs/security.md: each threat names tests that are there."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "security.md").read_text()
ROWS = [
    row
    for row in re.findall(r"^\| (.+) \|$", PAGE.partition("\n## Threats")[2].partition("\n## ")[0], re.MULTILINE)
    if row != "threat | what protects | tests"
]


def test_there_are_rows() -> None:
    assert len(ROWS) > 20


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.partition(" | ")[0])
def test_a_threat_names_what_shows_its_answer(row: str) -> None:
    _, _, shown_by = row.split(" | ")
    files = re.findall(r"`([\w/]+\.py)`", shown_by)
    assert files
    for file in files:
        assert (TESTS / re.sub("^here/", "integration/security/", file)).is_file(), file
    for name in re.findall(r"`(test_\w+)`", shown_by):
        assert any(f"def {name}(" in (TESTS / file).read_text() for file in files), name
