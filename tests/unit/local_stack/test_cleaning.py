from pathlib import Path

import pytest

from local_stack import StackError
from local_stack.data_dir import check_is_data_dir, delete_data_dir


def test_data_dir_is_deleted(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    (data_dir / "postgres").mkdir(parents=True)
    (data_dir / "stack.lock").touch()
    assert delete_data_dir(data_dir)
    assert not data_dir.exists()


def test_missing_data_dir_is_no_error(tmp_path: Path) -> None:
    assert not delete_data_dir(tmp_path / "data")


def test_directory_of_something_else_is_kept(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(StackError, match="does not look like the data of a stack"):
        delete_data_dir(tmp_path)
    assert (tmp_path / "thesis.txt").exists()


@pytest.mark.parametrize("directory", [Path("/"), Path.home(), Path.cwd(), Path.cwd().parent])
def test_precious_directory_is_refused(directory: Path) -> None:
    # Only looked at: a mistake here must not cost anything.
    with pytest.raises(StackError, match="nothing was deleted"):
        check_is_data_dir(directory.resolve())


def test_home_with_a_stack_in_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stack.lock").touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(StackError, match="nothing was deleted"):
        delete_data_dir(tmp_path)
    assert tmp_path.exists()


def test_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "data"
    file.touch()
    with pytest.raises(StackError, match="is not a directory"):
        delete_data_dir(file)


def test_link_deletes_what_it_names(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    (data_dir / "stack.lock").touch()
    link = tmp_path / "link"
    link.symlink_to(data_dir)
    assert delete_data_dir(link)
    assert not data_dir.exists()
