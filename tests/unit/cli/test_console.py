"""Tests of cli.console."""

from hypothesis import given
from hypothesis import strategies as st

from cli.console import printable


@given(st.text(st.characters(exclude_categories=())))
def test_nothing_that_a_terminal_acts_on_is_printed(value: str) -> None:
    assert printable(value).isprintable()


@given(st.text(st.characters(categories=("L", "N", "P", "S"))))
def test_what_can_be_read_stays_as_it_is(value: str) -> None:
    assert printable(value) == value


def test_what_is_escaped_can_be_told() -> None:
    assert printable("a\x1b[2Jb\nc\u202ed") == r"a\x1b[2Jb\nc\u202ed"
