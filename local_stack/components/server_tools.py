"""Tools that all servers share: environment, system account, and a check whether a server answers."""

import os
import pwd
import shutil
import stat
import subprocess
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import httpx

from local_stack import StackError
from local_stack.guarded import Account

_PASSED_ON = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH")


def server_environment(temporary: Path) -> dict[str, str]:
    """Return a minimal environment for a server, without the caller's other variables."""
    inherited = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return inherited | {"TMPDIR": str(temporary)}


def without_proxy_for_loopback(environment: dict[str, str]) -> dict[str, str]:
    """Return `environment` with 127.0.0.1 taken out of any HTTP proxy."""
    hosts = [environment.get("NO_PROXY") or environment.get("no_proxy", ""), "127.0.0.1", "localhost"]
    value = ",".join(filter(None, hosts))
    return environment | {"NO_PROXY": value, "no_proxy": value}


@cache
def _client() -> httpx.Client:
    # Cached, because creating a client is slow. No proxy, and no kept connections, because servers restart.
    return httpx.Client(timeout=5, trust_env=False, limits=httpx.Limits(max_keepalive_connections=0))


def answers_ok(url: str, headers: Mapping[str, str] | None = None) -> bool:
    """Whether a GET returns 200; false also while no server listens."""
    try:
        return _client().get(url, headers=headers).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


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
