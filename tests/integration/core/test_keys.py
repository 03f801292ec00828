"""Which keys the programs read from Postgres."""

from datetime import UTC, datetime

import sqlalchemy as sa

from core.models import ApiKey
from core.web.keys import ValidKey, select_valid_keys


def test_keys_that_are_not_withdrawn_are_read_in_the_order_of_their_hashes(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        for hash_, withdrawn_at in ((b"2", None), (b"3", datetime.now(UTC)), (b"1", None)):
            values = {"hash": hash_, "name": "robot", "scopes": ["read"], "requests_per_second": 2.5, "burst": 9}
            connection.execute(sa.insert(ApiKey).values(**values, withdrawn_at=withdrawn_at))
        keys = [ValidKey.from_row(row) for row in connection.execute(select_valid_keys())]
    assert [(key.hash, key.name, key.scopes) for key in keys] == [
        (hash_, "robot", frozenset({"read"})) for hash_ in (b"1", b"2")
    ]
    assert {(key.requests_per_second, key.burst) for key in keys} == {(2.5, 9)}
