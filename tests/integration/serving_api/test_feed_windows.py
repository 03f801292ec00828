"""What one window of the change feed holds: where it begins and ends, and which rows are items."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import Engine, text

from core.settings import DatabaseSettings
from serving_api.replica import feed
from serving_api.replica.feed import CHANGES, EVERYTHING, FeedSnapshot, StampedAhead
from tests.integration.serving_api.labelling import Labeller

START, END = 1000, 1002


@pytest.fixture
def stamped(labeller: Labeller, engine: Engine) -> dict[str, UUID]:
    """Texts that changed around the window: labelled ones, withdrawn ones, and one that adjudicators decided."""
    words = [f"{kind} {stamp}" for stamp in range(START - 1, END + 1) for kind in ("labelled", "withdrawn")]
    ids = {name: labeller.add_label(name) for name in [*words, "disputed"]}
    labeller.annotate({id_: {} for name, id_ in ids.items() if name.startswith("withdrawn")})
    labeller.annotate({ids["disputed"]: {"ada": "toxic", "bob": "non_toxic", "cleo": "toxic", "dan": "non_toxic"}})
    labeller.decide({"disputed": {"judge": "toxic"}})
    with engine.begin() as connection:
        connection.execute(text(f"update labels set changed_xid = '{START}'"))  # the disputed text, and its copy  # noqa: S608
        for name in words:
            kind, stamp = name.split()
            connection.execute(
                text("update labels set changed_xid = cast(:stamp as text)::xid8 where text_id = :id"),
                {"stamp": stamp, "id": ids[f"{kind} {stamp}"]},
            )
    return ids


@contextmanager
def snapshot(database: DatabaseSettings) -> Iterator[FeedSnapshot]:
    with feed.connect(database.libpq_url) as connection, feed.snapshot(connection) as snapshot:
        yield snapshot


def rows(database: DatabaseSettings, statement: str) -> list[dict[str, Any]]:
    """What the window gives of a kind."""
    with snapshot(database) as one, one.stream(statement, START, END) as batches:
        found: list[dict[str, Any]] = batches.read_all().to_pylist()
    return found


def ids_of(found: list[dict[str, Any]], name: str = "id") -> set[str]:
    return {str(row[name]) for row in found}


def in_window(stamped: dict[str, UUID], *kinds: str) -> set[str]:
    return {str(stamped[f"{kind} {stamp}"]) for kind in kinds for stamp in range(START, END)}


@pytest.mark.parametrize("statement", [CHANGES["items"], EVERYTHING["labels"]], ids=["changes", "everything"])
def test_a_window_holds_the_labels_from_its_start_up_to_and_without_its_end(
    database: DatabaseSettings, stamped: dict[str, UUID], statement: str
) -> None:
    found = rows(database, statement)
    assert ids_of(found) == in_window(stamped, "labelled") | {str(stamped["disputed"])}
    assert {row["version"] for row in found} == {START, END - 1}
    assert {row["dataset"] for row in found} == {"toxicity"}


@pytest.mark.parametrize("name", ["changes", "everything"])
def test_a_window_holds_the_tombstones_of_what_was_withdrawn(
    database: DatabaseSettings, stamped: dict[str, UUID], engine: Engine, name: str
) -> None:
    statement = {"changes": CHANGES, "everything": EVERYTHING}[name]["tombstones"]
    forgotten, allowed = (stamped[f"withdrawn {stamp}"] for stamp in range(START, END))
    with engine.begin() as connection:
        connection.execute(
            text(
                "insert into forget_requests (text_id, dataset, requested_at, requested_by, imports_until, "
                "was_labelled, lifted_at) values (:forgotten, 'toxicity', now(), 'x', 0, true, null), "
                "(:allowed, 'toxicity', now(), 'x', 0, true, now())"
            ),
            {"forgotten": forgotten, "allowed": allowed},
        )
    found = rows(database, statement)
    assert ids_of(found) == in_window(stamped, "withdrawn")
    assert {str(row["id"]): row["forgotten"] for row in found} == {str(forgotten): True, str(allowed): False}


def test_a_window_holds_what_annotators_and_adjudicators_say_about_its_texts(
    database: DatabaseSettings, stamped: dict[str, UUID]
) -> None:
    found = rows(database, CHANGES["annotations"])
    disputed = str(stamped["disputed"])
    assert ids_of(found, "text_id") == in_window(stamped, "labelled") | {disputed}
    said = {(row["annotator"], row["role"], row["value"]) for row in found if str(row["text_id"]) == disputed}
    assert said == {
        ("ada", "annotator", "toxic"),
        ("bob", "annotator", "non_toxic"),
        ("cleo", "annotator", "toxic"),
        ("dan", "annotator", "non_toxic"),
        ("judge", "adjudicator", "toxic"),
    }


def test_withdrawn_answers_are_left_out(
    database: DatabaseSettings, stamped: dict[str, UUID], engine: Engine
) -> None:
    with engine.begin() as connection:
        connection.execute(
            text("update annotations set withdrawn_at = now() where annotator in ('bob', 'cleo', 'judge')")
        )
    for statement in (CHANGES["annotations"], EVERYTHING["answers"]):
        assert {row["annotator"] for row in rows(database, statement)} == {"ada", "dan"}


def test_everything_holds_each_text_with_a_label_and_which_texts_are_copies(
    database: DatabaseSettings, stamped: dict[str, UUID], labeller: Labeller
) -> None:
    labeller.add_text("without a label")
    [copy] = rows(database, EVERYTHING["copies"])
    assert str(copy["text_id"]) == str(stamped["disputed"])
    texts = ids_of(rows(database, EVERYTHING["texts"])) - {str(copy["id"])}
    assert texts == {str(id_) for id_ in stamped.values()}


def test_a_near_duplicate_belongs_to_the_text_that_its_most_similar_ones_lead_to(
    database: DatabaseSettings, labeller: Labeller, engine: Engine
) -> None:
    ids = {name: labeller.add_label(name) for name in ("root", "other root", "second", "third", "tied")}
    low, high = sorted((ids["root"], ids["other root"]))
    links = [
        (ids["second"], ids["root"], 0.8),
        (ids["third"], ids["second"], 0.9),
        (ids["third"], ids["other root"], 0.85),
        (ids["tied"], high, 0.9),
        (ids["tied"], low, 0.9),
    ]
    with engine.begin() as connection:
        for later, earlier, similarity in links:
            connection.execute(
                text("insert into near_duplicates values (:later, :earlier, :similarity)"),
                {"later": later, "earlier": earlier, "similarity": similarity},
            )
        connection.execute(text(f"update labels set changed_xid = '{START}'"))  # noqa: S608
    for statement in (CHANGES["items"], EVERYTHING["texts"]):
        roots = {row["text"]: row["near_duplicate_of"] for row in rows(database, statement)}
        assert {name: str(root) for name, root in roots.items() if root} == {
            "second": str(ids["root"]),
            "third": str(ids["root"]),
            "tied": str(low),
        }


def test_there_are_changes_from_the_start_on_that_have_committed(
    database: DatabaseSettings, labeller: Labeller, engine: Engine
) -> None:
    labeller.add_label("a")
    [stamp] = {labeller.newest_stamp()}
    with snapshot(database) as one:
        assert one.head(stamp).has_changes
        assert not one.head(stamp + 1).has_changes
        assert one.head(stamp).window_end > stamp
    # What an open transaction will have stamped may still come: the window ends before it.
    with engine.begin() as slow:
        [held] = slow.execute(text("select pg_current_xact_id()::text::bigint")).scalars()
        with engine.begin() as quick:
            quick.execute(text("update labels set changed_xid = cast(:held as text)::xid8"), {"held": str(held)})
        with snapshot(database) as one:
            head = one.head(stamp)
            assert (head.window_end, head.has_changes) == (held, False)
            assert head.next_xid > held
    with snapshot(database) as one:
        assert one.head(stamp).has_changes


def test_a_stamp_that_postgres_has_not_given_out_is_refused(
    database: DatabaseSettings, labeller: Labeller, engine: Engine
) -> None:
    id_ = labeller.add_label("a")

    def is_refused(ahead: int) -> bool:
        """Stamp the label with a later id, as if that transaction had been committed."""
        with engine.begin() as connection:
            connection.execute(
                text(
                    "update labels set changed_xid = "
                    "((pg_current_xact_id()::text::bigint + 1 + :ahead)::text)::xid8 where text_id = :id"
                ),
                {"ahead": ahead, "id": id_},
            )
        try:
            with snapshot(database) as one:
                one.head(0)
        except StampedAhead:
            return True
        return False

    assert not is_refused(-1)
    # Vacuum may take an id in between, at times.
    assert any(is_refused(0) for _ in range(10))
    assert is_refused(1_000_000)


def test_all_that_is_read_in_one_snapshot_is_of_one_moment(database: DatabaseSettings, labeller: Labeller) -> None:
    labeller.add_label("a")
    with snapshot(database) as one, ThreadPoolExecutor(1) as thread:
        head = one.head(0)
        thread.submit(labeller.add_label, "b").result()
        with one.stream(CHANGES["items"], 0, 2**62) as batches:
            assert [row["text"] for row in batches.read_all().to_pylist()] == ["a"]
        assert one.head(0) == head


def test_the_identity_is_that_of_the_cluster_the_database_and_the_table(
    database: DatabaseSettings, other_database_url: str, engine: Engine
) -> None:
    def identity(url: str = database.libpq_url) -> str:
        with feed.connect(url) as connection, feed.snapshot(connection) as one:
            return one.head(0).identity

    with psycopg.connect(database.libpq_url) as watching:
        row = watching.execute(
            "select system_identifier, timeline_id, (select oid from pg_database where datname = "
            "current_database()) from pg_control_system(), pg_control_checkpoint()"
        ).fetchone()
    assert row
    first = identity()
    assert first.split("/")[:3] == [str(part) for part in row]
    assert identity() == first != identity(other_database_url)
    with engine.begin() as connection:
        connection.execute(text("alter table labels rename to old; create table labels (like old including all)"))
    assert identity() != first
