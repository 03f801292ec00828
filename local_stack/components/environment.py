"""Environments for the processes of the stack."""

import os
from pathlib import Path

_PASSED_ON = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH")


def server_environment(temporary: Path) -> dict[str, str]:
    """Return a small environment for a server: nothing of the caller's can change how it works."""
    inherited = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return inherited | {"TMPDIR": str(temporary)}


def without_proxy_for_loopback(environment: dict[str, str]) -> dict[str, str]:
    """Return `environment` with 127.0.0.1 taken out of any HTTP proxy."""
    hosts = [environment.get("NO_PROXY") or environment.get("no_proxy", ""), "127.0.0.1", "localhost"]
    value = ",".join(filter(None, hosts))
    return environment | {"NO_PROXY": value, "no_proxy": value}
