"""Every part of the platform, supervised as in `make up`, and the network between them in our hands."""

import signal
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace

import psutil
from pydantic import SecretStr

from core.migrate import migrate
from core.settings import DatabaseSettings
from local_stack.guarded import Command
from local_stack.plan import Context, Service, answers_ok
from local_stack.stack import SERVICES
from local_stack.supervisor import ServiceRunner
from local_stack.testing import RunningStack
from tests.programs import free_port
from tests.proxy import Proxy, running_proxy

INFRASTRUCTURE = ("postgres", "redis", "opensearch", "argilla", "argilla_worker")
PROGRAMS = ("uploader", "ingestion_api", "serving_api")
PARTS = (*INFRASTRUCTURE, *PROGRAMS)

# Short, so that a strike is over soon; and no sweep without a reason, so that each loss must be noticed.
_QUICK = {
    "UPLOADER_ARGILLA_TIMEOUT_SECONDS": "4",
    "UPLOADER_RETRY_CAP_SECONDS": "2",
    "UPLOADER_LEADER_LEASE_SECONDS": "2",
    "UPLOAD_LEASE_SECONDS": "20",
    "UPLOAD_BATCH_SIZE": "20",
    "WEBHOOK_CHECK_SECONDS": "2",
    "WEBHOOK_GRACE_SECONDS": "3",
    "COUNT_INTERVAL_SECONDS": "3",
    "FULL_SWEEP_SECONDS": "86400",
}


@dataclass(frozen=True)
class Platform:
    """The running parts. The programs are the test's own; the others belong to the stack."""

    stack: RunningStack
    database_url: str
    workspace: str
    ingestion_url: str
    serving_url: str
    uploader_url: str
    to_argilla: Proxy  # from the uploader
    to_ingestion: Proxy  # from Argilla's worker
    said: Sequence[str]  # what the supervision of the programs told
    runners: dict[str, ServiceRunner]

    def processes(self, part: str) -> list[psutil.Process]:
        """Return the processes of a part, none while it is down."""
        pid = self._runner(part).pid
        with suppress(psutil.NoSuchProcess):
            if pid is not None:
                main = psutil.Process(pid)
                return [main, *main.children(recursive=True)]
        return []

    def kill(self, part: str) -> None:
        """Kill the main process of a part; it is started again."""
        self._runner(part).kill(signal.SIGKILL)

    def _runner(self, part: str) -> ServiceRunner:
        return self.runners.get(part) or self.stack.stack.runner(part)

    def is_ready(self) -> bool:
        """Whether every program reports no missing dependency."""
        return all(
            answers_ok(f"{url}/readyz") for url in (self.ingestion_url, self.serving_url, self.uploader_url)
        )


@contextmanager
def running_platform(stack: RunningStack, database_url: str) -> Iterator[Platform]:
    """Start the programs over a database in the stack's Postgres, which Argilla uses, too."""
    migrate(DatabaseSettings(url=SecretStr(database_url)))
    ports = {part: free_port() for part in PROGRAMS}
    urls = {part: f"http://127.0.0.1:{port}" for part, port in ports.items()}
    workspace, said = f"chaos_{uuid.uuid4().hex[:8]}", list[str]()
    with ExitStack() as open_, ExitStack() as running:
        to_argilla = open_.enter_context(running_proxy(stack.settings.argilla_port))
        to_ingestion = open_.enter_context(running_proxy(ports["ingestion_api"]))
        env = _QUICK | {
            "DATABASE_URL": database_url,
            "ARGILLA_URL": to_argilla.url,
            "ARGILLA_WORKSPACE": workspace,
            "WEBHOOK_URL": to_ingestion.url,
            "DATA_DIR": str(stack.settings.data_dir / "chaos"),
        }
        env |= {f"{part.removesuffix('_api').upper()}_PORT": str(port) for part, port in ports.items()}
        runners = {part: _runner(stack, part, urls[part], env, said) for part in PROGRAMS}
        for runner in runners.values():
            runner.start()
            running.callback(runner.stop)
        yield Platform(
            stack,
            database_url,
            workspace,
            urls["ingestion_api"],
            urls["serving_api"],
            urls["uploader"],
            to_argilla,
            to_ingestion,
            said,
            runners,
        )


def _runner(stack: RunningStack, part: str, url: str, env: dict[str, str], said: list[str]) -> ServiceRunner:
    def command(context: Context) -> Command:
        usual = SERVICES[part].command(context)
        return replace(usual, env={**usual.env, **env})

    service = Service(f"chaos_{part}", command, lambda _context, _pid: answers_ok(f"{url}/readyz"))
    return ServiceRunner(service, stack.stack.context, lambda text: said.append(f"{part}: {text}"), lambda: None)
