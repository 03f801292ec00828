"""The secrets of `docker compose`: `write` generates a file with them, `check` refuses weak ones.

It uses only the standard library: it runs before anything is installed, and in a separate container.
"""

import os
import re
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path

SECRETS = {
    "POSTGRES_ADMIN_PASSWORD": "Postgres' superuser, for repairs only",
    "PLATFORM_DATABASE_PASSWORD": "the platform's role in Postgres",
    "ARGILLA_DATABASE_PASSWORD": "Argilla's role in Postgres",
    "REDIS_PASSWORD": "Redis",
    "ARGILLA_OWNER_PASSWORD": "Argilla's owner, `owner` at the login page",
    "ARGILLA_OWNER_API_KEY": "the same account, for programs",
    "ARGILLA_SESSION_KEY": "signs Argilla's sessions",
    "GRAFANA_PASSWORD": "Grafana's `admin`, with the profile `monitoring`",
    "METRICS_TOKEN": "the bearer token that /metrics asks for, and Prometheus sends",
}
_SHORTEST = 16
# They are parts of addresses, so they contain no character that needs quoting there.
_FIT = re.compile(r"[A-Za-z0-9_-]+")
_PUBLISHED = {
    "argilla.apikey",
    "owner.apikey",
    "admin.apikey",
    "12345678",
    "1234",
    "postgres",
    "admin",
    "password",
}
_HEAD = """\
# Secrets of `docker compose`, made by `make compose-env`. Keep a copy in a safe place: the data needs them.
# Ports, BIND_ADDRESS and memory may be set here too: docs/containers.md.
"""


def text() -> str:
    """Return a file of new secrets."""
    lines = [f"# {purpose}\n{name}={secrets.token_urlsafe(24)}\n" for name, purpose in SECRETS.items()]
    return _HEAD + "".join(lines)


def write(path: Path) -> None:
    """Write new secrets, readable by their owner only.

    Raises:
        FileExistsError: there is such a file: data may need its secrets.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text())


def faults(given: Mapping[str, str]) -> list[str]:
    """Return the faults of the secrets, one sentence each, without the secrets themselves."""
    found = [f"{name} {reason}" for name in SECRETS if (reason := _fault(given.get(name, "")))]
    values = [given.get(name) for name in SECRETS]
    return found or (["Two secrets are the same."] if len(set(values)) < len(values) else [])


def _fault(value: str) -> str | None:
    if not value:
        return "is missing."
    if value.lower() in _PUBLISHED:
        return "is a published default."
    if len(value) < _SHORTEST:
        return f"has fewer than {_SHORTEST} characters."
    if not _FIT.fullmatch(value):
        return "may have letters, digits, - and _ only."
    return None


def main(arguments: list[str]) -> int | str:
    """Run `write FILE` or `check`; return what to exit with: 0, or what is wrong."""
    match arguments:
        case ["write", path]:
            try:
                write(Path(path))
            except FileExistsError:
                return f"{path} is there already, and the data may need its secrets; nothing was changed."
            print(f"Wrote new secrets to {path}.")  # noqa: T201
            return 0
        case ["check"]:
            hint = "Run `make compose-env`, which makes good ones."
            return "\n".join(f"{fault} {hint}" for fault in faults(os.environ)) or 0
    return "usage: compose_env.py write FILE | check"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
