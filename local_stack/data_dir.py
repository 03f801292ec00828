"""DATA_DIR: its lock, private files, credentials, free disk space, and deletion."""

import errno
import fcntl
import json
import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from local_stack import StackError


def close_directory(directory: Path) -> None:
    """Let only the owner into `directory`. This also protects readable files of an older version.

    Raises:
        StackError: it belongs to another user, or is a directory that all users share, like `/tmp`.
    """
    status = directory.stat()
    if status.st_mode & stat.S_ISVTX:
        raise StackError(f"{directory} is shared by all users of this machine. Set DATA_DIR to a directory in it.")
    try:
        directory.chmod(0o700)
    except PermissionError as error:
        raise StackError(
            f"{directory} belongs to another user (uid {status.st_uid}), who could read all data. "
            "Set DATA_DIR to a directory of your own."
        ) from error


def write_private(path: Path, text: str) -> None:
    """Replace `path` with `text`, mode 0600, in one step."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_private_json(path: Path, content: Mapping[str, object]) -> None:
    """Replace `path` with `content` as JSON, mode 0600, in one step."""
    write_private(path, json.dumps(content, indent=2) + "\n")


def _generate() -> str:
    return secrets.token_urlsafe(24)


class Credentials(BaseModel):
    """Every secret of one stack; letters, digits, `-` and `_` only, so they fit into a URL as they are."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    postgres_admin_password: str = Field(default_factory=_generate, min_length=16, repr=False)
    platform_password: str = Field(default_factory=_generate, min_length=16, repr=False)
    argilla_database_password: str = Field(default_factory=_generate, min_length=16, repr=False)
    redis_password: str = Field(default_factory=_generate, min_length=16, repr=False)
    opensearch_password: str = Field(default_factory=_generate, min_length=16, repr=False)
    argilla_username: str = "owner"
    argilla_password: str = Field(default_factory=_generate, min_length=16, repr=False)
    argilla_api_key: str = Field(default_factory=_generate, min_length=16, repr=False)
    argilla_session_key: str = Field(default_factory=_generate, min_length=16, repr=False)


def load_or_create_credentials(data_dir: Path) -> Credentials:
    """Return the credentials of `data_dir`, generated at the first call.

    Raises:
        StackError: the file is damaged, or gone while the data that it opens is still there.
    """
    path = data_dir / "credentials.json"
    try:
        credentials = Credentials.model_validate_json(path.read_text())
    except FileNotFoundError as error:
        if (data_dir / "postgres").exists():
            raise StackError(
                f"{path} is gone, but {data_dir / 'postgres'} needs its passwords. "
                "Put the file back, or delete the data with `make clean`."
            ) from error
        credentials = Credentials()
    except ValidationError as error:
        raise StackError(f"{path} is damaged ({error}). Put it back from a copy, or `make clean`.") from error
    if credentials.model_fields_set != Credentials.model_fields.keys():
        # An older version with fewer secrets may have written the file.
        write_private(path, credentials.model_dump_json(indent=2) + "\n")
    return credentials


def check_free_disk(directory: Path, needed_mb: int, setting: str) -> None:
    """Check that `directory` (which exists) has room.

    Raises:
        StackError: less than `needed_mb` MiB are free; `setting` is what the person can change.
    """
    free_mb = shutil.disk_usage(directory).free // 2**20
    if free_mb < needed_mb:
        raise StackError(
            f"The disk of {directory} is nearly full: {free_mb} MiB are free, {needed_mb} MiB are needed. "
            f"Free some space, or set {setting} to a directory on another disk."
        )


def is_disk_full(error: OSError) -> bool:
    """Whether a write failed because a disk or a quota is full."""
    return error.errno in {errno.ENOSPC, errno.EDQUOT}


# A stack creates these files first. A directory without any of them is not the data of a stack.
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


def is_alive(process: psutil.Process) -> bool:
    """Whether the process still runs; a zombie counts as ended, and so does another process with its pid."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until_ended(process: psutil.Process, timeout_seconds: float) -> bool:
    """Wait for the end of any process, not only a child; False if it still runs after `timeout_seconds`."""
    deadline = time.monotonic() + timeout_seconds
    while is_alive(process):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def try_lock(descriptor: int) -> bool:
    """Take the lock of an open file, unless another process has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


_LEFTOVERS_SECONDS = 60
# The start time is counted in ticks, and the boot time may be corrected. A reused pid is much younger.
_SAME_MOMENT_SECONDS = 2


class StackLock:
    """The lock of `data_dir`; the guards of a stack's processes share it, so it can outlive a killed stack."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / "stack.lock"
        self.descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def acquire(self) -> None:
        """Take the lock; waits while what a killed stack left behind is still stopping.

        Raises:
            StackError: another stack runs on this data directory.
        """
        deadline = time.monotonic() + _LEFTOVERS_SECONDS
        while not try_lock(self.descriptor):
            if (owner := self._running_owner()) is not None:
                raise StackError(
                    f"A stack already runs on {self._path.parent} (pid {owner.pid}). Stop it with `make down`, "
                    "or set DATA_DIR and the ports to start another one."
                )
            if time.monotonic() > deadline:
                raise StackError(
                    f"Processes of an earlier stack still hold {self._path} after {_LEFTOVERS_SECONDS} s. "
                    "Find them with `fuser` or `lsof` on that file."
                )
            time.sleep(0.1)
        self._write_owner()

    def release(self) -> None:
        """Give the lock back; processes still under guard keep it."""
        os.close(self.descriptor)

    def _write_owner(self) -> None:
        owner = {"pid": os.getpid(), "created": psutil.Process().create_time()}
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, json.dumps(owner).encode(), 0)

    def _running_owner(self) -> psutil.Process | None:
        try:
            owner = json.loads(os.pread(self.descriptor, 1000, 0))
            process = psutil.Process(owner["pid"])
            same = abs(process.create_time() - owner["created"]) < _SAME_MOMENT_SECONDS
        except (ValueError, KeyError, TypeError, psutil.NoSuchProcess):
            # Empty for an instant while its owner writes it, or of a killed stack.
            return None
        return process if same and is_alive(process) else None

    def running_owner(self) -> psutil.Process | None:
        """Return the stack that holds the lock now, if one does."""
        if try_lock(self.descriptor):
            fcntl.flock(self.descriptor, fcntl.LOCK_UN)
            return None
        return self._running_owner()

    def wait_until_free(self, timeout_seconds: float) -> bool:
        """Wait until no process of a stack is left; False if that took longer than `timeout_seconds`."""
        deadline = time.monotonic() + timeout_seconds
        while not try_lock(self.descriptor):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        fcntl.flock(self.descriptor, fcntl.LOCK_UN)
        return True
