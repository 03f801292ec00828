from datetime import datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving_api.texts.query import Position, decode_cursor, encode_cursor, microseconds, timestamp

POSITIONS = st.builds(Position, st.integers(-(2**63), 2**63 - 1), st.uuids(allow_nil=True))


@given(POSITIONS, st.binary(min_size=32, max_size=32))
def test_cursor_comes_back_as_it_was(position: Position, query: bytes) -> None:
    assert decode_cursor(encode_cursor(position, query), query) == position


@given(st.datetimes())
def test_moment_comes_back_as_it_was(when: datetime) -> None:
    assert timestamp(microseconds(when)) == when


@given(POSITIONS)
def test_cursor_is_safe_in_urls(position: Position) -> None:
    cursor = encode_cursor(position, b"query")
    assert cursor.replace("-", "").replace("_", "").isalnum()
    assert len(cursor) == 43


@given(st.text())
def test_made_up_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any of its kinds
        decode_cursor(cursor, b"query")


def test_cursor_of_another_query_is_refused() -> None:
    cursor = encode_cursor(Position(5, UUID(int=1)), b"one")
    with pytest.raises(ValueError, match="not a cursor of this list"):
        decode_cursor(cursor, b"other")


def test_a_cursor_of_an_earlier_release_still_holds_its_place() -> None:
    cursor = "AAZlFyiYgAAAAAAAAAAAAAAAAAAAAAAHmTVM2TzpUjY"
    when = datetime(2027, 1, 15, 8)  # noqa: DTZ001 - UTC without a zone
    assert decode_cursor(cursor, b"query") == Position(microseconds(when), UUID(int=7))
    assert timestamp(0) == datetime(1970, 1, 1)  # noqa: DTZ001
