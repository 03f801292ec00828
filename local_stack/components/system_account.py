"""The system account that Postgres runs as when root starts the stack; Postgres refuses to run as root."""

import os
import pwd
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

from local_stack import StackError
from local_stack.processes.guarded import Account

_ACCOUNT = "annotation-pg"


def account_for_postgres() -> Account | None:
    """Return the account for Postgres; None unless root runs the stack.

    Raises:
        StackError: the account is not there and cannot be made.
    """
    if os.geteuid() != 0:
        return None
    if (account := _account_or_none()) is None:
        _create_account()
        account = _account_or_none()
    if account is None:
        raise StackError(
            f"Postgres cannot run as root, and the account {_ACCOUNT} could not be made. "
            f"Make it (`useradd --system {_ACCOUNT}`), or run the stack as another user than root."
        )
    return account


def _account_or_none() -> Account | None:
    try:
        entry = pwd.getpwnam(_ACCOUNT)
    except KeyError:
        return None
    return Account(entry.pw_uid, entry.pw_gid)


def _create_account() -> None:
    useradd = shutil.which("useradd", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if useradd is not None:
        # Whether it worked is seen by looking for the account: another stack may have been faster.
        subprocess.run(  # noqa: S603 - a fixed command
            [useradd, "--system", "--no-create-home", "--shell", "/bin/false", _ACCOUNT],
            check=False,
            capture_output=True,
        )


def let_account_reach(path: Path, show: Callable[[str], None]) -> None:
    """Let other users pass through (not list) the directories above `path`, where they cannot yet."""
    for directory in path.resolve().parents:
        mode = directory.stat().st_mode
        if not mode & stat.S_IXOTH:
            show(f"letting the account {_ACCOUNT} pass through {directory} (chmod o+x)")
            directory.chmod(mode | stat.S_IXOTH)
