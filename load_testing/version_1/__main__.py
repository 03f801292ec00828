"""`python -m load_testing.version_1`: runs version 1 on free ports until Ctrl-C."""

import signal
import sys

from rich.console import Console

from load_testing.version_1.baseline import running_version_1
from local_stack import StackError
from local_stack.progress import display_for

_READY = """
Version 1 is ready.

Ingestion API  {ingestion}/docs
Serving API    {serving}/docs
Argilla        {argilla}
               log in as {username} with {password}

Locust's page for it, in another terminal:
  INGESTION_URL={ingestion} SERVING_URL={serving} VERSION=1 pipenv run locust -f load_testing/compare/users.py

Logs in {logs}. Ctrl-C stops everything, and deletes its data.
"""


def main() -> None:
    """Start, wait for a signal, stop. The exit code is 1 if it could not start."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(0))
    console = Console()
    try:
        with running_version_1(display_for(console)) as stack:
            settings, credentials = stack.settings, stack.context.credentials
            said = _READY.format(
                ingestion=settings.ingestion_url,
                serving=settings.serving_url,
                argilla=settings.argilla_url,
                username=credentials.argilla_username,
                password=credentials.argilla_password,
                logs=settings.logs_dir,
            )
            console.print(said, markup=False, highlight=False, soft_wrap=True)
            signal.pause()
    except StackError as error:
        raise SystemExit(f"error: {error}") from None
    except KeyboardInterrupt:
        console.print("Stopped.")


if __name__ == "__main__":
    main()
