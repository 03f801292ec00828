"""The faults that `make mutants` plants."""

from tests.mutants.operators import mutants

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
