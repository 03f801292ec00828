"""A running stack: starts its parts in parallel, restarts those that die, and stops them in reverse order."""

import os
import threading
import time
from collections.abc import Mapping, Set
from functools import partial
from pathlib import Path

from local_stack import StackError
from local_stack.components import argilla, opensearch, postgres, programs
from local_stack.components.argilla import is_argilla_installed
from local_stack.components.postgres import argilla_database_url, database_url
from local_stack.data_dir import (
    StackLock,
    check_free_disk,
    close_directory,
    is_disk_full,
    load_or_create_credentials,
    write_private_json,
)
from local_stack.guarded import bound_log
from local_stack.plan import Context, Service, Step, run_side_by_side, stop_order, with_needs
from local_stack.ports import check_ports_free
from local_stack.progress import Display
from local_stack.settings import StackSettings
from local_stack.supervisor import ServiceRunner

STEPS: dict[str, Step] = {
    step.name: step for step in (*postgres.STEPS, opensearch.STEP, *argilla.STEPS, programs.STEP)
}
SERVICES: dict[str, Service] = {
    service.name: service
    for service in (postgres.SERVICE, opensearch.SERVICE, *argilla.SERVICES, *programs.SERVICES)
}
ALL_PARTS: dict[str, Step | Service] = {**STEPS, **SERVICES}
INFRASTRUCTURE = frozenset({"postgres", "redis", "opensearch", "argilla", "argilla_worker"})
EVERYTHING = frozenset(SERVICES)


# What a build of Argilla's environment takes, packages and all.
_INSTALLATION_MB = 1500
_PORTS = {
    "postgres": ("POSTGRES_PORT",),
    "redis": ("REDIS_PORT",),
    "opensearch": ("OPENSEARCH_PORT", "OPENSEARCH_TRANSPORT_PORT"),
    "argilla": ("ARGILLA_PORT",),
    "ingestion_api": ("INGESTION_PORT",),
    "serving_api": ("SERVING_PORT",),
    "uploader": ("UPLOADER_PORT",),
}


