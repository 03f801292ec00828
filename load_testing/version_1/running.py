"""Starts and stops version 1, and moves texts in and out of its Argilla."""

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from load_testing.version_1.parts import COMPONENTS, PARTS, SERVICES_FOLDER, client_environment, python
from local_stack.progress import Display
from local_stack.stack import Stack
from local_stack.testing import settings_for_tests


@contextmanager
def running_version_1(display: Display) -> Iterator[Stack]:
    """Give version 1 on free ports, with data of its own, deleted when the block ends.

    Raises:
        StackError: it cannot start; the message says what to do.
    """
    with settings_for_tests() as settings:
        stack = Stack(settings, display, COMPONENTS, PARTS)
        try:
            stack.start()
            yield stack
        finally:
            stack.stop()


def put_labelled(stack: Stack, rows: Sequence[dict[str, str]]) -> None:
    """Put texts with the labels that people gave them (`text`, `label`) into version 1's Argilla."""
    _run_records(stack, "put", "".join(json.dumps(row) + "\n" for row in rows))


def stored_texts(stack: Stack) -> list[str]:
    """Return the text of each record in version 1's Argilla."""
    return [json.loads(line) for line in _run_records(stack, "list").splitlines()]


def _run_records(stack: Stack, action: str, given: str = "") -> str:
    ended = subprocess.run(  # noqa: S603 - our own script
        [python(), "-I", SERVICES_FOLDER / "records.py", action],
        input=given,
        env=client_environment(stack.context),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return ended.stdout
