"""A stack for a test run, with free ports, a new data directory and the shared cache.

    @pytest.fixture(scope="session")
    def stack() -> Iterator[RunningStack]:
        with running_stack({"postgres"}) as stack:
            yield stack

Nothing stays running, even when the test run is killed.
"""

import signal
import tempfile
from collections.abc import Iterator, Set
from contextlib import contextmanager
from pathlib import Path

from local_stack.components.opensearch import opensearch_url
from local_stack.components.postgres import admin_database_url, database_url
from local_stack.components.programs import program_environment
from local_stack.ports import reserved_ports
from local_stack.progress import Display
from local_stack.settings import HIGHEST_OPENSEARCH_PORT, StackSettings
from local_stack.stack import EVERYTHING, Stack


class RunningStack:
    """Addresses of a running stack, and ways to hurt it."""

    def __init__(self, stack: Stack) -> None:
        context = stack.context
        self.stack = stack
        self.settings = stack.settings
        self.logs_dir = stack.settings.logs_dir  # of logs, `NAME.log` each
        self.ingestion_url = stack.settings.ingestion_url
        self.serving_url = stack.settings.serving_url
        self.uploader_url = stack.settings.uploader_url  # health and metrics
        self.argilla_url = stack.settings.argilla_url
        self.argilla_api_key = context.credentials.argilla_api_key  # its owner's
        self.opensearch_url = opensearch_url(context)  # with its password, as the two below
        self.database_url = database_url(context)  # the platform's, as its owner
        self.admin_database_url = admin_database_url(context)  # as the superuser, who may make databases for tests

    @property
    def env(self) -> dict[str, str]:
        """Environment in which the platform's programs find everything. Holds secrets."""
        return program_environment(self.stack.context)

    @property
    def pids(self) -> dict[str, int]:
        """Process ids of what runs now, by name."""
        return self.stack.pids

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to a component's main process; if it dies, the stack starts it again."""
        self.stack.runner(name).kill(number)

    def stop_component(self, name: str) -> None:
        """Stop a component for good; returns when it is gone."""
        self.stack.runner(name).stop()

    def start_component(self, name: str) -> None:
        """Start a stopped component; returns when it is ready."""
        self.stack.runner(name).start()

    def restart(self, name: str) -> None:
        """Stop a component and start it again; returns when it is ready."""
        self.stop_component(name)
        self.start_component(name)


@contextmanager
def settings_for_tests(cache_dir: Path | None = None) -> Iterator[StackSettings]:
    """Give settings with free ports, reserved until the block ends, and an empty data directory, deleted then."""
    port_names = [name for name in StackSettings.model_fields if name.endswith("_port")]
    opensearch_ports = range(7_000, HIGHEST_OPENSEARCH_PORT + 1)
    with (
        tempfile.TemporaryDirectory(prefix="annotation-stack-") as directory,
        reserved_ports(len(port_names)) as ports,
        reserved_ports(1, opensearch_ports) as [opensearch_port],
    ):
        chosen: dict[str, object] = dict(zip(port_names, ports, strict=True))
        chosen |= {"opensearch_port": opensearch_port, "data_dir": Path(directory) / "data"}
        if cache_dir is not None:
            chosen["cache_dir"] = cache_dir
        yield StackSettings.model_validate(chosen)


@contextmanager
def running_stack(components: Set[str] = EVERYTHING, display: Display | None = None) -> Iterator[RunningStack]:
    """Give a stack of `components` and what they need; stopped, and its data deleted, when the block ends.

    Raises:
        StackError: it could not be started.
    """
    with settings_for_tests() as settings:
        stack = Stack(settings, display or Display(), components)
        try:
            stack.start()
            yield RunningStack(stack)
        finally:
            stack.stop()
