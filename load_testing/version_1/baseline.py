"""Version 1 as parts of a local stack: starts it, stops it, and moves texts in and out of its Argilla."""

import json
import mmap
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from local_stack import StackError
from local_stack.components.downloads import environment_of, install
from local_stack.components.opensearch import STEP as OPENSEARCH_FILES
from local_stack.components.opensearch import is_opensearch_ready, opensearch_command, opensearch_url
from local_stack.guarded import Command, run_to_end
from local_stack.plan import (
    Context,
    Service,
    Step,
    answers_ok,
    server_environment,
    without_proxy_for_loopback,
)
from local_stack.progress import Display
from local_stack.stack import Stack
from local_stack.testing import settings_for_tests

OLDEST = 17
# Java's word boundaries in Thai. A reduced runtime lacks them, and the plugin does not load.
_THAI = b"BreakIteratorInfo_th"
_VERSION = re.compile(r'^JAVA_VERSION="(\d+)', re.MULTILINE)
_ADVICE = (
    f"Version 1 needs a whole Java {OLDEST} or newer, with its Thai locale data. {{found}} "
    "Get one, for example `apt-get install openjdk-17-jre-headless` (Debian, Ubuntu) or a Temurin 17 from "
    "https://adoptium.net, and put it on the PATH, or set JAVA_HOME to it."
)


def find_java() -> Path:
    """Return the `java` of JAVA_HOME, else the one on the PATH.

    Raises:
        StackError: there is none, it is too old, or it lacks the Thai locale data.
    """
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=str(Path(home) / "bin") if home else None)
    if found is None:
        where = f"JAVA_HOME={home} has no bin/java." if home else "There is no `java` on the PATH."
        raise StackError(_ADVICE.format(found=where))
    java = Path(found).resolve()
    if problem := _what_lacks(java.parents[1]):
        raise StackError(_ADVICE.format(found=f"{java} {problem}."))
    return java


def _what_lacks(home: Path) -> str:
    """Return the fault of the Java runtime in this folder; empty if it is complete."""
    release, modules = home / "release", home / "lib" / "modules"
    version = _VERSION.search(release.read_text()) if release.is_file() else None
    if version is None or not modules.is_file():
        return f"is not that of a Java {OLDEST}: {home} lacks the files `release` or `lib/modules`"
    if int(version[1]) < OLDEST:
        return f"is of Java {version[1]}"
    with modules.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return "" if content.find(_THAI) >= 0 else "has no Thai locale data"


SERVICES_FOLDER = Path(__file__).with_name("services")
_ARGILLA_1 = SERVICES_FOLDER / "argilla_1.py"
WORKSPACE = "annotation"
_LOCK_FILE = Path(__file__).with_name("argilla_1.lock")
_FILES, _DATABASE, _JAVA = "version_1_files", "argilla_database", "java"


def _check_java(_: Context) -> None:
    find_java()


def _install(context: Context) -> None:
    context.show(_FILES, "installing Argilla 1.29.1")
    install(_LOCK_FILE, context.settings.cache_dir, stop_asked=context.stop_asked)


def _python(context: Context) -> Path:
    return environment_of(_LOCK_FILE, context.settings.cache_dir) / "bin" / "python"


def client_environment(context: Context) -> dict[str, str]:
    """Return the environment variables of version 1's programs, with the key of its Argilla."""
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
    argv: list[str | Path] = [_python(context), "-I", _ARGILLA_1, "set_up"]
    command = Command(argv, environment, context.directory("argilla"))
    run_to_end(_DATABASE, command, context.log(_DATABASE), context.stop_asked, context.lock)


def _argilla(context: Context) -> Command:
    arguments = ["start", "--host", "127.0.0.1", "--port", str(context.settings.argilla_port), "--no-access-log"]
    argv: list[str | Path] = [_python(context), "-I", "-m", "argilla_server", *arguments]
    return Command(argv, _argilla_environment(context), context.directory("argilla"))


def _is_argilla_ready(context: Context, _pid: int) -> bool:
    headers = {"X-Argilla-Api-Key": context.credentials.argilla_api_key}
    return answers_ok(f"{context.settings.argilla_url}/api/me", headers)


def _service(name: str, module: str, port_field: str) -> Service:
    def command(context: Context) -> Command:
        port = str(getattr(context.settings, port_field))
        server = ["-m", "uvicorn", "--app-dir", str(SERVICES_FOLDER), "--host", "127.0.0.1", "--port", port]
        argv: list[str | Path] = [_python(context), "-I", *server, "--no-access-log", f"{module}:app"]
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


@contextmanager
def running_version_1(display: Display) -> Iterator[Stack]:
    """Run version 1 on free ports until the block ends, then delete its data.

    Raises:
        StackError: it cannot start; the message names the remedy.
    """
    with settings_for_tests() as settings:
        stack = Stack(settings, display, COMPONENTS, PARTS)
        try:
            stack.start()
            yield stack
        finally:
            stack.stop()


def put_labelled(stack: Stack, rows: Sequence[dict[str, str]]) -> None:
    """Put labelled texts (`text`, `label`) into version 1's Argilla."""
    _run_records(stack, "put", "".join(json.dumps(row) + "\n" for row in rows))


def stored_texts(stack: Stack) -> list[str]:
    """Return the text of each record in version 1's Argilla."""
    return [json.loads(line) for line in _run_records(stack, "list").splitlines()]


def _run_records(stack: Stack, action: str, given: str = "") -> str:
    ended = subprocess.run(  # noqa: S603 - our own script
        [_python(stack.context), "-I", _ARGILLA_1, action],
        input=given,
        env=client_environment(stack.context),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return ended.stdout
