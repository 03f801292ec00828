"""What the user told pip about package indexes, in the words of uv, which does not read pip's settings."""

import os
import shlex
import subprocess
import sys

# pip's setting, and the environment variable by which uv is told the same. Both part several values by spaces.
_VARIABLES = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
    "no-index": "UV_NO_INDEX",
}


def environment_for_uv(python: str = sys.executable) -> dict[str, str]:
    """Return this process's environment with pip's settings added; what is set for uv already stays.

    Args:
        python: an interpreter that has pip. Where it has none, nothing is added.
    """
    listed = subprocess.run(  # noqa: S603 - the command is ours
        [python, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    )
    return from_pip(listed.stdout) | os.environ


def from_pip(config_list: str) -> dict[str, str]:
    """Return uv's variables for what `pip config list` printed; environment variables, listed as `:env:`, win."""
    found: dict[str, str] = {}
    lines = [line.partition("=") for line in config_list.splitlines() if "=" in line]
    for name, _, value in sorted(lines, key=lambda line: line[0].startswith(":env:")):
        variable = _VARIABLES.get(name.rpartition(".")[2])
        if variable:
            found[variable] = " ".join(shlex.split(value))
    return found
