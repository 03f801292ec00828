"""Deletes a data directory, after making sure that it is one."""

import shutil
from pathlib import Path

from local_stack.errors import StackError

# What a stack makes first; a directory without any of them was not made by one.
_MARKS = ("stack.lock", "credentials.json", "stack.json")


def delete_data_dir(data_dir: Path) -> bool:
    """Delete `data_dir`; False if there is none.

    Raises:
        StackError: it is no data directory of a stack, or holds more than that.
    """
    data_dir = data_dir.resolve()
    if not data_dir.exists():
        return False
    check_is_data_dir(data_dir)
    shutil.rmtree(data_dir)
    return True


def check_is_data_dir(data_dir: Path) -> None:
    """Check that a directory holds the data of a stack, and nothing precious.

    Raises:
        StackError: it doesn't.
    """
    if not data_dir.is_dir():
        raise StackError(f"DATA_DIR={data_dir} is not a directory; nothing was deleted.")
    here = Path.cwd().resolve()
    for precious in (Path.home().resolve(), here, Path(__file__).resolve().parent):
        if precious.is_relative_to(data_dir):
            raise StackError(f"DATA_DIR={data_dir} holds {precious}; nothing was deleted.")
    contents = {path.name for path in data_dir.iterdir()}
    if contents and contents.isdisjoint(_MARKS):
        raise StackError(
            f"DATA_DIR={data_dir} does not look like the data of a stack (none of {', '.join(_MARKS)} is in it); "
            "nothing was deleted."
        )
