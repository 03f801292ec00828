"""The platform's own programs."""

import os
import sys
from pathlib import Path

from local_stack.components.argilla import WORKSPACE
from local_stack.components.postgres import database_url
from local_stack.guarded import Command, run_to_end
from local_stack.plan import Context, Service, Step, answers_ok, without_proxy_for_loopback

_MIGRATION = "platform_database"
_PROJECT = Path(__file__).parents[2]


def program_environment(context: Context) -> dict[str, str]:
    """Return the caller's environment with the addresses and secrets that the programs need."""
    settings = context.settings
    # Short, because a developer watches the stack.
    defaults = {"LOG_FORMAT": "console", "UPLOADER_RETRY_CAP_SECONDS": "2"}
    return without_proxy_for_loopback(defaults | os.environ) | {
        "DATABASE_URL": database_url(context),
        "ARGILLA_URL": settings.argilla_url,
        "ARGILLA_API_KEY": context.credentials.argilla_api_key,
        "ARGILLA_WORKSPACE": WORKSPACE,
        "WEBHOOK_URL": settings.ingestion_url,
        "INGESTION_HOST": "127.0.0.1",
        "INGESTION_PORT": str(settings.ingestion_port),
        "SERVING_HOST": "127.0.0.1",
        "SERVING_PORT": str(settings.serving_port),
        "SERVING_URL": settings.serving_url,
        "PERSPECTIVE_INGESTION_URL": settings.ingestion_url,
        "HTTP_CORS_ORIGINS": _cors_origins(settings.ingestion_port, settings.serving_port),
        "PAGE_INGESTION_URL": settings.ingestion_url,
        "PAGE_SERVING_URL": settings.serving_url,
        "PAGE_ARGILLA_URL": settings.argilla_url,
        "UPLOADER_HOST": "127.0.0.1",
        "UPLOADER_PORT": str(settings.uploader_port),
        "DATA_DIR": str(settings.data_dir),
        "REQUIRE_API_KEY": "false",
        "PYTHONUNBUFFERED": "1",
    }


def _cors_origins(*ports: int) -> str:
    """Let the pages of each API call the other API, as 127.0.0.1 and as localhost."""
    own = [f"http://{host}:{port}" for host in ("127.0.0.1", "localhost") for port in ports]
    return ",".join([*own, *filter(None, [os.environ.get("HTTP_CORS_ORIGINS")])])


def _command(context: Context, module: str) -> Command:
    return Command([sys.executable, "-m", module], program_environment(context), _PROJECT, grace_seconds=20)


def _migrate(context: Context) -> None:
    command = _command(context, "core.migrate")
    run_to_end(_MIGRATION, command, context.log(_MIGRATION), context.stop_asked, context.lock)


def _program(name: str, port_field: str, stops_before: frozenset[str] = frozenset()) -> Service:
    def is_ready(context: Context, _pid: int) -> bool:
        return answers_ok(f"http://127.0.0.1:{getattr(context.settings, port_field)}/readyz")

    return Service(
        name,
        lambda context: _command(context, name),
        is_ready,
        needs=frozenset({_MIGRATION}),
        stops_before=stops_before,
    )


STEP = Step(_MIGRATION, _migrate, needs=frozenset({"postgres_databases"}))
SERVICES = (
    _program("ingestion_api", "ingestion_port"),
    _program("serving_api", "serving_port"),
    _program("uploader", "uploader_port", stops_before=frozenset({"argilla"})),
)
