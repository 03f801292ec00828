"""What version 1's stack is made of, as parts of a local stack.

Its Argilla keeps its accounts in SQLite, Argilla 1.29's default, and its records in OpenSearch.
"""

import subprocess
from pathlib import Path

from load_testing.bench.peer_environment import install
from load_testing.version_1.java import find_java
from local_stack import StackError
from local_stack.components.opensearch import STEP as OPENSEARCH_FILES
from local_stack.components.opensearch import is_opensearch_ready, opensearch_command, opensearch_url
from local_stack.components.server_tools import answers_ok, server_environment, without_proxy_for_loopback
from local_stack.plan import Context, Service, Step
from local_stack.processes.guarded import Command, run_to_end

SERVICES_FOLDER = Path(__file__).with_name("services")
WORKSPACE = "annotation"
_LOCK_FILE = Path(__file__).with_name("argilla_1.lock")
_FILES, _DATABASE, _JAVA = "version_1_files", "argilla_database", "java"


def _check_java(_: Context) -> None:
    find_java()


def _install(context: Context) -> None:
    context.show(_FILES, "installing Argilla 1.29.1")
    try:
        install(_LOCK_FILE)
    except subprocess.CalledProcessError as error:
        raise StackError(f"Argilla 1.29.1 could not be installed:\n{error.stderr}") from error


def python() -> Path:
    """Return the Python of version 1's environment, which is made if it is not there."""
    return install(_LOCK_FILE) / "python"


def client_environment(context: Context) -> dict[str, str]:
    """Return the environment in which version 1's programs find its Argilla. Holds its key."""
    environment = server_environment(context.directory("version_1"))
    return without_proxy_for_loopback(environment) | {
        "ARGILLA_API_URL": context.settings.argilla_url,
        "ARGILLA_API_KEY": context.credentials.argilla_api_key,
        "ARGILLA_WORKSPACE": WORKSPACE,
        "ARGILLA_ENABLE_TELEMETRY": "0",
        "PYTHONUNBUFFERED": "1",
    }


def _argilla_environment(context: Context) -> dict[str, str]:
    settings, home = context.settings, context.directory("argilla")
    return server_environment(home) | {
        "ARGILLA_HOME_PATH": str(home),
        "ARGILLA_SEARCH_ENGINE": "opensearch",
        "ARGILLA_ELASTICSEARCH": opensearch_url(context),
        "ARGILLA_CORS_ORIGINS": f'["{settings.argilla_url}"]',
        "ARGILLA_AUTH_SECRET_KEY": context.credentials.argilla_session_key,
        "ARGILLA_ENABLE_TELEMETRY": "0",
        "PYTHONUNBUFFERED": "1",
    }


def _set_up(context: Context) -> None:
    credentials = context.credentials
    environment = _argilla_environment(context) | {
        "OWNER_USERNAME": credentials.argilla_username,
        "OWNER_PASSWORD": credentials.argilla_password,
        "ARGILLA_API_KEY": credentials.argilla_api_key,
        "ARGILLA_WORKSPACE": WORKSPACE,
    }
    command = Command([python(), "-I", SERVICES_FOLDER / "set_up.py"], environment, context.directory("argilla"))
    run_to_end(_DATABASE, command, context.log(_DATABASE), context.stop_asked, context.lock)


def _argilla(context: Context) -> Command:
    arguments = ["start", "--host", "127.0.0.1", "--port", str(context.settings.argilla_port), "--no-access-log"]
    argv: list[str | Path] = [python(), "-I", "-m", "argilla_server", *arguments]
    return Command(argv, _argilla_environment(context), context.directory("argilla"))


def _is_argilla_ready(context: Context, _pid: int) -> bool:
    headers = {"X-Argilla-Api-Key": context.credentials.argilla_api_key}
    return answers_ok(f"{context.settings.argilla_url}/api/me", headers)


def _service(name: str, module: str, port_field: str) -> Service:
    def command(context: Context) -> Command:
        port = str(getattr(context.settings, port_field))
        server = ["-m", "uvicorn", "--app-dir", str(SERVICES_FOLDER), "--host", "127.0.0.1", "--port", port]
        argv: list[str | Path] = [python(), "-I", *server, "--no-access-log", f"{module}:app"]
        return Command(argv, client_environment(context), context.directory("version_1"))

    def is_ready(context: Context, _pid: int) -> bool:
        return answers_ok(f"http://127.0.0.1:{getattr(context.settings, port_field)}/openapi.json")

    return Service(name, command, is_ready, needs=frozenset({"argilla"}))


PARTS: dict[str, Step | Service] = {
    part.name: part
    for part in (
        Step(_JAVA, _check_java),
        OPENSEARCH_FILES,
        Service(
            "opensearch",
            lambda context: opensearch_command(context, find_java(), modules=()),
            is_opensearch_ready,
            needs=frozenset({_JAVA, OPENSEARCH_FILES.name}),
        ),
        Step(_FILES, _install, needs=frozenset({_JAVA})),
        Step(_DATABASE, _set_up, needs=frozenset({_FILES})),
        Service("argilla", _argilla, _is_argilla_ready, needs=frozenset({_DATABASE, "opensearch"})),
        _service("ingestion_api", "ingestion", "ingestion_port"),
        _service("serving_api", "serving", "serving_port"),
    )
}
COMPONENTS = frozenset(name for name, part in PARTS.items() if isinstance(part, Service))
