import errno
from pathlib import Path

import pytest

from local_stack import StackError
from local_stack.data_dir import check_free_disk, is_disk_full


def test_too_little_space_names_directory_need_and_setting(tmp_path: Path) -> None:
    needed_mb = 2**40
    with pytest.raises(StackError) as raised:
        check_free_disk(tmp_path, needed_mb, "DATA_DIR")
    message = str(raised.value)
    assert str(tmp_path) in message
    assert f"{needed_mb} MiB are needed" in message
    assert "set DATA_DIR" in message


def test_enough_space_passes(tmp_path: Path) -> None:
    check_free_disk(tmp_path, 0, "DATA_DIR")


def test_full_disk_is_told_from_other_errors() -> None:
    assert is_disk_full(OSError(errno.ENOSPC, "No space left on device"))
    assert not is_disk_full(OSError(errno.EACCES, "Permission denied"))
