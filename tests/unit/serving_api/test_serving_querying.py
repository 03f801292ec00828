"""Transactions that are used again: who asks after a commit sees it, who asked before does not."""

from collections.abc import Iterator
from contextlib import ExitStack

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.web.problems import Unavailable
from serving_api.replica.file import ReplicaFile
from serving_api.settings import ReplicaSettings


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReplicaFile]:
    file = ReplicaFile(tmp_path_factory.mktemp("file") / "replica.duckdb", ReplicaSettings())
    with file.transaction() as cursor:
        cursor.execute("insert into state values ('db', 0, 0, timestamp '2026-11-24', 0)")
    yield file
    file.close()


def commit(file: ReplicaFile) -> int:
    with file.cursor() as cursor:
        cursor.begin()
        version: int = cursor.execute("update state set version = version + 1 returning version").fetchall()[0][0]
        cursor.commit()
    file.renew()
    return version


def seen(cursor: duckdb.DuckDBPyConnection) -> int:
    version: int = cursor.execute("select version from state").fetchall()[0][0]
    return version


# A query begins, the n-th running query ends, a version is committed.
STEPS = st.lists(st.one_of(st.just("begin"), st.integers(0, 4), st.just("commit")), max_size=20)


@given(STEPS)
def test_each_sees_the_version_of_its_beginning(file: ReplicaFile, steps: list[str | int]) -> None:
    newest = commit(file)
    asking: list[tuple[ExitStack, duckdb.DuckDBPyConnection, int]] = []
    try:
        for step in steps:
            if step == "begin":
                stack = ExitStack()
                cursor, point = stack.enter_context(file.querying())
                assert point.version == newest
                asking.append((stack, cursor, newest))
            elif step == "commit":
                newest = commit(file)
            elif asking:
                asking.pop(int(step) % len(asking))[0].close()
            for _, cursor, version in asking:
                assert seen(cursor) == version
    finally:
        for stack, _, _ in asking:
            stack.close()


def test_what_fails_or_is_interrupted_is_not_used_again(file: ReplicaFile) -> None:
    commit(file)
    with pytest.raises(duckdb.CatalogException), file.querying() as (cursor, _):
        cursor.execute("from nowhere")
    with pytest.raises(Unavailable), file.querying() as (cursor, _):
        raise duckdb.InterruptException("over")
    for _ in range(3):
        with file.querying() as (cursor, point):
            assert seen(cursor) == point.version
