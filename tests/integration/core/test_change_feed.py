"""A reader that continues at its position misses no change, in whatever order transactions end."""

from uuid import UUID

import sqlalchemy as sa

from core.labels.annotations import replace_annotations
from core.models.labels import LABELS_CHANNEL, STAMP, WINDOW_END, wake_readers
from tests.integration.core.answering import DATASETS, START, TEXTS, answer, sweep

_READ = sa.text(f"""
with upper as (select {WINDOW_END} as end_)
select end_::text, array_agg(text_id) filter (where text_id is not null)
from upper left join labels on changed_xid >= cast(:start as xid8) and changed_xid < end_
group by end_
""")  # noqa: S608 - constants only


def read(engine: sa.Engine, start: str) -> tuple[str, set[UUID]]:
    """Return where the next read begins, and the texts whose labels changed until there."""
    with engine.connect() as connection:
        end, changed = connection.execute(_READ, {"start": start}).one()
    return end, set(changed or [])


def test_a_change_that_commits_after_later_ones_is_not_missed(engine: sa.Engine) -> None:
    with engine.begin() as slow:
        replace_annotations(slow, DATASETS, "toxicity", START, {TEXTS[0]: [answer(TEXTS[0], 0, "toxic")]})
        sweep(engine, 1, answer(TEXTS[1], 0, "toxic"), texts=[TEXTS[1]])
        position, seen = read(engine, "0")
        assert seen == set()  # the later one waits for the slow one
        slow.commit()
    position, seen = read(engine, position)
    assert seen == {TEXTS[0], TEXTS[1]}
    assert read(engine, position)[1] == set()


def test_each_change_of_a_label_shows_it_again(engine: sa.Engine) -> None:
    sweep(engine, 1, answer(TEXTS[0], 0, "toxic"))
    position, _ = read(engine, "0")
    sweep(engine, 2, answer(TEXTS[0], 0, "non_toxic", updated=5))
    assert read(engine, position)[1] == {TEXTS[0]}


def test_a_transaction_has_one_stamp(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        stamps = [connection.scalar(sa.text(f"select {STAMP}::text")) for _ in range(2)]
    with engine.begin() as connection:
        later = connection.scalar(sa.text(f"select {STAMP}::text"))
    assert stamps[0] == stamps[1]
    assert int(stamps[0]) < int(later)


def test_readers_are_woken_once_a_transaction_and_when_it_commits(engine: sa.Engine) -> None:
    with engine.connect() as listening, engine.begin() as writing:
        listening.exec_driver_sql(f"listen {LABELS_CHANNEL}")
        listening.commit()
        driver = listening.connection.driver_connection
        assert driver is not None
        wake_readers(writing)
        wake_readers(writing)
        assert list(driver.notifies(timeout=0)) == []
        writing.commit()
        assert len(list(driver.notifies(timeout=30, stop_after=1))) == 1
