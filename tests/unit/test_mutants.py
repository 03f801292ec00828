"""The faults that `make mutants` plants, and the page with the tests for each module."""

import re
import tomllib
from pathlib import Path

import pytest

from tests.mutants.operators import mutants

_TESTS = Path(__file__).parents[1]
_CODE = '''
def bound(count: int | None) -> int:
    """Return a count below 3."""
    with lock:
        check(count)
    if not count < 3:
        raise ValueError
    log.info("counted")
    return count
'''


def test_each_fault_is_planted_once_and_alone() -> None:
    changed = {frozenset(mutant.splitlines()) - frozenset(_CODE.splitlines()) for mutant in mutants(_CODE)}

    assert changed == {
        frozenset(lines)
        for lines in [
            {"    if True:"},  # without the lock
            {"        pass"},  # without the check, or without the error
            {"    if not count <= 3:"},
            {"    if not count >= 3:"},
            {"    if not count < 4:"},
            {"    if not count < 2:"},
        ]
    }


def test_conditions_and_locks_of_sql_are_left_out() -> None:
    sql = "select id from texts where dataset = :dataset and status = 'pending' order by id limit :most for update"

    found = {mutant.removeprefix("SQL = ").strip('"\n') for mutant in mutants(f'SQL = "{sql}"\n')}

    assert found == {
        sql.replace(" for update", ""),
        sql.replace(" limit :most", ""),
        sql.replace(" order by id", ""),
        sql.replace(" and status = 'pending'", ""),
        sql.replace("dataset = :dataset and ", ""),
    }


def test_each_promise_names_a_test_that_is_there() -> None:
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", (_TESTS / "README.md").read_text())
    assert len(named) > 50
    for file, name in named:
        assert f"def {name}(" in (_TESTS / file).read_text(), f"{file}::{name}"


@pytest.mark.parametrize("table", ["modules", "equivalent"])
def test_the_tables_name_modules_and_tests_that_are_there(table: str) -> None:
    for module, listed in tomllib.loads((_TESTS / "mutants" / f"{table}.toml").read_text()).items():
        code = (_TESTS.parent / module).read_text()
        for one in listed:
            path = one if table == "modules" else module
            assert (_TESTS.parent / path).is_file(), path
            # An entry for lines that have changed since would hide nothing, and mislead.
            lines = () if table == "modules" else one["was"].split("\n")
            assert all(line in code for line in lines), one