class Stack:
    """The parts that `components` name, with all that they need. Use from one thread, but for `stop_asked`."""

    def __init__(
        self,
        settings: StackSettings,
        display: Display,
        components: Set[str] = EVERYTHING,
        parts: Mapping[str, Step | Service] = ALL_PARTS,
    ) -> None:
        """Prepare; nothing runs yet. `parts` are what there is to choose from, by name.

        Raises:
            StackError: a component does not exist.
        """
        everything = {name for name, part in parts.items() if isinstance(part, Service)}
        if unknown := components - everything:
            raise StackError(
                f"No such components: {', '.join(sorted(unknown))}. There are {', '.join(sorted(everything))}."
            )
        self._parts = parts
        wanted = with_needs(components, {name: part.needs | part.also for name, part in parts.items()})
        self.settings = settings
        # Set it, from anywhere, to have a start given up; also set when a start fails.
        self.stop_asked = threading.Event()
        self._display = display
        # In the order of the catalogue, for showing.
        self._needs: Mapping[str, Set[str]] = {name: part.needs for name, part in parts.items() if name in wanted}
        self._runners: dict[str, ServiceRunner] = {}
        self._publishing = threading.Lock()
        self._is_published = False
        self._lock: StackLock | None = None
        self._context: Context | None = None

    @property
    def context(self) -> Context:
        """Settings and credentials of the stack, once `start` has begun."""
        if self._context is None:
            raise StackError("The stack has not been started.")
        return self._context

    @property
    def pids(self) -> dict[str, int]:
        """Process ids of the services that run now, by name."""
        return {name: runner.pid for name, runner in self._runners.items() if runner.pid is not None}

    def start(self) -> None:
        """Start everything and return once all of it is ready; on an error call `stop` to end what runs.

        Raises:
            StackError: something is in the way or failed; the message says what to do.
        """
        try:
            self._take_data_dir()
            self._display.begin(self._needs)
            run_side_by_side(self._needs, self._bring_up, self.stop_asked)
            if self.stop_asked.is_set():
                raise StackError("Stopped while starting.")
        except OSError as error:
            raise self._explain(error) from error
        finally:
            self._display.end()
        self._is_published = True
        self._publish()

    def stop(self) -> None:
        """Stop everything that runs, users before what they use; returns when all of it is gone."""
        self.stop_asked.set()
        with self._publishing:
            if self._is_published:
                self._stack_json.unlink(missing_ok=True)
            self._is_published = False
        running = self._runners
        if running:
            self._display.begin(running)
            run_side_by_side(self._stop_order(running.keys()), self._take_down, threading.Event())
            self._display.end()
            self._runners = {}
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    @property
    def _stack_json(self) -> Path:
        return self.settings.data_dir / "stack.json"

    def runner(self, name: str) -> ServiceRunner:
        """Return the runner of a service of this stack.

        Raises:
            StackError: the stack has no such service.
        """
        if name not in self._runners:
            raise StackError(f"This stack has no {name}; it has {', '.join(self._runners)}.")
        return self._runners[name]

    def bound_logs(self) -> None:
        """Keep the logs under their limit; call it now and then."""
        for log in self.settings.logs_dir.glob("*.log"):
            bound_log(log)

    def _take_data_dir(self) -> None:
        settings = self.settings
        # Everything that this process and the components write is for its owner only.
        os.umask(0o077)
        for directory in (settings.data_dir, settings.cache_dir, settings.logs_dir):
            _make_directory(directory)
        self._lock = self._acquire_lock()
        # Not before the lock: for root's Postgres, the running stack has set another mode.
        close_directory(settings.data_dir)
        check_ports_free(self._ports())
        check_free_disk(settings.data_dir, settings.min_free_disk_mb, "DATA_DIR")
        if "argilla" in self._needs and not is_argilla_installed(settings.cache_dir):
            check_free_disk(settings.cache_dir, settings.min_free_disk_mb + _INSTALLATION_MB, "CACHE_DIR")
        credentials = load_or_create_credentials(settings.data_dir)
        self._context = Context(settings, credentials, self.stop_asked, self._lock.descriptor, self._show_work)

    def _acquire_lock(self) -> StackLock:
        lock = StackLock(self.settings.data_dir)
        try:
            if lock.running_owner() is None:
                # Of a stack that was killed, parts of which may still be stopping.
                self._stack_json.unlink(missing_ok=True)
            lock.acquire()
        except BaseException:
            lock.release()
            raise
        return lock

    def _ports(self) -> dict[str, int]:
        names = {name for service, names in _PORTS.items() if service in self._needs for name in names}
        return {name: port for name, port in self.settings.ports.items() if name in names}

    def _show_work(self, name: str, detail: str) -> None:
        self._display.update(name, "working", detail)

    def _bring_up(self, name: str) -> None:
        began_at = time.monotonic()
        self._display.update(name, "working")
        try:
            part = self._parts[name]
            if isinstance(part, Step):
                part.run(self.context)
            else:
                self._start_service(part)
        except Exception:
            self._display.update(name, "failed")
            raise
        self._display.update(name, "ready", f"ready after {time.monotonic() - began_at:.1f} s")

    def _start_service(self, service: Service) -> None:
        tell = partial(self._tell, service.name)
        runner = ServiceRunner(service, self.context, tell, self._publish)
        self._runners[service.name] = runner
        runner.start()

    def _take_down(self, name: str) -> None:
        self._display.update(name, "stopping")
        self._runners[name].stop()
        self._display.update(name, "stopped")

    def _stop_order(self, running: Set[str]) -> dict[str, set[str]]:
        services = [part for name, part in self._parts.items() if isinstance(part, Service) and name in running]
        stops_before = {service.name: service.stops_before & self._needs.keys() for service in services}
        return stop_order(
            running, {name: needed | stops_before.get(name, set()) for name, needed in self._needs.items()}
        )

    def _tell(self, name: str, text: str) -> None:
        self._display.say(f"{time.strftime('%H:%M:%S')} {name}: {text}")

    def _publish(self) -> None:
        """Write stack.json, for scripts: addresses, key and process ids as they are now."""
        with self._publishing:
            if not self._is_published:
                return
            content = {
                "ingestion_url": self.settings.ingestion_url,
                "serving_url": self.settings.serving_url,
                "argilla_url": self.settings.argilla_url,
                "argilla_api_key": self.context.credentials.argilla_api_key,
                "database_url": database_url(self.context),
                "argilla_database_url": argilla_database_url(self.context),
                "uploader_url": self.settings.uploader_url,
                "pids": self.pids,
            }
            write_private_json(self._stack_json, content)

    def _explain(self, error: OSError) -> StackError:
        if is_disk_full(error):
            return StackError(
                f"A disk is full ({error}). Free some space, or set DATA_DIR ({self.settings.data_dir}) "
                f"or CACHE_DIR ({self.settings.cache_dir}) to a directory on another disk."
            )
        return StackError(f"The stack cannot start: {error}")


def _make_directory(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    if os.access(directory, os.W_OK | os.X_OK):
        return
    raise StackError(f"{directory} cannot be written to by this user.")
