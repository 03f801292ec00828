"""What the person who started the stack needs to know."""

from local_stack.stack import Stack

_INGEST = """\
Send a text:
  curl -s {url}/texts -H 'Content-Type: application/json' -d '{{"text": "You are an idiot", "label": "toxic"}}'"""
_READ = """\
Read labelled texts:
  curl -s {url}/texts"""


def page_addresses(stack: Stack) -> dict[str, str]:
    """Return the addresses of the web pages that run, by what they are called."""
    pages = {"Dashboard": "serving_api", "Upload": "ingestion_api"}
    urls = {"serving_api": stack.settings.serving_url, "ingestion_api": stack.settings.ingestion_url}
    return {name: f"{urls[program]}/" for name, program in pages.items() if program in stack.pids}


def summary(stack: Stack) -> str:
    """Return addresses, Argilla's login and a command to try for each API that runs."""
    settings, credentials = stack.settings, stack.context.credentials
    lines = ["", "Ready.", ""]
    if page_addresses(stack):
        lines += [*(f"{name:<14} {address}" for name, address in page_addresses(stack).items()), ""]
    if "ingestion_api" in stack.pids:
        lines += [f"Ingestion API  {settings.ingestion_url}/docs"]
    if "serving_api" in stack.pids:
        lines += [f"Serving API    {settings.serving_url}/docs"]
    if "argilla" in stack.pids:
        lines += [
            f"Argilla        {settings.argilla_url}",
            f"               log in as {credentials.argilla_username} with {credentials.argilla_password}",
        ]
    if "ingestion_api" in stack.pids:
        lines += ["", _INGEST.format(url=settings.ingestion_url)]
    if "serving_api" in stack.pids:
        lines += ["", _READ.format(url=settings.serving_url)]
    lines += [
        "",
        f"Data in {settings.data_dir}, logs in {settings.logs_dir}. Ctrl-C stops everything.",
    ]
    return "\n".join(lines)
