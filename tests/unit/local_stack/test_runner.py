import pytest

from local_stack.supervisor import restart_pause_seconds


@pytest.mark.parametrize(("deaths", "seconds"), [(1, 0.5), (2, 1), (3, 2), (7, 30), (1000, 30)])
def test_pause_grows_up_to_its_limit(deaths: int, seconds: float) -> None:
    assert restart_pause_seconds(deaths) == seconds
