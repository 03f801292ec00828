import os
import stat
from pathlib import Path

from local_stack.guarded import MAX_LOG_BYTES, bound_log, last_lines, open_log


def big_log(path: Path) -> None:
    path.touch()
    os.truncate(path, MAX_LOG_BYTES + 1)


def test_log_is_private_and_appended_to(tmp_path: Path) -> None:
    log = tmp_path / "it.log"
    for line in (b"one\n", b"two\n"):
        descriptor = open_log(log)
        os.write(descriptor, line)
        os.close(descriptor)
    assert log.read_text() == "one\ntwo\n"
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_big_log_is_set_aside_at_the_next_start(tmp_path: Path) -> None:
    big_log(tmp_path / "it.log")
    os.close(open_log(tmp_path / "it.log"))
    assert (tmp_path / "it.log").stat().st_size == 0
    assert (tmp_path / "it.log.1").stat().st_size == MAX_LOG_BYTES + 1


def test_big_log_is_set_aside_while_its_writer_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "it.log"
    descriptor = open_log(log)
    os.ftruncate(descriptor, MAX_LOG_BYTES + 1)
    bound_log(log)
    os.write(descriptor, b"next\n")
    os.close(descriptor)
    assert log.read_text() == "next\n"
    assert (tmp_path / "it.log.1").stat().st_size == MAX_LOG_BYTES + 1


def test_last_lines_are_indented(tmp_path: Path) -> None:
    log = tmp_path / "it.log"
    log.write_text("".join(f"{number}\n" for number in range(100)))
    assert last_lines(log, 2) == "  98\n  99"


def test_missing_log_has_no_lines(tmp_path: Path) -> None:
    assert last_lines(tmp_path / "it.log") == "  (no output)"
